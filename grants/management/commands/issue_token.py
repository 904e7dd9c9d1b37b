from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from grants import tokens
from grants.management.base import BY_COMMAND, DataCommand, duration, names, one_grant


class Command(DataCommand):
    help = "Issue a token for a live grant. It is printed once and stored nowhere."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("grant", help="Id of the grant.")
        parser.add_argument("--lifetime", type=duration, help="At most the grant's token lifetime (the default).")
        parser.add_argument("--models", type=names, help="Narrower than the grant's.")
        parser.add_argument("--capabilities", type=names, help="Fewer than the grant's.")

    def run(self, *, grant: str, lifetime: int | None, models: Any, capabilities: Any, **_: Any) -> Mapping[str, Any]:
        minted = tokens.mint(
            one_grant(grant), by=BY_COMMAND, lifetime=lifetime, models=models, capabilities=capabilities
        )
        return {"token": minted.token, "jti": minted.jti, "expires_at": minted.expires_at}
