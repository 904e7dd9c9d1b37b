"""Looks after a worker's open calls: revocation, clients gone, drain, heartbeat, settlements to try again.

Two tickers do so: one with the database, and one that goes on while that is away. A stream that waits for a silent
provider notices none of these by itself.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError
from django.utils import timezone

from grants import ledger, notices
from grants.models import KeyUse, ProviderKey
from grants.pace import release_connection
from grants.sockets import system_poll

from . import courier
from .endings import Fate
from .exceptions import Cut
from .upstream import Exchange

logger = logging.getLogger("aipassport.watch")

INTERVAL = 0.5  # seconds
_BEAT_EVERY = 5.0
_REAP_EVERY = 30.0
_TELL_EVERY = 2.0
_DELIVER_EVERY = 5.0
_KEYS_EVERY = 5.0
_DOUBTS = 1000
_DRAIN_MARGIN = 3.0  # gunicorn kills at its graceful timeout: be done before

_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


@dataclass(slots=True)
class Watched(Fate):
    """An open call as the ticker sees it. ``client``: its socket, where the server tells it, until it is settled.

    ``goes_on``: the provider may go on, and bill the whole answer, when the connection to it is closed.
    ``may_read_on``: asked once when the client has left; whether this worker reads one more such answer to its end.
    ``abandoned_at``: since when it is read to its end although the client has left; 0 where it is not.
    """

    exchange: Exchange = field(default_factory=Exchange)
    client: socket.socket | None = None
    cut_at: float = 0.0
    stream: bool = False
    goes_on: bool = False
    may_read_on: Callable[[], bool] = lambda: False
    abandoned_at: float = 0.0

    def end(self, error: Cut, now: float) -> None:
        """End it from our side; its own greenlet settles it and tells the client."""
        self.goes_on = self.goes_on or self.is_behind
        if self.left:
            self.aborted = True
        elif not self.sealed:
            self.cut, self.cut_at = error, now
        self.exchange.abort()

    def leave(self) -> None:
        """Its client has left. Its own greenlet reads the rest where the provider bills it all the same."""
        if self.left:
            return
        self.left = True
        self.goes_on = self.goes_on or self.is_behind  # what the provider made meanwhile is told by its report only
        if self.goes_on and not self.sealed and self.may_read_on():
            self.abandoned_at = time.monotonic()
            if self.client is not None:
                _shut(self.client)
        else:
            self.give_up()

    def give_up(self) -> None:
        self.aborted = True
        self.exchange.abort()


@dataclass
class Watch:
    """The open calls of this process, and the thread (a greenlet under gevent) that looks after them."""

    worker: UUID = field(default_factory=uuid4)
    draining: bool = False
    _open: dict[UUID, Watched] = field(default_factory=dict)
    _unsettled: dict[UUID, ledger.Settlement] = field(default_factory=dict)
    _keys_used: dict[UUID, KeyUse] = field(default_factory=dict)
    _touched: dict[UUID, set[str]] = field(default_factory=dict)
    _keys_rejected: dict[UUID, str] = field(default_factory=dict)
    _stopping: Callable[[], bool] = lambda: False
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    abandoned_calls: int = 0  # whose client has left, and whose answer is read to its end
    _drain_until: float = 0.0
    _beaten_at: float = 0.0
    _reaped_at: float = 0.0
    _keys_written_at: float = 0.0
    ticked_at: float = field(default_factory=time.time)  # when a tick was last finished; seconds since the epoch
    reaped: int = 0  # calls settled for workers that fell silent

    # What it tells of itself

    @property
    def open_calls(self) -> int:
        return len(self._open)

    @property
    def open_streams(self) -> int:
        return sum(1 for watched in list(self._open.values()) if watched.stream)

    @property
    def unsettled(self) -> int:
        """Settlements that the database has refused so far."""
        return len(self._unsettled)

    # What the relay tells it

    def ensure_running(self) -> None:
        """Start the ticker with this process's first call; the worker's heartbeat is written before it is admitted."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._beat()
                release_connection()
                self._thread = every(INTERVAL, lambda: self.look(time.monotonic()), "aipassport-watch")
                every(INTERVAL, lambda: self.tick(time.monotonic()), "aipassport-ledger")
                every(_TELL_EVERY, self.tell, "aipassport-notices")
                every(_DELIVER_EVERY, courier.deliver, "aipassport-courier")

    def enter(
        self, call: UUID, client: socket.socket | None, *, stream: bool = False, goes_on: bool = False
    ) -> Watched:
        watched = Watched(client=client, stream=stream, goes_on=goes_on, may_read_on=self._may_read_on)
        self._open[call] = watched
        return watched

    def leave(self, call: UUID) -> None:
        watched = self._open.pop(call, None)
        if watched is not None and watched.abandoned_at:
            self.abandoned_calls -= 1

    def _may_read_on(self) -> bool:
        """Whether one more answer is read to its end without its client; it is counted until its call is settled."""
        if self.abandoned_calls >= settings.AIPASSPORT_MAX_ABANDONED_CALLS:
            return False
        self.abandoned_calls += 1
        return True

    def settle(self, call: UUID, settlement: ledger.Settlement, grant: UUID) -> None:
        """Settle now; where the database refuses, keep it and try again with every tick."""
        try:
            _settle(call, settlement, grant)
        except (DatabaseError, InterfaceError):
            logger.warning("settlement of call %s refused by the database; trying again", call)
            self._unsettled[call] = settlement

    def doubt(self, call: UUID) -> None:
        """Its admission failed, perhaps behind the commit: nothing was sent, so it is taken back where it stands.

        Where the database takes none for hours this goes for the first ones; of the others hardly one stands, and it is
        reaped.
        """
        if len(self._unsettled) < _DOUBTS:
            self._unsettled[call] = ledger.Settlement("lost", cost=0, connected=False)

    def used(self, key: UUID, error: str = "") -> None:
        """A provider key was used; ``error`` is shown to its owner. Written by a later tick, not in the way."""
        known = self._keys_used.get(key)
        self._keys_used[key] = KeyUse(timezone.now(), error or (known.error if known else ""))

    def rejected(self, key: UUID, error: str) -> None:
        """The provider refused a key: like :meth:`used`, and its owner is told."""
        self.used(key, error)
        self._keys_rejected[key] = error

    def touch(self, grant: UUID, refusal: str = "") -> None:
        """A call of this grant ended or was refused: its owner may have to be told something. Costs a dictionary entry.

        ``refusal``: the code of one that waiting does not help.
        """
        self._touched.setdefault(grant, set()).update((refusal,) if refusal else ())

    def drain_when(self, stopping: Callable[[], bool]) -> None:
        """Once ``stopping()`` says yes: no new calls, and open ones have until shortly before the server's kill."""
        self._stopping = stopping

    # The ticker

    def look(self, now: float) -> None:
        """One look at what needs no database, and is not kept waiting by one that is away."""
        self._look_at_clients()
        self._look_at_drain(now)
        self._finish_off(now)

    def tick(self, now: float) -> None:
        """What the database has to say, and to be told.

        Settlements come after the rights: one that hangs or fails must not keep a revoked stream open.
        """
        if now - self._beaten_at > _BEAT_EVERY:
            self._beat()
        self._look_at_rights(now)
        self._settle_again()
        if now - self._reaped_at > _REAP_EVERY:
            self._reaped_at = now
            self.reaped += ledger.reap(lost_after=settings.AIPASSPORT_LOST_AFTER)
            self.reaped += ledger.reap_own(self.worker, self._knows, lost_after=settings.AIPASSPORT_LOST_AFTER)
        self._write_key_use(now)
        self.ticked_at = time.time()

    def _knows(self, call: UUID) -> bool:
        return call in self._open or call in self._unsettled

    def tell(self) -> None:
        """Put into the outbox what was noted since the last time; what the database refuses is kept for the next."""
        touched, self._touched = self._touched, {}
        rejected, self._keys_rejected = self._keys_rejected, {}
        try:
            if touched:
                notices.consider(touched)
            if rejected:
                notices.keys_rejected(rejected)
        except (DatabaseError, InterfaceError):
            for grant, refusals in touched.items():
                self._touched.setdefault(grant, set()).update(refusals)
            self._keys_rejected = rejected | self._keys_rejected
            raise

    def _settle_again(self) -> None:
        for call, settlement in list(self._unsettled.items()):
            try:
                _settle(call, settlement)
            except IntegrityError:
                logger.error("settlement of call %s contradicts its grant's counters; trying again", call)
            else:
                del self._unsettled[call]

    def _beat(self) -> None:
        ledger.beat(self.worker)
        self._beaten_at = time.monotonic()

    def _look_at_clients(self) -> None:
        present = [w for w in list(self._open.values()) if w.client and not w.left]
        clients = {w.client.fileno(): w for w in present if w.client and w.client.fileno() >= 0}
        if not clients:
            return
        poll = system_poll()
        for descriptor in clients:
            poll.register(descriptor, getattr(select, "POLLRDHUP", 0))
        for descriptor, events in poll.poll(0):
            if events & _GONE:
                clients[descriptor].leave()

    def _look_at_drain(self, now: float) -> None:
        if not self.draining and self._stopping():
            self.draining = True
            self._drain_until = now + max(0.0, settings.GRACEFUL_TIMEOUT - _DRAIN_MARGIN)
        if self.draining and now >= self._drain_until:
            for watched in list(self._open.values()):
                watched.end(Cut("The broker is restarting; please try again.", code="restarting", status=503), now)

    def _look_at_rights(self, now: float) -> None:
        for call in ledger.taken_away(self.worker) if self._open else ():
            if call in self._open:
                self._open[call].end(Cut("The owner has revoked or ended this grant."), now)

    def _finish_off(self, now: float) -> None:
        """End what does not end by itself.

        A call that was cut and is still there waits for a client that does not read. An answer whose client has left is
        read for a limited time.
        """
        patience = settings.AIPASSPORT_ABANDONED_SECONDS
        for watched in list(self._open.values()):
            if watched.abandoned_at and not watched.aborted and now - watched.abandoned_at > patience:
                watched.give_up()
            if watched.cut is not None and watched.client is not None and now - watched.cut_at > 2 * INTERVAL:
                _shut(watched.client)

    def _write_key_use(self, now: float) -> None:
        """Errors at once, the rest every few seconds; what the database refuses is kept for the next time."""
        everything = now - self._keys_written_at > _KEYS_EVERY
        due = [key for key, use in list(self._keys_used.items()) if everything or use.error]
        if not due:
            return
        used = {key: self._keys_used.pop(key) for key in due}
        try:
            ProviderKey.objects.note_use(used)
        except (DatabaseError, InterfaceError):
            for key, use in used.items():
                newer = self._keys_used.get(key, use)
                self._keys_used[key] = newer._replace(error=newer.error or use.error)
            raise
        if everything:
            self._keys_written_at = now


def every(seconds: float, act: Callable[[], Any], name: str) -> threading.Thread:
    """A thread (under gevent a greenlet) that acts again and again, come what may, and holds no connection between."""

    def run() -> None:
        while True:
            time.sleep(seconds)
            try:
                try:
                    act()
                finally:
                    release_connection()
            except (DatabaseError, InterfaceError):
                logger.warning("the database does not answer %s; trying again", name)
            except Exception:
                logger.exception("%s failed; trying again", name)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _settle(call: UUID, settlement: ledger.Settlement, grant: UUID | None = None) -> None:
    """Settle; numbers that no database will ever take are left out, so that the call does not stay open for them."""
    try:
        ledger.settle(call, settlement, grant=grant)
    except (DataError, IntegrityError, OverflowError):  # the last one is sqlite3's, for more than 64 bits
        logger.error("the usage of call %s does not fit the ledger; settled without it", call)
        nothing: dict[str, Any] = dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "cost"))
        ledger.settle(call, settlement._replace(**nothing, estimated=True), grant=grant)


def _shut(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


watch = Watch()
