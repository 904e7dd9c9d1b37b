"""Measure the relay beside a bare gunicorn relay, in one run: ``.venv/bin/python benchmarks/relay.py --help``.

What is counted, and how to read it, is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import servers
from databases import PostgreSQL, SQLite
from measure import Relay, as_json, burst, check_answer, first_chunks, small_calls

CPU_GOAL = 2.6  # times the bare relay
FIRST_CHUNK_GOAL = 3.0  # ms later than direct
MEMORY_GOAL = 100.0  # kB an open stream


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="of each run of small calls (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="each measures every variant once (default 3)")
    parser.add_argument("--streams", type=int, default=300, help="opened at once (default 300)")
    parser.add_argument("--chunks", type=int, default=25, help="of each of these streams (default 25)")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two chunks (default 0.2)")
    parser.add_argument("--singles", type=int, default=50, help="single streams for the first chunk (default 50)")
    parser.add_argument("--postgres", metavar="URL", help="also on PostgreSQL: a server here, a role that may create")
    parser.add_argument("--bare-only", action="store_true", help="only the floor: is this machine quiet?")
    parser.add_argument("--json", action="store_true", help="every run as one JSON object instead of the table")
    parser.add_argument("--check", action="store_true", help="exit 1 where AIPassport on SQLite misses a goal")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Bench:
    """The upstreams, the variants (the floor first), and what was found."""

    nginx: servers.Nginx
    paced: servers.Paced
    relays: list[Relay]
    ledgers: dict[str, Callable[[], tuple[int, int]]]
    direct_ms: list[float]

    def run(self, options: argparse.Namespace) -> None:
        for number in range(1, options.rounds + 1):
            for relay in self.relays:
                _say(f"streams, round {number}: {relay.name}")
                relay.up()
                burst(relay, self.paced, options.streams, options.chunks)
                relay.down()
        for relay in self.relays:
            relay.up()
            check_answer(relay)
            relay.forwarded += 1
        _say("single streams")
        self.direct_ms = first_chunks(self.relays, self.paced, options.singles)
        for number in range(options.rounds + 1):
            for relay in self.relays:
                _say(f"small calls, {f'round {number}' if number else 'warm-up'}: {relay.name}")
                small_calls(relay, self.nginx, options.seconds if number else 2)
                if not number:
                    relay.calls.clear()


def _set_up(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Bench:
    nginx = servers.Nginx(folder / "nginx")
    stack.callback(nginx.stop)
    paced = servers.Paced(folder, options.pause)
    stack.callback(paced.stop)
    paths = ("/small/chat/completions", "/paced/chat/completions")
    relays = [Relay("bare", lambda: servers.bare(folder, nginx, paced), *paths, "none", "none")]
    ledgers = {}
    databases: list[tuple[str, SQLite | PostgreSQL]] = []
    if not options.bare_only:
        databases.append(("SQLite", SQLite(folder)))
        if options.postgres:
            databases.append(("PostgreSQL", PostgreSQL(options.postgres)))
    for name, database in databases:
        stack.callback(database.drop)
        _say(f"setting up AIPassport on {name}")
        instance = servers.AIPassport(folder / name, database.url, nginx, paced)
        tokens = (instance.small_token, instance.paced_token)
        paths = ("/proxy/v1/chat/completions",) * 2
        relays.append(Relay(name, instance.start, *paths, *tokens, database.cpu))
        ledgers[name] = database.ledger
    for relay in relays:
        stack.callback(relay.down)
    return Bench(nginx, paced, relays, ledgers, [])


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a value for each relay, and for some a goal that all but the floor should keep."""

    what: str
    values: list[str]
    goal: str = ""
    kept: list[bool] | None = None


def _over(values: list[float]) -> float:
    return median(values) if values else float("nan")


