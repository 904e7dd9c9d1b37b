"""What a call costs as the installation grows: ten grants, 100,000, and millions of calls in the ledger.

``benchmarks/growth.py --help``. How to read it is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from urllib.error import HTTPError

import servers
from databases import PostgreSQL, SQLite
from ledger_rows import HEAVY_GRANTS
from measure import Relay, check_answer, small_calls
from owners import Owner

GOAL = 1.10  # times the CPU of a call on a small installation
_PATH = "/proxy/v1/chat/completions"
_PAGE_TIMES = 5
PATIENCE = 20.0  # seconds for one page
# All grants become those of one owner, for the lists.
_GIVE = """
from django.contrib.auth import get_user_model
from grants.models import Grant, ProviderKey
owner = get_user_model().objects.get(username="owner0")
for number, key in enumerate(ProviderKey.objects.exclude(owner=owner)):
    ProviderKey.objects.filter(pk=key.pk).update(owner=owner, label=f"Given {number}")
Grant.objects.update(owner=owner)
"""


@dataclass
class Size:
    """One installation. ``before``: rows of its ledger when it was written."""

    name: str
    grants: int
    calls: int
    database: SQLite | PostgreSQL
    instance: servers.AIPassport
    relay: Relay
    password: str = field(repr=False)
    before: int = 0
    beside: dict[str, list[float]] = field(default_factory=dict)  # what else was timed, ms


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=10, help="grants of the small one (default 10)")
    parser.add_argument("--grants", type=int, default=100_000, help="of the grown ones (default 100000)")
    parser.add_argument("--calls", type=int, default=5_000_000, help="in the ledger of the third (default 5000000)")
    parser.add_argument("--tokens", type=int, default=500, help="that the calls take turns with (default 500)")
    parser.add_argument("--seconds", type=int, default=3, help="of each run (default 3)")
    parser.add_argument("--rounds", type=int, default=9, help="each measures all three once (default 9)")
    parser.add_argument("--postgres", metavar="URL", help="on PostgreSQL instead: a server here, a superuser's role")
    parser.add_argument("--json", metavar="FILE", type=Path, help="every run, too")
    parser.add_argument("--check", action="store_true", help="exit 1 where a call costs more than the goal")
    options = parser.parse_args()
    if options.grants < HEAVY_GRANTS:
        parser.error(f"--grants: at least {HEAVY_GRANTS}, those that are busy")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The installations


def _program(instance: servers.AIPassport, name: str, *arguments: str, secret: str = "") -> str:
    """Run one of the programs here with the instance's settings. Returns what it printed."""
    command = [sys.executable, str(servers.HERE / name), *arguments]
    done = subprocess.run(command, cwd=servers.ROOT, env=instance.env, input=secret, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return done.stdout


def _set_up(
    name: str, grants: int, calls: int, options: argparse.Namespace, folder: Path, nginx: servers.Nginx
) -> Size:
    folder.mkdir()
    database = PostgreSQL(options.postgres, f"_{grants}_{calls}") if options.postgres else SQLite(folder)
    began = time.perf_counter()
    try:
        instance = servers.AIPassport(folder / "instance", database.url, nginx, nginx)
        password = secrets.token_urlsafe(16)
        numbers = {"--grants": grants, "--calls": calls, "--tokens": options.tokens, "--upstream": f"{nginx.url}/v1"}
        words = [str(word) for pair in numbers.items() for word in pair]
        tokens = _program(instance, "growth_rows.py", *words, secret=password)
    except BaseException:
        database.drop()
        raise
    file = folder / "tokens"
    file.touch(0o600)
    file.write_text(tokens)
    relay = Relay(name, instance.start, _PATH, _PATH, tokens.split()[0], "", database.cpu, small_tokens=file)
    _say(f"{name}: written in {time.perf_counter() - began:.0f} s")
    return Size(name, grants, calls, database, instance, relay, password, database.ledger()[0])


def _sizes(options: argparse.Namespace, folder: Path, nginx: servers.Nginx, stack: ExitStack) -> list[Size]:
    wanted = [
        (f"{options.few:,} grants", options.few, 0),
        (f"{options.grants:,} grants", options.grants, 0),
        (f"and {options.calls:,} calls", options.grants, options.calls),
    ]
    sizes = []
    for number, (name, grants, calls) in enumerate(wanted):
        size = _set_up(name, grants, calls, options, folder / str(number), nginx)
        stack.callback(size.database.drop)
        sizes.append(size)
    return sizes


# Calls


def _calls(sizes: list[Size], nginx: servers.Nginx, options: argparse.Namespace) -> None:
    """All servers stand beside each other, and are measured in turns."""
    for size in sizes:
        size.relay.up()
        check_answer(size.relay)
        size.relay.forwarded += 1
        small_calls(size.relay, nginx, 3)  # each token once, too, where there are not too many
        size.relay.calls.clear()
    for number in range(options.rounds):
        _say(f"round {number + 1}")
        for size in sizes if number % 2 == 0 else sizes[::-1]:
            small_calls(size.relay, nginx, options.seconds)


def _ratios(size: Size, first: Size) -> list[float]:
    return [mine.cpu_ms / floor.cpu_ms for mine, floor in zip(size.relay.calls, first.relay.calls, strict=True)]


# What else runs with the rows


def _took(act: Callable[[], None]) -> list[float]:
    """What it took several times, after one that reads pages and warms code, in ms; nothing where it took too long."""
    took: list[float] = []
    end = time.perf_counter() + PATIENCE
    while len(took) <= _PAGE_TIMES and time.perf_counter() < end:
        began = time.perf_counter()
        try:
            act()
        except OSError as error:  # urllib's are, and timeouts
            if isinstance(error, HTTPError):
                sys.exit(f"{error.url}: {error.code}")
            return []
        took.append((time.perf_counter() - began) * 1e3)
    return took[1:] or took


def _pages(owner: Owner, last: int) -> dict[str, Callable[[], None]]:
    grant = "00000000-0000-0000-0000-000000000007"
    return {
        "API: grants": owner.api("grants/"),
        "API: grants, 200 on a page": owner.api("grants/?page_size=200"),
        "desk: grants": owner.desk("grants/grant/"),
        "desk: grants, last page": owner.desk(f"grants/grant/?p={last}"),
        "desk: grants, live": owner.desk("grants/grant/?status=live"),
        "desk: grants, expired": owner.desk("grants/grant/?status=expired"),
        "desk: grants, by name": owner.desk("grants/grant/?q=App+7"),
        "desk: grants, by what was spent": owner.desk("grants/grant/?o=6"),
        "desk: one grant": owner.desk(f"grants/grant/{grant}/change/"),
        "API: totals": owner.api("totals/?by=model"),
        "desk: spending": owner.desk("grants/dailytotal/"),
        "desk: overview": owner.desk(""),
        "API: calls": owner.api("calls/"),
        "desk: calls": owner.desk("grants/call/"),
    }


def _beside(size: Size) -> None:
    """The tickers' statements, then the pages of an owner who has all the grants."""
    _say(f"beside the calls: {size.name}")
    size.beside |= json.loads(_program(size.instance, "growth_probe.py"))
    size.instance.manage("shell", "-c", _GIVE)
    socket.setdefaulttimeout(PATIENCE)
    owner = Owner(size.relay.running.url, "owner0", size.password)
    for name, act in _pages(owner, max(1, size.grants // 50)).items():
        size.beside[name] = _took(act)


# What was found


def _table(heads: list[str], lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in [heads, *lines]) for column in range(len(heads))]
    rows = [heads, ["-" * width for width in widths], *lines]
    return "\n".join(
        f"| {' | '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])} |" for row in rows
    )


def _of_calls(sizes: list[Size]) -> Iterator[list[str]]:
    def medians(name: str, form: str) -> list[str]:
        return [form % median([getattr(run, name) for run in size.relay.calls]) for size in sizes] + ["", ""]

    ratios = [_ratios(size, sizes[0]) for size in sizes]
    kept = "yes" if _kept(sizes) else "NO"
    yield ["CPU per call, ms", *medians("cpu_ms", "%.3f")]
    yield ["… of it the database server", *medians("database_cpu_ms", "%.3f")]
    yield ["CPU per call, × the first", *(f"{median(found):.2f}" for found in ratios), f"≤ {GOAL:.2f}", kept]
    yield ["… single rounds", *(f"{min(found):.2f}–{max(found):.2f}" for found in ratios), "", ""]
    yield ["calls per second", *medians("per_second", "%.0f")]
    yield ["latency p50, ms", *medians("p50_ms", "%.1f")]
    yield ["latency p99, ms", *medians("p99_ms", "%.1f")]
    for name, found in _faults(sizes).items():
        yield [name, *map(str, found), "0", "NO" if any(found) else "yes"]


def _faults(sizes: list[Size]) -> dict[str, list[int]]:
    ledgers = [size.database.ledger() for size in sizes]
    return {
        "errors": [sum(run.bad for run in size.relay.calls) for size in sizes],
        "calls without a ledger row": [
            max(0, size.relay.forwarded - rows + size.before) for size, (rows, _) in zip(sizes, ledgers, strict=True)
        ],
        "calls left open": [still for _, still in ledgers],
    }


def _kept(sizes: list[Size]) -> bool:
    return all(median(_ratios(size, sizes[0])) <= GOAL for size in sizes)


def _tell_beside(sizes: list[Size]) -> None:
    lines = []
    for name in sizes[0].beside:
        found = [size.beside[name] for size in sizes]
        lines.append([name, *(f"{median(took):.2f} ({max(took):.1f})" if took else "too long" for took in found)])
    print(_table(["ms: median (most)", *(size.name for size in sizes)], lines))


def _write(sizes: list[Size], file: Path) -> None:
    runs = {size.name: [asdict(run) for run in size.relay.calls] for size in sizes}
    file.write_text(json.dumps({size.name: {"calls": runs[size.name], "beside_ms": size.beside} for size in sizes}))


def main() -> None:
    options = _options()
    servers.need("nginx", "wrk")
    with tempfile.TemporaryDirectory(prefix="aipassport-bench-") as name, ExitStack() as stack:
        nginx = servers.Nginx(Path(name) / "nginx")
        stack.callback(nginx.stop)
        sizes = _sizes(options, Path(name), nginx, stack)
        for size in sizes:
            stack.callback(size.relay.down)
        _calls(sizes, nginx, options)
        names = [size.name for size in sizes]
        print(_table(["", *names, "goal", "kept"], list(_of_calls(sizes))), end="\n\n", flush=True)
        for size in sizes:
            _beside(size)
        _tell_beside(sizes)
        missed = not _kept(sizes)
    if options.json:
        _write(sizes, options.json)
    if options.check and missed:
        sys.exit("A call on a grown installation costs more than the goal.")


if __name__ == "__main__":
    main()
