"""The backups that the documents show can be restored, keys and counters and all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from .conftest import CANARY
from .live import ROOT, database_url, environment
from .test_relay import chat

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

DOCUMENT = (ROOT / "docs/deploying.md").read_text()


def documented(pattern: str, **places: str) -> list[str]:
    """The document's own command, with the test's places in it, for a shell."""
    (line,) = re.findall(rf"^umask.*{pattern}.*$", DOCUMENT, re.MULTILINE)
    for name, place in places.items():
        theirs = {"database": "/var/lib/aipassport/aipassport.sqlite3", "backup": "/backup/aipassport"}[name]
        assert theirs in line
        line = line.replace(theirs, place)
    return ["sh", "-c", line.replace("python3 ", f"{sys.executable} ")]


def manage(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=environment(DATABASE_URL=url),
        text=True,
        capture_output=True,
        check=False,
    )


_READ_KEYS = """
from grants import crypto
from grants.models import Call, ProviderKey
print(Call.objects.count(), *(crypto.decrypt(key.secret, context=key.context) for key in ProviderKey.objects.all()))
"""


def assert_whole(url: str, *, calls: int) -> None:
    """The ledger is there, the counters equal it, and the provider's key can be read."""
    done = manage(url, "reconcile")
    assert done.returncode == 0, done.stdout + done.stderr
    assert manage(url, "shell", "--no-imports", "-c", _READ_KEYS).stdout.split() == [str(calls), CANARY]


def some_calls(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    assert {chat(server, token).status_code for _ in range(3)} == {200}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's")
def test_a_copy_of_sqlite_made_beside_a_running_server_is_whole(server: Any, issue: Any, tmp_path: Path) -> None:
    some_calls(server, issue)
    database = str(connection.settings_dict["NAME"])
    command = documented("VACUUM INTO", database=database, backup=str(tmp_path / "copy"))
    subprocess.run(command, check=True, timeout=60)
    copy = tmp_path / "copy.sqlite3"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    url = f"sqlite:///{copy}"
    assert_whole(url, calls=3)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's")
@pytest.mark.skipif(shutil.which("pg_dump") is None, reason="no pg_dump here")
def test_a_dump_of_postgresql_made_beside_a_running_server_is_whole(server: Any, issue: Any, tmp_path: Path) -> None:
    some_calls(server, issue)
    url = database_url()
    command = documented("pg_dump", backup=str(tmp_path / "copy"))
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"DATABASE_URL": url})
    name = f"restored_{os.getpid()}"
    elsewhere = f"{url.rpartition('/')[0]}/{name}"
    with psycopg.connect(f"{url.rpartition('/')[0]}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            (line,) = re.findall(r"pg_restore .*$", DOCUMENT, re.MULTILINE)
            line = line.replace("/backup/aipassport", str(tmp_path / "copy"))
            subprocess.run(["sh", "-c", line], check=True, timeout=60, env=os.environ | {"DATABASE_URL": elsewhere})
            assert_whole(elsewhere, calls=3)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
