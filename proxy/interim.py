"""Interim answers of a provider (1xx): skipped as RFC 9110 §15.2 says, within bounds."""

from __future__ import annotations

import http.client

from .pausing import PausingAnswer

_MOST = 16  # interim answers before the final one
_BYTES = 64 * 1024  # of all their header fields together


class FinalAnswer(PausingAnswer):
    """What a connection reads an answer with.

    The standard library skips ``100`` only, and as many of them as there are.
    """

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
