"""A light client for streams: raw sockets on asyncio, so that it measures the relay and not itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import paced_sse

_TIMEOUT = 120.0  # seconds for one stream


@dataclass(frozen=True, slots=True)
class Target:
    """Where a stream is asked for."""

    port: int
    path: str
    token: str
    model: str = "gpt-4o-mini"

    def request(self, chunks: int) -> bytes:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": chunks,
            "stream": True,
            "stream_options": {"include_usage": True},  # as asked, so that every relay must hand on the same bytes
        }
        data = json.dumps(body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + data


@dataclass(frozen=True, slots=True)
class Result:
    """One stream. ``first``: seconds from connecting to the first chunk; ``lost``: chunks that did not arrive."""

    error: str
    first: float | None
    lost: int


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.request = request
        self.parts: list[bytes] = []
        self.first_at: float | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        if self.first_at is None and b"data: " in b"".join(self.parts):
            self.first_at = time.perf_counter()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def one(target: Target, chunks: int) -> Result:
    """Ask for a stream of so many chunks and check every byte of it."""
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    client: _Client | None = None
    try:
        _, client = await loop.create_connection(lambda: _Client(target.request(chunks)), "127.0.0.1", target.port)
        await asyncio.wait_for(client.over, _TIMEOUT)
    except (OSError, TimeoutError) as error:
        return Result(type(error).__name__, None, chunks)
    first = client.first_at - started if client.first_at is not None else None
    return _judged(b"".join(client.parts), first, chunks)


def _judged(answer: bytes, first: float | None, chunks: int) -> Result:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode(errors="replace")
    if status != "200":
        return Result(f"status {status}", first, chunks)
    whole = body.endswith(b"0\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = unframed(body)
    if body == paced_sse.answer(chunks) and whole:
        return Result("", first, 0)
    lost = sum(paced_sse.chunk(number) not in body for number in range(chunks))
    return Result("bytes differ" if whole else "ended early", first, lost)


def unframed(body: bytes) -> bytes:
    """The body out of HTTP/1.1 chunks; what is cut off in the end is left out."""
    out, rest = [], body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        out.append(rest[:length])
        rest = rest[length + 2 :]
    return b"".join(out)


async def many(target: Target, count: int, chunks: int, sample: Callable[[], None]) -> list[Result]:
    """``count`` streams opened at once. ``sample`` is called every 0.2 s while they are open."""
    task = asyncio.gather(*(one(target, chunks) for _ in range(count)))
    while not task.done():
        sample()
        await asyncio.wait([task], timeout=0.2)
    return list(await task)
