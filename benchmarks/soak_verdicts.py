"""What a soak must find when it is over. Each verdict is a sentence, whether it holds, and what was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import linear_regression, mean
from typing import Any

from soak_samples import Sample

JUDGED_AFTER = 240.0  # seconds: a shorter run says nothing about growth
GROWTH = 0.02  # of a worker's resident memory, in ten minutes
POOL = {"sqlite": 40, "postgresql": 4}  # descriptors of a worker: 16 pooled connections and two more, by file; the pool
THREADS = 11  # of a worker: the first one, and gevent's ten, which hash passwords
WAL = 64.0  # MB


@dataclass
class Found:
    """All that a run has found.

    ``times`` and ``samples``: under load; ``before`` and ``after``: idle. ``saw``, ``ledger``: calls by model and
    outcome. ``upstream``: what it says of itself. ``metrics``: by name, summed; ``ended``: calls that ended, by
    outcome. ``at_once``: calls that the clients had under way.
    """

    database: str
    before: Sample
    after: Sample = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    saw: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    ledger: Counter[tuple[str, str]] = field(default_factory=Counter)
    upstream: dict[str, Any] = field(default_factory=dict)
    metrics: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    owner_reads: int = 0
    reconciled: str = ""  # empty where it found no difference
    logged: Counter[str] = field(default_factory=Counter)  # faults in the server's log
    workers_died: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``kept`` is None where it was not judged."""

    says: str
    kept: bool | None
    found: str


def judge(found: Found) -> list[Verdict]:
    return [*_calls(found), *_left_behind(found), *_memory(found)]


def _calls(found: Found) -> list[Verdict]:
    by_model, outcomes = Counter[str](), Counter[str]()
    for (model, outcome), count in found.ledger.items():
        by_model[model] += count
        outcomes[outcome] += count
    refused = found.metrics["aipassport_refusals_total"]
    return [
        Verdict("no answer is another than it should be", not found.wrong, _most(found.wrong)),
        Verdict("the upstream saw every kind of call", not (missing := _missing(found)), missing or "all"),
        Verdict("the ledger has what the upstream counted", *_same(by_model, Counter(found.upstream["calls"]))),
        Verdict("each outcome is what the client saw", *_same(found.ledger, found.saw)),
        Verdict("the metrics count what the ledger has", *_same(found.ended, outcomes)),
        Verdict(
            "… and the refusals that the client saw",
            refused == found.refused.total(),
            f"{refused:.0f} and {found.refused.total()}",
        ),
        Verdict("reconcile finds no difference", not found.reconciled, found.reconciled or "none"),
        Verdict("no worker died", not found.workers_died, "died" if found.workers_died else "all live"),
        Verdict("no fault in the log", not found.logged, _most(found.logged)),
    ]


def _missing(found: Found) -> str:
    return ", ".join(sorted({model for model, _ in found.saw if not found.upstream["calls"].get(model)}))


def _left_behind(found: Found) -> list[Verdict]:
    metrics, after, under_load = found.metrics, found.after, found.samples
    names = ("open_calls", "open_streams", "unsettled_calls")
    still_open = after["open calls"] + sum(metrics[f"aipassport_{name}"] for name in names)
    lost = metrics["aipassport_reaped_calls_total"]
    lost += sum(count for (_, outcome), count in found.ledger.items() if outcome == "lost")
    clients, others = _sum(after, "from clients"), _risen(found, "others")
    threads = max(_worst(one, "threads") for one in under_load)
    wal = max(one["WAL of SQLite, MB"] for one in under_load)
    return [
        Verdict("no call is left open, none unsettled", not still_open, f"{still_open:.0f}"),
        Verdict("no call was lost", not lost, f"{lost:.0f}"),
        Verdict("no connection of a client is left", not clients, f"{clients:.0f}"),
        _upstream(found),
        _database(found),
        Verdict("no other descriptor is left", others <= 0, f"{others:+.0f}"),
        Verdict("threads are within gevent's pool", threads <= THREADS, f"at most {threads:.0f} a worker"),
        Verdict(f"the WAL stays under {WAL:.0f} MB", wal < WAL, f"{wal:.1f} MB"),
    ]


def _upstream(found: Found) -> Verdict:
    """What is left is the idle pool: no more than there were calls at once. (Who leaves comes back before the relay has
    noticed, half a second later: half as many again.)"""
    here, there, busy = _sum(found.after, "to the upstream"), found.upstream["connections"], found.upstream["busy"]
    kept = not busy and here == there and _worst(found.after, "to the upstream") <= 1.5 * found.at_once
    return Verdict(
        "connections to the upstream are idle, and few", kept, f"{here:.0f}; at its side {there}, {busy} busy"
    )


def _database(found: Found) -> Verdict:
    """Those of the workers; and a server knows of no others."""
    most, at_server = _worst(found.after, "to the database"), found.after["connections at PostgreSQL"]
    kept = most <= POOL[found.database]
    if found.database == "postgresql":
        kept = kept and at_server == _sum(found.after, "to the database")
    return Verdict(
        "connections to the database are the pools'", kept, f"{most:.0f} a worker, {at_server:.0f} at a server"
    )


def _memory(found: Found) -> list[Verdict]:
    return [
        _flat(found, name)
        for name in found.before
        if name.endswith("RSS, MB") and len(found.samples) >= 4  # a line through two points is no finding
    ]


def _flat(found: Found, name: str) -> Verdict:
    """A straight line through the second half of the samples, and what it would rise in ten minutes."""
    half = found.times[-1] / 2
    points = [(at, one[name]) for at, one in zip(found.times, found.samples, strict=True) if at >= half]
    slope, _ = linear_regression(*zip(*points, strict=True))
    growth = slope * 600 / mean(value for _, value in points)
    kept = growth < GROWTH if found.times[-1] >= JUDGED_AFTER else None
    says = f"{name.removesuffix(', MB')} grows by less than {GROWTH:.0%} in ten minutes"
    return Verdict(says, kept, f"{growth:+.1%}, {slope * 600:+.1f} MB")


def _same(one: Counter[Any], other: Counter[Any]) -> tuple[bool, str]:
    different = {key: (one[key], other[key]) for key in one.keys() | other.keys() if one[key] != other[key]}
    if not different:
        return True, f"{one.total()} calls"
    return False, "; ".join(f"{_name(key)}: {first} and {second}" for key, (first, second) in sorted(different.items()))


def _name(key: Any) -> str:
    return key if isinstance(key, str) else " ".join(key)


def _most(counts: Counter[str]) -> str:
    return "; ".join(f"{count} × {what}" for what, count in counts.most_common(5)) or "none"


def _sum(sample: Sample, kind: str) -> float:
    return sum(value for name, value in sample.items() if name.endswith(kind))


def _worst(sample: Sample, kind: str) -> float:
    return max(value for name, value in sample.items() if name.endswith(kind))


def _risen(found: Found, kind: str) -> float:
    """By how much it stands higher than before the load, in the worker where it does most."""
    return max(found.after[name] - value for name, value in found.before.items() if name.endswith(kind))
