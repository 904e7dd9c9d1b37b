"""Alive, ready, and the keys that verify tokens."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.contrib.auth.hashers import check_password, make_password
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from aipassport import health
from grants import crypto, tokens
from grants.models import Actor, Grant, ProviderKey, SigningKey
from tests.conftest import CANARY, PASSWORD

from .live import ROOT, environment

READY = {"database": "ok", "keys": "ok", "migrations": "ok"}


def test_alive_needs_no_database() -> None:
    response = Client().get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_ready_looks_at_the_database_the_keys_and_the_migrations(grant: Grant, by: Actor) -> None:
    tokens.mint(grant, by=by)
    response = Client().get("/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "checks": READY})
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.django_db
@pytest.mark.parametrize("keys", [[crypto.new_key()], ["short"], []], ids=["another key", "no key of ours", "none"])
def test_not_ready_where_the_newest_secret_cannot_be_read_and_nothing_is_told_of_it(
    alice: Any, by: Actor, settings: Any, keys: list[str], caplog: Any
) -> None:
    ProviderKey.add(owner=alice, provider="openai", label="Work", secret=CANARY, by=by)
    settings.AIPASSPORT_ENCRYPTION_KEYS = keys
    response = Client().get("/ready")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "checks": READY | {"keys": "failed"}}
    assert CANARY not in caplog.text
    assert not any(key and key in caplog.text for key in keys)


@pytest.mark.django_db
def test_not_ready_where_the_signing_key_cannot_be_read(grant: Grant, by: Actor) -> None:
    tokens.mint(grant, by=by)
    SigningKey.objects.update(private_key=crypto.encrypt("no key", context=SigningKey.objects.get().context))
    assert Client().get("/ready").json()["checks"] == READY | {"keys": "failed"}


@pytest.mark.django_db
def test_not_ready_before_the_last_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrated", False)
    MigrationRecorder.Migration.objects.filter(app="grants").delete()
    assert Client().get("/ready").json()["checks"] == READY | {"migrations": "failed"}


def test_not_ready_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-django forbids the database here: as good as gone."""
    monkeypatch.setattr(health, "_migrated", True)
    response = Client().get("/ready")
    assert response.status_code == 503
    assert response.json()["checks"]["database"] == "failed"


def test_alive_and_ready_are_only_read() -> None:
    for path in ("/health", "/ready", "/.well-known/jwks.json"):
        assert Client().post(path).status_code == 405


@pytest.mark.django_db
def test_anybody_verifies_a_token_with_the_published_keys_and_a_retired_one_is_not_published(
    grant: Grant, by: Actor
) -> None:
    minted = tokens.mint(grant, by=by)
    published = Client().get("/.well-known/jwks.json").json()
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(minted.token)["kid"]]
    claims = jwt.decode(minted.token, key, algorithms=["ES256"], audience="http://testserver/proxy")
    assert claims["jti"] == minted.jti
    assert all("d" not in jwk for jwk in published["keys"])
    SigningKey.objects.get().retire(by)
    assert Client().get("/.well-known/jwks.json").json() == {"keys": []}


def test_passwords_are_hashed_in_djangos_own_format(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["aipassport.hashers.PBKDF2PasswordHasher"]
    encoded = make_password("correct horse")
    assert encoded.startswith("pbkdf2_sha256$")
    assert check_password("correct horse", encoded)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    assert check_password("correct horse", encoded)


_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import time, gevent
from django.conf import settings
settings.configure(PASSWORD_HASHERS=["aipassport.hashers.PBKDF2PasswordHasher"])
from django.contrib.auth.hashers import check_password, make_password
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic()); gevent.sleep(0.005)
gevent.spawn(tick); gevent.sleep(0.02); ticks.clear()
began = time.monotonic()
encoded = make_password("correct horse")
took = time.monotonic() - began
assert check_password("correct horse", encoded)
print(took, max(b - a for a, b in zip(ticks, ticks[1:])))
"""


def test_a_password_hash_does_not_stop_the_other_greenlets() -> None:
    output = subprocess.run([sys.executable, "-c", _UNDER_GEVENT], capture_output=True, text=True, check=True).stdout
    took, longest_pause = map(float, output.split())
    assert longest_pause < took / 2


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "postgresql", reason="a replica of PostgreSQL")
def test_a_database_that_can_only_be_read_is_not_ready_and_a_sign_in_says_503(alice: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
    assert Client().get("/ready").json() == {"status": "unavailable", "checks": READY | {"database": "failed"}}
    body = {"username": "alice", "password": PASSWORD}
    response = Client().post("/api/auth/token/", body, content_type="application/json")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "database_unavailable")


_READY = """
import json, django; django.setup()
from django.test import Client
print(json.dumps(Client().get("/ready").json()["checks"]))
"""
_MOUNTED = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; exec "$@"'


def ready_in(folder: Path, *, writable: bool = True) -> Any:
    """What ``/ready`` says where this folder is as it is, or can only be read: root may write whatever its mode is."""
    ask, files = [sys.executable, "-c", _READY], [folder, *folder.iterdir()]
    if not writable and os.geteuid() == 0:
        ask = ["unshare", "-m", "sh", "-ec", _MOUNTED, "sh", str(folder), *ask]
    elif not writable:
        for path in files:
            path.chmod(path.stat().st_mode & ~0o222)
    env = environment(DATABASE_URL=f"sqlite:///{folder}/it.sqlite3")
    done = subprocess.run(ask, cwd=ROOT, env=env, text=True, capture_output=True, timeout=30, check=False)
    for path in files if not writable else ():
        path.chmod(path.stat().st_mode | 0o200)
    if "mount" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a folder")
def test_an_sqlite_database_that_can_only_be_read_is_not_ready_and_one_that_is_busy_is(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
    subprocess.run(migrate, cwd=ROOT, env=environment(DATABASE_URL=f"sqlite:///{folder}/it.sqlite3"), check=True)
    with closing(sqlite3.connect(folder / "it.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # and so the companions stay, without which nothing could be read
        assert ready_in(folder) == READY
        assert ready_in(folder, writable=False) == READY | {"database": "failed"}
