from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from grants import ledger
from grants.management.base import DataCommand, duration


class Command(DataCommand):
    help = (
        "Settle the open calls of workers that have fallen silent. Every worker does this by itself now and then; "
        "use it when none is running."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--lost-after",
            type=duration,
            default=settings.AIPASSPORT_LOST_AFTER,
            help="How long a worker must have been silent (default: AIPASSPORT_LOST_AFTER).",
        )

    def run(self, *, lost_after: int, **_: Any) -> Mapping[str, Any]:
        return {"reaped": ledger.reap(lost_after=lost_after)}
