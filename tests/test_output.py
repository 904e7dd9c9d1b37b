"""Writing logs cannot block a server: not its calls, not ``/health``, not the master."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from aipassport.output import LineStream

from .callers import Caller
from .live import ROOT, Server, eventually
from .metrics import TOKEN, scrape, workers_of

GARBAGE = b"GARBAGE" + b"x" * 3900  # gunicorn quotes the first line of a request that it cannot read


class Reader:
    """The reader of a server's standard error, as a log driver is: it can stop, and go on."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._reading, self._closed = threading.Event(), False
        self._reading.set()
        self.data = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._closed:
            self._reading.wait(0.1)
            if self._reading.is_set() and select.select([self._descriptor], [], [], 0.1)[0]:
                with suppress(BlockingIOError):
                    self.data += os.read(self._descriptor, 65536)

    def stop(self) -> None:
        self._reading.clear()
        time.sleep(0.3)

    def resume(self) -> None:
        self._reading.set()

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        os.close(self._descriptor)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]

    def told(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["logger"] == logger]


@pytest.fixture
def read_server(tmp_path: Path, transactional_db: Any) -> Iterator[tuple[Server, Reader]]:
    """Two workers that log to a pipe."""
    reader = Reader(tmp_path / "log")
    env = {"AIPASSPORT_LOG_FORMAT": "json", "AIPASSPORT_METRICS_TOKEN": TOKEN, "LOG_LEVEL": "INFO"}
    running = Server(tmp_path / "log", WEB_CONCURRENCY="2", AIPASSPORT_GRACEFUL_TIMEOUT="5", **env)
    running.log = Path(os.devnull)  # a pipe has one reader
    try:
        running.wait()
        eventually(lambda: scrape(running)("aipassport_workers") == 2, within=20)
        yield running, reader
    finally:
        running.kill()
        reader.close()


def send_garbage(server: Server, times: int) -> None:
    def send(_: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), 10) as sock, suppress(ConnectionError):
            sock.sendall(GARBAGE + b"\r\n\r\n")
            assert b"400" in sock.recv(100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(times)))


def overfill(server: Server) -> None:
    """Until both workers have dropped lines."""
    for _ in range(20):
        send_garbage(server, 200)
        found = scrape(server)
        if found("aipassport_log_lines_dropped_total") > 300:
            return
    raise AssertionError("no line was dropped")


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
class TestAServerWhoseLogIsNotRead:
    def test_calls_and_health_go_on_and_lines_are_dropped_and_counted(
        self, read_server: tuple[Server, Reader], issue: Any
    ) -> None:
        server, reader = read_server
        _, token = issue("sandbox")
        reader.stop()
        overfill(server)
        before = scrape(server)("aipassport_log_lines_dropped_total")
        begun = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda _: Caller(server, token).ask("sandbox-1").status, range(40)))
        assert said == [200] * 40
        for _ in range(10):
            assert requests.get(f"{server.url}/health", timeout=2).status_code == 200
        assert time.monotonic() - begun < 15
        eventually(lambda: scrape(server)("aipassport_log_lines_dropped_total") >= before + 40)
        assert scrape(server)("aipassport_workers") == 2

    def test_lines_flow_again_when_the_reader_resumes_and_one_tells_how_many_are_missing(
        self, read_server: tuple[Server, Reader], issue: Any
    ) -> None:
        server, reader = read_server
        _, token = issue("sandbox")
        reader.stop()
        overfill(server)
        time.sleep(1.2)  # each worker publishes its count twice a second
        dropped = scrape(server)("aipassport_log_lines_dropped_total")
        reader.resume()
        time.sleep(1)
        send_garbage(server, 40)  # enough for both workers
        call = Caller(server, token).ask("sandbox-1").headers["x-aipassport-call"]
        eventually(lambda: any(line["call"] == call for line in reader.told("aipassport.calls")))
        warnings = reader.told("aipassport.output")
        assert 1 <= len(warnings) <= 2, "at most one for each worker"
        told = sum(int(re.match(r"\d+", line["message"])[0]) for line in warnings)  # type: ignore[index]
        eventually(lambda: scrape(server)("aipassport_log_lines_dropped_total") == told)
        assert dropped <= told <= dropped + 10, "some until the queue was half empty"
        assert {line["level"] for line in warnings} == {"WARNING"}
        assert len(reader.told("gunicorn.error")) > 100

    def test_the_master_still_handles_signals(self, read_server: tuple[Server, Reader]) -> None:
        server, reader = read_server
        reader.stop()
        overfill(server)
        for _ in range(30):  # the master logs two lines and more for each; 64 kB are what the pipe holds
            server.process.send_signal(signal.SIGTTIN)
            server.process.send_signal(signal.SIGTTOU)
        old = set(workers_of(server))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(new := set(workers_of(server)) - old) >= 2 and new, within=30)
        eventually(lambda: requests.get(f"{server.url}/health", timeout=2).status_code == 200, within=20)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - begun < 12

    def test_no_line_is_lost_or_mixed_with_another_while_the_log_is_read(
        self, read_server: tuple[Server, Reader], issue: Any
    ) -> None:
        server, reader = read_server
        _, token = issue("sandbox")
        with ThreadPoolExecutor(8) as pool:
            asked = pool.map(lambda _: Caller(server, token).ask("sandbox-1").headers["x-aipassport-call"], range(300))
            send_garbage(server, 300)
            calls = list(asked)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        time.sleep(0.5)
        assert sorted(line["call"] for line in reader.told("aipassport.calls")) == sorted(calls)
        quoted = [line for line in reader.told("gunicorn.error") if "GARBAGE" in line["message"]]
        assert len(quoted) == 300
        assert reader.told("gunicorn.error")[-1]["message"].startswith("Shutting down"), "the master's last line, too"
        assert reader.told("aipassport.output") == []


