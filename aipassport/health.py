"""What a load balancer asks, and what token verifiers fetch. No secret, no stack trace, no session."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from grants import crypto, tokens
from grants.models import ProviderKey, SigningKey

logger = logging.getLogger(__name__)

_migrated = False


@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """This process answers."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 when this process can serve calls, else 503; ``checks`` says what is missing."""
    checks = {name: _passes(name, check) for name, check in _CHECKS.items()}
    good = all(result == "ok" for result in checks.values())
    body = {"status": "ok" if good else "unavailable", "checks": checks}
    return JsonResponse(body, status=200 if good else 503, headers={"Cache-Control": "no-store"})


@require_safe
def jwks(request: HttpRequest) -> JsonResponse:
    """The public halves of the live signing keys (RFC 7517). The relay itself does not wait for a cache to expire."""
    return JsonResponse(tokens.jwks(), headers={"Cache-Control": "public, max-age=300"})


def _passes(name: str, check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001  whatever it is, the answer is "not ready"
        logger.warning("not ready: %s: %s", name, type(error).__name__)  # the type alone: a message may quote values
        return "failed"
    return "ok"


def _database() -> None:
    """It answers, and can be written: one that can only be read admits no call."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW transaction_read_only")
            writable = cursor.fetchone() == ("off",)
        else:
            cursor.execute("PRAGMA database_list")
            writable = _may_write(cursor.fetchone()[2])
    if not writable:
        raise RuntimeError("the database can only be read")


def _may_write(file: str) -> bool:
    """Whether the system lets us write a file of SQLite's, and its folder, where the log is; "" is in memory.

    SQLite itself finds out by its first write alone, and a write would wait for a database that is merely busy.
    """
    return not file or all(os.access(path, os.W_OK) for path in (file, os.path.dirname(file)))


def _keys() -> None:
    """The configured keys can write, and read what was written last."""
    if crypto.decrypt(crypto.encrypt("ready", context="ready"), context="ready") != "ready":
        raise crypto.DecryptionError("not what was written")
    newest = ProviderKey.objects.order_by("-created_at").first()
    if newest is not None:
        crypto.decrypt(newest.secret, context=newest.context)
    signing = SigningKey.objects.live().first()  # none: the first token makes one
    if signing is not None:
        load_pem_private_key(signing.private_pem().encode(), password=None)


def _migrations() -> None:
    """Every migration is applied. Once true, it stays so for the life of this process: its code does not change."""
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise RuntimeError("unapplied migrations")
        _migrated = True


_CHECKS: dict[str, Callable[[], None]] = {"database": _database, "keys": _keys, "migrations": _migrations}
