"""The mixed load of a soak: every way in which a call can go, all at once, and what the client saw of each."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import paced_sse
import servers
import streams
from owners import Grants, Owner
from soak_upstream import ERROR, SMALL

PATH = "/proxy/v1/chat/completions"
_TIMEOUT = 60.0  # seconds for one call
_STREAM = 20  # chunks
_ENDLESS = 100_000  # chunks: a stream that somebody ends
_CUT_WITHIN = 5.0  # seconds from a revocation to the end of its streams
_SIGN_IN_EVERY = 300.0  # seconds; an owner's token lives for 15 minutes


class Wrong(Exception):
    """An answer that this call should not have got."""


class Connection:
    """One connection of a client, kept alive, with an answer read to its end before the next question."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, token: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError, EOFError, TimeoutError."""
        async with asyncio.timeout(_TIMEOUT):
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {token}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self._writer.write(head.encode() + body)
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
            found = int(answer[9:12]), await self._reader.readexactly(length)
            if "connection: close" in answer:
                self.close()
            return found

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Open:
    """A stream that is read as long as one likes."""

    def __init__(self, target: streams.Target) -> None:
        self._target = target
        self.got = b""

    async def __aenter__(self) -> Open:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        self._writer.write(self._target.request(_ENDLESS))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def until(self, part: bytes) -> None:
        """Read until ``part`` has come.

        Raises:
            Wrong: it ended before that.
        """
        async with asyncio.timeout(_TIMEOUT):
            while part not in self.got:
                if not (data := await self._reader.read(65536)):
                    raise Wrong(f"a stream ended without {part!r}: {self.got[-300:]!r}")
                self.got += data

    async def rest(self) -> bytes:
        """All of it, once it has ended."""
        async with asyncio.timeout(_TIMEOUT):
            while data := await self._reader.read(65536):
                self.got += data
        return self.got

    def reset(self) -> None:
        self._writer.transport.abort()


