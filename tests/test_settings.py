"""No start without secrets; weak ones, unknown databases and odd values are refused with a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aipassport import dotenv

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "AIPASSPORT_SECRET_KEY": "s" * 50,
    "AIPASSPORT_ENCRYPTION_KEYS": "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
    "DATABASE_URL": "sqlite:////nonexistent/x.sqlite3",
}


def start(*, before: str = "", show: str = "", **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process of its own, without a ``.env``.

    ``before``: what it runs first. ``show``: an expression that it prints, in which ``s`` is the settings module.
    """
    environment = {"PATH": os.environ["PATH"]} | {k: v for k, v in (GOOD | changes).items() if v is not None}
    code = f"{before}import environ; environ.Env.read_env = lambda *a, **k: None\nfrom aipassport import settings as s"
    code += f"\nprint({show})"
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
        ({"LOG_LEVEL": "verbose"}, "LOG_LEVEL must be DEBUG"),
        ({"AIPASSPORT_TRUST_PROXY": "true # behind nginx"}, "AIPASSPORT_TRUST_PROXY: remove the comment"),
        ({"PORT": "8000 # http"}, "PORT: remove the comment"),
        ({"AIPASSPORT_TRUST_PROXY": "enabled"}, "AIPASSPORT_TRUST_PROXY must be true or false"),
        ({"AIPASSPORT_TRUST_PROXY": "ture"}, "AIPASSPORT_TRUST_PROXY must be true or false"),
        ({"PORT": "http"}, "PORT must be a whole number"),
        ({"PORT": "70000"}, "PORT must be at most 65535"),
        ({"AIPASSPORT_READ_TIMEOUT": "nan"}, "AIPASSPORT_READ_TIMEOUT must be a number"),
        ({"AIPASSPORT_MAX_BODY_BYTES": "-1"}, "AIPASSPORT_MAX_BODY_BYTES must be a whole number"),
        ({"AIPASSPORT_URL": "https://example.com/ai"}, "AIPASSPORT_URL has a path (/ai)"),
        ({"AIPASSPORT_URL": "https://user@example.com"}, "AIPASSPORT_URL must have the form"),
        ({"AIPASSPORT_URL": "http://[2001:db8::1"}, "AIPASSPORT_URL must have the form"),
        ({"DATABASE_URL": "$DATABASE_URL_OF_THE_PLATFORM"}, "DATABASE_URL must have the form"),
        ({"AIPASSPORT_EMAIL_URL": "pigeon://mail.example"}, "AIPASSPORT_EMAIL_URL must have the form"),
        ({"AIPASSPORT_UPSTREAM_CA_BUNDLE": "/nonexistent/ca.pem"}, "AIPASSPORT_UPSTREAM_CA_BUNDLE: /nonexistent"),
        ({"AIPASSPORT_UPSTREAM_CA_BUNDLE": "pyproject.toml"}, "AIPASSPORT_UPSTREAM_CA_BUNDLE: pyproject.toml"),
    ],
)
def test_bad_settings_stop_the_start(changes: dict[str, str | None], complaint: str) -> None:
    done = start(**changes)
    assert done.returncode != 0
    assert complaint in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_value_counts_as_absent(blank: str) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = {match[1] for line in lines if (match := re.match(r"#([A-Z_]+)=", line))} - GOOD.keys()
    done = start(show="s.PORT", **dict.fromkeys(names | {"DATABASE_URL"}, blank))
    assert done.stdout.strip() == "8000", done.stderr


@pytest.mark.parametrize(
    ("changes", "show", "value"),
    [
        ({"AIPASSPORT_SECRET_KEY": "$" + "x" * 40}, "s.SECRET_KEY", "$" + "x" * 40),
        ({"AIPASSPORT_METRICS_TOKEN": "$ecret" * 4}, "s.AIPASSPORT_METRICS_TOKEN", "$ecret" * 4),
        ({"AIPASSPORT_TRUST_PROXY": "Yes"}, "s.TRUST_PROXY", "True"),
        ({"AIPASSPORT_TRUST_PROXY": "off"}, "s.TRUST_PROXY", "False"),
        ({"AIPASSPORT_ALLOWED_HOSTS": "a.example, b.example,"}, "s.ALLOWED_HOSTS", "['a.example', 'b.example']"),
        ({"HOST": "::1"}, "s.AIPASSPORT_URL", "http://[::1]:8000"),
        ({"HOST": "[::1]"}, "s.HOST", "::1"),
        ({"AIPASSPORT_URL": "http://[2001:db8::1]:8000"}, "s.ALLOWED_HOSTS[0]", "[2001:db8::1]"),
        ({"DATABASE_URL": "sqlite:///ai.sqlite3"}, "s.DATABASES['default']['NAME']", str(ROOT / "ai.sqlite3")),
        ({"DATABASE_URL": "sqlite:////srv/ai.sqlite3"}, "s.DATABASES['default']['NAME']", "/srv/ai.sqlite3"),
        ({"AIPASSPORT_URL": "https://example.com/"}, "s.AIPASSPORT_URL", "https://example.com"),
    ],
)
def test_a_value_is_read_as_its_operator_meant_it(changes: dict[str, str], show: str, value: str) -> None:
    done = start(show=show, **changes)
    assert done.stdout.strip() == value, done.stderr


def test_a_complaint_about_the_database_repeats_no_password() -> None:
    done = start(DATABASE_URL="pg://me:hunter2@h:port/d")
    assert done.returncode != 0
    assert "hunter2" not in done.stderr


# Secrets in files (Docker, Kubernetes)


def test_a_secret_is_read_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    secret, keys, database = (tmp_path / name for name in ("secret", "keys", "database"))
    secret.write_text("f" * 50 + "\n")
    second = "c2Vjb25kc2Vjb25kc2Vjb25kc2Vjb25kc2Vjb25kc2U="
    keys.write_text(f"{GOOD['AIPASSPORT_ENCRYPTION_KEYS']}\n{second}\n")  # one a line, or with commas
    database.write_text("postgres://u:p@h:5432/d\n")
    done = start(
        show="[s.SECRET_KEY, s.AIPASSPORT_ENCRYPTION_KEYS, s.DATABASES['default']['PASSWORD']]",
        AIPASSPORT_SECRET_KEY=None,
        AIPASSPORT_SECRET_KEY_FILE=str(secret),
        AIPASSPORT_ENCRYPTION_KEYS=None,
        AIPASSPORT_ENCRYPTION_KEYS_FILE=str(keys),
        DATABASE_URL_FILE=str(database),  # goes before DATABASE_URL
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(["f" * 50, [GOOD["AIPASSPORT_ENCRYPTION_KEYS"], second], "p"])


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    done = start(AIPASSPORT_SECRET_KEY=None, AIPASSPORT_SECRET_KEY_FILE=str(path))
    assert done.returncode != 0
    assert f"AIPASSPORT_SECRET_KEY_FILE: {path} cannot be read as text." in done.stderr


def test_no_env_file_is_written_where_the_secrets_are_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIPASSPORT_SECRET_KEY", "AIPASSPORT_ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(f"{name}_FILE", "/run/secrets/x")
    assert not dotenv.ensure(tmp_path / ".env")
