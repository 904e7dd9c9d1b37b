from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from grants.management.base import BY_COMMAND, DataCommand
from grants.models import SigningKey


class Command(DataCommand):
    help = (
        "Sign new tokens with a new key. Tokens of the older keys stay good until they expire, "
        "unless --retire-old ends them all at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--retire-old", action="store_true", help="Kill every token signed so far.")

    def run(self, *, retire_old: bool, **_: Any) -> Mapping[str, Any]:
        old = list(SigningKey.objects.live())
        key = SigningKey.generate(BY_COMMAND)
        retired = [record.kid for record in old if retire_old and record.retire(BY_COMMAND)]
        return {"kid": key.kid, "retired": retired}
