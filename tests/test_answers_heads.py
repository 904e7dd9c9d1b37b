"""The head of a provider's answer: header fields in any legal form, and bounds for a hostile one."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from typing import Any

import pytest

from proxy.provider_answer import ProviderAnswer

from .callers import Caller
from .test_answers_kinds import ANSWER, at, head
from .test_attacks_more import provider, says
from .test_relay import chat, finished_call

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


class Bytes:
    """A socket from which an answer is read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, *_: Any) -> Any:
        return io.BufferedReader(io.BytesIO(self.data))  # type: ignore[arg-type]


def read(data: bytes, method: str = "POST") -> ProviderAnswer:
    answer = ProviderAnswer(Bytes(data), method=method)
    answer.begin()
    return answer


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        (b"Content-Type: text/plain\r\n", "content-type", "text/plain"),
        (b"content-type:text/plain\r\n", "Content-Type", "text/plain"),
        (b"content-type:   text/plain \t \r\n", "content-type", "text/plain"),
        (b"content-type: text/plain\n", "content-type", "text/plain"),
        (b"x-long: a\r\n b\r\n\tc\r\nx-other: d\r\n", "x-long", "a b c"),
        (b"x-url: https://a/b:c\r\n", "x-url", "https://a/b:c"),
        (b"x-name: \xe9\r\n", "x-name", "\xe9"),
        (b"x-empty:\r\n", "x-empty", ""),
        (b"a: 1\r\na: 2\r\n", "a", "1"),
    ],
)
def test_a_header_field_is_read_in_each_legal_form(fields: bytes, name: str, value: str) -> None:
    answer = read(b"HTTP/1.1 200 OK\r\n" + fields + b"content-length: 2\r\n\r\n{}")
    assert answer.msg[name] == value
    assert (answer.length, answer.read()) == (2, b"{}")


@pytest.mark.parametrize(
    ("start", "fields", "method", "length", "closes"),
    [
        ("HTTP/1.1 200 OK", "content-length: 5", "POST", 5, False),
        ("HTTP/1.1 200 OK", "content-length: 5\r\nconnection: close", "POST", 5, True),
        ("HTTP/1.1 200 OK", "content-length: -5", "POST", None, True),
        ("HTTP/1.1 200 OK", "content-length: five", "POST", None, True),
        ("HTTP/1.1 200 OK", "x: y", "POST", None, True),
        ("HTTP/1.1 200 OK", "transfer-encoding: chunked", "POST", None, False),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked\r\ncontent-length: 5", "POST", None, False),
        ("HTTP/1.1 204 No Content", "x: y", "POST", 0, False),
        ("HTTP/1.1 304 Not Modified", "content-length: 5", "GET", 0, False),
        ("HTTP/1.1 200 OK", "content-length: 5", "HEAD", 0, False),
        ("HTTP/1.0 200 OK", "content-length: 5", "POST", 5, True),
        ("HTTP/1.0 200 OK", "content-length: 5\r\nconnection: keep-alive", "POST", 5, False),
    ],
)
def test_the_end_of_a_body_is_found_as_the_standard_library_finds_it(
    start: str, fields: str, method: str, length: int | None, closes: bool
) -> None:
    data = f"{start}\r\n{fields}\r\n\r\n12345".encode()
    answer = read(data, method)
    assert (answer.length, answer.will_close) == (length, closes)  # type: ignore[attr-defined]
    known = http.client.HTTPResponse(Bytes(data), method=method)
    known.begin()
    for name in ("status", "reason", "version", "length", "will_close", "chunked"):
        assert getattr(answer, name) == getattr(known, name), name


HOSTILE = {
    "many fields": b"a: b\r\n" * 201 + b"\r\n{}",
    "a long field": b"a: " + b"b" * 70_000 + b"\r\n\r\n{}",
    "many lines of one field": b"a: b\r\n" + b" c\r\n" * 30_000 + b"\r\n{}",
    "six megabytes": (b"a: " + b"b" * 60_000 + b"\r\n") * 100 + b"\r\n{}",
    "no colon": b"content-length: 2\r\nnonsense\r\n\r\n{}",
    "a blank before the colon": b"content-length : 2\r\n\r\n{}",
    "a folded first line": b" a: b\r\n\r\n{}",
    "no name": b": b\r\n\r\n{}",
    "half a head": b"content-length: 2\r\ncontent-ty",
    "no blank line": b"content-length: 2\r\n",
}


def assert_no_answer(server: Any, issue: Any, head: bytes) -> None:
    """A provider that sends ``head`` and closes: the caller gets a 502, soon."""

    def answer(sock: socket.socket, _: bytes) -> None:
        sock.sendall(head)
        sock.close()

    with provider(answer) as url:
        _, token = at(issue, url)
        begun = time.monotonic()
        said = Caller(server, token).ask("m")
        assert (said.status, time.monotonic() - begun < 5) == (502, True)
    assert finished_call().outcome == "upstream_broken"


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_head_is_no_answer(server: Any, issue: Any, fields: bytes) -> None:
    assert_no_answer(server, issue, b"HTTP/1.1 200 OK\r\n" + fields)


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints", "199 Strange"])
def test_interim_answers_before_the_real_one_are_skipped(server: Any, issue: Any, status: str) -> None:
    interim = f"HTTP/1.1 {status}\r\nlink: </a>; rel=preload\r\n\r\n".encode() * 3
    real = says(head("200 OK", "application/json"), json.dumps(ANSWER).encode())

    def answer(sock: socket.socket, request: bytes) -> None:
        sock.sendall(interim)
        time.sleep(0.1)
        real(sock, request)

    with provider(answer) as url:
        _, token = at(issue, url)
        for _ in range(2):
            assert chat(server, token, "m").json() == ANSWER


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 103 Early Hints\r\n" + b"link: </a>\r\n" * 100_000,
        b"HTTP/1.1 103 Early Hints\r\nlink: " + b"a" * 1_000_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
    ids=["many", "many continues", "many fields", "a long field", "nothing behind it"],
)
def test_interim_answers_are_bounded(server: Any, issue: Any, interim: bytes) -> None:
    assert_no_answer(server, issue, interim)
