"""Delegated tokens: what is minted, and everything that is not accepted."""

from __future__ import annotations

import jwt
import pytest

from grants import tokens
from grants.models import Actor, AuditEvent, Grant, SigningKey

pytestmark = pytest.mark.django_db


def test_a_minted_token_verifies_and_names_its_grant(grant: Grant, by: Actor) -> None:
    minted = tokens.mint(grant, by=by)
    claims = tokens.verify(minted.token)
    assert claims.grant == grant.pk
    assert claims.jti == minted.jti
    header = jwt.get_unverified_header(minted.token)
    assert header["typ"] == "at+jwt"
    assert header["kid"] == SigningKey.objects.get().kid
    event = AuditEvent.objects.get(action="token.issued")
    assert event.jti == minted.jti
    assert minted.token not in str(event.detail)
