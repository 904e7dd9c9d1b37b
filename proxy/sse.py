"""Server-sent events: bytes to events, byte for byte, wherever the stream is cut.

WHATWG HTML §9.2.6 "Interpreting an event stream", with one difference: nothing is dropped. Every blank line ends an
:class:`Event`, also after a comment or after nothing, so that ``raw`` of all events and :meth:`Decoder.rest` together
are exactly the bytes that came in. Only CR, LF and CRLF split lines: ``str.splitlines`` would also split at U+2028,
which is allowed inside JSON strings.
"""

from __future__ import annotations

import re

from proxy.dialects.base import Event

LIMIT = 8 * 1024 * 1024
_LINES = 1000  # of an event that is parsed; one with more is handed on like one beyond the limit
_BOM = b"\xef\xbb\xbf"
# Atomic groups: a backtracking ``\r\n?`` would take one CRLF for a line end and a blank line.
_BLANK_LINE = re.compile(rb"(?>\r\n?|\n)(?>\r\n?|\n)")
_LINE_END = re.compile(rb"\r\n?|\n")


class Decoder:
    """Decodes one stream. ``limit``: bytes of one event that are held back at most (see :meth:`feed`)."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._fresh = True  # not a byte of the stream seen yet: a BOM may come
        self._after_cr = False  # the last event ended with CR: an LF that comes next belongs to that line end
        self._has_cr = False  # the stream uses CR somewhere: line ends are searched by the pattern
        self._oversized = False  # in the middle of an event beyond the limit
        self.skipped = False  # there was an event beyond the limit

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` completes, in order.

        An event is handed out with the first byte that ends its blank line. Where that is the CR of a CRLF cut in two,
        the LF leads ``raw`` of the next event; ``name`` and ``data`` are the same at any cut.

        An event beyond the limit is handed on piece by piece as it arrives, as events with ``raw`` only (no name, no
        data): forwarding goes on, observing skips this event and starts again with the next one.
        """
        if not chunk:
            return []
        self._has_cr = self._has_cr or b"\r" in chunk
        if not (self._held or self._has_cr or self._oversized) and _is_one_line(chunk) and len(chunk) <= self._limit:
            self._fresh = False
            return [Event(chunk, "", chunk[6:-2])]  # nearly every chunk of the larger providers
        before = len(self._held)
        if before:
            self._held += chunk
            if self._end_of_event(self._held, self._begin(self._held), before - 1) < 0:
                return self._overflow()
            chunk = bytes(self._held)
            self._held.clear()
        events, rest = self._cut(chunk, max(0, before - 1))
        self._held += rest
        return events + self._overflow() if self._held else events

    def rest(self) -> bytes:
        """The bytes held back of an unfinished event: what is left when the stream has ended."""
        return bytes(self._held)

    def _cut(self, data: bytes, searched: int) -> tuple[list[Event], bytes]:
        """All complete events of ``data``, and what follows them. ``searched``: no event ends before this offset."""
        events: list[Event] = []
        position = 0
        while position < len(data):
            begin = self._begin(data, position)
            end = self._end_of_event(data, begin, searched)
            if end < 0:
                break
            raw = data if position == 0 and end == len(data) else data[position:end]
            if self._oversized or len(raw) > self._limit:
                events.append(Event(raw))
                self.skipped = True
            else:
                events.append(_parse(raw, begin - position))
            self._fresh = self._oversized = False
            self._after_cr = end == len(data) and data.endswith(b"\r")
            position = end
        return events, data[position:]

    def _begin(self, data: bytes | bytearray, position: int = 0) -> int:
        """Where the text of the event at ``position`` begins: behind a BOM, or behind the LF of a CRLF cut in two."""
        if self._after_cr and position == 0 and data.startswith(b"\n"):
            return 1
        if self._fresh and data.startswith(_BOM):
            return len(_BOM)
        return position

    def _end_of_event(self, data: bytes | bytearray, begin: int, searched: int) -> int:
        """The offset behind the next blank line, or -1."""
        if not self._oversized and data[begin : begin + 1] in (b"\n", b"\r"):
            return begin + (2 if data[begin : begin + 2] == b"\r\n" else 1)
        start = max(begin, searched)
        if self._has_cr:
            match = _BLANK_LINE.search(data, start)
            return match.end() if match else -1
        found = data.find(b"\n\n", start)
        return found + 2 if found >= 0 else -1

    def _overflow(self) -> list[Event]:
        """Let go of what is held once it is too much, but for a line end: half of a blank line perhaps."""
        if not self._oversized and len(self._held) <= self._limit:
            return []
        self._oversized = self.skipped = True
        self._fresh = self._after_cr = False
        keep = 1 if self._held[-1:] in (b"\n", b"\r") else 0
        raw = bytes(self._held[: len(self._held) - keep])
        del self._held[: len(raw)]
        return [Event(raw)] if raw else []


def _is_one_line(data: bytes) -> bool:
    """Whether ``data`` is one event of one data line, where it holds no CR."""
    return data.startswith(b"data: ") and data.endswith(b"\n\n") and data.find(b"\n") == len(data) - 2


def _parse(raw: bytes, begin: int) -> Event:
    """One complete event; ``begin``: bytes of ``raw`` that are not text."""
    if not begin and _is_one_line(raw) and b"\r" not in raw:
        return Event(raw, "", raw[6:-2])
    if raw.count(b"\n") + raw.count(b"\r") > _LINES:
        return Event(raw)
    text = raw[begin:]
    name, values = b"", []
    for line in _LINE_END.split(text) if b"\r" in text else text.split(b"\n"):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"data":
            values.append(value)
        elif key == b"event":
            name = value
    return Event(raw, name.decode("utf-8", "replace"), b"\n".join(values))
