"""Reads request bodies so that no body delays the other calls of a worker.

A small body is read at once. Any other is read by a process of this worker's own (``body_process``), which does one
body at a time. Waiting bodies take turns by grant, so that a grant with many of them does not hold up the others.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.conf import settings

from grants.policy import Policy
from grants.providers import Capability

from . import dialects
from .body_process import LENGTH, Answer, Job, Look, Seen, too_complex
from .dialects import strict_json
from .dialects.base import Inbound, Spooled, UpstreamCall
from .exceptions import LimitReached, RelayError, Unavailable
from .fairness import let_others_run, one_at_a_time

_WAITING = 64  # bodies of all grants
_WAITING_GRANT = 8  # of one grant
_TURN_SECONDS = 30.0  # that a body waits for its turn
CPU_SECONDS = 5.0  # that reading one body may take
_WALL_SECONDS = 30.0  # that reading may take, on a machine that has other work
_STEP = 1024 * 1024

_PROGRAM = "from proxy.body_process import main; main()"


def read(inbound: Inbound, policy: Policy, default_limit: int | None, spool: Any = None) -> UpstreamCall:
    """As :func:`dialects.read`. ``spool``: the open file that holds the body, if ``inbound.body`` does not.

    Raises:
        RelayError: whatever the dialects refuse; 413 where reading takes too long; 429 and 503 where too many wait.
    """
    if spool is None and (inbound.form is not None or strict_json.is_quick(inbound.body)):
        return _read_here(inbound, policy, default_limit)
    if spool is None and strict_json.is_cheap(inbound.body):
        with one_at_a_time:
            try:
                return _read_here(inbound, policy, default_limit)
            finally:
                let_others_run()
    most = settings.AIPASSPORT_MAX_BODY_BYTES
    terms = (policy.provider.id, policy.extra_fields, default_limit, most, spool is not None, _may_store(policy))
    return process.read(policy.grant, Job(inbound, *terms), spool)


def _read_here(inbound: Inbound, policy: Policy, default_limit: int | None) -> UpstreamCall:
    return dialects.read(inbound, policy.provider, policy.extra_fields, default_limit, may_store=_may_store(policy))


def _may_store(policy: Policy) -> bool:
    return Capability.STATE in policy.capabilities


class Turns:
    """One turn at a time; those who wait take turns by grant, and in order within a grant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = False
        self._queues: OrderedDict[UUID, deque[threading.Event]] = OrderedDict()
        self.waiting = 0

    def take(self, grant: UUID) -> None:
        """Wait for a turn.

        Raises:
            LimitReached, Unavailable: too many wait, of this grant or in all, or the wait was too long.
        """
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            turn = self._enter(grant)
        try:
            came = turn.wait(_TURN_SECONDS)
        except BaseException:
            self._leave(grant, turn)
            raise
        if not came:
            self._leave(grant, turn)
            raise _too_many()

    def _enter(self, grant: UUID) -> threading.Event:
        queue = self._queues.get(grant)
        if queue is not None and len(queue) >= _WAITING_GRANT:
            raise LimitReached(
                "Too many large bodies of this grant are waiting to be read.", code="too_many_bodies", retry_after=2
            )
        if self.waiting >= _WAITING:
            raise _too_many()
        turn = threading.Event()
        self._queues.setdefault(grant, deque()).append(turn)
        self.waiting += 1
        return turn

    def _leave(self, grant: UUID, turn: threading.Event) -> None:
        with self._lock:
            if turn.is_set():  # the turn came at the same moment
                self._next()
                return
            queue = self._queues[grant]
            queue.remove(turn)
            self.waiting -= 1
            if not queue:
                del self._queues[grant]

    def give(self) -> None:
        """End a turn."""
        with self._lock:
            self._next()

    def _next(self) -> None:
        if not self._queues:
            self._busy = False
            return
        grant, queue = self._queues.popitem(last=False)
        queue.popleft().set()
        self.waiting -= 1
        if queue:
            self._queues[grant] = queue


def _too_many() -> Unavailable:
    return Unavailable("The broker is reading too many large bodies. Please try again.", retry_after=2)


