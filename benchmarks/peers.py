"""Measure AIPassport beside its peers, in one run: ``.venv/bin/python benchmarks/peers.py --help``.

Installs LiteLLM and Portkey where they are missing, starts them beside AIPassport, the bare relay and nginx in front of
the same upstreams, and prints one table. What is counted, and how to read it, is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import peer_install
import peer_load
import peer_servers
import psycopg
import servers
from databases import PostgreSQL, SQLite
from peer_goals import goals
from peer_install import UnavailableError
from peer_servers import FailedError, Peer, Upstreams
from peer_table import markdown, table

_NAMES = ("nginx", "bare", "sqlite", "postgres", "portkey", "litellm")
_HELD_PAUSE = 1.0  # seconds between two chunks of a stream that is held open


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="of each run of calls, warm-up too (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="each measures every peer once (default 3)")
    parser.add_argument("--streams", type=int, default=300, help="opened at once (default 300)")
    parser.add_argument("--chunks", type=int, default=25, help="of each of these streams (default 25)")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two chunks (default 0.2)")
    parser.add_argument("--singles", type=int, default=50, help="single streams for the first chunk (default 50)")
    parser.add_argument("--hold", type=int, default=1000, help="slow streams opened at once and held (default 1000)")
    parser.add_argument("--hold-seconds", type=int, default=30, help="how long each of them lasts (default 30)")
    parser.add_argument("--postgres", metavar="URL", help="also on PostgreSQL: a server here, a role that may create")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(_NAMES)}; the ratios need bare")
    parser.add_argument(
        "--peers", type=Path, default=peer_install.FOLDER, help="where peers are installed (build/peers)"
    )
    parser.add_argument("--offline", action="store_true", help="install nothing; leave out what is not installed")
    parser.add_argument("--install-only", action="store_true", help="install the peers and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every run there: for chart.py and --from")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="measure nothing: the table of that run"
    )
    parser.add_argument("--markdown", action="store_true", help="the table with date, machine and versions")
    parser.add_argument("--check", action="store_true", help="also print the goals; exit 1 where one is missed")
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else set(_NAMES)
    if unknown := wanted - set(_NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    options.only = [name for name in _NAMES if name in wanted]
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Who takes part


def _peers(options: argparse.Namespace, folder: Path, upstreams: Upstreams, stack: ExitStack) -> list[Peer]:
    """In the table's order. A peer that cannot be had is in it too, and says why."""
    makers: dict[str, Callable[[], Peer]] = {
        "nginx": lambda: peer_servers.nginx_floor(folder, upstreams),
        "bare": lambda: peer_servers.bare(folder, upstreams),
        "sqlite": lambda: _aipassport(SQLite(folder), folder, upstreams, stack),
        "postgres": lambda: _aipassport(PostgreSQL(options.postgres), folder, upstreams, stack),
        "portkey": lambda: peer_servers.portkey(folder, upstreams, _portkey(options)),
        "litellm": lambda: peer_servers.litellm(folder, upstreams, _litellm(options)),
    }
    names = {"sqlite": "AIPassport, SQLite", "portkey": "Portkey", "litellm": "LiteLLM"}
    found = []
    for name in options.only:
        if name == "postgres" and not options.postgres:
            continue
        try:
            peer = makers[name]()
        except UnavailableError as error:
            peer = Peer(names.get(name, name), _never, {}, absent=f"not measured: {error}")
        stack.callback(peer.down)
        found.append(peer)
    return found


def _never(_: str) -> servers.Process:
    raise AssertionError("a peer that is not there is not started")


def _aipassport(database: SQLite | PostgreSQL, folder: Path, upstreams: Upstreams, stack: ExitStack) -> Peer:
    stack.callback(database.drop)
    _say(f"setting up AIPassport on {type(database).__name__}")
    return peer_servers.aipassport(folder, upstreams, database)


def _litellm(options: argparse.Namespace) -> Path:
    return peer_install.litellm(options.peers, offline=options.offline)


def _portkey(options: argparse.Namespace) -> Path:
    return peer_install.portkey(options.peers, offline=options.offline)


def _installed(install: Callable[[argparse.Namespace], Path], options: argparse.Namespace) -> bool:
    try:
        _say(str(install(options)))
    except UnavailableError as error:
        _say(str(error))
        return False
    return True


# The order of the runs


@contextmanager
def _noted(peer: Peer, what: str) -> Iterator[None]:
    """A peer that fails is said so in the table; the others are measured all the same."""
    _say(f"{what}: {peer.name}")
    try:
        yield
    except FailedError as error:
        _say(f"  {error}")
        peer.faults.append(f"{what}: {error}")


