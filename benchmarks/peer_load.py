"""What is measured of one peer. Unlike ``measure.py``, an answer may be written anew, so long as it says the same."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import paced_sse
from measure import CONNECTIONS, Burst, Calls, WrkError, wrk
from peer_install import PINS
from peer_servers import FailedError, Peer, Route
from servers import CHAT, HERE, Nginx, Paced
from streams import Result, unframed

# Streams before any is measured: a just-in-time compiler needs hundreds. Few abreast: what they take as memory is taken
# before the measurement, and would be missing from it.
_WARM_UP, _ABREAST = 300, 5
_TIMEOUT = 180.0  # seconds for one stream
_LARGE = 100_000  # bytes
_WORDS = "The quick brown fox jumps over the lazy dog, and nobody minds. "
CONTENTS = {"small": "Say hello, please.", "large": (_WORDS * (_LARGE // len(_WORDS) + 1))[: _LARGE - 70]}


# Calls


def _body(route: Route, kind: str) -> bytes:
    return json.dumps({"model": route.model, "messages": [{"role": "user", "content": CONTENTS[kind]}]}).encode()


def check_answer(peer: Peer, kind: str) -> None:
    """One call, looked at.

    Raises:
        FailedError: the status is not 200, or the answer does not say what the upstream said.
    """
    route = peer.routes["small"]
    headers = {"content-type": "application/json", "authorization": f"Bearer {route.token}", **route.headers}
    request = urllib.request.Request(peer.running.url + route.path, _body(route, kind), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.loads(response.read())
        same = _gist(answer) == _gist(CHAT)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FailedError(f"a call of the {kind} kind failed: {error}") from error
    if not same:
        raise FailedError("it changed the answer")
    peer.forwarded += 1
    peer.rewrites |= answer != CHAT


def _gist(answer: Any) -> list[Any]:
    choice, usage = answer["choices"][0], answer["usage"]
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return [choice["message"]["content"], choice["finish_reason"], *(usage[name] for name in names)]


def calls(peer: Peer, kind: str, nginx: Nginx, seconds: int) -> Calls:
    """One run of wrk with bodies of this kind. The upstream's counter must rise by as many calls as wrk saw answered.

    Raises:
        FailedError: it did not; or wrk failed.
    """
    check_answer(peer, kind)
    before, cpu_before, database_before = nginx.count(), peer.cpu(), peer.database_cpu()
    found = _wrk(peer, kind, seconds)
    count = _at_rest(nginx) - before
    cpu, database = peer.cpu() - cpu_before, peer.database_cpu() - database_before
    peer.forwarded += count
    if not count or not found["calls"] <= count <= found["calls"] + 2 * CONNECTIONS:
        raise FailedError(f"wrk saw {found['calls']} answers, but {count} calls came to the upstream")
    return Calls.of(found, count, cpu, database, peer.running.rss())


def _at_rest(upstream: Nginx | Paced) -> int:
    """The upstream's count, once it stands still.

    wrk drops what is under way when its time is over. A slow peer sends it on all the same, a second and more later,
    and it must count as that peer's, not as the next one's.
    """
    count, still = upstream.count(), 0
    deadline = time.monotonic() + 30
    while still < 2 and time.monotonic() < deadline:
        time.sleep(0.4)
        now = upstream.count()
        still = still + 1 if now == count else 0
        count = now
    return count


def _wrk(peer: Peer, kind: str, seconds: int) -> dict[str, float]:
    route = peer.routes["small"]
    env = {
        "BENCH_CHAT": str(HERE / "chat.lua"),
        "BENCH_TOKEN": route.token,
        "BENCH_BODY": _body(route, kind).decode(),
        "BENCH_HEADERS": "".join(f"{name}: {value}\n" for name, value in route.headers.items()),
    }
    try:
        return wrk(peer.running.url + route.path, PINS / "call.lua", seconds, env)
    except WrkError as error:
        raise FailedError(f"wrk failed: {str(error)[-200:]}") from error


# Streams


@dataclass(frozen=True, slots=True)
class Stream(Result):
    """``rewritten``: it says the same in other bytes."""

    rewritten: bool = False


class Gauge:
    """How many streams have begun and not ended."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, number: int) -> None:
        self.now += number
        self.most = max(self.most, self.now)


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, gauge: Gauge) -> None:
        self.request, self.gauge = request, gauge
        self.parts: list[bytes] = []
        self.first_at: float | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        if self.first_at is None and b"data: " in b"".join(self.parts):
            self.first_at = time.perf_counter()
            self.gauge.add(1)
        if data.endswith(b"0\r\n\r\n"):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.gauge.add(-1 if self.first_at is not None else 0)
            self.over.set_result(None)


