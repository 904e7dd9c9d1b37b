"""The ledger driven without HTTP: a grant with a token of its own, and a clock that stands still until it is moved."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.db import connection

from grants import ledger, policy, tokens
from grants.clock import microseconds
from grants.ledger import Admission, Entry, Settlement
from grants.models import Actor, Allowance, Call, Grant, ProviderKey
from grants.policy import Denied
from grants.refusals import Full
from grants.terms import MAX_VALID_FOR, Terms

SECOND = 1_000_000
MINUTE = 60 * SECOND


class Clock:
    """What the ledger reads the time from: instead of the process's clock on SQLite, of PostgreSQL's on PostgreSQL.

    ``now``: microseconds since the epoch. Nothing of the ledger is replaced, only what it stands on.
    """

    now: int

    def __init__(self, moment: dt.datetime) -> None:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "CREATE SCHEMA frozen; "
                    "CREATE FUNCTION frozen.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ "
                    "SELECT timestamptz 'epoch' + current_setting('test.now')::bigint * interval '1 microsecond' $$; "
                    "SET LOCAL search_path = frozen, pg_catalog, public"
                )
        self.set(moment)

    def set(self, moment: dt.datetime) -> None:
        self._set(microseconds(moment))

    def wait(self, seconds: float) -> None:
        self._set(self.now + round(seconds * SECOND))

    def _set(self, now: int) -> None:
        self.now = now
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('test.now', %s, true)", [str(now)])

    def time_ns(self) -> int:
        return self.now * 1000


class Account:
    """A grant, and a caller that holds a token of it."""

    def __init__(self, key: ProviderKey, by: Actor, **limits: Any) -> None:
        wanted = Terms(models=("*",), capabilities=("chat",), valid_for=MAX_VALID_FOR).with_(**limits)
        self.by = by
        self.grant = Grant.issue(key=key, terms=wanted, app_name="Notebook", by=by)
        self.claims = tokens.verify(self.token())
        self.worker = uuid.uuid4()

    def token(self) -> str:
        return tokens.mint(self.grant, by=self.by).token

    def policy(self) -> policy.Policy:
        return policy.read(self.claims)

    def entry(self, **changes: Any) -> Entry:
        """``want`` alone is a bound that cannot be lowered."""
        claims = self.claims
        changes.setdefault("least", changes.get("want", 0))
        return Entry(uuid.uuid4(), claims.jti, claims.kid, self.worker, "openai.chat")._replace(**changes)

    def call(self, **changes: Any) -> tuple[uuid.UUID, Admission]:
        entry = self.entry(**changes)
        return entry.id, ledger.admit(self.policy(), entry)

    def admit(self, **changes: Any) -> uuid.UUID:
        return self.call(**changes)[0]

    def ask(self, **changes: Any) -> tuple[uuid.UUID, Admission] | Denied:
        """Like :meth:`call`, or the refusal."""
        try:
            return self.call(**changes)
        except Denied as refusal:
            return refusal

    def admit_all(self, **changes: Any) -> list[uuid.UUID]:
        """As many such calls as are let in."""
        admitted: list[uuid.UUID] = []
        while len(admitted) < 1000:
            answer = self.ask(**changes)
            if isinstance(answer, Denied):
                return admitted
            admitted.append(answer[0])
        raise AssertionError("there is no end")

    def refusal(self, **changes: Any) -> Full:
        """How such a call is refused; it must leave no trace."""
        before = self.row(), Call.objects.count()
        answer = self.ask(**changes)
        assert isinstance(answer, Full), answer
        assert (self.row(), Call.objects.count()) == before
        return answer

    def row(self) -> dict[str, Any]:
        return Allowance.objects.filter(grant=self.grant).values().get()

    def limit(self, **limits: Any) -> None:
        assert self.grant.change(terms=self.grant.terms.with_(**limits), by=self.by)


def settle(call: uuid.UUID, cost: int | None = 0, **changes: Any) -> bool:
    return ledger.settle(call, Settlement("ok", 200, cost=cost)._replace(**changes))
