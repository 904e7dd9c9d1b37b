"""The body on its way to the app: the provider's own bytes, chunk by chunk, with usage observed on the side."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from .dialects.base import Observer
from .endings import BEHIND, Ending, Fate
from .exceptions import RelayError, UpstreamFailed
from .fairness import Pause
from .kinds import Kind, kind_of, may_be_empty, refuse
from .sse import Decoder
from .upstream import Exchange

_OBSERVED_BYTES = 32 * 1024 * 1024  # of a JSON answer; a larger one is estimated
_ABANDONED_BYTES = 4 * 1024 * 1024  # the same, of one that nobody waits for any more
_BLANK_BYTES = 64 * 1024  # held back before the first other byte
_BLANK_SECONDS = 10.0  # how long they are held back: DeepSeek sends blank lines while a call waits
_PIECE = 1024  # bytes of events that are read without letting others run
_WAITED = 0.001  # seconds: a read that took longer found the connection empty


class RelayedBody:
    """An iterable of bytes with ``close()``, which the server calls however it ends.

    ``finish`` is called exactly once, and *before* the last bytes are handed out: an app that has its whole answer
    finds its call settled. ``error_event`` words an error in the stream's dialect: a cut that merely ended the chunks
    would look like a complete answer to the SDKs. ``flavor`` and ``stream``: the call's.

    Where the client leaves and ``fate`` is not aborted, the rest is read and observed, and handed out to nobody.
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
        flavor: str = "chat",
        stream: bool = True,
    ) -> None:
        self._exchange = exchange
        self._observer = observer
        self._fate = fate
        self._finish = finish
        self._error_event = error_event
        self._hides = hides
        self._flavor = flavor
        self._stream = stream
        self._kind: Kind | None = None
        self._events = exchange.content_type.lower().startswith("text/event-stream")  # until more is known
        self._decoder = Decoder()
        self._pause = Pause()
        self._parts: list[bytes] = []
        self._kept = True  # all of a JSON answer so far is in ``_parts``
        self._last = b""  # of a JSON answer: its last byte that is not blank
        self._received = 0
        self._length = exchange.length
        self._ahead: bytes | None = None
        self._first_byte_us: int | None = None
        self._settled = False
        self._over = False
        self._ended = False

    @property
    def events(self) -> bool:
        """Whether it is a stream of events. An error event of the relay may end it: its length is not known."""
        return self._events

    def read_ahead(self) -> None:
        """Read as much as tells what the answer is: while the app has nothing, it can be told of an error.

        gunicorn sends the head with the first bytes, so that nobody waits longer for either.

        Raises:
            RelayError: no answer came, or the call was cut; it is not settled.
        """
        broken: RelayError | None = None
        try:
            self._ahead = self._first_bytes()
        except UpstreamFailed as error:
            told = error.code in ("upstream_error", "upstream_broken")
            broken = error if told else _broke_off()
        except RelayError as error:
            broken = error
        if broken := self._fate.cut or broken:
            raise broken

    def _first_bytes(self) -> bytes:
        """The first bytes, with at least one that is not blank; after a while also without.

        Raises:
            UpstreamFailed: they are no answer to the call.
        """
        head = b""
        until = time.monotonic() + _BLANK_SECONDS
        while self._kind is None and len(head) < _BLANK_BYTES and (not head or time.monotonic() < until):
            chunk = self._read()
            if self._fate.sealed:
                break
            if not chunk:
                return self._nothing_but(head)
            head += chunk
            self._recognise(head)
        return head

    def _nothing_but(self, head: bytes) -> bytes:
        """The answer has ended, and there was nothing in it but ``head``."""
        if self._length is not None and len(head) < self._length:
            raise _too_early()
        if not may_be_empty(self._flavor, self._exchange.content_type):
            refuse(None, self._flavor)
        self._kind = Kind.OTHER
        return head

    def _recognise(self, head: bytes) -> None:
        """Decide what the answer is, as soon as ``head`` tells.

        Raises:
            UpstreamFailed: it is no answer to the call.
        """
        content_type = self._exchange.content_type
        self._kind = kind_of(head, content_type, flavor=self._flavor, stream=self._stream)
        if self._kind is not None:
            self._events = self._kind is Kind.EVENTS
            refuse(self._kind, self._flavor)

    def _read(self) -> bytes:
        """The next bytes. A read that waits shows that the client keeps up with the provider."""
        fate, began = self._fate, time.monotonic()
        if 0 < fate.level_at < began - BEHIND:
            fate.fell_behind = True
        fate.reading = True
        try:
            return self._exchange.read()
        finally:
            fate.reading = False
            now = time.monotonic()
            if now - began > _WAITED or not fate.level_at:
                fate.level_at = now

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._over:
            out = self._step()
            if out and not self._fate.left:
                return out
        if self._fate.left:
            raise _nobody_there()
        raise StopIteration

    def _step(self) -> bytes:
        try:
            chunk = self._read() if self._ahead is None else self._ahead
            self._ahead = None
            if self._kind is None and chunk and not self._fate.sealed:
                self._recognise(chunk)
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
        out = chunk
        if self._events:
            out = self._observe_events(chunk)
        elif self._kind is Kind.JSON:
            self._keep(chunk)
        if self._observer.done or (self._received == self._length and self._may_end()):
            self._complete()
        return out

    def _keep(self, chunk: bytes) -> None:
        if text := chunk.rstrip():
            self._last = text[-1:]
        if self._received > (_ABANDONED_BYTES if self._fate.left else _OBSERVED_BYTES):
            self._parts = []
            self._kept = False
        elif self._kept:
            self._parts.append(chunk)

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
            self._ended = self._events and not short
            self._observer.cut(rest)
            return self._broken(_too_early())
        self._complete()
        return out if self._hides else b""

    def _may_end(self) -> bool:
        """Whether the answer is whole. A stream without its last event is not, however cleanly its bytes end; one in
        which the provider itself told of an error is. JSON ends with a bracket."""
        if self._kind is Kind.JSON:
            return self._last in (b"}", b"]")
        return self._kind is Kind.OTHER or (self._events and (self._observer.complete or self._observer.failed))

    def _complete(self) -> None:
        self._ended = True
        self._observe_rest()
        failed = self._observer.failed or self._exchange.status >= 400
        self._settle("upstream_error" if failed else "client_gone" if self._fate.left else "ok")

    def _observe_rest(self) -> None:
        """A JSON answer, as far as it came; of a stream, an event that was cut in two."""
        if self._settled:
            return
        if self._kind is Kind.JSON and self._kept:
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
            raise _nobody_there()
        return self._error_event(error)

    def close(self) -> None:
        """The server is done with it: sent to its end, or the client gone in the middle."""
        if not (self._settled or self._over):
            self._fate.leave()
        with suppress(BrokenPipeError):
            while not (self._settled or self._over or self._fate.sealed):
                self._step()
        self._observe_rest()
        left = "upstream_error" if self._observer.failed else "client_gone"  # SDKs leave when they are told of an error
        self._settle(self._fate.outcome(None) if self._fate.cut is not None else left)
        self._exchange.close()

    def _settle(self, outcome: str) -> None:
        if self._settled:
            return
        self._settled = True
        ending = Ending(
            outcome,
            self._exchange.status,
            self._first_byte_us,
            observer=self._observer,
            unread=not self._events and not (self._kind is Kind.JSON and self._kept),
            skipped=self._decoder.skipped,
            ended=self._ended or self._observer.failed,
        )
        self._finish(ending)


def _too_early() -> UpstreamFailed:
    return UpstreamFailed("The provider ended its answer too early.", code="upstream_broken")


def _broke_off() -> UpstreamFailed:
    return UpstreamFailed("The provider broke the connection.", code="upstream_broken")


def _nobody_there() -> BrokenPipeError:
    """What gunicorn takes for a client that has left: it breaks the connection off."""
    return BrokenPipeError(errno.EPIPE, "the answer ended early")