def _measure(options: argparse.Namespace, peers: list[Peer], upstreams: Upstreams) -> list[float]:
    """Returns the milliseconds of the first chunk without any peer."""
    for number in range(1, options.rounds + 1):
        for peer in _in_turn(peers, number):
            with _noted(peer, f"streams, round {number}"), _started(peer, "paced"):
                sizes = (options.streams, options.chunks)
                peer.bursts.append(peer_load.burst(peer, "paced", upstreams.paced, *sizes)[0])
    for peer in peers if options.hold else []:
        with _noted(peer, "streams held open"), _started(peer, "held"):
            chunks = max(1, int(options.hold_seconds / _HELD_PAUSE))
            peer.held = peer_load.hold(peer, upstreams.held, options.hold, chunks)
    for peer in peers:
        with _noted(peer, "starting"):
            peer.up()
    running = [peer for peer in peers if peer.process is not None]
    _say("single streams")
    direct = peer_load.first_chunks(running, upstreams.paced, options.singles)
    for number in range(options.rounds + 1):
        for peer in _in_turn(running, number):
            for kind, found in peer.calls.items():
                with _noted(peer, f"{kind} calls, {f'round {number}' if number else 'warm-up'}"):
                    run = peer_load.calls(peer, kind, upstreams.small, options.seconds)
                    found += [run] if number else []
    return direct


def _in_turn(peers: list[Peer], number: int) -> list[Peer]:
    return peers if number % 2 else peers[::-1]


@contextmanager
def _started(peer: Peer, upstream: str) -> Iterator[None]:
    peer.up(upstream)
    try:
        yield
    finally:
        peer.down()


# What was found


def _document(options: argparse.Namespace, peers: list[Peer], direct: list[float]) -> dict[str, Any]:
    """Everything that the table and the chart are made of; nothing of this machine but its size."""
    names = ("seconds", "rounds", "streams", "chunks", "pause", "singles", "hold", "hold_seconds")
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "options": {name: getattr(options, name) for name in names},
        "versions": _versions(options),
        "direct_first_chunk_ms": direct,
        "peers": [_as_json(peer) for peer in peers],
    }


def _as_json(peer: Peer) -> dict[str, Any]:
    rows, left = peer.ledger() if peer.ledger else (None, None)
    return {
        "name": peer.name,
        "absent": peer.absent,
        "processes": peer.processes,
        "rewrites": peer.rewrites,
        "calls": {kind: [asdict(run) for run in runs] for kind, runs in peer.calls.items()},
        "bursts": [asdict(run) for run in peer.bursts],
        "first_chunk_ms": peer.first_chunks,
        "held": peer.held,
        "without_row": None if rows is None else max(0, peer.forwarded - rows),
        "left_open": left,
        "faults": peer.faults,
    }


def _versions(options: argparse.Namespace) -> dict[str, str]:
    found = {"Python": sys.version.split()[0]}
    found |= {name: metadata.version(name) for name in ("gunicorn", "gevent", "requests", "Django")}
    found["nginx"] = _output("nginx", "-v").rpartition("/")[2]
    if "portkey" in options.only:
        found |= {"Portkey": peer_install.version("Portkey"), "Node": _output("node", "--version").lstrip("v")}
    if "litellm" in options.only:
        found["LiteLLM"] = peer_install.version("LiteLLM")
    if options.postgres and "postgres" in options.only:
        with psycopg.connect(options.postgres) as connection:
            found["PostgreSQL"] = str(connection.info.server_version // 10000)
    return {name: version for name, version in found.items() if version}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip().split(" (")[0]


def _run(options: argparse.Namespace) -> dict[str, Any]:
    servers.need("nginx", "wrk")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two sockets a stream; the servers inherit it
    with tempfile.TemporaryDirectory(prefix="aipassport-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        starters: list[Callable[[], Any]] = [
            partial(servers.Nginx, folder / "nginx"),
            partial(servers.Paced, folder, options.pause),
            partial(servers.Paced, folder, _HELD_PAUSE),
        ]
        upstreams = []
        for start in starters:
            upstreams.append(start())
            stack.callback(upstreams[-1].stop)
        peers = _peers(options, folder, Upstreams(*upstreams), stack)
        direct = _measure(options, [peer for peer in peers if not peer.absent], Upstreams(*upstreams))
        return _document(options, peers, direct)


def main() -> None:
    options = _options()
    if options.install_only:
        done = [_installed(install, options) for install in (_litellm, _portkey)]
        sys.exit(not all(done))
    document = json.loads(options.source.read_text()) if options.source else _run(options)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(markdown(document) if options.markdown else table(document))
    if options.check:
        judged = list(goals(document))
        print("\n".join(["", *map(str, judged)]))
        sys.exit(any(goal.missed for goal in judged))


if __name__ == "__main__":
    main()
