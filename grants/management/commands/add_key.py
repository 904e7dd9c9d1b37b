from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from grants.management.base import BY_COMMAND, DataCommand
from grants.management.commands.set_price import price_row
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
        parser.add_argument(
            "--price",
            type=price_row,
            action="append",
            default=[],
            dest="prices",
            metavar="ROW",
            help="A price of your own, before those that AIPassport knows: 'gpt-4o*:input=2.50,output=10' (dollars per "
            "million tokens; also cached, image, character per million, second, request) or 'local-*:free'. "
            "Repeat it for more; the first that matches a model counts.",
        )
        parser.add_argument("--margin", type=int, default=0, metavar="PERCENT", help="On top of every price.")
        parser.add_argument(
            "--shows-everything",
            action="store_true",
            help="For custom servers: their streams show all output as it is made, thinking and tool calls included. "
            "An answer that is left early is then charged for what it showed, not for its whole output limit.",
        )

    def run(self, *, owner: str, provider: str, label: str, base_url: str, **options: Any) -> Mapping[str, Any]:
        user = get_user_model().objects.filter(username=owner).first()
        if user is None:
            raise CommandError(f"No user is called {owner!r}.")
        secret = getpass.getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.read()
        key = ProviderKey.add(
            owner=user,
            provider=provider,
            label=label,
            base_url=base_url,
            secret=secret,
            prices=options["prices"],
            margin=options["margin"],
            shows_everything=options["shows_everything"],
            by=BY_COMMAND,
        )
        return {"id": key.pk}
