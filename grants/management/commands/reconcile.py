from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from grants import money
from grants.management.base import DataCommand, one_grant
from grants.models import Grant
from grants.reconciliation import Difference, account, put_right, repair

_ATTEMPTS = 5


class Command(DataCommand):
    help = (
        "Prove that the counters and the daily totals equal the ledger, and say where they do not. Safe while calls "
        "come and go: each grant is read as it stood at one moment. Exit code 1 if anything differs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--grant", help="Only this one (its id).")
        parser.add_argument("--repair", action="store_true", help="Make the counters what the ledger says.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._left = 0
        super().handle(*args, **options)
        if self._left:
            raise CommandError(f"The counters of {self._left} grants do not equal the ledger.")

    def run(self, *, grant: str | None, repair: bool, **_: Any) -> Mapping[str, Any]:
        chosen = [one_grant(grant).pk] if grant else _all()
        count, found = 0, []
        for each in chosen:
            count += 1
            differences = account(each).differences()
            found += differences
            if differences and not (repair and _repaired(each)):
                self._left += 1
        return {"grants": count, "differences": [_told(one) for one in found], "left": self._left}

    def show(self, data: Mapping[str, Any]) -> None:
        for one in data["differences"]:
            where = f" of {one['day']}, {one['model'] or 'no model'}" if one["day"] else ""
            says = f"{one['counter']}{where} says {one['counted']}, the ledger {one['ledger']}"
            self.stdout.write(f"{one['grant']}: {says} (off by {one['excess']})")
        done = "; repaired" if data["differences"] and not data["left"] else ""
        self.stdout.write(f"{data['grants']} grants, {len(data['differences'])} differences{done}")


def _all() -> Iterable[UUID]:
    return Grant.objects.order_by("pk").values_list("pk", flat=True)


def _repaired(grant: UUID) -> bool:
    """Whether it is right now. Tried again where the grant's terms, or the day, changed meanwhile."""
    for _ in range(_ATTEMPTS):
        put_right(grant)
        if repair(account(grant)):
            return True
    return False


def _told(found: Difference) -> dict[str, Any]:
    write = money.dollars if found.counter in _MONEY else str
    amounts = {"counted": found.counted, "ledger": found.ledger, "excess": found.excess}
    place = {"grant": str(found.grant), "counter": found.counter, "day": found.day, "model": found.model}
    return place | {name: write(amount) for name, amount in amounts.items()}


_MONEY = {"spent", "reserved", "day_spent", "day_reserved", "month_spent", "month_reserved", "total.cost"}
