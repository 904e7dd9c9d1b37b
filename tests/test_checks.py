"""``manage.py check --deploy`` says what is wrong with a deployment, each with a hint, and nothing of a good one."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.checks import WARNING, CheckMessage, run_checks

from aipassport import checks
from aipassport.dotenv import ensure

from .live import ROOT, environment

FRESH = urlsafe_b64encode(secrets.token_bytes(32)).decode()
PRINTABLE = urlsafe_b64encode(b"correct horse battery staple, ok").decode()


@pytest.fixture
def deployment(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings of a good deployment, its files in ``tmp_path``."""
    settings.SECRET_KEY = secrets.token_urlsafe(48)
    settings.AIPASSPORT_ENCRYPTION_KEYS = [FRESH]
    settings.AIPASSPORT_URL = "https://aipassport.example"
    settings.TRUST_PROXY, settings.HOST = True, "127.0.0.1"
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    settings.AIPASSPORT_SENDS_EMAIL = True
    settings.BASE_DIR = tmp_path
    settings.LOGGING = log_level("INFO")
    private(tmp_path / ".env"), private(tmp_path / "a.sqlite3")
    database = {"ENGINE": "aipassport.sqlite", "NAME": tmp_path / "a.sqlite3"}
    monkeypatch.setattr(configured, "DATABASES", {"default": database})
    return settings


def private(path: Path) -> None:
    path.touch(mode=0o600)


def log_level(level: str) -> dict[str, Any]:
    logging = deepcopy(configured.LOGGING)
    logging["root"]["level"] = level
    return logging


def found() -> dict[str, CheckMessage]:
    """Our own findings by number."""
    messages = run_checks(include_deployment_checks=True)
    return {str(item.id).partition(".")[2]: item for item in messages if str(item.id).startswith("aipassport.")}


