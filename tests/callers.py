"""Callers as they come in crowds, and the books that must balance when they have gone."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest.mock import patch

import requests
from django.db import connections

from grants import reconciliation
from grants.models import Grant

T = TypeVar("T")
_serial = iter(range(10**9))


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, and when it was asked for and complete (``time.monotonic()``). ``status`` 0: it was broken off."""

    sent: float
    received: float
    status: int
    headers: Any = field(repr=False)
    json: Any

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    @property
    def final(self) -> bool:
        return self.headers.get("x-should-retry") == "false"

    @property
    def retry_after(self) -> int:
        return int(self.headers["retry-after"])


@dataclass(slots=True)
class Stream:
    """A streamed answer after its first bytes."""

    chunks: Iterator[bytes]
    first: bytes
    answer: requests.Response = field(repr=False)

    def leave(self) -> None:
        self.answer.close()

    def ends(self) -> bool:
        """Whether the rest of it comes, to its proper end."""
        try:
            return b"[DONE]" in b"".join(self.chunks)
        except requests.RequestException:
            return False


class Caller:
    """An app with one connection, kept alive. ``server`` has a ``url``, and a ``certificate`` where that is https."""

    def __init__(self, server: Any, token: str) -> None:
        self._url = f"{server.url}/proxy/v1/chat/completions"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = getattr(server, "certificate", True)
        self._session.headers["authorization"] = f"Bearer {token}"

    def ask(self, model: str = "fake-metered", **more: Any) -> Said:
        """One chat call; no two bodies are alike."""
        body = {"model": model, "messages": [{"role": "user", "content": f"call {next(_serial)}"}], **more}
        sent = time.monotonic()
        try:
            answer = self._session.post(self._url, json=body, timeout=30)  # reads it whole
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return Said(sent, time.monotonic(), 0, {}, None)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        body = answer.json() if is_json else answer.content  # a stream, or a page of a proxy's own
        return Said(sent, time.monotonic(), answer.status_code, answer.headers, body)

    def stream(self, model: str = "fake-paced", **more: Any) -> Stream:
        """An open stream on a connection of its own; its first bytes are there."""
        body = {"model": model, "messages": [{"role": "user", "content": "stream"}], "stream": True, **more}
        options = {"headers": self._session.headers, "verify": self._session.verify}
        answer = requests.post(self._url, json=body, stream=True, timeout=30, **options)
        assert answer.status_code == 200, answer.text
        chunks = answer.iter_content(None)
        return Stream(chunks, next(chunks), answer)

    def obey(self, until: float, ask: Callable[[], Said] | None = None) -> Iterator[Said]:
        """Answers to calls made again and again as the refusals tell: after the pause that they ask for, never after
        a final one, and never behind ``until`` (``time.monotonic()``)."""
        while time.monotonic() < until:
            said = (ask or self.ask)()
            yield said
            if said.status == 429:
                if said.final:
                    return
                time.sleep(max(0.0, min(said.retry_after, until - time.monotonic())))


def crowd(count: int, work: Callable[[int], T], meanwhile: Callable[[], None] | None = None) -> list[T]:
    """``work(0)`` … ``work(count - 1)`` at the same time; ``meanwhile()`` again and again until all are done."""

    def one(number: int) -> T:
        begin.wait(20)
        try:
            return work(number)
        finally:
            connections.close_all()

    begin = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(one, number) for number in range(count)]
        while meanwhile is not None and not all(future.done() for future in running):
            meanwhile()
            time.sleep(0.005)
        return [future.result() for future in running]


def busiest(spans: Sequence[tuple[float, float, int]], rate: float) -> float:
    """The most by which calls went above ``rate`` (units a second) in any window, from outside.

    ``spans``: when each call was sent, when its answer was there, and its units. It was admitted somewhere between
    the two: those that lie in a window whole were admitted in that window, whatever the network did.
    """
    by_end = sorted(spans, key=lambda span: span[1])
    worst = 0.0
    for begin in {sent for sent, _, _ in spans}:
        sum_ = 0
        for sent, received, units in by_end:
            if sent >= begin:
                sum_ += units
                worst = max(worst, sum_ - rate * (received - begin))
    return worst


def assert_books_balance(grant: Grant, *, at: dt.datetime | None = None) -> None:
    """Counters, totals and calls agree; at any moment, also while calls come and go. ``at``: instead of now."""
    clock = reconciliation.database_clock if at is None else lambda: int(at.timestamp() * 10**6)
    with patch.object(reconciliation, "database_clock", clock):
        assert reconciliation.account(grant.pk).differences() == []
