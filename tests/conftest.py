"""Personas and a few things that most tests need. Alice and Bob are owners; Root is a superuser."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from grants import tokens
from grants.models import Actor, Grant, ProviderKey, Worker
from grants.terms import Terms
from proxy.watch import watch

from . import unit

# The suite runs in more processes than there are cores: how long an example takes says nothing about the code.
hypothesis_settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile(
    "unit", hypothesis_settings.get_profile("suite"), max_examples=10, derandomize=True
)
hypothesis_settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--of-the-database", action="store_true", help="without what does the same on every DATABASE_URL")
    parser.addoption("--unit", action="store_true", help="only what tests/unit.py calls a unit test")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Decided before a file is imported: its packages may not be installed."""
    is_test = collection_path.match("test_*.py")
    return True if config.getoption("--unit") and is_test and unit.excluded(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Some start a database server of their own, the same each time; from others pytest-django keeps the database."""
    if config.getoption("--of-the-database"):
        _keep(config, items, _reaches_the_database)
    if config.getoption("--unit"):
        hypothesis_settings.load_profile("unit")
        _keep(config, items, lambda item: not (unit.needs_more(item) or _reaches_the_database(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("--unit"):
        unit.refuse()


def _keep(config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]


def _reaches_the_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db", "django_db_setup"} & set(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("django_db") is not None


PASSWORD = "correct horse battery staple"
CANARY = "sk-canary-0123456789abcdef0123456789abcdef"


def terms(**changes: Any) -> Terms:
    return Terms(models=("sandbox-*",), capabilities=("chat", "embeddings")).with_(**changes)


@pytest.fixture
def alice(db: Any) -> Any:
    return get_user_model().objects.create_user("alice", password=PASSWORD, is_staff=True)


@pytest.fixture
def bob(db: Any) -> Any:
    return get_user_model().objects.create_user("bob", password=PASSWORD, is_staff=True)


@pytest.fixture
def root(db: Any) -> Any:
    return get_user_model().objects.create_superuser("root", password=PASSWORD)


@pytest.fixture
def by(alice: Any) -> Actor:
    return Actor("api", alice, "192.0.2.1")


@pytest.fixture
def sandbox_key(alice: Any, by: Actor) -> ProviderKey:
    return ProviderKey.add(owner=alice, provider="sandbox", label="Sandbox", secret="", by=by)


@pytest.fixture
def grant(sandbox_key: ProviderKey, by: Actor) -> Grant:
    return Grant.issue(key=sandbox_key, terms=terms(), app_name="Notebook", by=by)


@pytest.fixture(autouse=True, scope="session")
def _no_ticker() -> None:
    """Calls that tests make in their own process start no ticker there: it would outlive the test's database."""
    watch._thread = threading.current_thread()


# The relay, with real processes and a fake provider on a real socket

Issue = Callable[..., tuple[Grant, str]]


@pytest.fixture(scope="session")
def upstream() -> Iterator[Any]:
    from .fake_upstream import running

    with running() as server:
        yield server


@pytest.fixture
def issue(alice: Any, by: Actor, upstream: Any, settings: Any) -> Issue:
    """``issue("openai", models=(…), capabilities=(…))`` → grant and token on a key that leads to the fake provider."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True

    def make(provider: str = "openai", *, secret: str = CANARY, base_url: str | None = None, **changes: Any) -> Any:
        key = ProviderKey.objects.filter(owner=alice, label=provider).first() or ProviderKey.add(
            owner=alice,
            provider=provider,
            label=provider,
            secret="" if provider == "sandbox" else secret,
            by=by,
            base_url=("" if provider == "sandbox" else upstream.url) if base_url is None else base_url,
        )
        offered = tuple(str(item) for item in key.row.capabilities if item not in ("web", "code", "state"))
        wanted = Terms(models=("*",), capabilities=offered).with_(**changes)
        grant = Grant.issue(key=key, terms=wanted, app_name="Notebook", by=by)
        return grant, tokens.mint(grant, by=by).token

    return make


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Any]:
    """A PostgreSQL server of the module's own: a :class:`~tests.clusters.Cluster`."""
    from .clusters import cluster

    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def instance(postgresql: Any, upstream: Any) -> Any:
    """An installation on that server: an :class:`~tests.instances.Instance`."""
    from .instances import Instance

    return Instance(postgresql.url, upstream)


@pytest.fixture(scope="session")
def _servers(django_db_setup: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from .live import server

    logs: Path = tmp_path_factory.mktemp("servers")
    with server(logs / "1.log") as first, server(logs / "2.log") as second:
        yield first, second
        for process in (first, second):
            process.stop(signal.SIGTERM)  # gives its connections back: the test database is dropped right after


_heartbeats: list[Any] = []


@pytest.fixture
def servers(_servers: Any, transactional_db: Any) -> Iterator[Any]:
    """Two server processes on the tests' database.

    Emptying the tables after a test takes the servers' heartbeats away; they would look dead until their next one.
    """
    for heartbeat in _heartbeats:
        heartbeat.seen_at = time.time_ns() // 1000
    Worker.objects.bulk_create(_heartbeats, ignore_conflicts=True)
    yield _servers
    _heartbeats[:] = Worker.objects.filter(seen_at__gt=(time.time() - 30) * 1_000_000)


@pytest.fixture
def server(servers: Any) -> Any:
    return servers[0]
