"""The peers as processes: how each is started in front of the same upstreams, and what it is asked."""

from __future__ import annotations

import getpass
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import servers
from databases import PostgreSQL, SQLite
from limits import LIMITS
from measure import Burst, Calls
from peer_install import PINS
from servers import Nginx, Paced, Process, free_port

WORKERS = 2
_READY = 120.0  # seconds
_QUIET = 0.1  # CPU seconds in one second: less, and a server has started
_CHAT = "chat/completions"


class FailedError(Exception):
    """A peer did not do what was measured; the message says what it did."""


@dataclass(frozen=True)
class Upstreams:
    """The same for all: fixed answers, streams, and streams of a slow pace that are held open."""

    small: Nginx
    paced: Paced
    held: Paced

    def urls(self) -> dict[str, str]:
        return {"small": f"{self.small.url}/v1", "paced": f"{self.paced.url}/v1", "held": f"{self.held.url}/v1"}


@dataclass(frozen=True, slots=True)
class Route:
    """How a peer is asked for one upstream."""

    path: str
    token: str
    model: str = "gpt-4o-mini"
    headers: Mapping[str, str] = field(default_factory=dict)


class Whole(Process):
    """A server that is running already, seen with all its descendants: some peers have no workers, some have a tree."""

    def __init__(self, process: Process) -> None:
        self.process, self.port, self.url = process.process, process.port, process.url

    def workers(self) -> list[int]:
        """Every descendant of the first process."""
        found, ask = [], [self.process.pid]
        while ask:
            pid = ask.pop()
            with suppress(FileNotFoundError, ProcessLookupError):
                ask += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            found.append(pid)
        return found[1:]

    def cpu(self) -> float:
        """CPU seconds of all processes so far; one that ended counts as its parent's."""
        return sum(usage.cpu for usage in self._usages())

    def rss(self) -> int:
        """Resident bytes of all processes, the first one too."""
        return sum(usage.rss for usage in self._usages())

    def _usages(self) -> Iterator[servers.Usage]:
        for pid in (self.process.pid, *self.workers()):
            with suppress(ProcessLookupError):
                yield servers.usage(pid)

    def settle(self) -> None:
        """Wait until it has started: some listen long before their workers have read their code."""
        deadline = time.monotonic() + _READY
        before, quiet = self.cpu(), 0
        while quiet < 2 and time.monotonic() < deadline:
            time.sleep(1)
            now = self.cpu()
            quiet = quiet + 1 if now - before < _QUIET else 0
            before = now


