"""Minutes at full load with every way in which a call can go: is anything left behind? ``benchmarks/soak.py --help``.

How to read it is in ``benchmarks/README.md``. Exit code 1 where a verdict is no.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import servers
from databases import PostgreSQL, SQLite
from owners import Owner
from soak_load import Load
from soak_samples import Probe, Sample
from soak_verdicts import Found, Verdict, judge

PAUSE = 0.05  # seconds between two chunks
_WARM_UP = 3.0  # seconds of the load before anything is compared: what a process makes once is no leak
_SETTLE = 20.0  # seconds, at most
_PUBLISHED = 1.5  # seconds until workers have written their metrics down
_LEDGER = "SELECT model, outcome, count(*) FROM grants_call GROUP BY model, outcome"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of load (default 600)")
    parser.add_argument("--every", type=float, default=5, help="seconds from one sample to the next (default 5)")
    parser.add_argument("--grants", type=int, default=200, help="that the calls are spread over (default 200)")
    parser.add_argument(
        "--postgres", metavar="URL", help="on PostgreSQL instead: a server here, a role that may create"
    )
    parser.add_argument("--json", action="store_true", help="print every sample as JSON instead of the table")
    return parser.parse_args()


# The run


async def _loaded(load: Load, probe: Probe, found: Found, options: argparse.Namespace) -> None:
    """The load, and a sample now and then."""
    running = asyncio.create_task(load.run())
    await asyncio.sleep(min(_WARM_UP, options.seconds / 4))
    began, calls = time.monotonic(), load.saw.total()
    last = 0.0
    while last < options.seconds and not running.done():
        await asyncio.wait([running], timeout=min(options.every, max(0.1, options.seconds - last)))
        now = time.monotonic() - began
        sample = await asyncio.to_thread(probe.sample)
        sample["calls a second"] = (load.saw.total() - calls) / (now - last)
        last, calls = now, load.saw.total()
        found.times.append(now)
        found.samples.append(sample)
        print(f"{now:5.0f} s: {load.saw.total()} calls, {load.wrong.total()} wrong", file=sys.stderr, flush=True)
    load.over = True
    await running


def _settled(load: Load, probe: Probe) -> tuple[Sample, Any]:
    """A sample, and what the upstream says, once nothing is under way any more or the patience is over."""
    deadline = time.monotonic() + _SETTLE
    while True:
        sample, upstream = probe.sample(), asyncio.run(load.at_upstream())
        under_way = sum(value for name, value in sample.items() if name.endswith(("from clients", "open calls")))
        if not (under_way or upstream["busy"]) or time.monotonic() > deadline:
            time.sleep(_PUBLISHED)
            return probe.sample(), asyncio.run(load.at_upstream())
        time.sleep(0.5)


def _metrics(url: str, token: str) -> tuple[Counter[str], Counter[str]]:
    """By name, summed over the labels; and calls that ended, by outcome."""
    request = urllib.request.Request(f"{url}/metrics", headers={"authorization": f"Bearer {token}"})
    sums, ended = Counter[str](), Counter[str]()
    with urllib.request.urlopen(request, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("#"):
                continue
            name, _, value = line.rpartition(" ")
            sums[name.partition("{")[0]] += float(value)  # type: ignore[assignment]
            if name.startswith("aipassport_calls_total"):
                ended[re.findall(r'outcome="(\w+)"', name)[0]] += int(float(value))
    return sums, ended


def _errors(log: Path) -> Counter[str]:
    """What a server has written of faults; that a provider's 500 goes through, Django says as an error, and is none."""
    fault, found = re.compile(r"Traceback|ERROR (?!django\.request)|CRITICAL"), Counter[str]()
    with log.open(errors="replace") as lines:
        for line in lines:
            if at := fault.search(line):
                found[line[at.start() :].strip()[:200]] += 1
    return found


