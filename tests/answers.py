"""Providers' answers for tests of observing and metering: the bodies in ``fixtures/usage``, and a wire to send them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from proxy import dialects
from proxy.dialects.base import Observer, UpstreamCall
from proxy.endings import Ending, Fate
from proxy.exceptions import Cut, RelayError, UpstreamFailed
from proxy.streaming import RelayedBody
from proxy.upstream import Exchange

FOLDER = Path(__file__).parent / "fixtures" / "usage"
_ROUTES = {"anthropic": "anthropic.messages", "google": "google.generateContent"}


@dataclass(frozen=True)
class Answer:
    """One fixture: its head and its body, as ``fixtures/usage/README.md`` says."""

    name: str
    head: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def streamed(self) -> bool:
        return self.name.endswith(".sse")

    @property
    def content_type(self) -> str:
        return "text/event-stream; charset=utf-8" if self.streamed else "application/json"

    @property
    def tokens(self) -> tuple[int, int, int]:
        input_tokens, output_tokens, cached = map(int, self.head["tokens"].split(" / "))
        return input_tokens, output_tokens, cached

    @property
    def call(self) -> UpstreamCall:
        flavor = self.head["flavor"]
        route = _ROUTES.get(flavor, f"openai.{flavor}")
        models = (self.head["model"],)
        return UpstreamCall(route=route, method="POST", path="/x", models=models, flavor=flavor, stream=self.streamed)

    @property
    def events(self) -> list[bytes]:
        """The events of a stream, each with its blank line."""
        return [event + b"\n\n" for event in self.body.split(b"\n\n") if event.strip()]


def read(path: Path) -> Answer:
    head, _, body = path.read_bytes().partition(b"\n\n")
    lines = (line.partition(": ") for line in head.decode().splitlines())
    return Answer(path.name, {name: value for name, _, value in lines}, body)


ANSWERS = {path.name: read(path) for path in sorted(FOLDER.iterdir()) if path.name != "README.md"}
STREAMS = {name: answer for name, answer in ANSWERS.items() if answer.streamed}


class Wire:
    """A provider's answer as the relay reads it: ``pieces``, then its end, or ``error``."""

    began_ns = 0

    def __init__(
        self,
        pieces: Iterable[bytes],
        content_type: str,
        *,
        status: int = 200,
        length: int | None = None,
        error: RelayError | None = None,
    ) -> None:
        self._pieces = iter(pieces)
        self.content_type, self.status, self.length, self.error = content_type, status, length, error

    def read(self) -> bytes:
        piece = next(self._pieces, b"")
        if not piece and self.error is not None:
            raise self.error
        return piece

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Relayed:
    """What became of an answer: the bytes that the client got, and how the call was settled."""

    observer: Observer
    endings: list[Ending]
    out: bytes = b""
    broken: bool = False

    @property
    def outcome(self) -> str:
        (ending,) = self.endings
        return ending.outcome


def relay(call: UpstreamCall, wire: Wire, *, leaves_after: int | None = None, cut_after: int | None = None) -> Relayed:
    """Send an answer through the relay, to a client that leaves, or is cut off, after so many pieces."""
    observer, endings, fate = dialects.observer(call), list[Ending](), Fate()
    body = RelayedBody(
        cast(Exchange, wire),
        observer,
        fate,
        finish=endings.append,
        error_event=lambda error: dialects.error_event(call.dialect, error),
        hides=call.hides_usage,
    )
    relayed = Relayed(observer, endings)
    try:
        for number, piece in enumerate(body, start=1):
            relayed.out += piece
            if number == leaves_after:
                break
            if number == cut_after:
                fate.cut = Cut("This grant was revoked.")
    except BrokenPipeError:
        relayed.broken = True
    body.close()
    return relayed


def died() -> UpstreamFailed:
    return UpstreamFailed("The provider broke off.", code="upstream_broken")


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def result(relayed: Relayed) -> dict[str, Any]:
    return relayed.observer.result() or {}
