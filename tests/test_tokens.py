"""Delegated tokens: what is minted, and everything that is not accepted."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.exceptions import ValidationError
from hypothesis import given, strategies

from grants import policy, tokens
from grants.models import Actor, AuditEvent, Grant, SigningKey

from .conftest import terms

pytestmark = pytest.mark.django_db


@pytest.fixture
def token(grant: Grant, by: Actor) -> str:
    return tokens.mint(grant, by=by).token


@pytest.fixture
def forge(grant: Grant, token: str) -> Callable[..., str]:
    """A token signed with the real key, with claims and headers changed; ``None`` leaves one out."""
    key = SigningKey.objects.get()
    genuine = jwt.decode(token, options={"verify_signature": False})

    def make(
        headers: dict[str, Any] | None = None, signing_key: Any = None, algorithm: str = "ES256", **claims: Any
    ) -> str:
        payload = {name: value for name, value in (genuine | claims).items() if value is not None}
        head = {name: v for name, v in ({"typ": "at+jwt", "kid": key.kid} | (headers or {})).items() if v is not None}
        return jwt.encode(
            payload, key.private_pem() if signing_key is None else signing_key, algorithm=algorithm, headers=head
        )

    return make


def refused(token: str) -> str:
    with pytest.raises(tokens.InvalidToken) as caught:
        tokens.verify(token)
    return caught.value.code


def test_a_minted_token_verifies_and_names_its_grant(grant: Grant, by: Actor) -> None:
    minted = tokens.mint(grant, by=by)
    claims = tokens.verify(minted.token)
    assert (claims.grant, claims.jti) == (grant.pk, minted.jti)
    header = jwt.get_unverified_header(minted.token)
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": SigningKey.objects.get().kid}
    payload = jwt.decode(minted.token, options={"verify_signature": False})
    assert payload["iss"] == "http://testserver"
    assert payload["aud"] == "http://testserver/proxy"
    assert payload["exp"] - payload["iat"] == grant.token_lifetime == minted.lifetime


def test_a_token_is_stored_nowhere_and_its_jti_stands_in_the_trail(grant: Grant, by: Actor) -> None:
    minted = tokens.mint(grant, by=by)
    event = AuditEvent.objects.get(action="token.issued")
    assert event.jti == minted.jti
    assert minted.token not in str(event.detail)
    assert minted.token not in repr(minted)


def test_a_token_never_outlives_its_grant(grant: Grant, by: Actor) -> None:
    soon = grant.expires_at - dt.timedelta(days=30) + dt.timedelta(seconds=90)
    grant.change(terms=grant.terms, expires_at=soon, by=by)
    assert tokens.mint(grant, by=by).lifetime <= 90


@pytest.mark.parametrize(
    "narrowing",
    [{"lifetime": 7200}, {"models": ("*",)}, {"models": ("gpt-4o",)}, {"capabilities": ("images",)}, {"lifetime": 0}],
)
def test_a_token_is_never_wider_than_its_grant(grant: Grant, by: Actor, narrowing: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        tokens.mint(grant, by=by, **narrowing)
    assert not AuditEvent.objects.filter(action="token.issued").exists()


def test_a_narrower_token_is_held_to_what_it_says_and_to_what_its_grant_says(grant: Grant, by: Actor) -> None:
    minted = tokens.mint(grant, by=by, models=("sandbox-1",), capabilities=("chat",))
    rights = policy.read(tokens.verify(minted.token))
    assert rights.allows_model("sandbox-1")
    assert not rights.allows_model("sandbox-2")
    assert rights.capabilities == {"chat"}
    grant.change(terms=terms(models=("other-*",)), by=by)
    assert not policy.read(tokens.verify(minted.token)).allows_model("sandbox-1")


@pytest.mark.parametrize("state", ["denied", "revoked", "expired"])
def test_no_token_is_issued_for_a_grant_that_is_not_live(grant: Grant, by: Actor, state: str) -> None:
    if state == "revoked":
        grant.revoke(by)
    elif state == "expired":
        Grant.objects.update(expires_at=grant.created_at - dt.timedelta(days=1))
    else:
        grant, _ = Grant.request(provider="sandbox", terms=terms(), app_name="x", by=by)
        grant.deny(by)
    grant.refresh_from_db()
    with pytest.raises(ValidationError):
        tokens.mint(grant, by=by)


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "client_id", "jti", "iat", "nbf", "exp"])
def test_a_token_without_one_of_its_claims_is_refused(forge: Callable[..., str], claim: str) -> None:
    assert refused(forge(**{claim: None})) == "invalid_token"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "http://testserver/api"},
        {"aud": ["somebody", "else"]},
        {"sub": "not-a-uuid", "client_id": "not-a-uuid"},
        {"client_id": str(uuid.uuid4())},
        {"jti": "../../etc/passwd"},
        {"jti": 7},
        {"exp": "tomorrow"},
        {"exp": 4e9},
        {"iat": True},
        {"models": "*"},
        {"models": [1]},
        {"scope": ["chat"]},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(forge: Callable[..., str], claims: dict[str, Any]) -> None:
    assert refused(forge(**claims)) == "invalid_token"


def test_an_expired_token_and_one_from_the_future_are_refused(forge: Callable[..., str]) -> None:
    now = int(time.time())
    assert refused(forge(exp=now - 1)) == "token_expired"
    assert refused(forge(nbf=now + 120)) == "invalid_token"


def test_times_are_checked_at_every_use_of_a_remembered_token(forge: Callable[..., str], monkeypatch: Any) -> None:
    token = forge(exp=int(time.time()) + 100)
    tokens.verify(token)
    later = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: later)
    assert refused(token) == "token_expired"


def test_alg_none_and_confused_algorithms_are_refused(forge: Callable[..., str]) -> None:
    public = json.dumps(SigningKey.objects.get().public_jwk)
    assert refused(forge(algorithm="none", signing_key="")) == "invalid_token"
    assert refused(forge(algorithm="HS256", signing_key=public * 2)) == "invalid_token"
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert refused(forge(algorithm="RS256", signing_key=rsa_key)) == "invalid_token"


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"kid": None},
        {"kid": "../../../dev/null"},
        {"kid": "0" * 32},
        {"kid": "' OR 1=1 --"},
        {"jku": "https://evil.example/jwks"},
        {"jwk": {"kty": "EC"}},
        {"crit": ["exp"]},
        {"x5u": "https://evil.example"},
    ],
)
def test_a_token_with_another_header_is_refused(forge: Callable[..., str], headers: dict[str, Any]) -> None:
    assert refused(forge(headers=headers)) == "invalid_token"


def test_a_signature_of_another_key_under_a_known_kid_is_refused(forge: Callable[..., str]) -> None:
    assert refused(forge(signing_key=ec.generate_private_key(ec.SECP256R1()))) == "invalid_token"


def test_forgeries_die_before_any_sql(forge: Callable[..., str], token: str, django_assert_num_queries: Any) -> None:
    tokens.verify(token)  # the ring is loaded
    forgeries = [
        forge(signing_key=ec.generate_private_key(ec.SECP256R1())),
        forge(headers={"kid": "a" * 32}),
        forge(headers={"typ": "JWT"}),
        forge(exp=1),
        token[:-4] + "AAAA",
        "x.y.z",
    ]
    with django_assert_num_queries(0):
        for forgery in forgeries:
            refused(forgery)


def test_a_retired_keys_tokens_are_dead_at_once_and_cost_one_look_a_second(
    token: str, by: Actor, django_assert_max_num_queries: Any
) -> None:
    claims = tokens.verify(token)
    SigningKey.objects.get().retire(by)
    with pytest.raises(policy.Denied) as caught:
        policy.read(claims)
    assert caught.value.code == "signing_key_retired"
    tokens._verified.clear()
    tokens.ring._backends.clear()
    with django_assert_max_num_queries(1):
        for _ in range(5):
            refused(token)


def test_rotation_signs_with_the_new_key_and_still_verifies_the_old(grant: Grant, token: str, by: Actor) -> None:
    new = SigningKey.generate(by)
    assert jwt.get_unverified_header(tokens.mint(grant, by=by).token)["kid"] == new.kid
    assert tokens.verify(token)
    assert {key["kid"] for key in tokens.jwks()["keys"]} == set(SigningKey.objects.values_list("kid", flat=True))
    assert "d" not in tokens.jwks()["keys"][0]


def test_two_tokens_that_share_a_long_beginning_are_not_taken_for_each_other(token: str) -> None:
    """A cache keyed on the beginning of a token has been a CVE elsewhere."""
    tokens.verify(token)
    head, payload, signature = token.split(".")
    changed = signature[:-8] + ("A" * 8 if not signature.endswith("A" * 8) else "B" * 8)
    assert refused(f"{head}.{payload}.{changed}") == "invalid_token"
    assert refused(token + "A") == "invalid_token"
    assert refused(token[:-1]) == "invalid_token"


def test_claims_changed_after_signing_are_refused(token: str, grant: Grant) -> None:
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["exp"] += 10_000
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    assert refused(f"{head}.{changed}.{signature}") == "invalid_token"


@given(
    strategies.one_of(strategies.text(max_size=300), strategies.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
)
def test_garbage_is_an_invalid_token_and_never_an_error(garbage: str) -> None:
    assert refused(garbage) == "invalid_token"


def test_the_memory_of_verified_tokens_is_bounded(forge: Callable[..., str], monkeypatch: Any) -> None:
    monkeypatch.setattr(tokens, "_CACHE_SIZE", 3)
    tokens._verified.clear()
    for _ in range(6):
        tokens.verify(forge(jti=uuid.uuid4().hex))
    assert len(tokens._verified) == 3


def test_verified_tokens_are_remembered_but_not_kept(forge: Callable[..., str]) -> None:
    token = forge(jti=uuid.uuid4().hex)
    tokens._verified.clear()
    assert tokens.verify(token) is tokens.verify(token)
    assert len(tokens._verified) == 1
    assert token not in repr(tokens._verified)


def test_a_revoked_token_is_dead_and_the_others_of_its_grant_live(grant: Grant, token: str, by: Actor) -> None:
    other = tokens.mint(grant, by=by)
    claims = tokens.verify(token)
    assert grant.revoke_token(claims.jti, expires_at=grant.expires_at, by=by)
    assert not grant.revoke_token(claims.jti, expires_at=grant.expires_at, by=by)
    with pytest.raises(policy.Denied) as caught:
        policy.read(claims)
    assert caught.value.code == "token_revoked"
    assert policy.read(tokens.verify(other.token))
