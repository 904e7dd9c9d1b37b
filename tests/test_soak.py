"""A short soak: every way in which a call can go, at once, and nothing is left behind."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from .live import ROOT, database_url

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def soaked() -> dict[str, Any]:
    command = [sys.executable, "benchmarks/soak.py", "--seconds=12", "--every=2", "--grants=20", "--json"]
    if connection.vendor == "postgresql":
        command.append(f"--postgres={database_url()}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_of_a_mixed_load() -> None:
    """Memory is not judged in so short a time; all else is, and whatever is not kept is named on standard error."""
    found = soaked()
    kept = {one["says"]: one["kept"] for one in found["verdicts"]}
    unjudged = [says for says, value in kept.items() if value is not True]
    assert all("grows by less than" in says for says in unjudged)
    outcomes = {key.split()[1] for key in found["ledger"]}
    assert outcomes == {"ok", "client_gone", "upstream_error", "upstream_broken", "revoked"}
    assert found["refused"].keys() == {"401", "429"}
    assert found["owner_reads"] > 0


@pytest.mark.parametrize(
    ("seconds", "leak", "kept"),
    [(600, 0.0, True), (600, 0.4, False), (300, 0.4, False), (600, -1.0, True), (100, 0.4, None)],
)
def test_memory_that_grows_is_told_from_memory_that_wavers(
    monkeypatch: pytest.MonkeyPatch, seconds: int, leak: float, kept: bool | None
) -> None:
    """``leak``: MB a minute, on 120 MB that waver by one and have first risen by 20 in warming up."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    verdicts = importlib.import_module("soak_verdicts")
    waver, row = random.Random(7), "worker 1: RSS, MB"
    found = verdicts.Found("sqlite", before={row: 100.0})
    for at in range(5, seconds + 1, 5):
        found.times.append(float(at))
        found.samples.append({row: 120 - 20 / (1 + at) ** 2 + leak * at / 60 + waver.uniform(-0.5, 0.5)})
    [verdict] = verdicts._memory(found)
    assert verdict.kept is kept, verdict