def _reconciled(instance: servers.AIPassport) -> str:
    command = [sys.executable, "manage.py", "reconcile"]
    done = subprocess.run(command, cwd=servers.ROOT, env=instance.env, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip() if done.returncode else ""


def soak(database: SQLite | PostgreSQL, folder: Path, options: argparse.Namespace) -> Found:
    with ExitStack() as stack:
        stack.callback(database.drop)
        upstream = servers.Paced(folder, PAUSE, "soak_upstream.py")
        stack.callback(upstream.stop)
        price = "soak-*:input=1,output=10"
        instance = servers.AIPassport(folder / "instance", database.url, upstream, upstream, price=price)
        instance.env["AIPASSPORT_METRICS_TOKEN"] = metrics_token = secrets.token_urlsafe(24)
        process = instance.start()
        stack.callback(process.stop)
        password = instance.env["DJANGO_SUPERUSER_PASSWORD"]
        key = instance.key(f"{upstream.url}/v1")
        load = Load(process.port, upstream, lambda: Owner(process.url, "bench", password), key)
        load.prepare(options.grants, options.seconds)
        probe = Probe(process, upstream.port, database)
        found = Found("postgresql" if options.postgres else "sqlite", before=probe.sample())
        asyncio.run(_loaded(load, probe, found, options))
        found.after, found.upstream = _settled(load, probe)
        found.saw, found.refused, found.wrong = load.saw, load.refused, load.wrong
        found.at_once = load.at_once
        found.owner_reads = load.owner_reads
        found.metrics, found.ended = _metrics(process.url, metrics_token)
        found.ledger = Counter({(model, outcome): count for model, outcome, count in database.query(_LEDGER)})
        found.reconciled = _reconciled(instance)
        found.workers_died = sorted(process.workers()) != probe.workers
        found.logged = _errors(instance.log)
    return found


# What is printed


def _table(found: Found, verdicts: list[Verdict]) -> str:
    middle = found.samples[len(found.samples) // 2]
    lines = ["|  | before | first | middle | last | highest | after |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name in found.samples[0]:
        highest = {name: max(one[name] for one in found.samples)}
        columns = (found.before, found.samples[0], middle, found.samples[-1], highest, found.after)
        cells = [f"{one[name]:.{1 if 'MB' in name else 0}f}" if name in one else "" for one in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| calls | outcome | client | ledger | upstream |", "| --- | --- | --- | --- | --- |"]
    for model, outcome in sorted(found.ledger.keys() | found.saw.keys()):
        at = model, outcome
        counts = found.saw[at], found.ledger[at], found.upstream["calls"].get(model, 0)
        lines.append(f"| {model} | {outcome} | {' | '.join(str(count) for count in counts)} |")
    lines += [f"| refused | {status} | {count} | | |" for status, count in sorted(found.refused.items())]
    lines += ["", "| | found | kept |", "| --- | --- | --- |"]
    lines += [f"| {one.says} | {one.found} | {_word(one)} |" for one in verdicts]
    return "\n".join(lines)


def _word(verdict: Verdict) -> str:
    return {True: "yes", False: "NO", None: "not judged"}[verdict.kept]


def _json(found: Found, verdicts: list[Verdict]) -> str:
    pairs = ("saw", "ledger")
    data = {name: value for name, value in vars(found).items() if name not in pairs}
    for name in pairs:
        data[name] = {" ".join(key): count for key, count in getattr(found, name).items()}
    data["verdicts"] = [{"says": one.says, "found": one.found, "kept": one.kept} for one in verdicts]
    return json.dumps(data, indent=1)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="aipassport-soak-") as name:
        folder = Path(name)
        database = PostgreSQL(options.postgres) if options.postgres else SQLite(folder)
        found = soak(database, folder, options)
    verdicts = judge(found)
    print(_json(found, verdicts) if options.json else _table(found, verdicts))
    if broken := [one for one in verdicts if one.kept is False]:
        sys.exit("Not kept: " + "; ".join(f"{one.says} ({one.found})" for one in broken))


if __name__ == "__main__":
    main()
