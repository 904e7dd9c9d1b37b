"""The body on its way to the app: the provider's own bytes, chunk by chunk, with usage observed on the side."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .dialects.base import Observer
from .exceptions import Cut, RelayError, UpstreamError, UpstreamFailed, UpstreamTimeout
from .fairness import Pause
from .sse import Decoder
from .upstream import Exchange

_OBSERVED_BYTES = 32 * 1024 * 1024  # of a JSON answer; a larger one is estimated
_PIECE = 1024  # bytes of events that are read without letting others run


class Ending(NamedTuple):
    """How a call went: what settlement needs to know. ``first_byte_us``: since the request began to go out."""

    outcome: str
    status: int | None = None
    first_byte_us: int | None = None
    connected: bool = True
    observer: Observer | None = None
    unread: bool = False  # an answer that no observer could read: too large, or neither JSON nor events
    billed: bool = False  # an error for which the provider bills


@dataclass(slots=True)
class Fate:
    """What befell a call from outside: ended from our side (``cut``), or left by its client."""

    cut: Cut | None = None
    left: bool = False

    @property
    def sealed(self) -> bool:
        return self.left or self.cut is not None

    def outcome(self, error: RelayError | None) -> str:
        """The ledger's word for a call that ended before its end, by ``error`` where it is not one of these."""
        if self.cut is not None:
            return "drained" if self.cut.code == "restarting" else "revoked"
        if self.left:
            return "client_gone"
        if isinstance(error, UpstreamTimeout):
            return "upstream_timeout"
        return "upstream_unreachable" if isinstance(error, UpstreamError) and not error.connected else "upstream_broken"


class RelayedBody:
    """An iterable of bytes with ``close()``, which the server calls however it ends.

    ``finish`` is called exactly once, and *before* the last bytes are handed out: an app that has its whole answer
    finds its call settled. ``error_event`` words an error in the stream's dialect: a cut that merely ended the chunks
    would look like a complete answer to the SDKs.
    """

    def __init__(
        self,
        exchange: Exchange,
        observer: Observer,
        fate: Fate,
        *,
        finish: Callable[[Ending], None],
        error_event: Callable[[RelayError], bytes],
        hides: bool = False,
    ) -> None:
        self._exchange = exchange
        self._observer = observer
        self._fate = fate
        self._finish = finish
        self._error_event = error_event
        self._hides = hides
        self._events = exchange.content_type.startswith("text/event-stream")
        self._json = "json" in exchange.content_type
        self._decoder = Decoder()
        self._pause = Pause()
        self._parts: list[bytes] = []
        self._received = 0
        self._length = exchange.length
        self._ahead: bytes | None = None
        self._first_byte_us: int | None = None
        self._settled = False
        self._over = False

    def read_ahead(self) -> None:
        """Read the first bytes of an answer that is no stream of events: while the app has nothing, it can be told.

        gunicorn sends the head with the first bytes, so that nobody waits longer for either.

        Raises:
            RelayError: none came, or the call was cut; it is not settled.
        """
        if self._events:
            return
        broken: RelayError | None = None
        try:
            self._ahead = self._exchange.read()
        except UpstreamTimeout as error:
            broken = error
        except RelayError:
            broken = UpstreamFailed("The provider broke the connection.", code="upstream_broken")
        if self._ahead == b"" and self._length:
            broken = UpstreamFailed("The provider ended its answer too early.", code="upstream_broken")
        if broken := self._fate.cut or broken:
            raise broken

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._over:
            out = self._step()
            if out:
                return out
        raise StopIteration

    def _step(self) -> bytes:
        try:
            chunk = self._exchange.read() if self._ahead is None else self._ahead
            self._ahead = None
        except RelayError as error:
            return self._broken(error)
        if self._fate.sealed:
            return self._broken(None)
        if not chunk:
            return self._end()
        if self._first_byte_us is None:
            self._first_byte_us = (time.monotonic_ns() - self._exchange.began_ns) // 1000
        return self._observe(chunk)

    def _observe(self, chunk: bytes) -> bytes:
        self._received += len(chunk)
        out = self._observe_events(chunk) if self._events else chunk
        if self._json and self._received <= _OBSERVED_BYTES:
            self._parts.append(chunk)
        if self._observer.done or (self._received == self._length and self._may_end()):
            self._complete()
        return out

    def _observe_events(self, chunk: bytes) -> bytes:
        """In pieces: 64 KB of blank lines are 65,536 events, which take half a second."""
        if len(chunk) <= _PIECE:
            return self._observe_piece(chunk)
        out = []
        for begin in range(0, len(chunk), _PIECE):
            out.append(self._observe_piece(chunk[begin : begin + _PIECE]))
            self._pause()
        return b"".join(out)

    def _observe_piece(self, chunk: bytes) -> bytes:
        events = self._decoder.feed(chunk)
        for event in events:
            self._observer.event(event)
        if not self._hides:
            return chunk
        return b"".join(event.raw for event in events if not self._observer.hides(event))

    def _end(self) -> bytes:
        """The provider has ended its body."""
        self._over = True
        short = self._length is not None and self._received < self._length
        rest = self._decoder.rest() if self._events and not short else b""
        out = self._observe_events(b"\n\n") if rest else b""  # some servers leave out the last blank line
        if not self._settled and (short or not self._may_end()):
            self._observer.cut(rest)
            return self._broken(UpstreamFailed("The provider ended its answer too early.", code="upstream_broken"))
        self._complete()
        return out if self._hides else b""

    def _may_end(self) -> bool:
        """Whether the answer is whole. A stream without its last event is not, however cleanly its bytes end; one in
        which the provider itself told of an error is."""
        return not self._events or self._observer.complete or self._observer.failed

    def _complete(self) -> None:
        self._observe_rest()
        self._settle("upstream_error" if self._observer.failed or self._exchange.status >= 400 else "ok")

    def _observe_rest(self) -> None:
        """A JSON answer, as far as it came; of a stream, an event that was cut in two."""
        if self._settled:
            return
        if self._json and self._received <= _OBSERVED_BYTES:
            self._observer.body(b"".join(self._parts))
        elif self._events and (rest := self._decoder.rest()):
            self._observer.cut(rest)

    def _broken(self, error: RelayError | None) -> bytes:
        """It ended before its end. In a stream of events the client is told; else its connection is broken off."""
        self._over = True
        complete = self._settled
        self._observe_rest()
        self._settle(self._fate.outcome(error))
        error = self._fate.cut or error
        if complete:  # all of it was handed out before
            return b""
        if self._fate.left or error is None or not self._events:
            raise BrokenPipeError(errno.EPIPE, "the answer ended early")
        return self._error_event(error)

    def close(self) -> None:
        """The server is done with it: sent to its end, or the client gone in the middle."""
        self._observe_rest()
        left = "upstream_error" if self._observer.failed else "client_gone"  # SDKs leave when they are told of an error
        self._settle(self._fate.outcome(None) if self._fate.sealed else left)
        self._exchange.close()

    def _settle(self, outcome: str) -> None:
        if not self._settled:
            self._settled = True
            unread = not self._events and (not self._json or self._received > _OBSERVED_BYTES)
            ending = Ending(outcome, self._exchange.status, self._first_byte_us, observer=self._observer, unread=unread)
            self._finish(ending)
