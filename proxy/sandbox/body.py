"""The body of an answer as it comes over a wire: chunk by chunk, with pauses, breakable at any time."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any

_STEP = 0.02  # seconds: how soon an interruption is noticed


class PacedBody(io.RawIOBase):
    """A readable over ``chunks``; ``pause``: seconds before every chunk but the first.

    :meth:`interrupt` and :meth:`close` may come from another thread or greenlet and end a read that waits there within
    20 ms, with ConnectionAbortedError: an answer that was cut never looks complete.
    """

    def __init__(self, chunks: Iterator[bytes], pause: float = 0.0) -> None:
        super().__init__()
        self._chunks = chunks
        self._pause = pause
        self._begun = False
        self._broken = False
        self._left = b""

    def readable(self) -> bool:
        return True

    def interrupt(self, how: int = 0) -> None:
        """Break the line, as ``socket.shutdown`` does; ``how`` is what that function takes and means nothing here."""
        self._broken = True

    def read1(self, size: int = -1) -> bytes:
        """The next chunk as soon as it is made, at most ``size`` bytes of it; ``b""`` at the end."""
        if not self._left:
            self._wait()
            self._left = next(self._chunks, b"")
        if size is None or size < 0:
            size = len(self._left)
        data, self._left = self._left[:size], self._left[size:]
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _wait(self) -> None:
        until = time.monotonic() + (self._pause if self._begun else 0.0)
        self._begun = True
        while True:
            if self._broken or self.closed:
                raise ConnectionAbortedError("the connection was closed")
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_STEP, left))
