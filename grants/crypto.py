"""Encryption at rest: AES-256-GCM, bound to the row, under one of several keys.

A ciphertext reads ``v1.<key id>.<base64url(nonce ‖ ciphertext ‖ tag)>``. The key id is a fingerprint of the
key, so that any number of keys can be in force while a rotation runs; new values go under the first.
The *context* (``table:row id``) is authenticated with the value (AEAD associated data, NIST SP 800-38D):
a ciphertext copied into another row does not decrypt.
"""

from __future__ import annotations

import binascii
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_VERSION = "v1"
_NONCE_BYTES = 12


class DecryptionError(Exception):
    """The value was written under a key that is not in force, for another row, or was tampered with."""


def new_key() -> str:
    """A fresh 256-bit key in the form that ``AIPASSPORT_ENCRYPTION_KEYS`` takes."""
    return urlsafe_b64encode(os.urandom(32)).decode()


def parse_key(encoded: str) -> bytes:
    """The 32 bytes of one configured key.

    Raises:
        ValueError: not base64url, or not 256 bits.
    """
    try:
        key = urlsafe_b64decode(encoded.encode())
    except (binascii.Error, ValueError) as error:
        raise ValueError("an encryption key must be base64url") from error
    if len(key) != 32:
        raise ValueError("an encryption key must be 32 bytes, base64url-encoded")
    return key


@lru_cache(maxsize=4)
def _ring(encoded: tuple[str, ...]) -> dict[str, AESGCM]:
    """Key id → cipher, primary first. Cached by the configured keys, so a changed setting is a new ring."""
    keys = [parse_key(item) for item in encoded]
    return {sha256(b"aipassport key id" + key).hexdigest()[:8]: AESGCM(key) for key in keys}


def _keys() -> dict[str, AESGCM]:
    return _ring(tuple(settings.AIPASSPORT_ENCRYPTION_KEYS))


def encrypt(value: str, *, context: str) -> str:
    """``value`` under the primary key, bound to ``context``."""
    key_id, cipher = next(iter(_keys().items()))
    nonce = os.urandom(_NONCE_BYTES)
    sealed = cipher.encrypt(nonce, value.encode(), context.encode())
    return f"{_VERSION}.{key_id}.{urlsafe_b64encode(nonce + sealed).decode()}"


def decrypt(value: str, *, context: str) -> str:
    """The value that :func:`encrypt` was given with the same ``context``.

    Raises:
        DecryptionError: see there. The message never contains the value.
    """
    version, _, rest = value.partition(".")
    key_id, _, sealed = rest.partition(".")
    cipher = _keys().get(key_id)
    if version != _VERSION or cipher is None:
        raise DecryptionError(f"no encryption key {key_id[:8]!r} is in force")
    try:
        raw = urlsafe_b64decode(sealed.encode())
        return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise DecryptionError("the value is not authentic for this row") from error


def under_primary_key(value: str) -> bool:
    """Whether ``value`` is already encrypted under the first configured key."""
    return value.split(".")[1:2] == [next(iter(_keys()))]
