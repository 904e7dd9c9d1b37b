from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from grants.management.base import BY_COMMAND, DataCommand, dollars, duration, names
from grants.models import Grant, ProviderKey
from grants.terms import DEFAULT_OUTPUT_TOKENS, HOUR, LIMITS, Terms


class Command(DataCommand):
    help = "Issue an approved grant on a stored key."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--key", required=True, metavar="ID", help="Id of the provider key.")
        parser.add_argument("--app", required=True, metavar="NAME", help="Name of the app.")
        parser.add_argument("--app-url", default="", metavar="URL")
        parser.add_argument("--models", required=True, type=names, help="Patterns such as gpt-4o,claude-* or *.")
        parser.add_argument("--capabilities", required=True, type=names, help="Such as chat,embeddings.")
        parser.add_argument("--expires", required=True, type=duration, help="From now: 90s, 30m, 24h, 7d.")
        parser.add_argument(
            "--token-lifetime", type=duration, default=HOUR, help="Longest life of a token (default 1h)."
        )
        parser.add_argument("--origins", type=names, default=(), help="Web origins whose pages may use it.")
        _add_limits(parser.add_argument_group("limits", "None is set unless it is given here."))

    def run(self, *, key: str, app: str, app_url: str, **options: Any) -> Mapping[str, Any]:
        try:
            provider_key = ProviderKey.objects.get(pk=key)
        except (ProviderKey.DoesNotExist, ValidationError) as error:
            raise CommandError(f"No provider key has the id {key!r}.") from error
        terms = Terms(
            models=options["models"],
            capabilities=options["capabilities"],
            allowed_origins=options["origins"],
            valid_for=options["expires"],
            token_lifetime=options["token_lifetime"],
            default_output_tokens=options["default_output_tokens"],
            **{name: options[name] for name in LIMITS},
        )
        grant = Grant.issue(key=provider_key, terms=terms, app_name=app, app_url=app_url, by=BY_COMMAND)
        return {"id": grant.pk, "expires_at": grant.expires_at}


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for name, unit, help_text in (
        ("cost", "DOLLARS", "In all, such as 5.00."),
        ("cost-per-day", "DOLLARS", "A calendar day, in the owner's time zone."),
        ("cost-per-month", "DOLLARS", "A calendar month, in the owner's time zone."),
        ("cost-per-call", "DOLLARS", "A call; also the bound of calls that nothing else bounds."),
        ("requests", "N", "Calls in all."),
        ("concurrency", "N", "Calls at a time."),
    ):
        group.add_argument(f"--max-{name}", type=dollars if unit == "DOLLARS" else int, metavar=unit, help=help_text)
    group.add_argument("--requests-per-minute", type=int, metavar="N")
    group.add_argument("--tokens-per-minute", type=int, metavar="N", help="Input and output together.")
    group.add_argument(
        "--default-output-tokens",
        type=int,
        default=DEFAULT_OUTPUT_TOKENS,
        metavar="N",
        help="Output limit of calls that name none, where money or tokens are limited (default %(default)s).",
    )
