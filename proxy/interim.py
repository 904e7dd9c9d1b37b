"""How an answer is read from its socket: interim answers (1xx) are skipped (RFC 9110 §15.2), and other calls run."""

from __future__ import annotations

import http.client
import io
from typing import Any

from .fairness import Pause

_MOST = 16  # interim answers before the final one
_BYTES = 64 * 1024  # of all their header fields together


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


class FinalAnswer(http.client.HTTPResponse):
    """What a connection reads an answer with.

    The standard library skips ``100`` only, and as many of them as there are.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_PausingSocket(self.fp.detach()))

    def _read_status(self) -> tuple[str, int, str]:
        left = _BYTES
        for _ in range(_MOST + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            while (line := self.fp.readline(left + 1)) not in (b"\r\n", b"\n"):
                left -= len(line)
                if not line or left < 0:
                    raise http.client.BadStatusLine("an interim answer that does not end")
        raise http.client.BadStatusLine("too many interim answers")
