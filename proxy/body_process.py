"""The process that reads large request bodies and answers, one for each worker; it runs :func:`main`.

A JSON parse in C holds the interpreter lock to its end. In a process of its own it delays nobody's stream. It has no
database, no network and no secrets: only the bodies that its worker sends over a socket (file descriptor 0).

Each message is a length of 8 bytes and a pickle. Both ends are this program, and what an app sends is only ever a
bytes object inside of the pickle.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from grants.providers import PROVIDERS

from . import dialects
from .dialects.base import Inbound, UpstreamCall
from .exceptions import BadRequest, RelayError

_KEPT_MEMORY = 192 * 1024 * 1024  # a process that is larger after a body ends, and a new one begins
_MOST_SEEN = 64 * 1024  # bytes of what an answer reports
LENGTH = struct.Struct("!Q")


class Job(NamedTuple):
    """One body to read. ``spooled``: its bytes are in a file, whose descriptor comes with the message."""

    inbound: Inbound
    provider: str
    extra_fields: tuple[str, ...]
    default_limit: int | None
    most_bytes: int  # that the body may have after it was written anew
    spooled: bool
    may_store: bool = False


class Look(NamedTuple):
    """One JSON answer to read, with the pickled observer for it. Its ``size`` bytes come behind the message."""

    observer: bytes
    size: int


Seen = tuple[dict[str, Any] | None, bool, int]  # an observer's result, whether the answer failed, its characters


class Answer(NamedTuple):
    """The call that a body asks for, or the error that refuses it. ``last``: this process ends now.

    ``head``: how many bytes of the body stand in the file, if it was spooled; ``tail``: what follows them.
    """

    result: UpstreamCall | RelayError | Seen | None
    head: int = 0
    tail: bytes = b""
    last: bool = False


def answer(job: Job, file: int | None) -> Answer:
    """Read a body. A spooled one is overwritten in its file by what goes to the provider."""
    inbound = job.inbound
    try:
        if file is None:
            return Answer(_read(job, inbound))
        with open(file, "r+b") as spool:
            spool.seek(0)
            inbound = replace(inbound, body=spool.read())
            call = _read(job, inbound)
            return _spooled(call, spool, job.most_bytes)
    except RelayError as error:
        return Answer(error)
    except MemoryError:
        return Answer(too_complex())


def _read(job: Job, inbound: Inbound) -> UpstreamCall:
    provider = PROVIDERS[job.provider]
    return dialects.read(inbound, provider, job.extra_fields, job.default_limit, may_store=job.may_store)


def _spooled(call: UpstreamCall, spool: Any, most_bytes: int) -> Answer:
    body = call.json
    if not isinstance(body, bytes):
        return Answer(call)
    if len(body) > most_bytes:
        return Answer(BadRequest(f"The body is larger than {most_bytes} bytes.", code="body_too_large", status=413))
    head = call.tail or len(body)
    spool.seek(0)
    spool.truncate()
    spool.write(memoryview(body)[:head])
    return Answer(replace(call, json=None), head, body[head:])


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, _: Any) -> None:
        """The request's body stayed in the worker."""


def look(job: Look, body: bytes) -> Answer:
    """What an answer reports; ``None`` where that is itself too much."""
    try:
        observer = _Unpickler(io.BytesIO(job.observer)).load()
        observer.body(body)
        seen: Seen = (observer.result(), bool(observer.failed), int(observer.output_characters))
        return Answer(seen if len(pickle.dumps(seen)) <= _MOST_SEEN else None)
    except (MemoryError, RecursionError):
        return Answer(None)


def too_complex() -> BadRequest:
    return BadRequest("The body takes too long to read: send fewer values.", code="body_too_complex", status=413)


def _receive(sock: socket.socket) -> tuple[Job | Look, int | None]:
    head, files, _, _ = socket.recv_fds(sock, LENGTH.size, 1)
    if len(head) < LENGTH.size:
        head += _exactly(sock, LENGTH.size - len(head))
    return pickle.loads(_exactly(sock, *LENGTH.unpack(head))), files[0] if files else None  # noqa: S301  our worker's


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        raise EOFError
    return data


def _limit_itself(memory: int) -> None:
    """Bounds on memory and priority. A system that lacks memory ends this process before any other."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with suppress(OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        os.setsid()  # a terminal's Ctrl-C is for the server, which ends this process by closing the socket
    with suppress(OSError):
        os.nice(5)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _is_large() -> bool:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() > _KEPT_MEMORY
    except OSError:
        return False


def main() -> None:
    """Answer jobs until the worker ends. Arguments: bytes of memory, and CPU seconds for one body.

    The system ends the process whose body takes more CPU time.
    """
    memory, cpu_seconds = int(sys.argv[1]), float(sys.argv[2])
    _limit_itself(memory)
    gc.disable()  # a parsed body has no cycles
    gc.freeze()
    sock = socket.socket(fileno=0)
    sock.setblocking(True)  # gevent's sockets do not block
    with suppress(EOFError, OSError):  # the worker has ended
        while True:
            job, file = _receive(sock)
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            result = look(job, _exactly(sock, job.size)) if isinstance(job, Look) else answer(job, file)
            result = result._replace(last=_is_large())
            data = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
            del job
            signal.setitimer(signal.ITIMER_PROF, 0)
            sock.sendall(LENGTH.pack(len(data)))
            sock.sendall(data)
            if result.last:
                return
            del result, data