class Load:
    """``saw``: admitted calls by model and by the outcome that the ledger should have for them; ``refused``: the
    others by status; ``wrong``: what should not have happened, counted by its first words.
    """

    def __init__(self, port: int, upstream: servers.Process, sign_in: Callable[[], Owner], key: str) -> None:
        """``sign_in``: an owner with a fresh token. ``key``: the id of a key that leads to ``upstream``."""
        self._port, self._upstream, self._sign_in, self._key = port, upstream, sign_in, key
        self.saw: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[int] = Counter()
        self.wrong: Counter[str] = Counter()
        self.owner_reads = 0
        self.over = False

    def prepare(self, grants: int, seconds: float) -> None:
        self._owner, self._seconds = self._sign_in(), seconds
        made = Grants(self._owner, self._key, seconds)
        self._tokens = itertools.cycle(made.many(grants))
        self._capped = made.issue(max_requests=100)[1]
        self._slow = made.issue(requests_per_minute=60)[1]
        self._narrow = made.issue(max_concurrency=2)[1]
        grant, revoked, _ = made.issue()
        made.revoke(grant)
        forged = next(self._tokens).rpartition(".")[0] + "." + secrets.token_urlsafe(64)
        self._dead = itertools.cycle((revoked, forged, "nonsense"))

    async def run(self) -> None:
        """Until ``over``; then every call that is under way is finished."""
        await asyncio.gather(*(self._again(act) for act, times in self._clients() for _ in range(times)))

    @property
    def at_once(self) -> int:
        """Calls that are under way at most; a client of revocations has two."""
        return sum(times for _, times in self._clients()) + 2

    def _clients(self) -> list[tuple[Callable[[Connection], Awaitable[None]], int]]:
        """What they do again and again, and how many do it."""
        return [
            (self._small, 24),
            (self._large, 4),
            (self._stream, 24),
            (self._left, 8),
            (self._silent, 1),
            (self._mute, 1),
            (self._reset, 1),
            (self._cut, 2),
            (self._error, 2),
            (self._limited, 2),
            (self._crowded, 4),
            (self._unknown, 2),
            (self._revoked, 2),
            (self._owners, 1),
        ]

    async def _again(self, act: Callable[[Connection], Awaitable[None]]) -> None:
        connection = Connection(self._port)
        while not self.over:
            try:
                await act(connection)
            except (OSError, EOFError, ValueError, Wrong) as error:
                self.wrong[f"{act.__name__.strip('_')}: {type(error).__name__} {error}"[:200]] += 1
                connection.close()
                await asyncio.sleep(0.1)
        connection.close()

    # Calls in one piece

    async def _ask(self, connection: Connection, kind: str, token: str, *, size: int = 20) -> tuple[int, bytes]:
        body = {"model": f"soak-{kind}", "messages": [{"role": "user", "content": "x" * size}], "max_tokens": 50}
        return await connection.ask(token, json.dumps(body).encode())

    def _note(self, kind: str, outcome: str, answer: tuple[int, bytes], *expected: Any) -> None:
        """An admitted call ended like this. ``expected``: its status, and its body if that is known."""
        self.saw[f"soak-{kind}", outcome] += 1
        if answer[: len(expected)] != expected:
            raise Wrong(f"{answer[0]} {answer[1][:120]!r}")

    async def _small(self, connection: Connection) -> None:
        answer = await self._ask(connection, "small", next(self._tokens))
        self._note("small", "ok", answer, 200, SMALL)

    async def _large(self, connection: Connection) -> None:
        answer = await self._ask(connection, "large", next(self._tokens), size=100_000)
        self._note("large", "ok", answer, 200, SMALL)

    async def _reset(self, connection: Connection) -> None:
        self._note("reset", "upstream_broken", await self._ask(connection, "reset", next(self._tokens)), 502)

    async def _error(self, connection: Connection) -> None:
        answer = await self._ask(connection, "error", next(self._tokens))
        self._note("error", "upstream_error", answer, 500, ERROR)

    async def _limited(self, connection: Connection) -> None:
        """Soon over the limit of its grant: one a second, or none at all any more."""
        for kind, token in (("slow", self._slow), ("capped", self._capped)):
            answer = await self._ask(connection, kind, token)
            if answer[0] == 200:
                self._note(kind, "ok", answer, 200, SMALL)
            else:
                self._refuse(429, answer)
        await asyncio.sleep(0.05)

    async def _unknown(self, connection: Connection) -> None:
        """Tokens that are dead, forged or none."""
        self._refuse(401, await self._ask(connection, "unknown", next(self._dead)))
        await asyncio.sleep(0.02)

    def _refuse(self, expected: int, answer: tuple[int, bytes]) -> None:
        if answer[0] != expected:
            raise Wrong(f"{answer[0]} {answer[1][:120]!r}")
        self.refused[expected] += 1

    # Streams

    def _target(self, kind: str, token: str) -> streams.Target:
        return streams.Target(self._port, PATH, token, f"soak-{kind}")

    async def _stream(self, _: Connection) -> None:
        """Read to its end, byte for byte."""
        result = await streams.one(self._target("stream", next(self._tokens)), _STREAM)
        self._note("stream", "ok", (0, result.error.encode()), 0, b"")

    async def _crowded(self, _: Connection) -> None:
        """Four that want two places."""
        result = await streams.one(self._target("crowded", self._narrow), 5)
        if result.error == "status 429":
            self.refused[429] += 1
            await asyncio.sleep(0.1)
        else:
            self._note("crowded", "ok", (0, result.error.encode()), 0, b"")

    async def _left(self, _: Connection) -> None:
        """Left half way: one goes politely, the next with a reset."""
        for leave in ("politely", "reset"):
            async with Open(self._target("left", next(self._tokens))) as stream:
                await stream.until(paced_sse.chunk(4))
                self.saw["soak-left", "client_gone"] += 1
                if leave == "reset":
                    stream.reset()

    async def _silent(self, _: Connection) -> None:
        """Left while the provider has said no more than that it will answer."""
        await self._wait_and_leave("silent")

    async def _mute(self, _: Connection) -> None:
        """Left while the provider has said nothing at all."""
        await self._wait_and_leave("mute")

    async def _wait_and_leave(self, kind: str) -> None:
        """Of such a call the client sees nothing, so the upstream is asked whether it is there. One at a time."""
        model = f"soak-{kind}"
        seen = (await self.at_upstream())["calls"].get(model, 0)
        async with Open(self._target(kind, next(self._tokens))):
            async with asyncio.timeout(_TIMEOUT):
                while (await self.at_upstream())["calls"].get(model, 0) == seen:
                    await asyncio.sleep(0.1)
            self.saw[model, "client_gone"] += 1

    async def at_upstream(self) -> Any:
        """What it says of itself."""
        return json.loads(await asyncio.to_thread(servers.get, f"{self._upstream.url}/count"))

    async def _cut(self, _: Connection) -> None:
        """The provider resets it in the middle."""
        async with Open(self._target("cut", next(self._tokens))) as stream:
            await stream.until(paced_sse.chunk(0))
            self.saw["soak-cut", "upstream_broken"] += 1
            _must_tell(await stream.rest())
        await asyncio.sleep(0.1)

    # Owners

    async def _revoked(self, connection: Connection) -> None:
        """A grant, and then a token, is taken back under two streams."""
        for what in ("grant", "token"):
            grants = Grants(self._owner, self._key, self._seconds)
            grant, token, jti = await asyncio.to_thread(grants.issue)
            target = self._target("revoked", token)
            async with Open(target) as one, Open(target) as other:
                for stream in (one, other):
                    await stream.until(paced_sse.chunk(0))
                    self.saw["soak-revoked", "revoked"] += 1
                began = time.perf_counter()
                await asyncio.to_thread(grants.revoke, grant, jti if what == "token" else "")
                for stream in (one, other):
                    _must_tell(await stream.rest())
                if (took := time.perf_counter() - began) > _CUT_WITHIN:
                    raise Wrong(f"cut only after {took:.0f} s")
            self._refuse(401, await self._ask(connection, "revoked", token))
            await asyncio.sleep(1)

    async def _owners(self, _: Connection) -> None:
        """Look at the calls now and then, and sign in again in time."""
        owner = self._owner
        reads = [owner.api("calls/"), owner.api("calls/?outcome=revoked"), owner.api("totals/")]
        reads += [owner.desk("grants/call/"), owner.desk("")]
        until = time.monotonic() + _SIGN_IN_EVERY
        for read in itertools.cycle(reads):
            if self.over:
                return
            if time.monotonic() > until:
                break
            await asyncio.to_thread(read)
            self.owner_reads += 1
            await asyncio.sleep(1)
        self._owner = await asyncio.to_thread(self._sign_in)


def _must_tell(answer: bytes) -> None:
    """A stream that was cut says so, and does not look complete."""
    if b'"error"' not in answer or b"[DONE]" in answer:
        raise Wrong(f"a cut stream ended with {answer[-200:]!r}")
