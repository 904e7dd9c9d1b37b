from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from grants.management.base import BY_COMMAND, DataCommand
from grants.models import ProviderKey
from grants.providers import PROVIDERS


class Command(DataCommand):
    help = (
        "Store a raw provider key. The secret is read from a prompt, or from standard input when that is not a "
        "terminal; never from the command line, where other users of the machine could see it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--owner", required=True, help="Username of the owner.")
        parser.add_argument(
            "--provider",
            required=True,
            choices=sorted(PROVIDERS),
            metavar="ID",
            help=f"One of: {', '.join(sorted(PROVIDERS))}.",
        )
        parser.add_argument("--label", required=True, help="What the owner calls this key.")
        parser.add_argument("--base-url", default="", help="Where the provider is, if not at its usual place.")

    def run(self, *, owner: str, provider: str, label: str, base_url: str, **_: Any) -> Mapping[str, Any]:
        user = get_user_model().objects.filter(username=owner).first()
        if user is None:
            raise CommandError(f"No user is called {owner!r}.")
        secret = getpass.getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.read()
        key = ProviderKey.add(
            owner=user, provider=provider, label=label, base_url=base_url, secret=secret, by=BY_COMMAND
        )
        return {"id": key.pk}
