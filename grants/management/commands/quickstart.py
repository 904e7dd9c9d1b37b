from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandParser

from grants import tokens
from grants.management.base import BY_COMMAND, DataCommand
from grants.models import Grant, ProviderKey
from grants.snippets import snippets
from grants.terms import DAY, Terms

_USERNAME = "owner"
_LABEL = "First steps"
_APP = "Quickstart"
_TERMS = Terms(models=("sandbox-*",), capabilities=("chat", "embeddings"), valid_for=365 * DAY, token_lifetime=DAY)


class Command(DataCommand):
    help = (
        "From nothing to a first call: migrates, creates the owner, a sandbox key, a grant and a token, prints how to "
        "use them, and serves. Run again, it keeps everything and issues a new token."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--no-serve", action="store_true", help="Only prepare and print.")

    def handle(self, *args: Any, **options: Any) -> None:
        logging.disable(logging.INFO)  # the first screen is for people; the events stand in the trail
        try:
            super().handle(*args, **options)
        finally:
            logging.disable(logging.NOTSET)
        if not options["no_serve"]:
            self.stdout.flush()
            os.chdir(settings.BASE_DIR)
            os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", "python:aipassport.gunicorn"])  # noqa: S606

    def run(self, **_: Any) -> Mapping[str, Any]:
        call_command("migrate", verbosity=0)
        owner, password = _owner()
        key = ProviderKey.objects.filter(owner=owner, provider="sandbox", disabled_at=None).first()
        key = key or ProviderKey.add(owner=owner, provider="sandbox", label=_LABEL, secret="", by=BY_COMMAND)
        grant = Grant.objects.live().filter(provider_key=key, app_name=_APP).first() or Grant.issue(
            key=key, app_name=_APP, by=BY_COMMAND, terms=_TERMS
        )
        minted = tokens.mint(grant, by=BY_COMMAND)
        self._grant = grant
        return {
            "username": owner.get_username(),
            "password": password,
            "admin_url": f"{settings.AIPASSPORT_URL}/admin/",
            "base_url": f"{settings.AIPASSPORT_URL}/proxy",
            "key": key.pk,
            "grant": grant.pk,
            "token": minted.token,
        }

    def show(self, data: Mapping[str, Any]) -> None:
        bold = self.style.MIGRATE_HEADING
        password = f"password {data['password']}  (shown this once)" if data["password"] else "password as before"
        self.stdout.write(f"\n{bold('Sign in')}  {data['admin_url']}\n  username {data['username']}, {password}\n")
        shown = {snippet.title: snippet.text for snippet in snippets(self._grant, data["token"])}
        for title in ("curl", "OpenAI SDK"):
            self.stdout.write(f"\n{bold(title)}\n\n{shown[title]}\n")
        self.stdout.write(f"\nOther SDKs, other grants: {data['admin_url']}\n\n")


def _owner() -> tuple[Any, str | None]:
    """The first superuser, or a new one with its password."""
    users = get_user_model().objects
    owner = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if owner is not None:
        return owner, None
    password = secrets.token_urlsafe(12)
    return users.create_superuser(_USERNAME, password=password), password
