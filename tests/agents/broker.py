"""A broker of its own for a run of the clients: SQLite, one gunicorn, keys to the local provider."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .provider import KEY, LocalProvider

ROOT = Path(__file__).resolve().parents[2]


class Issued(NamedTuple):
    grant: str
    token: str


class Broker:
    """``url`` is its address; it runs until :meth:`stop`."""

    def __init__(self, folder: Path, provider: LocalProvider) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "broker.log"
        self._keys: dict[str, str] = {}
        self._provider = provider
        self._env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | {
            "DJANGO_SETTINGS_MODULE": "aipassport.settings",
            "AIPASSPORT_SECRET_KEY": secrets.token_urlsafe(48),
            "AIPASSPORT_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIPASSPORT_URL": self.url,
            "AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS": "true",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATABASE_URL": f"sqlite:///{folder / 'broker.sqlite3'}",
            "DJANGO_SUPERUSER_PASSWORD": secrets.token_urlsafe(16),
        }
        self.manage("migrate", "--verbosity", "0")
        self.manage("createsuperuser", "--noinput", "--username", "owner", "--email", "owner@example.org")
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "gunicorn", "-c", "python:aipassport.gunicorn"]
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._wait()

    def _wait(self) -> None:
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            time.sleep(0.1)
        self.stop()
        sys.exit(f"The broker did not start:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(60)

    def manage(self, *arguments: str, secret: str = "") -> str:
        """Run a management command; returns what it printed. ``secret``: its standard input."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._env, input=secret, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _json(self, *arguments: str, secret: str = "") -> Any:
        return json.loads(self.manage(*arguments, "--json", secret=secret))

    def issue(self, provider: str, models: str, *limits: str) -> Issued:
        """A grant on a key of ``provider``, and a token. ``limits``: options of ``issue_grant``."""
        if provider not in self._keys:
            key = ("--owner", "owner", "--provider", provider, "--label", provider, "--base-url", self._provider.url)
            self._keys[provider] = self._json("add_key", *key, secret=KEY)["id"]
        terms = ("--models", models, "--capabilities", "chat", "--expires", "1h", "--app", "clients")
        grant = self._json("issue_grant", "--key", self._keys[provider], *terms, *limits)["id"]
        return Issued(grant, self._json("issue_token", grant)["token"])

    def revoke(self, grant: str) -> None:
        self.manage("revoke", grant)


@contextmanager
def running(folder: Path, provider: LocalProvider) -> Iterator[Broker]:
    broker = Broker(folder, provider)
    try:
        yield broker
    finally:
        broker.stop()
