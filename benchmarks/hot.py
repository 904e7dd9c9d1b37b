"""How many calls one grant carries, and how many a thousand do: ``benchmarks/hot.py --help``.

Policy, admission and settlement alone, by gevent processes as the relay's workers are, with every limit set. How to
read it is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import servers
from databases import PostgreSQL, SQLite
from owners import EVERY_LIMIT, Grants, Owner


class Run(NamedTuple):
    """Of all processes together; milliseconds."""

    calls_a_second: float
    p50: float
    p99: float
    own: float  # CPU a call
    database: float  # CPU a call of the database server's


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grants", type=int, nargs="+", default=[1, 1000], help="in use (default 1 1000)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16, 32], help="a worker (default 1 4 16 32)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--seconds", type=float, default=4, help="of each run (default 4)")
    parser.add_argument(
        "--postgres", metavar="URL", help="on PostgreSQL instead: a server here, a role that may create"
    )
    return parser.parse_args()


def _tokens(instance: servers.AIPassport, upstream: servers.Process, count: int) -> list[str]:
    """One for each grant."""
    process = instance.start()
    try:
        owner = Owner(process.url, "bench", instance.env["DJANGO_SUPERUSER_PASSWORD"])
        grants = Grants(owner, instance.key(f"{upstream.url}/v1"), 0)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda _: grants.issue(**EVERY_LIMIT)[1], range(count)))
    finally:
        process.stop()


def _run(
    instance: servers.AIPassport, database: SQLite | PostgreSQL, tokens: Path, callers: int, options: argparse.Namespace
) -> Run:
    """All processes begin at the same word, and tell what each call took."""
    command = [sys.executable, str(servers.HERE / "hot_callers.py"), str(tokens), str(callers), str(options.seconds)]
    env = instance.env | {"PYTHONPATH": str(servers.ROOT)}
    pipe: Any = subprocess.PIPE
    processes = [
        subprocess.Popen(command, cwd=servers.ROOT, env=env, stdin=pipe, stdout=pipe, text=True)
        for _ in range(options.workers)
    ]
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
            process.stdout.readline()  # ready
        before = database.cpu()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [json.loads(process.stdout.readline()) for process in processes]
        after = database.cpu()
    took = sorted(one for each in told for one in each["took"])
    calls = len(took)
    own = sum(each["cpu"] for each in told)
    p50, p99 = took[calls // 2] * 1e3, took[calls * 99 // 100] * 1e3
    return Run(calls / options.seconds, p50, p99, own / calls * 1e3, (after - before) / calls * 1e3)


def main() -> None:
    options = _options()
    print(
        f"| {options.workers} workers, callers each | grants | calls/s | p50, ms | p99, ms | CPU, ms | … database's |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="aipassport-hot-") as name, ExitStack() as stack:
        folder = Path(name)
        database = PostgreSQL(options.postgres) if options.postgres else SQLite(folder)
        stack.callback(database.drop)
        upstream = servers.Paced(folder, 0.1)
        stack.callback(upstream.stop)
        instance = servers.AIPassport(folder / "instance", database.url, upstream, upstream)
        tokens = _tokens(instance, upstream, max(options.grants))
        for callers in options.callers:
            for grants in options.grants:
                file = folder / f"tokens-{grants}"
                file.write_text(json.dumps(tokens[:grants]))
                run = _run(instance, database, file, callers, options)
                cells = f"{run.calls_a_second:.0f} | {run.p50:.1f} | {run.p99:.1f} | {run.own:.2f} | {run.database:.2f}"
                print(f"| {callers} | {grants} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
