"""No request body stalls a worker or fills its memory: hostile bodies against real servers, with a stream beside."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from grants.models import Allowance, Call
from grants.sockets import has_something_to_say
from tests import live

from .flooding import FLOODS, WHOLE, flooding
from .hostile import HOSTILE, Lateness, answer, at_once, connected, head, paced_stream
from .live import eventually
from .test_relay import chat

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

MUCH = 0.5  # seconds, on a machine that does other things; on a quiet one it is below 0.05, and was 1.5 to 9 before
LARGE = 5_000_000


@pytest.fixture
def small(tmp_path: Path, transactional_db: Any) -> Iterator[Any]:
    """A server with room for few bytes and little patience."""
    env = {"AIPASSPORT_MAX_BODY_BYTES_IN_FLIGHT": "40000000", "AIPASSPORT_MAX_BODY_BYTES": "8000000"}
    with live.server(tmp_path / "log", **env, AIPASSPORT_BODY_TIMEOUT="2") as process:
        yield process
        process.stop(signal.SIGTERM)


def worker_of(server: Any) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return int(children[0])


def memory(pid: int) -> int:
    """Resident bytes, without those shared with files."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def error(received: bytes) -> dict[str, Any]:
    return dict(json.loads(received.partition(b"\r\n\r\n")[2])["error"])


# Nobody's stream is late


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_body_holds_up_no_stream(server: Any, issue: Any, what: str) -> None:
    _, attacker = issue("openai", models=("gpt-4o",))
    _, token = issue("openai")
    with paced_stream(server, token) as stream:
        answers = at_once(server, attacker, what, LARGE, 3)
    assert {told["status"] for told in answers} <= {404, 413}
    assert_on_time(stream)


def test_many_hostile_bodies_that_are_read_in_place_hold_up_no_stream(server: Any, issue: Any) -> None:
    _, attacker = issue("openai", models=("gpt-4o",))
    _, token = issue("openai")
    with paced_stream(server, token) as stream:
        answers = at_once(server, attacker, "keys", 15_000, 32)
    assert {told["code"] for told in answers} == {"model_not_granted"}
    assert_on_time(stream)


def test_a_large_body_that_nobody_reads_holds_up_no_stream(server: Any, issue: Any) -> None:
    """gunicorn read it to its end by itself, a kilobyte at a time. Its sender needed no token."""
    _, token = issue("openai")
    with paced_stream(server, token) as stream:
        answers = at_once(server, "nonsense", "nothing", 30_000_000, 2)
    assert [told["status"] for told in answers] == [401, 401]
    assert_on_time(stream)


def test_a_page_that_reads_no_body_answers_all_the_same(server: Any) -> None:
    for _ in range(2):
        assert requests.post(f"{server.url}/health", data=b"x" * 20_000_000, timeout=30).status_code in (403, 405)


def test_a_chunked_body_of_single_bytes_holds_up_no_stream(server: Any, issue: Any) -> None:
    _, attacker = issue("openai", models=("gpt-4o",))
    _, token = issue("openai")
    with paced_stream(server, token) as stream:
        answers = at_once(server, attacker, "single bytes", 3_000_000, 3, transfer_encoding="chunked")
    assert [told["code"] for told in answers] == ["invalid_json"] * 3
    assert_on_time(stream)


def test_a_form_of_many_fields_holds_up_no_stream(server: Any, issue: Any) -> None:
    _, attacker = issue("openai", models=("gpt-4o",))
    _, token = issue("openai")
    with paced_stream(server, token) as stream:
        answers = at_once(server, attacker, "form", LARGE, 3, content_type="multipart/form-data; boundary=x")
    assert [told["code"] for told in answers] == ["invalid_request"] * 3
    assert_on_time(stream)


def pipelined(server: Any, request: bytes) -> None:
    """Send so many requests on one connection that their answers take seconds, without a pause."""
    with connected(server) as sock:
        reader = threading.Thread(target=_discard, args=(sock,), daemon=True)
        reader.start()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            sock.sendall(request * 200)
        sock.shutdown(socket.SHUT_RDWR)
        reader.join(30)


