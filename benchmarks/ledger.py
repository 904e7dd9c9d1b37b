"""The ledger with millions of calls: what reading it takes, and what a stream through the same process notices.

``benchmarks/ledger.py --help``. How to read it is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import servers
from databases import PostgreSQL, SQLite
from ledger_rows import DAYS
from owners import Owner
from streams import Target

PAUSE = 0.02  # seconds between two chunks
CHUNKS = 50
GOAL = 50.0  # milliseconds that a stream may be held up
EXPORTED = 100_000  # lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000_000, help="in the ledger (default 5000000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row, at least (default 3)")
    parser.add_argument(
        "--postgres", metavar="URL", help="on PostgreSQL instead: a server here, a role that may create"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where a stream was held up for longer than the goal"
    )
    return parser.parse_args()


# A stream that watches


def _gaps(target: Target, stop: Any, longest: Any) -> None:
    """One stream after the other until told to stop. ``longest``: seconds that a chunk came late, at most."""
    while not stop.is_set():
        with socket.create_connection(("127.0.0.1", target.port), 10) as sock:
            sock.sendall(target.request(CHUNKS))
            seen, last = 0, 0.0
            while data := sock.recv(65536):
                now = time.perf_counter()
                chunks = data.count(b'"content"')
                if seen and chunks:
                    longest.value = max(longest.value, now - last - PAUSE)
                if chunks:
                    seen, last = seen + chunks, now
        if seen != CHUNKS:
            longest.value = float("inf")


def watched(target: Target, seconds: float, act: Callable[[], None]) -> tuple[list[float], float]:
    """Do ``act`` again and again beside a stream. Returns what each took and how late a chunk came, in ms."""
    stop, longest = multiprocessing.Event(), multiprocessing.Value("d", 0.0)
    watcher = multiprocessing.Process(target=_gaps, args=(target, stop, longest))
    watcher.start()
    time.sleep(0.3)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        act()
        took.append((time.perf_counter() - began) * 1e3)
    stop.set()
    watcher.join()
    return took, longest.value * 1e3


def _rows(heavy: Owner, quiet: Owner) -> dict[str, Callable[[], None]]:
    """What is measured, in the server."""
    old = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=DAYS - 10)
    grant = "00000000-0000-0000-0000-000000000001"
    lists = {
        "all": "",
        "one grant": f"grant={grant}",
        "app": "app=App 2",
        "model": "model=gpt-4o-mini",
        "rare model": "model=rare-model",
        "old day": f"from={old}&to={old}",
        "outcome ok": "outcome=ok",
        "open": "outcome=open",
        "revoked": "outcome=revoked",
        "estimated": "estimated=true",
        "over the bound": "overrun=true",
        "rare model, revoked": "model=rare-model&outcome=revoked",
        "one grant, lost, estimated": f"grant={grant}&outcome=lost&estimated=true",
    }
    found = {f"calls: {name}": heavy.api(f"calls/?{query.replace(' ', '%20')}") for name, query in lists.items()}
    return found | {
        "calls: all, of a quiet owner": quiet.api("calls/"),
        "calls: revoked, of a quiet owner": quiet.api("calls/?outcome=revoked"),
        "totals by grant": heavy.api("totals/"),
        "totals by grant and model": heavy.api("totals/?by=grant,model"),
        "totals by day": heavy.api("totals/?by=day"),
        "desk: overview": heavy.desk(""),
        "desk: calls": heavy.desk("grants/call/"),
        "desk: calls, estimated": heavy.desk("grants/call/?estimated=yes"),
        "desk: spending, 12 months": heavy.desk("grants/dailytotal/?period=year"),
        f"export of {EXPORTED:,} calls": lambda: heavy.export(EXPORTED),
    }


# The run


def _command(instance: servers.AIPassport, *arguments: str) -> Callable[[], None]:
    """A command in a process of its own, as it is run in life. Stopped after five seconds."""

    def act() -> None:
        command = [sys.executable, "manage.py", *arguments]
        process = subprocess.Popen(command, cwd=servers.ROOT, env=instance.env, stdout=subprocess.DEVNULL)
        try:
            if process.wait(5):
                sys.exit(f"{arguments[0]} failed")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return act


def measure(database: SQLite | PostgreSQL, folder: Path, options: argparse.Namespace) -> float:
    """Print the table. Returns the longest that a stream was held up, in ms."""
    with ExitStack() as stack:
        stack.callback(database.drop)
        paced = servers.Paced(folder, PAUSE)
        stack.callback(paced.stop)
        instance = servers.AIPassport(folder / "instance", database.url, paced, paced, workers=1)
        password = secrets.token_urlsafe(16)
        began = time.perf_counter()
        command = [sys.executable, str(servers.HERE / "ledger_rows.py"), str(options.calls)]
        subprocess.run(command, cwd=servers.ROOT, env=instance.env, input=password, text=True, check=True)
        print(f"{options.calls:,} calls written in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        process = instance.start()
        stack.callback(process.stop)
        heavy, quiet = (Owner(process.url, name, password) for name in ("owner0", "owner5"))
        rows = {"nothing": lambda: time.sleep(0.1)} | _rows(heavy, quiet)
        rows["reconcile, one heavy grant"] = _command(instance, "reconcile", "--grant", f"{1:032x}")
        rows["purge"] = _command(instance, "purge", "--calls-older-than", "60d")
        target = Target(process.port, "/proxy/v1/chat/completions", instance.paced_token)
        worst = 0.0
        print(f"| {'':34} |  p50, ms |  max, ms | a chunk late, ms | kept |")
        print(f"| {'-' * 34} | -------- | -------- | ---------------- | ---- |")
        for name, act in rows.items():
            act()  # once, so that pages are read and code is warm
            took, late = watched(target, options.seconds, act)
            worst = max(worst, late)
            kept = "yes" if late <= GOAL else "NO"
            print(f"| {name:34} | {median(took):8.1f} | {max(took):8.1f} | {late:16.1f} | {kept:>4} |", flush=True)
    return worst


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="aipassport-bench-") as name:
        folder = Path(name)
        database = PostgreSQL(options.postgres) if options.postgres else SQLite(folder)
        worst = measure(database, folder, options)
    if options.check and worst > GOAL:
        sys.exit(f"A stream was held up for {worst:.0f} ms.")


if __name__ == "__main__":
    main()