# The stream


def warning(message: str) -> str:
    return f"WARNING {message}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(reader: int, times: int = 1) -> bytes:
    found = b""
    while select.select([reader], [], [], 0.3)[0]:
        found += os.read(reader, 1_000_000)
    return found


def test_lines_come_whole_and_in_order(pipe: tuple[int, int]) -> None:
    stream = LineStream(pipe[1], warning)
    for number in range(1000):
        print(number, file=stream)
    assert read(pipe[0]).split() == [b"%d" % number for number in range(1000)]


def test_a_part_of_a_line_waits_for_its_end(pipe: tuple[int, int]) -> None:
    stream = LineStream(pipe[1], warning)
    for part in ("a", "b\nc", "", "d\n\n", "e"):
        assert stream.write(part) == len(part)
    assert read(pipe[0]) == b"ab\ncd\n\n"
    stream.drain()
    assert read(pipe[0]) == b"e\n"


def test_text_that_is_not_unicode_is_written_all_the_same(pipe: tuple[int, int]) -> None:
    stream = LineStream(pipe[1], warning)
    stream.write("\ud800 é\n")
    assert read(pipe[0]) == "\\ud800 é\n".encode()


def test_a_full_queue_drops_and_the_warning_comes_before_the_next_line(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    full = os.write(pipe[1], b"." * 1_000_000)
    os.set_blocking(pipe[1], True)
    stream = LineStream(pipe[1], warning, capacity=100_000)
    line = "x" * 999 + "\n"
    begun = time.monotonic()
    for _ in range(500):
        stream.write(line)
    assert time.monotonic() - begun < 1
    dropped = stream.dropped
    assert dropped == 410
    assert read(pipe[0]) == b"." * full + line.encode() * 90
    stream.write("next\n")
    assert read(pipe[0]) == (
        f"WARNING {dropped} log lines were dropped before this one: they could not be written in time.\nnext\n".encode()
    )
    assert stream.dropped == dropped


def test_a_reader_that_is_slow_gets_few_warnings(pipe: tuple[int, int]) -> None:
    """Once full, the queue accepts lines only when it is half empty: not a warning for each line."""
    stream = LineStream(pipe[1], warning, capacity=50_000)
    found = b""
    for _ in range(2000):
        stream.write("x" * 999 + "\n")
        if select.select([pipe[0]], [], [], 0)[0]:
            found += os.read(pipe[0], 500)
    found += read(pipe[0])
    assert stream.dropped > 500
    assert found.count(b"WARNING") < 60


def test_the_end_of_a_process_waits_a_bounded_time(pipe: tuple[int, int]) -> None:
    stream = LineStream(pipe[1], warning)
    for _ in range(200):
        stream.write("x" * 999 + "\n")
    begun = time.monotonic()
    stream.drain(0.5)
    assert 0.4 < time.monotonic() - begun < 2
    read(pipe[0])
    stream.drain(5)
    assert time.monotonic() - begun < 4


def test_lines_that_the_system_does_not_take_are_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = LineStream(writer, warning)
    stream.write("a\n")
    eventually(lambda: stream.dropped == 1)
    stream.write("b\n")
    eventually(lambda: stream.dropped >= 2)
    os.close(writer)


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    stream = LineStream(pipe[1], warning)
    for number in range(5000):
        stream.write(f"{number:0100d}\n")
    assert [int(line) for line in read(pipe[0]).split()] == list(range(5000))
    assert stream.dropped == 0


FORKS = """
import os, sys
from gevent import monkey
monkey.patch_all()
import logging
from aipassport import output
output.install(logging.Formatter("%(levelname)s %(message)s"))
print("parent", file=sys.stderr)
child = os.fork()
if not child:
    print("child", file=sys.stderr)
    raise ValueError("uncaught")
os.waitpid(child, 0)
print("out")
import gevent
def fails():
    raise KeyError("in a greenlet")
gevent.spawn(fails).join()
import warnings
warnings.warn("warned")
"""


def test_forked_processes_tracebacks_of_greenlets_and_warnings_are_written_once() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout == "out\n"
    for line in ("parent", "child", "ValueError: uncaught", "KeyError: 'in a greenlet'"):
        assert done.stderr.splitlines().count(line) == 1, done.stderr
    assert "UserWarning: warned" in done.stderr
