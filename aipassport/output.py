"""Standard error and standard output of a server: writing to them never blocks.

A write to a pipe blocks when its reader stops (a stuck journald, a blocking log driver). In a gevent process it would
stop every greenlet. Here complete lines go into a bounded queue, and a native thread writes them. When the queue is
full, lines are dropped and counted. A warning with their number precedes the next line that is written.

``sys.stderr`` itself is replaced, so that this holds for every logger (Django's, gunicorn's), for warnings, ``print``
and tracebacks.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import sys
from _queue import SimpleQueue  # The one in C: gevent replaces ``queue.SimpleQueue``.
from collections.abc import Callable, Iterator
from select import PIPE_BUF, POLLOUT
from typing import Any

from gevent.monkey import get_original

CAPACITY = 2 * 1024 * 1024  # bytes that wait in one process
_OVERHEAD = 100  # bytes of memory that a queued line needs beside its text
_RESUME_BELOW = 0.5  # After an overflow, lines are accepted again when the queue is only this full.
_GATHER_SECONDS = 0.02  # After it was idle, the thread waits this long for more lines.
_DRAIN_SECONDS = 1.0  # seconds that the end of a process waits for the lines that are still queued

_sleep = get_original("time", "sleep")
_monotonic = get_original("time", "monotonic")
_poll = get_original("select", "poll")
_start_thread = get_original("_thread", "start_new_thread")


class LineStream(io.TextIOBase):
    """A text stream on a file descriptor, for one thread and its greenlets.

    Nothing here waits for a lock: ``put`` of the C queue only appends. Each counter is written by one thread only.

    ``warning``: makes a line of log from a message.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int, warning: Callable[[str], str], capacity: int = CAPACITY) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._warning = warning
        self._capacity = capacity
        self.reset()

    def reset(self) -> None:
        """Begin with nothing. A forked process has no writer thread, and its parent writes what was queued before."""
        self._queue: Any = SimpleQueue()
        self._started = False
        self._partial = ""
        self._accepted = 0  # bytes put into the queue
        self._finished = 0  # bytes taken out of it and written; counted by the writer thread
        self._refused = 0  # lines that found the queue full
        self._failed = 0  # lines that the system did not take; counted by the writer thread
        self._reported = 0  # dropped lines that a warning told of
        self._overflowing = False

    @property
    def dropped(self) -> int:
        """Lines of this process that were not written."""
        return self._refused + self._failed

    # What a text stream offers

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def flush(self) -> None:
        """Does nothing: to wait for the reader would block."""

    def close(self) -> None:
        """Does nothing: the descriptor belongs to the process."""

    def write(self, text: str) -> int:
        if text.endswith("\n") and not self._partial:
            self._put(text)
            return len(text)
        complete, newline, self._partial = (self._partial + text).rpartition("\n")
        if newline:
            self._put(complete + newline)
        elif len(self._partial) > self._capacity:
            self._partial = ""
            self._refused += 1
        return len(text)

    # The queue

    def _put(self, text: str) -> None:
        line = text.encode("utf-8", "backslashreplace")
        size = len(line) + _OVERHEAD
        waiting = self._accepted - self._finished
        limit = self._capacity * _RESUME_BELOW if self._overflowing else self._capacity
        if waiting + size > limit:
            self._overflowing = True
            self._refused += 1
            return
        self._overflowing = False
        if self.dropped > self._reported:
            self._report()
        self._enqueue(line)

    def _report(self) -> None:
        number = self.dropped - self._reported
        self._reported += number
        message = f"{number} log lines were dropped before this one: they could not be written in time."
        self._enqueue(f"{self._warning(message)}\n".encode("utf-8", "backslashreplace"))

    def _enqueue(self, line: bytes) -> None:
        self._accepted += len(line) + _OVERHEAD
        self._queue.put(line)
        if not self._started:
            self._started = True
            _start_thread(self._run, (self._queue,))

    def drain(self, seconds: float = _DRAIN_SECONDS) -> None:
        """Wait until everything is written, for a bounded time. For the end of the process only."""
        if self._partial:
            self.write("\n")
        if self.dropped > self._reported:
            self._report()
        deadline = _monotonic() + seconds
        while self._finished < self._accepted and _monotonic() < deadline:
            _sleep(0.002)

    # The writer thread. It uses no lock, no logger and nothing else that gevent patches.

    def _run(self, queue: Any) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # Signals are for the main thread.
        for lines in _batches(queue):
            data = b"".join(lines)
            if not self._write(data):
                self._failed += len(lines)
            self._finished += len(data) + len(lines) * _OVERHEAD

    def _write(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # Another process made the descriptor non-blocking.
                poll = _poll()
                poll.register(self._descriptor, POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True


def _batches(queue: Any) -> Iterator[list[bytes]]:
    """Lines to write together: up to PIPE_BUF bytes, which a pipe takes as a whole. So processes do not mix lines.

    The pause keeps the thread from waking up for every line: each time it takes the interpreter lock from the event
    loop.
    """
    line = b""
    while True:
        if not line:
            line = queue.get()
            _sleep(_GATHER_SECONDS)
        batch: list[bytes] = []
        size = 0
        while not batch or (line and size + len(line) <= PIPE_BUF):
            batch.append(line)
            size += len(line)
            line = b"" if queue.empty() else queue.get()
        yield batch


# The streams of a server

_WARNING = {"name": "aipassport.output", "levelno": logging.WARNING, "levelname": "WARNING"}
_streams: list[LineStream] = []


def install(formatter: logging.Formatter) -> None:
    """Replace standard error and standard output of this process and of those that it forks. Once a process."""

    def warning(message: str) -> str:
        return formatter.format(logging.makeLogRecord(_WARNING | {"msg": message}))

    _streams.extend((LineStream(2, warning), LineStream(1, warning)))
    sys.stderr, sys.stdout = _streams
    os.register_at_fork(after_in_child=_reset)
    atexit.register(_drain)


def dropped() -> int:
    """Lines of this process that were not written."""
    return sum(stream.dropped for stream in _streams)


def _reset() -> None:
    for stream in _streams:
        stream.reset()


def _drain() -> None:
    deadline = _monotonic() + _DRAIN_SECONDS
    for stream in _streams:
        stream.drain(deadline - _monotonic())
