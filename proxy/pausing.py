"""Reads a provider's answer so that one who sends without a pause does not hold up the other calls of a worker."""

from __future__ import annotations

import http.client
import io
from typing import Any

from .fairness import Pause


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


class PausingAnswer(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_PausingSocket(self.fp.detach()))
