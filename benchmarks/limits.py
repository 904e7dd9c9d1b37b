"""What limits cost: calls under every limit beside calls under none, in one run: ``benchmarks/limits.py --help``.

How to read it is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import servers
from databases import PostgreSQL, SQLite
from measure import Relay, check_answer, small_calls

GOAL = 1.10  # times the CPU of a call without limits
# So high that none is reached: a refusal would cost less than a call.
LIMITS = {
    "--max-requests": "1000000000",
    "--max-concurrency": "1000",
    "--max-cost": "1000000",
    "--max-cost-per-day": "900000",
    "--max-cost-per-month": "950000",
    "--max-cost-per-call": "10",
    "--requests-per-minute": "60000000",
    "--tokens-per-minute": "60000000",
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="of each run (default 2)")
    parser.add_argument("--rounds", type=int, default=15, help="each measures both once, in turns (default 15)")
    parser.add_argument("--postgres", metavar="URL", help="also on PostgreSQL: a server here, a role that may create")
    parser.add_argument("--check", action="store_true", help="exit 1 where limits cost more than the goal")
    return parser.parse_args()


def _measure(name: str, database: SQLite | PostgreSQL, folder: Path, options: argparse.Namespace) -> float:
    """Both kinds of calls take turns on the same server. Prints a line; returns the median of the rounds' ratios."""
    with ExitStack() as stack:
        stack.callback(database.drop)
        nginx = servers.Nginx(folder / f"nginx-{name}")
        stack.callback(nginx.stop)
        paced = servers.Paced(folder, 0.1)
        stack.callback(paced.stop)
        instance = servers.AIPassport(folder / name, database.url, nginx, paced)
        limits = [word for limit in LIMITS.items() for word in limit]
        tokens = {"none": instance.small_token, "all": instance.token(f"{nginx.url}/v1", *limits)}
        process = instance.start()
        stack.callback(process.stop)
        path = "/proxy/v1/chat/completions"
        relays = [Relay(limits, lambda: process, path, path, tokens[limits], "", database.cpu) for limits in tokens]
        for relay in relays:
            relay.up()
            check_answer(relay)
            small_calls(relay, nginx, 2)
            relay.calls.clear()
        for number in range(options.rounds):
            print(f"{name}, round {number + 1}", file=sys.stderr, flush=True)
            for relay in relays if number % 2 else relays[::-1]:
                small_calls(relay, nginx, options.seconds)
    return _said(name, *relays)


def _said(name: str, without: Relay, with_: Relay) -> float:
    ratios = [mine.cpu_ms / floor.cpu_ms for mine, floor in zip(with_.calls, without.calls, strict=True)]
    values = [median([run.cpu_ms for run in relay.calls]) for relay in (without, with_)]
    databases = [median([run.database_cpu_ms for run in relay.calls]) for relay in (without, with_)]
    bad = sum(run.bad for relay in (without, with_) for run in relay.calls)
    print(
        f"| {name:<10} | {values[0]:10.3f} | {values[1]:10.3f} | {databases[0]:13.3f} | {databases[1]:13.3f} "
        f"| {median(ratios):5.2f} | {min(ratios):.2f}–{max(ratios):.2f} | {bad:6} |"
    )
    return median(ratios)


def main() -> None:
    options = _options()
    servers.need("nginx", "wrk")
    with tempfile.TemporaryDirectory(prefix="aipassport-bench-") as name:
        folder = Path(name)
        print("| CPU, ms    | no limits  | all limits | … database    | … database    | ratio | rounds    | errors |")
        print("| ---------- | ---------- | ---------- | ------------- | ------------- | ----- | --------- | ------ |")
        ratios = [_measure("SQLite", SQLite(folder), folder, options)]
        if options.postgres:
            ratios.append(_measure("PostgreSQL", PostgreSQL(options.postgres), folder, options))
    if options.check and max(ratios) > GOAL:
        sys.exit(f"All limits cost more than {GOAL} times a call without any.")


if __name__ == "__main__":
    main()
