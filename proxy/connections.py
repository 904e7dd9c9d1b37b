"""A greenlet's database connection, given back as soon as it is not needed: nothing holds one across a network call."""

from __future__ import annotations

from django.db import connections


def release_connection() -> None:
    """Give this greenlet's database connection back to the pool."""
    for known in connections.all(initialized_only=True):
        if not known.in_atomic_block:
            known.close()
