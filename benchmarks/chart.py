"""Draw a run of ``peers.py`` as SVG: ``.venv/bin/python benchmarks/chart.py run.json > picture.svg``.

The picture brings its own background and follows the reader's light or dark setting: it can be read on any page.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from peer_table import Run, memory, value

_WIDTH, _MARGIN, _GAP = 880, 24, 32  # pixels
_PANEL = (_WIDTH - 2 * _MARGIN - _GAP) / 2
_LABEL, _NUMBER = 178, 50  # beside the bars: the peer's name on the left, its value on the right
_LINE, _BAR = 24, 14
_HEAD = 66
_STYLE = """
  .page { fill: #ffffff; stroke: #d1d9e0 }
  text { fill: #1f2328; font: 13px system-ui, "Segoe UI", Helvetica, sans-serif }
  .title { font-size: 17px; font-weight: 600 } .panel { font-weight: 600 } .quiet { fill: #59636e; font-size: 12px }
  .own { font-weight: 600 } .number { font-variant-numeric: tabular-nums }
  .bar { fill: #9aa4af } .bar.own { fill: #1f6feb } .database { fill: #8bb8f8 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .quiet { fill: #9198a1 }
    .bar { fill: #656c76 } .bar.own { fill: #4493f8 } .database { fill: #264f86 }
  }"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One peer in one panel. ``database``: the part of the value that is its database server's."""

    name: str
    value: float | None
    database: float = 0.0


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    bars: list[Bar]


def panels(document: Run) -> list[Panel]:
    """What is drawn of a run: the peers that were measured, in the table's order."""
    peers = [peer for peer in document["peers"] if not peer["absent"]]
    many = document["options"]["streams"]

    def cpu(kind: str) -> list[Bar]:
        found = []
        for peer in peers:
            database = value(peer, "database_cpu_ms", kind=kind) or 0.0
            found.append(Bar(peer["name"], value(peer, "cpu_ms", kind=kind), database))
        return found

    return [
        Panel("CPU a call, ms", cpu("small")),
        Panel("CPU a call with a body of 100 kB, ms", cpu("large")),
        Panel("Latency p99 of 32 clients, ms", [Bar(p["name"], value(p, "p99_ms", kind="small")) for p in peers]),
        Panel("CPU a stream, ms", [Bar(p["name"], value(p, "cpu_ms")) for p in peers]),
        Panel(
            f"First chunk of {many} streams at once, p50, ms", [Bar(p["name"], value(p, "first_p50_ms")) for p in peers]
        ),
        Panel("Memory an open stream, kB", [Bar(p["name"], memory(p)) for p in peers]),
    ]


def _number(number: float) -> str:
    """Three figures, no exponent."""
    if number <= 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(number)))
    return f"{number:.{min(digits, 2)}f}"


def _panel(panel: Panel, x: float, y: float) -> Iterator[str]:
    most = max((bar.value for bar in panel.bars if bar.value), default=1.0)
    scale = (_PANEL - _LABEL - _NUMBER) / most
    yield f'<text class="panel" x="{x:.0f}" y="{y:.0f}">{escape(panel.title)}</text>'
    for number, bar in enumerate(panel.bars):
        top = y + 12 + number * _LINE
        own = " own" if bar.name.startswith("AIPassport") else ""
        base = top + _BAR - 3
        place = f'x="{x + _LABEL - 8:.0f}" y="{base:.0f}" text-anchor="end"'
        yield f'<text class="{own.strip()}" {place}>{escape(bar.name)}</text>'
        if bar.value is None:
            yield f'<text class="quiet" x="{x + _LABEL:.0f}" y="{base:.0f}">not measured</text>'
            continue
        left, length = x + _LABEL, max(1.0, bar.value * scale)
        yield f'<rect class="bar{own}" x="{left:.1f}" y="{top:.0f}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
        if bar.database > 0:
            part = bar.database * scale
            place = f'x="{left + length - part:.1f}" y="{top:.0f}" width="{part:.1f}" height="{_BAR}"'
            yield f'<rect class="database" {place} rx="2"/>'
        yield f'<text class="number{own}" x="{left + length + 6:.1f}" y="{base:.0f}">{_number(bar.value)}</text>'


def svg(document: Run) -> str:
    """The picture: bars of all panels, shorter is better in each."""
    drawn = panels(document)
    height_each = 12 + _LINE * len(drawn[0].bars) + 28
    foot = _HEAD + height_each * math.ceil(len(drawn) / 2)
    height = foot + 48
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>AIPassport beside its peers: what a gateway costs</title>",
        f"<style>{_STYLE}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="{_MARGIN}" y="34">What a gateway costs (shorter is better)</text>',
    ]
    for number, panel in enumerate(drawn):
        row, column = divmod(number, 2)
        lines += _panel(panel, _MARGIN + column * (_PANEL + _GAP), _HEAD + 4 + row * height_each)
    lines += [*_foot(document, foot), "</svg>"]
    return "\n".join(lines) + "\n"


def _foot(document: Run, y: float) -> Iterator[str]:
    shown = ("LiteLLM", "Portkey", "gunicorn", "PostgreSQL")
    versions = [f"{name} {document['versions'][name]}" for name in shown if name in document["versions"]]
    text = f"{document['date']}, {document['cores']} shared cores; {', '.join(versions)}"
    yield f'<text class="quiet" x="{_MARGIN}" y="{y + 10:.0f}">{escape(text)}</text>'
    text = "nginx: a plain reverse proxy; bare: gunicorn, gevent and requests, without any checks"
    if any(bar.database > 0 for panel in panels(document) for bar in panel.bars):
        text += "; pale: the database server's part"
    yield f'<text class="quiet" x="{_MARGIN}" y="{y + 28:.0f}">{escape(text)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what peers.py --json has written")
    print(svg(json.loads(parser.parse_args().run.read_text())), end="")


if __name__ == "__main__":
    main()
