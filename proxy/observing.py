"""Observes answers so that none delays the other calls of a worker.

A light answer is read in place. Any other JSON answer is read by the process that reads large request bodies. An event
of a stream that is not light is passed on unread.
"""

from __future__ import annotations

import io
import pickle
from typing import Any
from uuid import UUID

from . import bodies
from .body_process import Look
from .dialects.base import Event, Form, Observer, Spooled
from .exceptions import RelayError

_SMALL = 16 * 1024  # bytes: 1 ms, whatever is in them
_VALUES = 30_000  # commas and brackets
_QUOTES = 100_000
_OTHERS = 250_000  # escapes and blanks, each
_LARGE = 1024 * 1024  # bytes of a body: to count its values would take long as well
_PARTS = 50  # steps of an answer that are priced one by one: 0.6 ms for each model that was not seen before
_TAIL = 2048  # bytes in which embeddings report their usage


def is_light(data: bytes) -> bool:
    """Whether ``data`` can be searched and parsed within about 20 ms."""
    if len(data) <= _SMALL:
        return True
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    few = values <= _VALUES and data.count(b'"') <= _QUOTES
    return few and all(data.count(blank) <= _OTHERS for blank in (b"\\", b" ", b"\t", b"\n", b"\r"))


class Observing:
    """The observer of one answer, within these limits. ``unread``: something in the answer was beyond them."""

    def __init__(self, observer: Observer, grant: UUID, flavor: str) -> None:
        self.unread = False
        self._observer = observer
        self._grant = grant
        self._flavor = flavor
        self._result: dict[str, Any] | None = None  # from the other process, with what follows
        self._failed = False
        self._characters = 0

    @property
    def done(self) -> bool:
        return self._observer.done

    @property
    def complete(self) -> bool:
        return self._observer.complete

    @property
    def failed(self) -> bool:
        return self._failed or self._observer.failed

    @property
    def output_characters(self) -> int:
        return self._characters + self._observer.output_characters

    def event(self, event: Event) -> None:
        if is_light(event.data):
            self._observer.event(event)
        else:
            self.unread = True

    def cut(self, data: bytes) -> None:
        if is_light(data):
            self._observer.cut(data)
        else:
            self.unread = True

    def hides(self, event: Event) -> bool:
        return is_light(event.data) and self._observer.hides(event)

    def body(self, body: bytes, *, refused: bool = False) -> None:
        if refused or (len(body) <= _LARGE and is_light(body)):  # the body of an error is small
            self._observer.body(body, refused=refused)
            return
        if self._flavor == "embeddings":
            self._observer.body(body[-_TAIL:])
            if self._observer.result() is not None:
                return
        try:
            seen = bodies.process.look(self._grant, Look(_pickled(self._observer), len(body)), body)
        except RelayError:  # too many wait, or it takes too long
            seen = None
        if seen is None:
            self.unread = True
        else:
            self._result, self._failed, self._characters = seen

    def result(self) -> dict[str, Any] | None:
        if self.unread:  # what was not read may be the larger part
            return None
        result = self._result or self._observer.result()
        if result is not None and len(result.get("parts", ())) > _PARTS:
            self.unread = True
            return None
        return result


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> str | None:
        """The request's body stays here: it may be an open file, and no observer looks at it."""
        return "body" if isinstance(value, Spooled | Form) else None


def _pickled(observer: Observer) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(observer)
    return file.getvalue()
