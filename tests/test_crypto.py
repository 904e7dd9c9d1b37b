"""Encryption at rest: authenticated, bound to the row, rotatable."""

from __future__ import annotations

from typing import Any

import pytest

from grants import crypto
from grants.models import ProviderKey

from .conftest import CANARY


def test_what_was_encrypted_decrypts_in_its_own_row_only() -> None:
    sealed = crypto.encrypt(CANARY, context="providerkey:1")
    assert CANARY not in sealed
    assert crypto.decrypt(sealed, context="providerkey:1") == CANARY
    with pytest.raises(crypto.DecryptionError):
        crypto.decrypt(sealed, context="providerkey:2")


def test_the_same_value_never_encrypts_to_the_same_text() -> None:
    assert crypto.encrypt("x", context="c") != crypto.encrypt("x", context="c")


@pytest.mark.parametrize("position", [5, 14, 30, -10])
def test_a_changed_ciphertext_does_not_decrypt(position: int) -> None:
    sealed = crypto.encrypt(CANARY, context="c")
    swapped = "A" if sealed[position] != "A" else "B"
    changed = sealed[:position] + swapped + sealed[position:][1:]
    with pytest.raises(crypto.DecryptionError):
        crypto.decrypt(changed, context="c")


@pytest.mark.parametrize("garbage", ["", "v1", "v1.", "v2.a.b", "v1.00000000.AAAA", "plain text", "v1.x.\udcff"])
def test_garbage_is_an_error_of_ours(garbage: str) -> None:
    with pytest.raises(crypto.DecryptionError):
        crypto.decrypt(garbage, context="c")


def test_old_values_are_read_under_any_configured_key_and_new_ones_written_under_the_first(settings: Any) -> None:
    old = crypto.encrypt("value", context="c")
    settings.AIPASSPORT_ENCRYPTION_KEYS = [crypto.new_key(), *settings.AIPASSPORT_ENCRYPTION_KEYS]
    assert crypto.decrypt(old, context="c") == "value"
    assert not crypto.under_primary_key(old)
    new = crypto.encrypt("value", context="c")
    assert crypto.under_primary_key(new)
    settings.AIPASSPORT_ENCRYPTION_KEYS = settings.AIPASSPORT_ENCRYPTION_KEYS[:1]
    assert crypto.decrypt(new, context="c") == "value"
    with pytest.raises(crypto.DecryptionError):
        crypto.decrypt(old, context="c")


@pytest.mark.parametrize("key", ["", "short", "AAAA", "ä" * 44, "A" * 43])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        crypto.parse_key(key)


def test_a_provider_key_shows_its_secret_nowhere(alice: Any, by: Any) -> None:
    key = ProviderKey.add(owner=alice, provider="openai", label="Main", secret=CANARY, by=by)
    shown = f"{key} {key!r} {key.masked} {key.hint} {[str(event.detail) for event in key.events.all()]} {key.secret}"
    assert CANARY not in shown
    assert key.hint == CANARY[-4:]
