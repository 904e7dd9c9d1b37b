"""The table of a run, made from its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

Run = dict[str, Any]
NONE = "–"


def value(peer: Run, key: str, *, kind: str = "") -> float | None:
    """The median of all runs, or None without any. ``kind``: of calls, "small" or "large"; "" for streams at once."""
    runs = peer["calls"][kind] if kind else peer["bursts"]
    return median(run[key] for run in runs) if runs else None


def later(document: Run, peer: Run) -> float | None:
    """Milliseconds that the first chunk of one stream came later than without a relay, at the median."""
    if not peer["first_chunk_ms"] or not document["direct_first_chunk_ms"]:
        return None
    return median(peer["first_chunk_ms"]) - median(document["direct_first_chunk_ms"])


def memory(peer: Run) -> float | None:
    """kB an open stream, in the worst round: memory once taken is seldom given back."""
    return max(run["memory"] for run in peer["bursts"]) / 1000 if peer["bursts"] else None


def ratio(document: Run, peer: Run, key: str, *, kind: str = "") -> float | None:
    """Times the bare relay's: the median of the ratios within each round."""
    floor = next((other for other in document["peers"] if other["name"] == "bare"), None)
    if floor is None:
        return None
    mine, bare = ((p["calls"][kind] if kind else p["bursts"]) for p in (peer, floor))
    ratios = [a[key] / b[key] for a, b in zip(mine, bare, strict=False) if b[key]]
    return median(ratios) if ratios and len(mine) == len(bare) else None


def _form(form: str, number: float | None) -> str:
    return NONE if number is None else form % number


def _rows(document: Run) -> Iterator[tuple[str, list[str]]]:
    peers = document["peers"]

    def row(what: str, of: Callable[[Run], str]) -> tuple[str, list[str]]:
        return what, [of(peer) for peer in peers]

    yield row("processes", lambda peer: str(peer["processes"] or NONE))
    for kind, title in (("small", "small calls"), ("large", "bodies of 100 kB")):
        for what, values in _calls(document, kind):
            yield f"{title}: {what}" if what.startswith("CPU a") else f"… {what}", values
    yield row("one stream: first chunk later than direct, ms", lambda peer: _form("%.2f", later(document, peer)))
    sizes = document["options"]
    yield row(f"{sizes['streams']} streams at once: first chunk p50, ms", _of("first_p50_ms", "%.0f"))
    yield row("… × bare", lambda peer: _form("%.2f", ratio(document, peer, "first_p50_ms")))
    yield row("… first chunk p99, ms", _of("first_p99_ms", "%.0f"))
    yield row("… CPU a stream, ms", _of("cpu_ms", "%.1f"))
    yield row("… × bare", lambda peer: _form("%.2f", ratio(document, peer, "cpu_ms")))
    yield row("… memory an open stream, kB (worst round)", lambda peer: _form("%.0f", memory(peer)))
    yield row("… streams that failed", lambda peer: _sum(peer, lambda run: sum(run["errors"].values())))
    yield row("… lost chunks", lambda peer: _sum(peer, lambda run: int(run["lost"])))
    if sizes["hold"]:
        title = f"{sizes['hold']} streams of {sizes['hold_seconds']} s"
        yield row(f"{title}: whole", lambda peer: str(peer["held"].get("whole", NONE)))
        yield row("… most open at once", lambda peer: str(peer["held"].get("most_open", NONE)))
    yield row("answers", lambda peer: _answers(peer))
    yield row("calls without a ledger row", lambda peer: _known(peer["without_row"]))
    yield row("calls left open", lambda peer: _known(peer["left_open"]))


def _calls(document: Run, kind: str) -> Iterator[tuple[str, list[str]]]:
    def of(key: str, form: str, scale: float = 1.0) -> list[str]:
        values = [value(peer, key, kind=kind) for peer in document["peers"]]
        return [NONE if number is None else form % (number * scale) for number in values]

    yield "CPU a call, ms", of("cpu_ms", "%.3f")
    if any("PostgreSQL" in peer["name"] for peer in document["peers"]):
        yield "of it the database server's", of("database_cpu_ms", "%.3f")
    ratios = [ratio(document, peer, "cpu_ms", kind=kind) for peer in document["peers"]]
    yield "× bare", [_form("%.2f", number) for number in ratios]
    yield "calls a second", of("per_second", "%.0f")
    yield "latency p50, ms", of("p50_ms", "%.1f")
    yield "latency p99, ms", of("p99_ms", "%.1f")
    yield "memory after it, MB", of("rss", "%.0f", 1e-6)
    runs = [peer["calls"][kind] for peer in document["peers"]]
    yield "errors", [str(sum(run["bad"] for run in found)) if found else NONE for found in runs]


def _of(key: str, form: str) -> Callable[[Run], str]:
    return lambda peer: _form(form, value(peer, key))


def _sum(peer: Run, of: Callable[[Run], int]) -> str:
    return str(sum(of(run) for run in peer["bursts"])) if peer["bursts"] else NONE


def _known(number: int | None) -> str:
    return NONE if number is None else str(number)


def _answers(peer: Run) -> str:
    if not peer["processes"]:
        return NONE
    return "written anew" if peer["rewrites"] else "same bytes"


def table(document: Run) -> str:
    """The rows, and below them what failed or was left out."""
    lines = [["", *(peer["name"] for peer in document["peers"])]]
    lines += [[what, *values] for what, values in _rows(document)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    notes = [
        f"- {peer['name']}: {note}" for peer in document["peers"] for note in [peer["absent"], *_faults(peer)] if note
    ]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in padded), *([""] if notes else []), *notes])


def _faults(peer: Run) -> list[str]:
    found = list(peer["faults"])
    errors = [f"{count} × {error}" for run in peer["bursts"] for error, count in run["errors"].items()]
    if errors:
        found.append(f"streams at once: {', '.join(errors)}")
    if held := peer["held"].get("errors"):
        found.append(f"streams held open: {', '.join(f'{count} × {error}' for error, count in held.items())}")
    return found


def markdown(document: Run) -> str:
    """The table under a line of date, machine and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    sizes = document["options"]
    head = f"{document['date']}, {document['cores']} shared cores; {versions}; "
    head += f"{sizes['rounds']} rounds of {sizes['seconds']} s, in turns; medians."
    return f"{head}\n\n{table(document)}"
