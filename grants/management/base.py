"""What the commands share: ``--json``, durations, and errors in one clear line."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from grants import money
from grants.models import Actor, Grant
from grants.terms import DAY, HOUR

BY_COMMAND = Actor("command")

_LONGEST = 36_500 * DAY  # a moment that long ago still has a date
_UNITS = {"s": 1, "m": 60, "h": HOUR, "d": DAY, "": 1}


def duration(text: str) -> int:
    """``90s``, ``30m``, ``24h``, ``7d`` or plain seconds, as seconds (an argparse type)."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"not a duration: {text!r} (such as 90s, 30m, 24h, 7d)")
    if seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"too long: {text!r} (at most {_LONGEST // DAY}d)")
    return seconds


def names(text: str) -> tuple[str, ...]:
    """``a, b,c`` as a tuple (an argparse type)."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def dollars(text: str) -> int:
    """``5.00`` as nano-dollars (an argparse type)."""
    try:
        return money.limit(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def one_grant(text: str) -> Grant:
    """The grant with this id.

    Raises:
        CommandError: there is none.
    """
    try:
        return Grant.objects.select_related("allowance", "provider_key").get(pk=text)
    except (Grant.DoesNotExist, ValidationError) as error:
        raise CommandError(f"No grant has the id {text!r}.") from error


class DataCommand(BaseCommand):
    """A command that ends with data. Subclasses implement :meth:`run` and may override :meth:`show`.

    Exit codes: 0 done, 1 refused (one line on standard error says why), 2 wrong arguments.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print one JSON object, and nothing else.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data = self.run(**options)
        except ValidationError as error:
            raise CommandError("; ".join(_sentences(error))) from error
        if options["json"]:
            self.stdout.write(json.dumps(data, default=str))
        else:
            self.show(data)

    def run(self, *args: Any, **options: Any) -> Mapping[str, Any]:
        """Do it, and return what to print.

        Raises:
            CommandError, ValidationError: nothing was done.
        """
        raise NotImplementedError

    def show(self, data: Mapping[str, Any]) -> None:
        """Print ``data`` for people."""
        width = max(map(len, data), default=0)
        for name, value in data.items():
            self.stdout.write(f"{name:<{width}}  {value}")


def _sentences(error: ValidationError) -> Iterable[str]:
    if hasattr(error, "error_dict"):
        for field, messages in error.message_dict.items():
            yield f"{field}: {' '.join(messages)}"
    else:
        yield from error.messages