@dataclass
class Peer:
    """One gateway, and what was found of it. ``start`` gets the name of the upstream whose streams come next."""

    name: str
    start: Callable[[str], Process]
    routes: dict[str, Route]
    database_cpu: Callable[[], float] = lambda: 0.0
    ledger: Callable[[], tuple[int, int]] | None = None
    absent: str = ""  # why it is not measured
    forwarded: int = 0  # calls that the upstreams have counted from it
    processes: int = 0
    calls: dict[str, list[Calls]] = field(default_factory=lambda: {"small": [], "large": []})
    bursts: list[Burst] = field(default_factory=list)
    first_chunks: list[float] = field(default_factory=list)  # ms
    held: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    rewrites: bool = False  # its answers are not the upstream's bytes
    process: Whole | None = None

    @property
    def running(self) -> Whole:
        assert self.process is not None
        return self.process

    def up(self, upstream: str = "paced") -> None:
        """Start it.

        Raises:
            FailedError: it does not start.
        """
        for attempt in (1, 2):
            try:
                self.process = Whole(self.start(upstream))
                break
            except SystemExit as error:
                print(f"{self.name}: {str(error)[-2000:]}", file=sys.stderr)
                if attempt == 2:
                    raise FailedError("it does not start") from error
        self.running.settle()
        self.processes = 1 + len(self.running.workers())

    def down(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def cpu(self) -> float:
        """CPU seconds so far, the database's included."""
        return self.running.cpu() + self.database_cpu()


def _environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | more


def nginx_floor(folder: Path, upstreams: Upstreams) -> Peer:
    def start(_: str) -> Process:
        port = free_port()
        ports = {"small": upstreams.small.port, "paced": upstreams.paced.port, "held": upstreams.held.port}
        values = {"folder": folder, "port": port, "user": getpass.getuser()} | ports
        config = folder / "floor.conf"
        config.write_text((PINS / "nginx.conf").read_text() % values)
        command = ["nginx", "-p", str(folder), "-e", str(folder / "floor.error.log"), "-c", str(config)]
        return Process(command, port=port, log=folder / "floor.log")

    return Peer("nginx", start, {name: Route(f"/{name}/{_CHAT}", "none") for name in upstreams.urls()})


def bare(folder: Path, upstreams: Upstreams) -> Peer:
    def start(upstream: str) -> Process:
        paced = upstreams.held if upstream == "held" else upstreams.paced
        return servers.bare(folder, upstreams.small, paced)

    places = {"small": "small", "paced": "paced", "held": "paced"}
    return Peer("bare", start, {name: Route(f"/{place}/{_CHAT}", "none") for name, place in places.items()})


def aipassport(folder: Path, upstreams: Upstreams, database: SQLite | PostgreSQL) -> Peer:
    """With every limit switched on; none of them is reached."""
    name = type(database).__name__
    instance = servers.AIPassport(folder / name, database.url, upstreams.small, upstreams.paced, workers=WORKERS)
    limits = LIMITS | {"--max-concurrency": "1000000"}
    words = [word for limit in limits.items() for word in limit]
    routes = {
        upstream: Route(f"/proxy/v1/{_CHAT}", instance.token(url, *words)) for upstream, url in upstreams.urls().items()
    }
    return Peer(f"AIPassport, {name}", lambda _: instance.start(), routes, database.cpu, database.ledger)


def portkey(folder: Path, upstreams: Upstreams, program: Path) -> Peer:
    """One process: it has no workers. It checks no key and listens on all interfaces, as it always does."""

    def start(_: str) -> Process:
        port = free_port()
        command = ["node", str(program), "--headless", f"--port={port}"]
        return Process(command, port=port, log=folder / "portkey.log", env=_environment(NODE_ENV="production"))

    def route(url: str) -> Route:
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": url}
        return Route(f"/v1/{_CHAT}", "provider-key", headers=headers)

    return Peer("Portkey", start, {name: route(url) for name, url in upstreams.urls().items()})


_LITELLM = """
model_list:
%(models)s
litellm_settings: {num_retries: 0, set_verbose: false}
general_settings: {custom_auth: litellm_auth.check, custom_auth_run_common_checks: true}
"""
_MODEL = '- {model_name: %s, litellm_params: {model: openai/gpt-4o-mini, api_base: "%s", api_key: provider-key}}'


def litellm(folder: Path, upstreams: Upstreams, program: Path) -> Peer:
    """With a key, its models and its budget in memory, without a database; no telemetry, no access log."""
    place = folder / "litellm"
    place.mkdir()
    (place / "litellm_auth.py").write_text((PINS / "litellm_auth.py").read_text())
    models = "\n".join(_MODEL % item for item in upstreams.urls().items())
    (place / "config.yaml").write_text(_LITELLM % {"models": models})
    key = f"sk-{secrets.token_urlsafe(24)}"
    environment = _environment(
        LITELLM_MODE="PRODUCTION",  # reads no .env
        LITELLM_LOG="ERROR",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_MASTER_KEY=f"sk-{secrets.token_urlsafe(32)}",
        BENCH_KEY=key,
    )

    def start(_: str) -> Process:
        port = free_port()
        command = [str(program), "--config", str(place / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--num_workers", str(WORKERS), "--timeout_worker_healthcheck", "120", "--telemetry", "False"]
        return Process(command, port=port, log=place / "log", env=environment)

    return Peer("LiteLLM", start, {name: Route(f"/v1/{_CHAT}", key, model=name) for name in upstreams.urls()})
