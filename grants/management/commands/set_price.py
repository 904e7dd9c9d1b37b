from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from grants import pricelist
from grants.management.base import BY_COMMAND, DataCommand
from grants.models import Grant, ProviderKey


class Command(DataCommand):
    help = (
        "Set prices of a provider key: they go before AIPassport's price list, in bounds and in costs, from the next "
        "call on. A row for the same models is replaced."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("key", help="The id of a provider key, or of a grant on it.")
        parser.add_argument(
            "rows",
            nargs="+",
            type=price_row,
            metavar="ROW",
            help="'gpt-4o*: input=2.50, output=10' (dollars for a million tokens; also cached, image, character for a "
            "million, second, request) or 'local-*: free'. The first row that matches a model counts.",
        )

    def run(self, *, key: str, rows: list[dict[str, Any]], **_: Any) -> Mapping[str, Any]:
        found = _key(key)
        found.set_prices(rows, BY_COMMAND)
        return {"key": str(found.pk), "prices": pricelist.text(found.prices)}

    def show(self, data: Mapping[str, Any]) -> None:
        self.stdout.write(f"The prices of the key {data['key']}, from the next call on:\n{data['prices']}")


def price_row(text: str) -> dict[str, Any]:
    """One row of :mod:`grants.pricelist` (an argparse type)."""
    try:
        return pricelist.row(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _key(text: str) -> ProviderKey:
    try:
        grant = Grant.objects.select_related("provider_key").filter(pk=text).first()
        key = grant.provider_key if grant else ProviderKey.objects.filter(pk=text).first()
    except ValidationError:
        key = None
    if key is None:
        raise CommandError(f"No provider key and no grant has the id {text!r}.")
    return key
