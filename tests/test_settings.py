"""No start without secrets; weak ones, unknown databases and odd values are refused with a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "AIPASSPORT_SECRET_KEY": "s" * 50,
    "AIPASSPORT_ENCRYPTION_KEYS": "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
    "DATABASE_URL": "sqlite:////nonexistent/x.sqlite3",
}


def start(*, before: str = "", **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process of its own, without a ``.env``; ``before``: what it runs first."""
    environment = {"PATH": os.environ["PATH"]} | {k: v for k, v in (GOOD | changes).items() if v is not None}
    code = f"{before}import environ; environ.Env.read_env = lambda *a, **k: None\nfrom aipassport import settings"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=60, check=False
    )


def test_good_settings_are_read() -> None:
    assert start().returncode == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"AIPASSPORT_SECRET_KEY": None}, "AIPASSPORT_SECRET_KEY"),
        ({"AIPASSPORT_SECRET_KEY": ""}, "AIPASSPORT_SECRET_KEY"),
        ({"AIPASSPORT_SECRET_KEY": "short"}, "AIPASSPORT_SECRET_KEY"),
        ({"AIPASSPORT_ENCRYPTION_KEYS": None}, "AIPASSPORT_ENCRYPTION_KEYS"),
        ({"AIPASSPORT_ENCRYPTION_KEYS": ""}, "AIPASSPORT_ENCRYPTION_KEYS"),
        ({"AIPASSPORT_ENCRYPTION_KEYS": "too-short"}, "AIPASSPORT_ENCRYPTION_KEYS"),
        ({"DATABASE_URL": "mysql://u@h/d"}, "SQLite or PostgreSQL"),
        ({"AIPASSPORT_SQLITE_SYNCHRONOUS": "OFF"}, "FULL or NORMAL"),
        ({"AIPASSPORT_URL": "ai.example.com"}, "AIPASSPORT_URL"),
        ({"AIPASSPORT_METRICS_TOKEN": "short"}, "AIPASSPORT_METRICS_TOKEN"),
        ({"AIPASSPORT_METRICS_ADDRESSES": "10.0.0.1/8"}, "AIPASSPORT_METRICS_ADDRESSES"),
        ({"AIPASSPORT_METRICS_ADDRESSES": "scraper.example"}, "AIPASSPORT_METRICS_ADDRESSES"),
        ({"AIPASSPORT_LOG_FORMAT": "xml"}, "AIPASSPORT_LOG_FORMAT"),
    ],
)
def test_bad_settings_stop_the_start(changes: dict[str, str | None], complaint: str) -> None:
    done = start(**changes)
    assert done.returncode != 0
    assert complaint in done.stderr.strip().splitlines()[-1]