def _rows(bench: Bench) -> Iterator[Row]:
    relays, floor = bench.relays, bench.relays[0]

    def of_calls(name: str, form: str) -> list[str]:
        return [form % _over([getattr(run, name) for run in relay.calls]) for relay in relays]

    def of_bursts(name: str, form: str) -> list[str]:
        return [form % _over([getattr(run, name) for run in relay.bursts]) for relay in relays]

    ratios = [
        _over([mine.cpu_ms / bare.cpu_ms for mine, bare in zip(relay.calls, floor.calls, strict=True)])
        for relay in relays
    ]
    direct = _over(bench.direct_ms)
    later = [_over(relay.first_chunks) - direct for relay in relays]
    errors = [sum(sum(run.errors.values()) for run in relay.bursts) for relay in relays]
    lost = [sum(run.lost for run in relay.bursts) for relay in relays]
    memory = [max(run.memory for run in relay.bursts) / 1000 for relay in relays]
    bad = [sum(run.bad for run in relay.calls) for relay in relays]

    yield Row("CPU per call, ms", of_calls("cpu_ms", "%.3f"))
    yield Row("… of it the database server", of_calls("database_cpu_ms", "%.3f"))
    yield Row("CPU per call, × bare", [f"{x:.2f}" for x in ratios], f"≤ {CPU_GOAL}", [x <= CPU_GOAL for x in ratios])
    yield Row("calls per second", of_calls("per_second", "%.0f"))
    yield Row("latency p50, ms", of_calls("p50_ms", "%.1f"))
    yield Row("latency p99, ms", of_calls("p99_ms", "%.1f"))
    yield Row("errors", [str(x) for x in bad], "0", [not x for x in bad])
    yield Row("workers' RSS after it, MB", [f"{_over([run.rss for run in relay.calls]) / 1e6:.0f}" for relay in relays])
    yield Row("first chunk of one stream, ms", [f"{_over(relay.first_chunks):.2f}" for relay in relays])
    yield Row(
        "… later than direct, ms",
        [f"{x:.2f}" for x in later],
        f"≤ {FIRST_CHUNK_GOAL:g}",
        [x <= FIRST_CHUNK_GOAL for x in later],
    )
    yield Row("streams at once: errors", [str(x) for x in errors], "0", [not x for x in errors])
    yield Row("… lost chunks", [str(x) for x in lost], "0", [not x for x in lost])
    yield Row("… first chunk p50, ms", of_bursts("first_p50_ms", "%.0f"))
    yield Row("… first chunk p99, ms", of_bursts("first_p99_ms", "%.0f"))
    yield Row(
        "… memory each, kB (worst round)",
        [f"{x:.0f}" for x in memory],
        f"≤ {MEMORY_GOAL:g}",
        [x <= MEMORY_GOAL for x in memory],
    )
    yield Row("… CPU each, ms", of_bursts("cpu_ms", "%.1f"))
    yield from _ledger_rows(bench)


def _ledger_rows(bench: Bench) -> Iterator[Row]:
    """Every call that reached the provider has a row, and none is left open."""
    counts = {name: ledger() for name, ledger in bench.ledgers.items()}
    if not counts:
        return
    missing = [max(0, r.forwarded - counts[r.name][0]) if r.name in counts else 0 for r in bench.relays]
    left = [counts[r.name][1] if r.name in counts else 0 for r in bench.relays]
    yield Row("calls without a ledger row", [str(x) for x in missing], "0", [not x for x in missing])
    yield Row("calls left open", [str(x) for x in left], "0", [not x for x in left])


def _table(rows: list[Row], names: list[str]) -> str:
    lines = [["", *names, "goal", "kept"]]
    lines += [[row.what, *row.values, row.goal, _kept(row)] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _missed(row: Row, column: int = 1) -> bool:
    """Whether the relay of this column, AIPassport on SQLite by default, misses this row's goal."""
    return row.kept is not None and len(row.kept) > column and not row.kept[column]


def _kept(row: Row) -> str:
    if row.kept is None or len(row.kept) < 2:
        return ""
    return "NO" if _missed(row) else "yes"


def main() -> None:
    options = _options()
    servers.need("nginx", "wrk")
    with tempfile.TemporaryDirectory(prefix="aipassport-bench-") as name, ExitStack() as stack:
        bench = _set_up(options, Path(name), stack)
        bench.run(options)
        rows = list(_rows(bench))
    if options.json:
        print(json.dumps(_document(bench, rows)))
    else:
        print(_table(rows, [relay.name for relay in bench.relays]))
    if options.check and any(_missed(row) for row in rows):
        sys.exit(1)


def _document(bench: Bench, rows: list[Row]) -> dict[str, Any]:
    return {
        "direct_first_chunk_ms": bench.direct_ms,
        "relays": {relay.name: as_json(relay) for relay in bench.relays},
        "table": [{"what": row.what, "values": row.values, "goal": row.goal, "kept": row.kept} for row in rows],
    }


if __name__ == "__main__":
    main()