def _discard(sock: socket.socket) -> None:
    with suppress(OSError):
        while sock.recv(1_000_000):
            pass


def test_pipelined_requests_hold_up_no_stream(server: Any, issue: Any) -> None:
    """Their sender needs no token. One connection with requests always there made its worker look at no other."""
    _, token = issue("openai")
    with paced_stream(server, token) as stream:
        pipelined(server, b"GET /proxy/v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert_on_time(stream)


def test_a_stranger_gets_an_answer_while_another_pipelines(server: Any) -> None:
    flood = threading.Thread(target=pipelined, args=(server, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"))
    flood.start()
    time.sleep(0.5)
    began = time.monotonic()
    assert requests.get(f"{server.url}/health", timeout=10).status_code == 200
    assert time.monotonic() - began < 1
    flood.join()


def test_many_requests_at_the_same_moment_hold_up_no_stream(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    with paced_stream(server, token) as stream, ExitStack() as stack:
        socks = [stack.enter_context(connected(server)) for _ in range(300)]
        for sock in socks:
            sock.sendall(b"GET /proxy/v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert {answer(sock).split()[1] for sock in socks} == {b"401"}
    assert_on_time(stream)


def test_a_head_that_does_not_end_is_refused(server: Any) -> None:
    with connected(server) as sock, suppress(ConnectionError):
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        for sent in range(0, 400_000, 8000):
            assert sent < 200_000, "gunicorn by itself would take 800 KB"
            sock.sendall(b"a: " + b"b" * 7995 + b"\r\n")
            time.sleep(0.01)


@pytest.mark.parametrize("what", FLOODS)
def test_no_flood_of_a_provider_holds_up_a_stream(server: Any, issue: Any, what: str) -> None:
    """Anybody who has a key may name a server of their own as its provider."""
    _, token = issue("openai")
    with flooding(what) as url, paced_stream(server, token) as stream:
        _, attacker = issue("custom", base_url=url)
        with suppress(requests.RequestException):
            chat(server, attacker, "x", stream=True)
    assert_on_time(stream)


@pytest.mark.parametrize("what", WHOLE)
def test_no_answer_holds_up_a_stream_and_all_of_it_is_read(server: Any, issue: Any, what: str) -> None:
    _, token = issue("openai")
    with flooding(what) as url, paced_stream(server, token) as stream:
        _, attacker = issue("custom", base_url=url)
        assert chat(server, attacker, "x").content == WHOLE[what]
    assert_on_time(stream)
    call = Call.objects.get(model="x")
    assert call.outcome == "ok"
    assert call.input_tokens >= 7
    assert call.output_tokens >= 5, "far more text than the report says: an estimate counts"


def test_no_list_of_models_holds_up_a_stream(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    with flooding("lists") as url, paced_stream(server, token) as stream:
        _, attacker = issue("custom", base_url=url)
        headers = {"authorization": f"Bearer {attacker}"}
        refused = requests.get(f"{server.url}/proxy/v1/models", headers=headers, timeout=30)
        assert refused.json()["error"]["code"] == "upstream_error"
    assert_on_time(stream)


def assert_on_time(stream: Lateness) -> None:
    assert stream.events > 5
    assert stream.worst < MUCH, f"an event was {stream.worst:.3f} s late"


# What is large and honest goes through


def test_a_large_body_reaches_the_provider_whole_with_its_limit_lowered(
    server: Any, issue: Any, upstream: Any, alice: Any
) -> None:
    from .test_limits_live import price

    _, token = issue("openai", max_cost=20_000_000_000)
    price({"models": "*", "input": "1", "output": "10"})
    content = 'Grüße 😀 " \\ \n' * 200_000
    messages = [{"role": "user", "content": content}]
    answered = chat(server, token, "fake-metered", messages=messages, max_tokens=10_000_000)
    assert answered.status_code == 200, answered.text
    sent = upstream.last.json
    assert sent["messages"] == messages
    limit = sent.get("max_completion_tokens") or sent["max_tokens"]
    assert limit == int(answered.headers["x-aipassport-output-limit"]) < 10_000_000


def test_a_large_chunked_body_goes_through(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    body = json.dumps({"model": "fake-metered", "messages": [{"role": "user", "content": "x" * 3_000_000}]}).encode()
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    answered = requests.post(f"{server.url}/proxy/v1/chat/completions", data=pieces, headers=headers, timeout=30)
    assert answered.status_code == 200
    assert len(upstream.last.json["messages"][0]["content"]) == 3_000_000


def test_the_sandbox_refuses_what_it_could_not_read_quickly(server: Any, issue: Any) -> None:
    _, token = issue("sandbox")
    assert chat(server, token, messages=[{"role": "user", "content": "word " * 200_000}]).status_code == 200
    refused = chat(server, token, messages=[{"role": "user", "content": "word"}] * 10_000)
    assert refused.status_code == 400
    assert "20000 values" in refused.text


# Memory, budget and deadline


def test_unfinished_uploads_hold_little_memory_and_are_bounded(small: Any, issue: Any) -> None:
    _, token = issue("openai")
    _, other = issue("openai")
    pid, sockets, refusals = worker_of(small), [], []
    assert chat(small, other, "fake-metered").status_code == 200
    before = memory(pid)
    try:
        for _ in range(3):  # of 8 MB, under a share of 10 MB
            sock = connected(small)
            sockets.append(sock)
            sock.sendall(head(small, token, content_length=4_900_000) + b"{" + b" " * 4_500_000)
            time.sleep(0.1)
        refusals.append(answer(sockets[2]))
        assert chat(small, other, "fake-metered").status_code == 200
        assert memory(pid) - before < 12_000_000
    finally:
        for sock in sockets:
            sock.close()
    assert refusals[0].split()[1] == b"429"
    assert b"retry-after: 2" in refusals[0].lower()
    assert error(refusals[0])["code"] == "too_many_body_bytes"
    eventually(lambda: chat(small, token, "fake-metered", user="x" * 4_900_000).status_code == 200)


def test_a_body_that_does_not_come_is_refused_in_time(small: Any, issue: Any) -> None:
    _, token = issue("anthropic")
    began = time.monotonic()
    with connected(small) as sock:
        sock.sendall(head(small, token, "/proxy/v1/messages", content_length=1000, anthropic_version="2023-06-01"))
        sock.sendall(b"{")
        received = answer(sock)
    assert 1.5 < time.monotonic() - began < 6
    assert received.split()[1] == b"408"
    assert json.loads(received.partition(b"\r\n\r\n")[2])["type"] == "error", "as Anthropic's SDK expects it"
    assert b"connection: close" in received.lower()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_drips_is_refused_in_time(small: Any, issue: Any, chunked: bool) -> None:
    _, token = issue("openai")
    began = time.monotonic()
    with connected(small) as sock, suppress(ConnectionError):
        length = {"transfer_encoding": "chunked"} if chunked else {"content_length": 200_000}
        sock.sendall(head(small, token, **length))
        while time.monotonic() - began < 6 and not has_something_to_say(sock.fileno()):
            sock.sendall(b"1\r\n \r\n" if chunked else b" ")
            time.sleep(0.1)
        assert error(answer(sock))["code"] == "body_timeout"
    assert time.monotonic() - began < 6


def test_a_form_that_does_not_come_is_refused_in_time(small: Any, issue: Any) -> None:
    _, token = issue("openai")
    with connected(small) as sock:
        kind = "multipart/form-data; boundary=x"
        path = "/proxy/v1/audio/transcriptions"
        sock.sendall(head(small, token, path, content_length=9999, content_type=kind) + b"--x\r\n")
        assert error(answer(sock))["code"] == "body_timeout"


def test_a_steady_body_may_take_longer_than_the_deadline(small: Any, issue: Any) -> None:
    _, token = issue("openai")
    body = json.dumps({"model": "fake-metered", "messages": [{"role": "user", "content": "x" * 400_000}]}).encode()
    with connected(small) as sock:
        sock.sendall(head(small, token, content_length=len(body)))
        for at in range(0, len(body), 70_000):
            sock.sendall(body[at : at + 70_000])
            time.sleep(0.5)
        assert answer(sock).split()[1] == b"200"


# Grants that are used up


def refused_early(server: Any, token: str, path: str = "/proxy/v1/chat/completions") -> dict[str, Any]:
    """The error for a large body of which nothing was sent."""
    with connected(server) as sock:
        sock.sendall(head(server, token, path, content_length=LARGE))
        sock.settimeout(10)
        return error(answer(sock))


def test_a_grant_without_requests_is_refused_before_its_body_comes(server: Any, issue: Any) -> None:
    _grant, token = issue("openai", max_requests=1)
    assert chat(server, token, "fake-metered").status_code == 200
    late = chat(server, token, "fake-metered")
    assert refused_early(server, token) == late.json()["error"]
    assert Call.objects.count() == 1


@pytest.mark.parametrize("limit", ["max_cost", "max_cost_per_day", "max_cost_per_month"])
def test_a_grant_without_money_is_refused_before_its_body_comes(server: Any, issue: Any, limit: str) -> None:
    from .test_limits_live import price

    grant, token = issue("openai", **{limit: 2_000_000_000})
    price({"models": "*", "input": "1", "output": "10"})
    assert chat(server, token, "fake-metered", max_tokens=10).status_code == 200
    used = {"max_cost": "spent", "max_cost_per_day": "day_spent", "max_cost_per_month": "month_spent"}[limit]
    Allowance.objects.filter(grant=grant).update(**{used: 2_000_000_000})
    late = chat(server, token, "fake-metered", max_tokens=10).json()["error"]
    early = refused_early(server, token)
    assert early.pop("message").partition(". $")[0] == late.pop("message").partition(". $")[0]
    assert early == late


def test_what_costs_nothing_goes_on_without_money(server: Any, issue: Any) -> None:
    from .test_limits_live import price

    grant, token = issue("openai", max_cost=2_000_000_000)
    price({"models": "fake-metered", "free": True}, {"models": "*", "input": "1", "output": "10"})
    Allowance.objects.filter(grant=grant).update(spent=2_000_000_000)
    assert chat(server, token, "fake-metered", user="x" * LARGE).status_code == 200


def test_a_closed_grant_is_refused_before_its_body_comes(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    Allowance.objects.filter(grant=grant).update(closed_at=1)
    assert refused_early(server, token) == chat(server, token, "fake-metered").json()["error"]


def test_sdks_see_the_refusal_of_a_body_that_they_still_send(server: Any, issue: Any) -> None:
    _, token = issue("openai", max_requests=1)
    assert chat(server, token, "fake-metered").status_code == 200
    client = openai.OpenAI(api_key=token, base_url=f"{server.url}/proxy/v1", max_retries=0)
    for _ in range(3):
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(
                model="fake-metered", messages=[{"role": "user", "content": "x" * 20_000_000}]
            )
        assert "1 requests are used up" in refused.value.message
    assert chat(server, token, "fake-metered", user="x" * LARGE).status_code == 429


# The process that reads bodies


def test_the_process_that_reads_bodies_ends_with_its_worker(small: Any, issue: Any) -> None:
    _, token = issue("openai")
    assert chat(small, token, "fake-metered", user="x" * 1_000_000).status_code == 200
    pid = worker_of(small)
    (reader,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert b"body_process" in Path(f"/proc/{reader}/cmdline").read_bytes()
    small.kill()
    eventually(lambda: not _runs(reader))


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
