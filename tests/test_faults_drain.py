"""A server that is told to go: who has nothing under way does not keep it; who has, is waited for."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grants.models import Call

from .callers import Caller
from .live import Server, eventually, server
from .test_limits_crash import workers

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

GRACEFUL = {"AIPASSPORT_GRACEFUL_TIMEOUT": "20"}


class Connection:
    """A connection to a server, kept alive as long as the server likes."""

    def __init__(self, process: Server, token: str = "") -> None:
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._http = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
        self._http.connect()

    def ask(self, model: str = "sandbox-1", **more: Any) -> tuple[int, str | None, Any]:
        """Status, ``Connection`` header and JSON of one call."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], **more}
        self._http.auto_open = 0  # on this connection or not at all
        self._http.request("POST", "/proxy/v1/chat/completions", json.dumps(body), self._headers)
        answer = self._http.getresponse()
        return answer.status, answer.getheader("connection"), json.loads(answer.read())

    def until_closed(self) -> float:
        """When the server closed it (``time.monotonic()``); it must not have said anything."""
        assert self._http.sock.recv(1) == b""
        return time.monotonic()


@contextmanager
def stopping(process: Server) -> Iterator[float]:
    """While it goes; it must have gone by itself at the end. Yields the time at which it was told."""
    stopper = threading.Thread(target=process.stop)
    told = time.monotonic()
    stopper.start()
    try:
        yield told
    finally:
        stopper.join(30)
    assert process.process.returncode == 0
    assert "graceful timeout" not in process.log.read_text()


def test_connections_that_nobody_uses_are_closed_and_the_server_goes_at_once(issue: Any, tmp_path: Path) -> None:
    """Kept alive after an answer, or opened and never used."""
    _, token = issue("sandbox")
    with server(tmp_path / "log", WEB_CONCURRENCY="2", **GRACEFUL) as process:
        used, unused = Connection(process, token), Connection(process)
        assert used.ask()[0] == 200
        time.sleep(1.1)
        with stopping(process) as told:
            assert used.until_closed() - told < 3
            assert unused.until_closed() - told < 3
        assert time.monotonic() - told < 5


def test_a_call_that_is_under_way_is_answered_though_others_are_closed(issue: Any, tmp_path: Path) -> None:
    _, token = issue("openai")
    with server(tmp_path / "log", **GRACEFUL) as process, ThreadPoolExecutor(2) as pool:
        idle, busy = Connection(process, token), Connection(process, token)
        assert idle.ask()[0] == 200
        answer = pool.submit(busy.ask, "fake-slow", max_tokens=3)
        stream = Caller(process, token).stream("fake-steady", max_tokens=70)
        eventually(lambda: Call.objects.open().count() == 2)
        time.sleep(0.2)
        with stopping(process) as told:
            ended = pool.submit(stream.ends)
            assert idle.until_closed() - told < 3.5
            status, _, said = answer.result()
            assert (status, said["object"]) == (200, "chat.completion")
            assert time.monotonic() - told > 2
            assert ended.result()
        assert time.monotonic() - told < 8
    assert set(Call.objects.values_list("outcome", flat=True)) == {"ok"}


def test_a_request_that_comes_on_a_kept_connection_as_the_server_goes_gets_an_answer(
    issue: Any, tmp_path: Path
) -> None:
    """From the signal on until its connection is closed: it is told to come again, not hung up on."""
    _, token = issue("sandbox")
    with server(tmp_path / "log", **GRACEFUL) as process:
        kept = [Connection(process, token) for _ in range(8)]
        assert {connection.ask()[0] for connection in kept} == {200}
        with stopping(process):
            said = []
            for connection in kept:
                said.append(connection.ask())
                time.sleep(0.08)
    statuses = [status for status, _, _ in said]
    assert set(statuses) <= {200, 503}
    assert 503 in statuses
    assert all(body["error"]["code"] == "unavailable" for status, _, body in said if status == 503)
    assert said[-1][1] == "close"


def test_calls_that_wait_to_be_taken_as_the_server_goes_are_answered(issue: Any, tmp_path: Path) -> None:
    """The system would reset them. Both workers are frozen, so that more wait than one turn takes."""
    _, token = issue("sandbox")
    with server(tmp_path / "log", WEB_CONCURRENCY="2", **GRACEFUL) as process, ThreadPoolExecutor(24) as pool:
        eventually(lambda: len(workers(process)) == 2)
        time.sleep(1)
        frozen = workers(process)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        waiting = [pool.submit(Connection(process, token).ask) for _ in range(24)]
        time.sleep(0.5)
        with stopping(process):
            time.sleep(1)
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            said = [call.result() for call in waiting]
    assert {status for status, _, _ in said} <= {200, 503}
    assert Call.objects.count() == sum(status == 200 for status, _, _ in said)


def test_half_a_request_does_not_keep_it_either(issue: Any, tmp_path: Path) -> None:
    with (
        server(tmp_path / "log", **GRACEFUL) as process,
        socket.create_connection(("127.0.0.1", process.port)) as client,
    ):
        client.sendall(b"POST /proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthor")
        time.sleep(1.1)
        with stopping(process) as told:
            assert client.recv(1) in (b"", b"H")  # nothing, or a complaint
        assert time.monotonic() - told < 5
