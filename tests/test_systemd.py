"""The systemd unit: systemd itself has no complaint, and nothing that it can lock is left open."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .live import ROOT

UNIT = (ROOT / "deploy/aipassport.service").read_text()


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("no systemd here")
    return found


def test_systemd_reads_the_unit_without_a_complaint(analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / "aipassport.service"
    unit.write_text(UNIT.replace("/opt/aipassport/.venv/bin/python", sys.executable))
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "aipassport" not in done.stderr


def test_systemd_calls_its_exposure_low(analyze: str) -> None:
    """On systemd's scale from 0 to 10, times ten: it has to reach the network, and little else."""
    command = [analyze, "security", "--no-pager", "--offline=true", "--threshold=15", "deploy/aipassport.service"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stop_gives_open_streams_their_time_before_it_kills() -> None:
    assert settings("KillMode") == ["mixed"]
    assert int(settings("TimeoutStopSec")[0]) > 30  # AIPASSPORT_GRACEFUL_TIMEOUT's default


def test_it_writes_to_its_state_alone_and_is_not_root() -> None:
    assert settings("ProtectSystem") == ["strict"]
    assert settings("StateDirectory") == ["aipassport"]
    assert settings("ReadWritePaths") == []
    assert settings("CapabilityBoundingSet") == [""]
    assert settings("User") == ["aipassport"]


def test_no_secret_stands_in_the_unit() -> None:
    assert settings("Environment") == []
