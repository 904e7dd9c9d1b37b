"""A short soak: every way in which a call can go, at once, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from .live import ROOT, database_url

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def soaked() -> dict[str, Any]:
    command = [sys.executable, "benchmarks/soak.py", "--seconds=12", "--every=2", "--grants=20", "--json"]
    if connection.vendor == "postgresql":
        command.append(f"--postgres={database_url()}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


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
