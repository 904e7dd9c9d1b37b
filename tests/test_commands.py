"""The commands: what they print, what they refuse, and that a secret never stands on a command line."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from aipassport import dotenv
from grants import crypto, tokens
from grants.models import AuditEvent, Grant, ProviderKey, RateWindow, RevokedToken, SigningKey

from .conftest import CANARY

pytestmark = pytest.mark.django_db


def run(*args: str, stdin: str = "", monkeypatch: Any = None) -> Any:
    """The one JSON object that a command prints."""
    if monkeypatch is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    out = io.StringIO()
    call_command(*args, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_add_key_reads_the_secret_from_standard_input(alice: Any, monkeypatch: Any) -> None:
    data = run(
        "add_key",
        "--owner",
        "alice",
        "--provider",
        "openai",
        "--label",
        "Main",
        stdin=CANARY + "\n",
        monkeypatch=monkeypatch,
    )
    key = ProviderKey.objects.get(pk=data["id"])
    assert crypto.decrypt(key.secret, context=key.context) == CANARY
    assert key.owner == alice


@pytest.mark.parametrize(
    ("args", "stdin", "complaint"),
    [
        (("--owner", "nobody", "--provider", "openai"), CANARY, "nobody"),
        (("--owner", "alice", "--provider", "openai"), "", "needs a key"),
        (("--owner", "alice", "--provider", "openai"), "two words", "one line"),
        (("--owner", "alice", "--provider", "azure"), CANARY, "base URL"),
        (("--owner", "alice", "--provider", "custom", "--base-url", "http://10.0.0.1"), CANARY, "ALLOW_PRIVATE"),
        (("--owner", "alice", "--provider", "custom", "--base-url", "https://10.0.0.1"), CANARY, "ALLOW_PRIVATE"),
        (("--owner", "alice", "--provider", "custom", "--base-url", "https://user:pw@host.example"), CANARY, "Only"),
        (("--owner", "alice", "--provider", "custom", "--base-url", "https://host.example/?x=1"), CANARY, "Only"),
        (("--owner", "alice", "--provider", "custom", "--base-url", "file:///etc/passwd"), CANARY, "https"),
        (("--owner", "alice", "--provider", "custom", "--base-url", "https://host.example/a/../b"), CANARY, "dot"),
    ],
)
def test_add_key_refuses_nonsense_and_stores_nothing(
    alice: Any, monkeypatch: Any, settings: Any, args: Any, stdin: str, complaint: str
) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    with pytest.raises(CommandError) as caught:
        run("add_key", *args, "--label", "x", stdin=stdin, monkeypatch=monkeypatch)
    assert complaint in str(caught.value)
    assert CANARY not in str(caught.value)
    assert not ProviderKey.objects.exists()


def test_add_key_has_no_argument_for_the_secret(alice: Any, monkeypatch: Any) -> None:
    for name in ("--secret", "--key", "--api-key"):
        with pytest.raises(CommandError):
            run(
                "add_key",
                "--owner",
                "alice",
                "--provider",
                "openai",
                "--label",
                "x",
                name,
                CANARY,
                stdin=CANARY,
                monkeypatch=monkeypatch,
            )


def test_a_grant_and_a_token_can_be_issued_and_revoked(sandbox_key: ProviderKey) -> None:
    grant = run(
        "issue_grant",
        "--key",
        str(sandbox_key.pk),
        "--app",
        "Nightly",
        "--models",
        "sandbox-1,sandbox-e*",
        "--capabilities",
        "chat,embeddings",
        "--expires",
        "24h",
        "--token-lifetime",
        "30m",
        "--origins",
        "https://app.example",
        "--max-requests",
        "100",
        "--max-concurrency",
        "4",
    )
    record = Grant.objects.get(pk=grant["id"])
    assert record.models == ["sandbox-1", "sandbox-e*"]
    assert (record.max_requests, record.max_concurrency, record.token_lifetime) == (100, 4, 1800)
    token = run("issue_token", grant["id"], "--lifetime", "10m", "--models", "sandbox-1")
    claims = tokens.verify(token["token"])
    assert claims.models == ("sandbox-1",)
    assert claims.expires_at - claims.issued_at == 600
    assert run("revoke", "--token", token["jti"]) == {"token": token["jti"], "revoked": True}
    assert RevokedToken.objects.filter(jti=token["jti"]).exists()
    assert run("revoke", grant["id"])["revoked"] is True
    record.refresh_from_db()
    assert record.status == "revoked"
    assert {event.via for event in AuditEvent.objects.filter(grant=record)} == {"command"}


@pytest.mark.parametrize(
    "args",
    [
        (
            "issue_grant",
            "--key",
            "nonsense",
            "--app",
            "x",
            "--models",
            "*",
            "--capabilities",
            "chat",
            "--expires",
            "1h",
        ),
        ("issue_token", "00000000-0000-0000-0000-000000000000"),
        ("issue_token", "nonsense"),
        ("revoke",),
        ("revoke", "nonsense"),
        ("revoke", "--token", "0" * 32),
    ],
)
def test_unknown_ids_are_refused_in_one_line(args: Any) -> None:
    with pytest.raises(CommandError) as caught:
        run(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [("--expires", "soon"), ("--expires", "0h"), ("--capabilities", "flying"), ("--models", "a*b")]
)
def test_issue_grant_refuses_bad_terms(sandbox_key: ProviderKey, bad: Any) -> None:
    good = {"--key": str(sandbox_key.pk), "--app": "x", "--models": "*", "--capabilities": "chat", "--expires": "1h"}
    args = [part for pair in (good | dict([bad])).items() for part in pair]
    with pytest.raises(CommandError):
        run("issue_grant", *args)
    assert not Grant.objects.exists()


def test_rotating_the_encryption_key_rewrites_every_secret_and_the_old_key_can_go(
    grant: Grant, alice: Any, by: Any, settings: Any
) -> None:
    key = ProviderKey.add(owner=alice, provider="openai", label="Main", secret=CANARY, by=by)
    tokens.mint(grant, by=by)
    old = settings.AIPASSPORT_ENCRYPTION_KEYS
    settings.AIPASSPORT_ENCRYPTION_KEYS = [crypto.new_key(), *old]
    assert run("rotate_encryption_key") == {"rotated": 3}
    assert run("rotate_encryption_key") == {"rotated": 0}
    settings.AIPASSPORT_ENCRYPTION_KEYS = settings.AIPASSPORT_ENCRYPTION_KEYS[:1]
    key.refresh_from_db()
    assert crypto.decrypt(key.secret, context=key.context) == CANARY
    assert SigningKey.objects.get().private_pem()


def test_rotating_the_signing_key_can_retire_the_old_ones(grant: Grant, by: Any) -> None:
    token = tokens.mint(grant, by=by).token
    old = SigningKey.objects.get()
    data = run("rotate_signing_key", "--retire-old")
    assert data["retired"] == [old.kid]
    assert SigningKey.objects.live().get().kid == data["kid"]
    tokens._verified.clear()
    tokens.ring._backends.clear()
    with pytest.raises(tokens.InvalidToken):
        tokens.verify(token)


def test_purge_takes_only_what_nobody_needs(grant: Grant, by: Any) -> None:
    grant.revoke_token("a" * 32, expires_at=grant.created_at, by=by)
    grant.revoke_token("b" * 32, expires_at=grant.expires_at, by=by)
    RateWindow.objects.create(key="old", started_at=0, requests=1)
    assert run("purge") == {"revoked_tokens": 1, "workers": 0, "throttle_windows": 1}
    assert RevokedToken.objects.get().jti == "b" * 32


def test_quickstart_makes_everything_once_and_keeps_it(db: Any) -> None:
    first = run("quickstart", "--no-serve")
    assert set(first) == {"username", "password", "admin_url", "base_url", "key", "grant", "token"}
    user = get_user_model().objects.get(username=first["username"])
    assert user.check_password(first["password"])
    assert tokens.verify(first["token"])
    second = run("quickstart", "--no-serve")
    assert second["password"] is None
    assert (second["key"], second["grant"]) == (first["key"], first["grant"])
    out = io.StringIO()
    call_command("quickstart", "--no-serve", stdout=out)
    assert "curl" in out.getvalue()
    assert "shown this once" not in out.getvalue()


def test_the_first_env_file_has_fresh_secrets_that_only_its_owner_can_read(tmp_path: Path, monkeypatch: Any) -> None:
    for name in dotenv._REQUIRED:
        monkeypatch.delenv(name)
    path = tmp_path / ".env"
    assert dotenv.ensure(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    values = dict(line.split("=", 1) for line in path.read_text().splitlines() if not line.startswith("#"))
    assert len(values["AIPASSPORT_SECRET_KEY"]) >= 32
    crypto.parse_key(values["AIPASSPORT_ENCRYPTION_KEYS"])
    assert not dotenv.ensure(path)
