"""An AIPassport on a database of its own, set up with its own commands as an operator would."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import copy
from typing import Any, Self

from .live import ROOT, environment

PRICE = "--price=fake-*:input=1,output=10"  # dollars a million tokens


class Instance:
    """``env`` goes to its servers. One owner, one key that leads to ``upstream``."""

    def __init__(self, database_url: str, upstream: Any, **env: str) -> None:
        self.env = {"DATABASE_URL": database_url, "LOG_LEVEL": "INFO"} | env
        self.manage("migrate", "--verbosity=0")
        self.manage("createsuperuser", "--noinput", "--username=alice", "--email=alice@example.org")
        options = ("--owner=alice", "--provider=openai", "--label=fake", f"--base-url={upstream.url}", PRICE)
        self._key = self._json("add_key", *options, secret="sk-0123456789abcdef")["id"]

    def on(self, database_url: str) -> Self:
        """The same, on a copy of its database."""
        other = copy(self)
        other.env = self.env | {"DATABASE_URL": database_url}
        return other

    def grant(self, *limits: str) -> tuple[str, str]:
        """A grant with such options of ``issue_grant``, and a token of it."""
        terms = ("--models=*", "--capabilities=chat", "--expires=1d", "--app=Notebook", *limits)
        grant = str(self._json("issue_grant", f"--key={self._key}", *terms)["id"])
        return grant, self.token(grant)

    def token(self, grant: str) -> str:
        return str(self._json("issue_token", grant)["token"])

    def assert_books_balance(self) -> None:
        self.manage("reconcile")

    def manage(self, *arguments: str, secret: str = "", **env: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        env = environment(**self.env | {"DJANGO_SUPERUSER_PASSWORD": "correct horse battery staple"} | env)
        done = subprocess.run(command, cwd=ROOT, env=env, input=secret, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _json(self, *arguments: str, secret: str = "") -> Any:
        return json.loads(self.manage(*arguments, "--json", secret=secret))