def test_nothing_is_said_of_a_good_deployment(deployment: Any) -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        ("W001", {"SECRET_KEY": "a" * 64}),
        ("W001", {"SECRET_KEY": "0123456789" * 3 + "01"}),
        ("W001", {"SECRET_KEY": "change-me-" + secrets.token_urlsafe(48)}),
        ("W001", {"SECRET_KEY": "secret of the tests, never of a deployment"}),
        ("W002", {"AIPASSPORT_ENCRYPTION_KEYS": [FRESH, "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q="]}),
        ("W002", {"AIPASSPORT_ENCRYPTION_KEYS": [PRINTABLE]}),
        ("W003", {"AIPASSPORT_URL": "http://aipassport.example"}),
        ("W004", {"TRUST_PROXY": False}),
        ("W007", {"AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS": True}),
        ("W008", {"LOGGING": log_level("DEBUG")}),
        ("W008", {"LOGGING": log_level("debug")}),
        ("W009", {"AIPASSPORT_UPSTREAM_CA_BUNDLE": "/nonexistent/ca.pem"}),
        ("I001", {"HOST": "0.0.0.0"}),
        ("I002", {"AIPASSPORT_SENDS_EMAIL": False}),
    ],
)
def test_each_fault_is_named_with_what_to_do(deployment: Any, number: str, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(deployment, name, value)
    message = found()
    assert set(message) == {number}
    assert message[number].hint
    assert (message[number].level == WARNING) is number.startswith("W")


def test_no_finding_quotes_a_secret(deployment: Any) -> None:
    deployment.SECRET_KEY, deployment.AIPASSPORT_ENCRYPTION_KEYS = "0123456789" * 4, [PRINTABLE]
    messages = found()
    assert set(messages) == {"W001", "W002"}
    for message in messages.values():
        assert not any(secret in f"{message.msg} {message.hint}" for secret in ("0123456789", PRINTABLE, "horse"))


@pytest.mark.parametrize("name", [".env", "a.sqlite3", "a.sqlite3-wal", "a.sqlite3-shm"])
@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_file_with_secrets_that_everybody_can_open_is_found(
    deployment: Any, tmp_path: Path, name: str, mode: int
) -> None:
    private(tmp_path / name)
    (tmp_path / name).chmod(mode)
    messages = found()
    assert set(messages) == {"W006"}
    assert name in messages["W006"].msg
    assert str(tmp_path / name) in (messages["W006"].hint or "")


def test_a_group_of_ones_own_may_read_them(deployment: Any, tmp_path: Path) -> None:
    (tmp_path / ".env").chmod(0o640)
    assert found() == {}


def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    table = tmp_path / "mounts"
    table.write_text("\n".join(f"{line} rw 0 0" for line in ("overlay / overlay", *lines)))
    monkeypatch.setattr(checks, "_MOUNTS", table)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"])
def test_sqlite_on_a_network_file_system_is_found(
    deployment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts(tmp_path, monkeypatch, f"server:/export {tmp_path.resolve()} {kind}")
    assert set(found()) == {"W005"}


def test_only_the_file_system_that_the_database_lies_on_counts(
    deployment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"server:/export {tmp_path.resolve()}-elsewhere nfs4"
    mounts(tmp_path, monkeypatch, f"server:/export {tmp_path.resolve().parent} nfs4", elsewhere)
    assert set(found()) == {"W005"}
    mounts(
        tmp_path,
        monkeypatch,
        f"server:/export {tmp_path.resolve().parent} nfs4",
        f"/dev/sda1 {tmp_path.resolve()} ext4",
        elsewhere,
    )
    assert found() == {}


def test_postgresql_lies_on_no_file_system_of_ours(
    deployment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts(tmp_path, monkeypatch, "server:/export / nfs4")
    monkeypatch.setattr(configured, "DATABASES", {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "x"}})
    assert found() == {}


def test_a_machine_without_a_table_of_mounts_is_not_guessed_about(
    deployment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_MOUNTS", tmp_path / "none")
    assert found() == {}


def test_the_document_lists_every_check() -> None:
    numbers = re.findall(r'@deployment\("(\w+)"', Path(checks.__file__).read_text())
    listed = (ROOT / "docs/deploying.md").read_text()
    assert len(numbers) == len(set(numbers)) > 0
    assert [number for number in numbers if not re.search(rf"`(aipassport\.)?{number}`", listed)] == []


def manage(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    good = {
        "DJANGO_SETTINGS_MODULE": "aipassport.settings",
        "AIPASSPORT_SECRET_KEY": secrets.token_urlsafe(48),
        "AIPASSPORT_ENCRYPTION_KEYS": FRESH,
        "AIPASSPORT_URL": "https://aipassport.example",
        "AIPASSPORT_TRUST_PROXY": "true",
        "AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS": "false",
        "AIPASSPORT_EMAIL_URL": "smtp+tls://mail.example:587",
        "DATABASE_URL": "sqlite:////nonexistent/aipassport.sqlite3",
        "LOG_LEVEL": "INFO",
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING", *args]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**good | env), text=True, capture_output=True, timeout=60, check=False
    )


def test_the_command_passes_a_good_deployment() -> None:
    done = manage()
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize(
    ("env", "number"),
    [
        ({"AIPASSPORT_DEBUG": "true"}, "security.W018"),  # Django's own
        ({"AIPASSPORT_URL": "http://aipassport.example"}, "aipassport.W003"),
        ({"LOG_LEVEL": "DEBUG"}, "aipassport.W008"),
    ],
)
def test_the_command_fails_a_bad_one(env: dict[str, str], number: str) -> None:
    done = manage(**env)
    assert done.returncode == 1
    assert number in done.stderr


def test_the_secrets_that_make_run_writes_pass(
    deployment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIPASSPORT_SECRET_KEY")
    path = tmp_path / "fresh"
    assert ensure(path)
    written = dict(line.split("=", 1) for line in path.read_text().splitlines() if not line.startswith("#"))
    deployment.SECRET_KEY = written["AIPASSPORT_SECRET_KEY"]
    deployment.AIPASSPORT_ENCRYPTION_KEYS = [written["AIPASSPORT_ENCRYPTION_KEYS"]]
    assert found() == {}


def test_the_commands_that_the_hints_name_make_secrets_that_pass(deployment: Any) -> None:
    secret, key = (
        subprocess.run(["sh", "-c", command], text=True, capture_output=True, check=True).stdout.strip()
        for command in (checks.FRESH_SECRET, checks.FRESH_KEY)
    )
    deployment.SECRET_KEY, deployment.AIPASSPORT_ENCRYPTION_KEYS = secret, [key]
    assert found() == {}
