from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from genai_prices.types import Provider

from grants.management.base import BY_COMMAND, DataCommand
from grants.models import PriceList
from proxy import price_lists, price_source
from proxy.pricing import lists, price_file
from proxy.pricing.changes import Change, TooManyTables, merged

_ATTEMPTS = 3
_SHOWN = 200
_STORED = 5000  # changes that a list keeps for the admin


class Command(DataCommand):
    help = (
        "Take over prices: from --file, from --url or AIPASSPORT_PRICES_URL, or from the installed genai-prices. The "
        "format is that of genai-prices (prices/new_data/v2/data.json). New and higher prices hold from the next call "
        "on, for all workers. Lower, lost and zero prices take effect only with --accept-lower; until then the earlier "
        "price stays in force."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--file", type=Path, help="A JSON file.")
        source.add_argument("--url", help="Default: AIPASSPORT_PRICES_URL, where that is set.")
        source.add_argument("--installed", action="store_true", help="The data of the installed genai-prices.")
        parser.add_argument("--accept-lower", action="store_true", help="Also what lowers or removes a price.")
        parser.add_argument("--check", "--dry-run", action="store_true", help="Say what would change, and stop.")

    def run(self, *, accept_lower: bool, check: bool, **options: Any) -> Mapping[str, Any]:
        source, tables = _tables(options["file"], options["url"], options["installed"])
        for _ in range(_ATTEMPTS):
            before = PriceList.in_force()
            number, digest = (before.number, before.digest) if before else (0, lists.INSTALLED)
            price_lists.ensure(digest)
            try:
                after, changes = merged(lists.tables(digest), tables, accept_lower=accept_lower)
            except TooManyTables as error:
                raise CommandError(
                    f"{error}: too many earlier price tables hold prices that nobody accepted to lower. "
                    "Look at the changes, and run the command once with --accept-lower."
                ) from error
            data = price_lists.dumps(after)
            answer = _answer(number, source, changes, accept_lower)
            if check or (before and before.data == data):
                return answer | {"status": "checked" if check else "unchanged"}
            row = PriceList.add(
                after=number,
                source=source,
                data=data,
                changes=[change.as_dict() for change in changes[:_STORED]],
                counts=answer["counts"],
                accepted_lower=accept_lower,
                by=BY_COMMAND,
            )
            if row is not None:
                return answer | {"number": row.number, "status": "in force"}
        raise CommandError("Other price lists came first. Please run the command again.")

    def show(self, data: Mapping[str, Any]) -> None:
        for change in data["changes"][:_SHOWN]:
            when = f" ({change['when']})" if change["when"] else ""
            kept = " [kept]" if change["lowers"] and data["kept"] else ""
            step = f"{change['before'] or 'none'} -> {change['after'] or 'none'}"
            self.stdout.write(
                f"{change['kind']:<7}{change['provider']} {change['model']} {change['unit']}: {step}{when}{kept}"
            )
        if len(data["changes"]) > _SHOWN:
            self.stdout.write(f"… and {len(data['changes']) - _SHOWN} more changes (--json lists all).")
        counts = ", ".join(f"{count} {kind}" for kind, count in data["counts"].items()) or "no changes"
        self.stdout.write(f"Price list {data['number']} from {data['source']}: {data['status']}; {counts}.")
        if data["kept"]:
            self.stdout.write(
                f"{data['kept']} lower or lost prices were not taken: the earlier prices stay in force. "
                "If the changes are right, run the command with --accept-lower."
            )


def _answer(number: int, source: str, changes: list[Change], accept_lower: bool) -> dict[str, Any]:
    kept = 0 if accept_lower else sum(change.lowers for change in changes)
    counts = dict(sorted(Counter(change.kind for change in changes).items()))
    return {
        "number": number,
        "source": source,
        "counts": counts,
        "kept": kept,
        "changes": [change.as_dict() for change in changes],
    }


def _tables(file: Path | None, url: str | None, installed: bool) -> tuple[str, Mapping[str, Provider]]:
    """Where the prices come from, in words, and the prices."""
    url = url or ("" if file or installed else settings.AIPASSPORT_PRICES_URL)
    try:
        if file is not None:
            with file.open("rb") as opened:
                data = opened.read(price_file.MAX_BYTES + 1)
            return f"file {file.name}", price_file.read(data, price_lists.NEEDED, price_lists.LENDERS)
        if url:
            return url, price_file.read(price_source.fetch(url), price_lists.NEEDED, price_lists.LENDERS)
        return f"genai-prices {_version()}", price_lists.installed()
    except (OSError, price_file.Unacceptable) as error:
        raise CommandError(f"Nothing was changed. {error}") from error


def _version() -> str:
    from importlib.metadata import version

    return version("genai-prices")
