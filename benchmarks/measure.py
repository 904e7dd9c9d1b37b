"""What is measured of one relay: small calls under wrk, and streams."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Self

import streams
from servers import CHAT, HERE, Nginx, Paced, Process

CONNECTIONS = 32
_CHAT_REQUEST = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello, please."}]}
_SETTLE = 0.4  # seconds for the calls that wrk drops when its time is over
_WARM_UP = 40  # calls or streams, so that both workers have what they build once


@dataclass
class Relay:
    """One variant.

    ``database_cpu``: CPU seconds so far of a database that works in other processes. ``small_tokens``: a file with one
    token a line; the small calls take turns with them instead of ``small_token``.
    """

    name: str
    start: Callable[[], Process]
    small_path: str
    paced_path: str
    small_token: str
    paced_token: str
    database_cpu: Callable[[], float] = lambda: 0.0
    small_tokens: Path | None = None
    forwarded: int = 0  # calls that the upstreams have counted from it
    calls: list[Calls] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    first_chunks: list[float] = field(default_factory=list)  # ms
    process: Process | None = None

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def up(self) -> None:
        self.process = self.start()

    def down(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def target(self) -> streams.Target:
        return streams.Target(self.running.port, self.paced_path, self.paced_token)

    def cpu(self) -> float:
        return self.running.cpu() + self.database_cpu()


@dataclass(frozen=True, slots=True)
class Calls:
    """One run of small calls. ``cpu_ms``: per call that the upstream counted."""

    cpu_ms: float
    database_cpu_ms: float
    per_second: float
    p50_ms: float
    p99_ms: float
    bad: int
    rss: int

    @classmethod
    def of(cls, found: dict[str, float], count: int, cpu: float, database: float, rss: int) -> Self:
        """``found``: wrk's findings; ``count``: the upstream's; ``cpu`` and ``database``: seconds for all of them."""
        return cls(
            cpu_ms=cpu / count * 1e3,
            database_cpu_ms=database / count * 1e3,
            per_second=found["calls"] / found["seconds"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            bad=int(found["bad_status"] + found["socket_errors"]),
            rss=rss,
        )


@dataclass(frozen=True, slots=True)
class Burst:
    """Streams opened at once. ``memory`` and ``cpu_ms`` are per stream, ``lost`` counts chunks."""

    errors: dict[str, int]
    lost: int
    first_p50_ms: float
    first_p99_ms: float
    memory: float
    cpu_ms: float

    @classmethod
    def of(cls, results: Sequence[streams.Result], counted: int, memory: int, cpu: float) -> Self:
        """``counted``: at the upstream; ``memory``, ``cpu``: bytes and seconds for all. NaN where no stream began."""
        count = len(results)
        errors = dict(Counter(result.error for result in results if result.error))
        if counted != count:
            errors["calls at the upstream too many or too few"] = abs(counted - count)
        firsts = sorted(result.first * 1e3 for result in results if result.first is not None)
        at = quantiles(firsts, n=100) if len(firsts) > 1 else [float("nan")] * 99
        return cls(errors, sum(result.lost for result in results), at[49], at[98], memory / count, cpu / count * 1e3)


def check_answer(relay: Relay) -> None:
    """One call, looked at: a relay that answers something else is not measured.

    Raises:
        SystemExit: the status or the body is not the upstream's.
    """
    request = urllib.request.Request(
        relay.running.url + relay.small_path,
        json.dumps(_CHAT_REQUEST).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {relay.small_token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{relay.name} answered {error.code}: {error.read()[:500]!r}")
    if json.loads(answer) != CHAT:
        sys.exit(f"{relay.name} changed the answer: {answer[:500]!r}")


def small_calls(relay: Relay, nginx: Nginx, seconds: int) -> None:
    """One run of wrk. The upstream's counter must rise by as many calls as wrk saw answered.

    wrk drops what is under way when its time is over: the upstream may have that many more.
    """
    calls_before, cpu_before, database_before = nginx.count(), relay.cpu(), relay.database_cpu()
    found = _wrk(relay, seconds)
    time.sleep(_SETTLE)
    calls = nginx.count() - calls_before
    cpu, database = relay.cpu() - cpu_before, relay.database_cpu() - database_before
    relay.forwarded += calls
    if not found["calls"] <= calls <= found["calls"] + 2 * CONNECTIONS:
        sys.exit(f"{relay.name}: wrk saw {found['calls']} answers, but {calls} calls came to the upstream.")
    relay.calls.append(Calls.of(found, calls, cpu, database, relay.running.rss()))


def _wrk(relay: Relay, seconds: int) -> dict[str, float]:
    env = {"BENCH_TOKEN": relay.small_token, "BENCH_BODY": json.dumps(_CHAT_REQUEST)}
    if relay.small_tokens is not None:
        env["BENCH_TOKENS"] = str(relay.small_tokens)
    try:
        return wrk(relay.running.url + relay.small_path, HERE / "chat.lua", seconds, env)
    except WrkError as error:
        sys.exit(f"{relay.name}: wrk failed:\n{error}")


class WrkError(Exception):
    """wrk ended without having found anything; the message is what it said."""


def wrk(url: str, script: Path, seconds: int, env: dict[str, str]) -> dict[str, float]:
    """What a run with this script found.

    Raises:
        WrkError: it failed.
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    done = subprocess.run([*command, "-s", str(script), url], env=os.environ | env, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("BENCH "):
            found: dict[str, float] = json.loads(line[6:])
            return found
    raise WrkError(done.stdout + done.stderr)


def burst(relay: Relay, paced: Paced, count: int, chunks: int) -> None:
    """``count`` streams at once through freshly started workers, whose memory has not been stretched by others."""
    before = paced.count()
    for _ in range(_WARM_UP):
        asyncio.run(streams.one(relay.target(), 1))
    rss_before, cpu_before = relay.running.rss(), relay.cpu()
    rss = [rss_before]
    results = asyncio.run(streams.many(relay.target(), count, chunks, lambda: rss.append(relay.running.rss())))
    time.sleep(_SETTLE)
    cpu = relay.cpu() - cpu_before
    counted = paced.count() - before
    relay.forwarded += counted
    relay.bursts.append(Burst.of(results, counted - _WARM_UP, max(rss) - rss_before, cpu))


def first_chunks(relays: list[Relay], paced: Paced, times: int) -> list[float]:
    """Single streams, the relays in turn. Returns the milliseconds that the first chunk took without a relay."""
    direct = streams.Target(paced.port, "/v1/chat/completions", "provider-key")
    found: list[float] = []
    for _ in range(_WARM_UP):
        for relay in relays:
            asyncio.run(streams.one(relay.target(), 1))
    for _ in range(times):
        found.append(_first_chunk("direct", direct))
        for relay in relays:
            relay.first_chunks.append(_first_chunk(relay.name, relay.target()))
    for relay in relays:
        relay.forwarded += times + _WARM_UP
    return found


def _first_chunk(name: str, target: streams.Target) -> float:
    result = asyncio.run(streams.one(target, 1))
    if result.error or result.first is None:
        sys.exit(f"{name}: a single stream failed: {result.error}")
    return result.first * 1e3


def as_json(relay: Relay) -> dict[str, object]:
    """Every run of it."""
    return {
        "calls": [asdict(run) for run in relay.calls],
        "bursts": [asdict(run) for run in relay.bursts],
        "first_chunk_ms": relay.first_chunks,
    }
