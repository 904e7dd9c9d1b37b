"""How a call ends: what settlement needs to know, and what befell it from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from .dialects.base import Observer
from .exceptions import Cut, RelayError, UpstreamError, UpstreamTimeout

BEHIND = 1.0  # seconds without such a read: the provider may have made much more than was read


class Ending(NamedTuple):
    """How a call went: what settlement needs to know. ``first_byte_us``: since the request began to go out."""

    outcome: str
    status: int | None = None
    first_byte_us: int | None = None
    connected: bool = True
    observer: Observer | None = None
    unread: bool = False  # an answer that no observer could read: too large, or neither JSON nor events
    billed: bool = False  # an error for which the provider bills
    page: bool = False  # a web page, which no model made
    skipped: bool = False  # one of its events was too large to be observed
    ended: bool = True  # the provider ended its answer itself; false: the connection was closed or lost before


@dataclass(slots=True)
class Fate:
    """What befell a call from outside: ended from our side (``cut``), or left by its client.

    ``aborted``: its client has left, and the rest of the answer is not read.
    ``reading``: a read waits for the provider. ``level_at``: when all that the provider had sent was last known to be
    read (``time.monotonic()``); 0 before the first read. ``fell_behind``: at some time that was too long ago. It stays:
    a later read that waits may wait for what the provider holds back.
    """

    cut: Cut | None = None
    left: bool = False
    aborted: bool = False
    reading: bool = False
    level_at: float = 0.0
    fell_behind: bool = False

    @property
    def sealed(self) -> bool:
        return self.aborted or self.cut is not None

    @property
    def is_behind(self) -> bool:
        """Whether the provider may have made, and billed, much more than was read: the client did not take it."""
        return self.fell_behind or (not self.reading and 0 < self.level_at < time.monotonic() - BEHIND)

    def leave(self) -> None:
        """Its client has left."""
        self.left = self.aborted = True

    def outcome(self, error: RelayError | None) -> str:
        """The ledger's word for a call that ended before its end, by ``error`` where it is not one of these."""
        if self.cut is not None:
            return "drained" if self.cut.code == "restarting" else "revoked"
        if self.left:
            return "client_gone"
        if isinstance(error, UpstreamTimeout):
            return "upstream_timeout"
        if error is not None and error.code == "upstream_error":
            return error.code
        return "upstream_unreachable" if isinstance(error, UpstreamError) and not error.connected else "upstream_broken"
