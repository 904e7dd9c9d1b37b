"""What AIPassport should keep beside its peers, judged from the JSON of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from peer_table import Run, later, memory, ratio, value


@dataclass(frozen=True, slots=True)
class Goal:
    """``found`` may be at most ``limit``. None: not measured, and so neither kept nor missed."""

    peer: str
    what: str
    found: float | None
    limit: float

    @property
    def missed(self) -> bool:
        return self.found is not None and self.found > self.limit

    def __str__(self) -> str:
        word = "not measured" if self.found is None else f"{self.found:.2f}, {'MISSED' if self.missed else 'kept'}"
        return f"- {self.peer}: {self.what} ≤ {self.limit:.3g}: {word}"


def goals(document: Run) -> Iterator[Goal]:
    """Those of AIPassport on each database that was measured."""
    for peer in document["peers"]:
        name = peer["name"]
        if not name.startswith("AIPassport") or peer["absent"]:
            continue
        if "PostgreSQL" in name:
            yield Goal(name, "CPU a call without the database's own, × bare", _without_database(document, peer), 2.5)
        else:
            yield Goal(name, "CPU a call, × bare", ratio(document, peer, "cpu_ms", kind="small"), 2.0)
            yield Goal(name, "CPU a call, × LiteLLM", _beside(document, peer, "LiteLLM"), 1 / 7)
            yield Goal(name, "first chunk of one stream later than direct, ms", later(document, peer), 2.0)
        yield Goal(name, "latency p99, × bare", ratio(document, peer, "p99_ms", kind="small"), 3.0)
        yield Goal(name, "first chunk of streams at once, p50, × bare", ratio(document, peer, "first_p50_ms"), 1.5)
        yield Goal(name, "CPU a stream, × bare", ratio(document, peer, "cpu_ms"), 1.3)
        yield Goal(name, "memory an open stream, kB", memory(peer), 60.0)
        yield Goal(name, "streams held open that failed", _broken(peer), 0)
        yield Goal(name, "calls without a ledger row, or left open", peer["without_row"] + peer["left_open"], 0)


def _without_database(document: Run, peer: Run) -> float | None:
    floor = next((other for other in document["peers"] if other["name"] == "bare"), None)
    if floor is None or not floor["calls"]["small"] or not peer["calls"]["small"]:
        return None
    own = median(run["cpu_ms"] - run["database_cpu_ms"] for run in peer["calls"]["small"])
    return own / (value(floor, "cpu_ms", kind="small") or float("nan"))


def _beside(document: Run, peer: Run, name: str) -> float | None:
    other = next((other for other in document["peers"] if other["name"] == name), None)
    mine, its = (value(p, "cpu_ms", kind="small") if p else None for p in (peer, other))
    return mine / its if mine is not None and its else None


def _broken(peer: Run) -> float | None:
    return peer["held"]["asked"] - peer["held"]["whole"] if peer["held"] else None