class Process:
    """The process that reads large bodies, started with the first one. It ends when its worker does."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.pid = 0
        self._owner = 0
        self._ended: list[int] = []  # processes that were killed and not waited for yet
        self._sock: socket.socket | None = None

    def read(self, grant: UUID, job: Job, spool: Any) -> UpstreamCall:
        answer = self._in_turn(grant, job, spool)
        if isinstance(answer.result, RelayError):
            raise answer.result
        call: Any = answer.result
        return call if spool is None else replace(call, json=Spooled(spool, answer.head, answer.tail))

    def look(self, grant: UUID, job: Look, body: bytes) -> Seen | None:
        """What the JSON answer ``body`` reports; ``None`` where that is too much.

        Raises:
            RelayError: too many wait, or reading takes too long.
        """
        seen: Any = self._in_turn(grant, job, None, body).result
        return seen

    def _in_turn(self, grant: UUID, job: Job | Look, spool: Any, behind: bytes = b"") -> Answer:
        self.turns.take(grant)
        try:
            return self._exchange(job, spool, behind)
        except BaseException:
            self.stop()
            raise
        finally:
            self.turns.give()

    def _exchange(self, job: Job | Look, spool: Any, behind: bytes) -> Answer:
        data = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
        try:
            self._send(self._connected(), data, spool, behind)
        except OSError:  # an idle process may end at any time
            self.stop()
            self._send(self._connected(), data, spool, behind)
        try:
            answer: Answer = _answer(self._connected())
        except TimeoutError:
            raise too_complex() from None
        except (EOFError, OSError) as error:
            if self._ended_by() == signal.SIGPROF:
                raise too_complex() from None
            raise Unavailable("The broker could not read the body. Please try again.", retry_after=2) from error
        if answer.last:
            self.stop()
        return answer

    def _send(self, sock: socket.socket, data: bytes, spool: Any, behind: bytes) -> None:
        head = LENGTH.pack(len(data))
        if spool is not None:
            spool.flush()
            socket.send_fds(sock, [head], [spool.fileno()])
        else:
            sock.sendall(head)
        sock.sendall(data)
        for begin in range(0, len(behind), _STEP):
            sock.sendall(memoryview(behind)[begin : begin + _STEP])
            let_others_run()

    def _connected(self) -> socket.socket:
        if self._sock is None or self._owner != os.getpid():  # never another process's after a fork
            self._start()
        assert self._sock is not None  # noqa: S101
        return self._sock

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", _PROGRAM, str(_memory()), str(CPU_SECONDS)]
        environment = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}  # and no secrets
        with theirs:
            files = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
            self.pid = os.posix_spawn(sys.executable, command, environment, file_actions=files)
        ours.settimeout(_WALL_SECONDS)
        self._sock, self._owner = ours, os.getpid()

    def stop(self) -> None:
        """End the process; the next body starts another."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self.pid and self._owner == os.getpid():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended.append(self.pid)
        self.pid = 0
        self._ended = [pid for pid in self._ended if not _reaped(pid)]

    def _ended_by(self) -> int:
        """The signal that ended the process, 0 for none. Its socket is closed a moment before it can be asked."""
        pid, self.pid = self.pid, 0
        for _ in range(100):
            if (found := _reaped(pid)) is not None:
                return found
            time.sleep(0.01)
        self._ended.append(pid)
        return 0


def _reaped(pid: int) -> int | None:
    """The signal that ended a process (0: none), ``None`` while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # the server waits for all its children itself
        return 0
    if not ended:
        return None
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _memory() -> int:
    """Bytes of address space: what a body of the largest size needs several times over."""
    return 256 * 1024 * 1024 + 20 * int(settings.AIPASSPORT_MAX_BODY_BYTES)


def _answer(sock: socket.socket) -> Any:
    (size,) = LENGTH.unpack(_exactly(sock, LENGTH.size))
    return pickle.loads(_exactly(sock, size))  # noqa: S301  from this program's own process


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        part = sock.recv(min(missing, _STEP))
        if not part:
            raise EOFError
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


process = Process()
