"""The script of docs/clients.md that prints a fresh token, run as printed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from grants import clients, tokens
from grants.models import Actor, Grant, ProviderKey

pytestmark = pytest.mark.live


def run(url: str, home: Path) -> subprocess.CompletedProcess[str]:
    script = clients.filled(clients.HELPER, url=url, token="", model="").text
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_it_prints_a_fresh_token_and_later_why_there_is_none(
    server: Any, sandbox_key: ProviderKey, by: Actor, tmp_path: Path
) -> None:
    wish = {"app_name": "Helper", "provider": "sandbox", "models": ["sandbox-1"], "capabilities": ["chat"]}
    asked = requests.post(f"{server.url}/api/grant-requests/", json=wish, timeout=10).json()
    grant = Grant.objects.get(pk=asked["id"])
    assert grant.approve(key=sandbox_key, terms=grant.terms, by=by)
    secret = tmp_path / ".config/aipassport.json"
    secret.parent.mkdir()
    secret.write_text(json.dumps({"grant": asked["id"], "request_secret": asked["request_secret"]}))

    fresh = run(server.url, tmp_path)
    assert (fresh.returncode, fresh.stderr) == (0, "")
    assert tokens.verify(fresh.stdout.strip()).grant == grant.pk

    assert Grant.objects.get(pk=grant.pk).revoke(by)
    refused = run(server.url, tmp_path)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "error" in refused.stderr
    assert asked["request_secret"] not in refused.stderr
