"""Reads a provider's answer: its head within bounds, all of it without holding up the other calls of a worker."""

from __future__ import annotations

import http.client
import io
import re
from http import HTTPStatus
from typing import Any

from .fairness import Pause

_INTERIM = 16  # interim answers (1xx) before the final one
_HEAD_BYTES = 64 * 1024  # of the header fields of all these answers together
_FIELDS = 200  # header fields of an answer
_NAME = re.compile(rb"[!-9;-~]+").fullmatch


class _PausingSocket(io.RawIOBase):
    """The bytes of a provider, which lets others run where it sends without a pause. Heads and trailers count too."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self._pause = Pause()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._pause()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class ProviderAnswer(http.client.HTTPResponse):
    """What a connection reads an answer with.

    The standard library takes 100 header fields of 64 KB each, any number of interim answers, and an answer whose head
    ends early. It skips the status 100 alone, where RFC 9110 §15.2 asks for all of 1xx. It parses a head as an e-mail,
    which takes ten times as long.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_PausingSocket(self.fp.detach()))
        self._left = _HEAD_BYTES

    def begin(self) -> None:
        """Read the head of the final answer, and decide as the standard library does how the body ends.

        Raises:
            http.client.HTTPException: there is none, it ends early, it is malformed or too long.
        """
        if self.headers is not None:
            return
        version, self.status, reason = self._final_status()
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.code, self.reason = self.status, reason.strip()
        self.headers = self.msg = self._read_fields()
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = self._body_length()
        self.will_close = self._check_close() or (not self.chunked and self.length is None)

    def _body_length(self) -> int | None:
        """The bytes of the body; ``None`` where its end is told by chunks, or by the end of the connection."""
        if self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) or self.status < 200:
            return 0
        if self._method == "HEAD":  # type: ignore[attr-defined]
            return 0
        length = self.headers.get("content-length", "").strip()
        return int(length) if length.isascii() and length.isdecimal() and not self.chunked else None

    def _final_status(self) -> tuple[str, int, str]:
        for _ in range(_INTERIM + 1):
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
            if not 100 <= status < 200 or status == HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            self._read_fields()
        raise http.client.BadStatusLine("too many interim answers")

    def _read_fields(self) -> http.client.HTTPMessage:
        """The header fields up to the blank line. A folded field (RFC 9112 §5.2) becomes one line."""
        fields: list[tuple[str, str]] = []
        while (line := self.fp.readline(self._left + 1)) not in (b"\r\n", b"\n"):
            self._left -= len(line)
            if self._left < 0 or len(fields) == _FIELDS:
                raise http.client.HTTPException("the head of the answer is too long")
            if not line.endswith(b"\n"):
                raise http.client.HTTPException("the head of the answer ends early")
            name, colon, value = line.partition(b":")
            if line[:1] in (b" ", b"\t") and fields:
                before, start = fields.pop()
                fields.append((before, f"{start} {line.strip().decode('latin-1')}"))
            elif colon and _NAME(name):
                fields.append((name.decode("latin-1"), value.strip().decode("latin-1")))
            else:
                raise http.client.HTTPException("a header field of the answer is malformed")
        message = http.client.HTTPMessage()
        for field in fields:
            message.set_raw(*field)
        return message
