"""Password hashing that does not stop the house."""

from __future__ import annotations

import sys

from django.contrib.auth import hashers

from grants.pace import release_connection


class PBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """Django's, in gevent's thread pool where gevent serves: half a second of C would freeze every open stream.

    Stored passwords are Django's own format (``pbkdf2_sha256$…``), whichever class wrote them.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        monkey = sys.modules.get("gevent.monkey")
        if monkey is None or not monkey.is_module_patched("threading"):
            return super().encode(password, salt, iterations)
        from gevent import get_hub

        release_connection()  # the relay needs one of the few while many passwords wait for a CPU
        return get_hub().threadpool.apply(super().encode, (password, salt, iterations))
