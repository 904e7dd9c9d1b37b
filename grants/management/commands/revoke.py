from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from grants.management.base import BY_COMMAND, DataCommand, one_grant
from grants.models import AuditEvent


class Command(DataCommand):
    help = "Revoke a grant with all its tokens, or one token by its jti. The change takes effect with the next call."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("grant", nargs="?", help="Id of the grant.")
        parser.add_argument("--token", metavar="JTI", help="Only this token.")

    def run(self, *, grant: str | None, token: str | None, **_: Any) -> Mapping[str, Any]:
        if (grant is None) == (token is None):
            raise CommandError("Name either a grant, or a token with --token.")
        if token is not None:
            return {"token": token, "revoked": _revoke_token(token)}
        record = one_grant(grant or "")
        if not record.revoke(BY_COMMAND) and record.status != "revoked":
            raise CommandError(f"The grant is {record.status}: there is nothing to revoke.")
        return {"grant": record.pk, "revoked": True}


def _revoke_token(jti: str) -> bool:
    issued = AuditEvent.objects.filter(action=AuditEvent.Action.TOKEN_ISSUED, jti=jti).select_related("grant").first()
    if issued is None or issued.grant is None:
        raise CommandError(f"No token with the jti {jti!r} was issued.")
    expires_at = dt.datetime.fromisoformat(issued.detail["expires_at"])
    issued.grant.revoke_token(jti, expires_at=expires_at, by=BY_COMMAND)
    return True