async def _one(port: int, route: Route, chunks: int, gauge: Gauge) -> Stream:
    """Ask for a stream of so many chunks and check what it says."""
    started = time.perf_counter()
    client: _Client | None = None
    try:
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: _Client(_request(port, route, chunks), gauge), "127.0.0.1", port
        )
        await asyncio.wait_for(client.over, _TIMEOUT)
    except (OSError, TimeoutError) as error:
        if client is not None:
            client.transport.abort()
        return Stream(type(error).__name__, None, chunks)
    first = client.first_at - started if client.first_at is not None else None
    try:
        return _judged(b"".join(client.parts), first, chunks)
    except ValueError:
        return Stream("broken framing", first, chunks)


def _request(port: int, route: Route, chunks: int) -> bytes:
    body = {"model": route.model, "messages": [{"role": "user", "content": "Say something."}], "max_tokens": chunks}
    data = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Authorization": f"Bearer {route.token}",
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        "Connection": "close",
        **route.headers,
    }
    lines = [f"POST {route.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + data


def _judged(answer: bytes, first: float | None, chunks: int) -> Stream:
    """Whole: status 200, every chunk once and in order, the usage, ``[DONE]``, and the end of the framing."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if head[9:12] != b"200":
        return Stream(f"status {head[9:12].decode(errors='replace') or 'none'}", first, chunks)
    if b"transfer-encoding: chunked" in head.lower():
        body = unframed(body)
    if body == paced_sse.answer(chunks):
        return Stream("" if answer.endswith(b"0\r\n\r\n") else "ended early", first, 0)
    text, total, done = _said(body)
    wanted = [f"token {number} " for number in range(chunks)]
    lost = sum(part not in text for part in wanted)
    if text == "".join(wanted) and total == chunks + 9 and done:
        return Stream("", first, 0, rewritten=True)
    return Stream("ended early" if not done else "answer differs", first, lost)


def _said(body: bytes) -> tuple[str, int, bool]:
    """The text of all events, the last total of tokens, and whether ``[DONE]`` came."""
    text, total, done = [], 0, False
    for line in body.splitlines():
        if line == b"data: [DONE]":
            done = True
        elif line.startswith(b"data: {"):
            try:
                event = json.loads(line[6:])
            except ValueError:
                continue
            text += [choice.get("delta", {}).get("content") or "" for choice in event.get("choices", [])]
            total = (event.get("usage") or {}).get("total_tokens", total)
    return "".join(text), total, done


async def _many(
    port: int, route: Route, count: int, chunks: int, sample: Callable[[], None]
) -> tuple[list[Stream], int]:
    """``count`` streams opened at once, ``sample`` called meanwhile. Returns also the most open at once."""
    gauge = Gauge()
    task = asyncio.gather(*(_one(port, route, chunks, gauge) for _ in range(count)))
    while not task.done():
        sample()
        await asyncio.wait([task], timeout=0.2)
    return list(await task), gauge.most


def _warm(port: int, route: Route) -> None:
    for _ in range(_WARM_UP // _ABREAST):
        asyncio.run(_many(port, route, _ABREAST, 1, lambda: None))


def burst(peer: Peer, upstream: str, paced: Paced, count: int, chunks: int) -> tuple[Burst, int, int]:
    """``count`` streams at once through a freshly started peer.

    Returns:
        What was found, how many streams came whole, and how many were open at once.

    Raises:
        FailedError: none came.
    """
    before, route, port = paced.count(), peer.routes[upstream], peer.running.port
    _warm(port, route)
    rss_before, cpu_before = peer.running.rss(), peer.cpu()
    rss = [rss_before]
    results, most = asyncio.run(_many(port, route, count, chunks, lambda: rss.append(peer.running.rss())))
    counted = _at_rest(paced) - before
    cpu = peer.cpu() - cpu_before
    peer.forwarded += counted
    peer.rewrites |= any(result.rewritten for result in results)
    found = Burst.of(results, counted - _WARM_UP, max(rss) - rss_before, cpu)
    if isnan(found.first_p50_ms):
        raise FailedError(f"no stream came: {found.errors}")
    return found, sum(not result.error for result in results), most


def hold(peer: Peer, held: Paced, count: int, chunks: int) -> dict[str, object]:
    """How many of so many slow streams, opened at once, this peer carries to the end."""
    found, whole, most = burst(peer, "held", held, count, chunks)
    return {"asked": count, "whole": whole, "most_open": most, **asdict(found)}


def first_chunks(peers: list[Peer], paced: Paced, times: int) -> list[float]:
    """Single streams, the peers in turn. Returns the milliseconds that the first chunk took without any of them."""
    direct = Route("/v1/chat/completions", "provider-key")
    targets = [(peer.running.port, peer.routes["paced"], peer.first_chunks) for peer in peers]
    found: list[float] = []
    for port, route, _ in targets:
        _warm(port, route)
    for _ in range(times):
        for port, route, into in [(paced.port, direct, found), *targets]:
            result = asyncio.run(_one(port, route, 1, Gauge()))
            into += [result.first * 1e3] if result.first is not None and not result.error else []
    for peer in peers:
        peer.forwarded += times + _WARM_UP
        if len(peer.first_chunks) < times:
            peer.faults.append(f"{times - len(peer.first_chunks)} of {times} single streams failed")
    return found
