from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from grants import clients, tokens
from grants.management.base import BY_COMMAND, DataCommand, duration, names, one_grant
from grants.snippets import ready_client, works_with


class Command(DataCommand):
    help = "Issue a token for a live grant. It is printed once and stored nowhere."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("grant", help="Id of the grant.")
        parser.add_argument("--lifetime", type=duration, help="At most the grant's token lifetime (the default).")
        parser.add_argument("--models", type=names, help="Narrower than the grant's.")
        parser.add_argument("--capabilities", type=names, help="Fewer than the grant's.")
        parser.add_argument(
            "--for", dest="client", choices=sorted(clients.CLIENTS), help="Print the lines that point this client here."
        )

    def run(
        self, *, grant: str, lifetime: int | None, models: Any, capabilities: Any, client: str | None = None, **_: Any
    ) -> Mapping[str, Any]:
        record = one_grant(grant)
        wanted = clients.CLIENTS[client] if client else None
        if wanted and not works_with(record, wanted, capabilities=capabilities):  # before a token exists for nothing
            needs = f"the capability chat and {clients.needs(wanted)}"
            raise CommandError(f"{wanted.title} does not work with this token: it needs {needs}.")
        minted = tokens.mint(record, by=BY_COMMAND, lifetime=lifetime, models=models, capabilities=capabilities)
        data = {"token": minted.token, "jti": minted.jti, "expires_at": minted.expires_at}
        if wanted is None:
            return data
        lines = clients.as_text(ready_client(record, wanted, minted.token, models=models))
        return {**data, "for": client, "lines": lines}

    def show(self, data: Mapping[str, Any]) -> None:
        super().show({name: value for name, value in data.items() if name not in ("for", "lines")})
        if "lines" in data:
            self.stdout.write(f"\n{data['lines']}")
