"""Numbers for Prometheus, correct over all workers of a server.

A call costs an entry in a list. Every half second the entries are summed up and written to where scrapes find them
(``publish``): under gunicorn to a file of this worker's in a folder that all of them share, else to memory.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from ..metrics_folder import locked
from . import gauges
from .events import Ended, Refused, model_name
from .names import Names

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_AT_MOST = 1000  # entries, should nobody sum them up

_ADDED = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_FIRST_BYTE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_registry = CollectorRegistry()
_here: dict[str, Any] = {"registry": _registry}
_CALLS = Counter("aipassport_calls", "Admitted calls that ended.", ["provider", "model", "outcome"], **_here)
_REFUSALS = Counter("aipassport_refusals", "Calls that were not admitted.", ["code"], **_here)
_TOKENS = Counter("aipassport_tokens", "Tokens; input includes cached.", ["provider", "model", "kind"], **_here)
_COST = Counter("aipassport_cost_dollars", "What calls cost, where it is known.", ["provider", "model"], **_here)
_ADDED_SECONDS = Histogram(
    "aipassport_added_seconds", "Time that the broker adds to a call, the provider's left out.", buckets=_ADDED, **_here
)
_FIRST_BYTE_SECONDS = Histogram(
    "aipassport_first_byte_seconds",
    "From sending a call to the first byte of the provider's answer.",
    ["provider", "stream"],
    buckets=_FIRST_BYTE,
    **_here,
)
_GAUGES = {
    name: Gauge(name, text, multiprocess_mode="livemin" if name == gauges.TICKED_AT else "livesum", **_here)
    for name, text in gauges.GAUGES.items()
}
_COUNTERS = {name: Counter(name, text, **_here) for name, text in gauges.COUNTERS.items()}


class _Entry(NamedTuple):
    """What is kept of a call: not its body."""

    provider: str
    model: str
    outcome: str
    stream: bool
    added_us: int
    first_byte_us: int | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: int


_entries: deque[_Entry] = deque()
_refusals: deque[str] = deque()
_counted: dict[str, float] = dict.fromkeys(_COUNTERS, 0.0)
_names = Names()
_folder: Path | None = None


def share(folder: Path) -> None:
    """All workers of this server have their files in ``folder``."""
    global _folder, _names
    _folder, _names = folder, Names(folder)


# What the relay tells


def ended(event: Ended) -> None:
    did, call = event.settlement, event.call
    _entries.append(
        _Entry(
            event.policy.provider.id,
            model_name(call),
            did.outcome,
            call.stream,
            event.added_us,
            did.first_byte_us,
            did.input_tokens or 0,
            did.output_tokens or 0,
            did.cached_tokens or 0,
            did.cost or 0,
        )
    )
    if len(_entries) > _AT_MOST:
        _sum_up()


def refused(event: Refused) -> None:
    _refusals.append(event.code)
    if len(_refusals) > _AT_MOST:
        _sum_up()


# What scrapes find


def publish() -> None:
    """Write what happened since the last time, and how this worker stands."""
    _sum_up()
    for name, value in gauges.standing().items():
        _GAUGES[name].set(value)
    for name, value in gauges.so_far().items():
        if value > _counted[name]:
            _COUNTERS[name].inc(value - _counted[name])
            _counted[name] = value


def _sum_up() -> None:
    calls: Tally[tuple[str, str, str]] = Tally()
    tokens: Tally[tuple[str, str, str]] = Tally()
    cost: Tally[tuple[str, str]] = Tally()
    while _entries:
        entry = _entries.popleft()
        provider = entry.provider
        model = _names.name(provider, entry.model, success=entry.outcome == "ok")
        calls[provider, model, entry.outcome] += 1
        if entry.input_tokens or entry.output_tokens:
            tokens[provider, model, "input"] += entry.input_tokens
            tokens[provider, model, "output"] += entry.output_tokens
            tokens[provider, model, "cached"] += entry.cached_tokens
        if entry.cost:
            cost[provider, model] += entry.cost
        _ADDED_SECONDS.observe(entry.added_us / 1_000_000)
        if entry.first_byte_us is not None:
            stream = "true" if entry.stream else "false"
            _FIRST_BYTE_SECONDS.labels(provider, stream).observe(entry.first_byte_us / 1_000_000)
    _write(_CALLS, calls)
    _write(_TOKENS, tokens)
    _write(_COST, cost, 1_000_000_000)
    _write(_REFUSALS, Tally((_refusals.popleft(),) for _ in range(len(_refusals))))


def _write(counter: Counter, sums: Tally[Any], unit: int = 1) -> None:
    for labels, value in sums.items():
        counter.labels(*labels).inc(value / unit)


def exposition() -> bytes:
    """Everything, in Prometheus' text format: of all workers, and what only the database knows."""
    publish()
    database = gauges.of_database()
    registry = CollectorRegistry()
    with locked(_folder) if _folder is not None else nullcontext():
        registry.register(_Scrape(database))
        return generate_latest(registry)


class _Scrape:
    """One scrape's worth of families."""

    def __init__(self, database: dict[str, float]) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        families = _registry.collect() if _folder is None else MultiProcessCollector.merge(_files(_folder))
        for family in families:
            if family.name == gauges.TICKED_AT:
                yield _age(family)
            else:
                yield family
        for name, value in self._database.items():
            yield GaugeMetricFamily(name, gauges.OF_DATABASE[name], value=value)


def _files(folder: Path) -> list[str]:
    """Those of all workers. One that begins has made its file before there is anything in it."""
    return [str(file) for file in folder.glob("*.db") if file.stat().st_size]


def _age(ticked_at: Metric) -> Metric:
    """Of the worker whose ticker is the longest overdue."""
    age = GaugeMetricFamily(
        "aipassport_ticker_age_seconds", "Since a worker's ticker last finished its round; the worst."
    )
    for sample in ticked_at.samples:
        age.add_metric([], max(0.0, time.time() - sample.value))
    return age
