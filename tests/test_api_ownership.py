"""Every URL of the API × every kind of caller: who is let in, and that what is not yours is not there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from rest_framework_simplejwt.tokens import AccessToken

from grants import tokens
from grants.api.authentication import OwnerAccessToken, OwnerRefreshToken
from grants.api.urls import urlpatterns
from grants.models import Actor, AuditEvent, Grant, ProviderKey, RevokedToken
from tests.api import Api, anyone, ask, bearer, owner
from tests.conftest import PASSWORD, terms

pytestmark = pytest.mark.django_db

# Every route, by name: who it is for, and the methods that it has. A new route that is not here fails a test.
PUBLIC, APPS, OWNERS = "public", "apps", "owners"
ROUTES: dict[str, tuple[str, tuple[str, ...]]] = {
    "api-grant-requests": (APPS, ("POST",)),
    "api-tokens": (APPS, ("POST",)),
    "api-introspect": (APPS, ("POST",)),
    "api-revoke": (APPS, ("POST",)),
    "api-login": (APPS, ("POST",)),
    "api-refresh": (APPS, ("POST",)),
    "api-grants": (OWNERS, ("GET", "POST")),
    "api-grant": (OWNERS, ("GET", "PATCH")),
    "api-approve": (OWNERS, ("POST",)),
    "api-deny": (OWNERS, ("POST",)),
    "api-revoke-grant": (OWNERS, ("POST",)),
    "api-reopen-grant": (OWNERS, ("POST",)),
    "api-rotate-secret": (OWNERS, ("POST",)),
    "api-grant-tokens": (OWNERS, ("GET", "POST")),
    "api-revoke-token": (OWNERS, ("POST",)),
    "api-keys": (OWNERS, ("GET",)),
    "api-key": (OWNERS, ("GET", "PATCH")),
    "api-calls": (OWNERS, ("GET",)),
    "api-calls-csv": (OWNERS, ("GET",)),
    "api-totals": (OWNERS, ("GET",)),
    "api-events": (OWNERS, ("GET",)),
    "api-preferences": (OWNERS, ("GET", "PATCH")),
    "api-webhook-secret": (OWNERS, ("POST",)),
    "api-notice-test": (OWNERS, ("POST",)),
    "api-notices": (OWNERS, ("GET",)),
    "api-schema": (PUBLIC, ("GET",)),
    "api-docs": (PUBLIC, ("GET",)),
    "api-not-here": (PUBLIC, ()),
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OF_OWNERS = [(name, method) for name, (who, methods) in ROUTES.items() if who == OWNERS for method in methods]
ANYWHERE = [(name, method) for name, (_, methods) in ROUTES.items() for method in methods or ("GET",)]


def path_of(name: str, grant: Grant, jti: str = "0" * 32) -> str:
    route = next(str(pattern.pattern) for pattern in urlpatterns if pattern.name == name)
    return "/api/" + (route or "nowhere/").replace("<uuid:pk>", str(grant.pk)).replace("<jti:jti>", jti)


def forged(alice: Any, **changes: Any) -> str:
    """An owner's token with ``changes``, signed with the right key; ``None`` leaves a claim out."""
    claims = (
        {"iss": "http://testserver", "aud": "http://testserver/api"}
        | OwnerAccessToken.for_user(alice).payload
        | changes
    )
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, settings.SIMPLE_JWT["SIGNING_KEY"], "HS256")


Caller = Callable[[Any, Grant], Api]


def session_without_csrf(alice: Any, grant: Grant) -> Api:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    return Api(client)


def non_staff_session(alice: Any, grant: Grant) -> Api:
    client = Client()
    client.force_login(get_user_model().objects.create_user("carol", password=PASSWORD))
    return Api(client)


def inactive_session(alice: Any, grant: Grant) -> Api:
    client = Client()
    client.force_login(alice)
    get_user_model().objects.filter(pk=alice.pk).update(is_active=False)
    return Api(client)


def inactive_token(alice: Any, grant: Grant) -> Api:
    caller = owner(alice)
    get_user_model().objects.filter(pk=alice.pk).update(is_active=False)
    return caller


def unstaffed_token(alice: Any, grant: Grant) -> Api:
    caller = owner(alice)
    get_user_model().objects.filter(pk=alice.pk).update(is_staff=False)
    return caller


def expired_token(alice: Any, grant: Grant) -> Api:
    token = OwnerAccessToken.for_user(alice)
    token.set_exp(lifetime=-timedelta(minutes=2))
    return bearer(str(token))


def delegated(alice: Any, grant: Grant) -> Api:
    return bearer(tokens.mint(grant, by=Actor("system")).token)


# kind of caller → the status that comes; no other
REFUSED: dict[str, tuple[Caller, int]] = {
    "anonymous": (lambda alice, grant: anyone(), 401),
    "delegated token": (delegated, 401),
    "refresh token": (lambda alice, grant: bearer(str(OwnerRefreshToken.for_user(alice))), 401),
    "plain access token of the library": (lambda alice, grant: bearer(str(AccessToken.for_user(alice))), 401),
    "token for the relay's audience": (lambda alice, grant: bearer(forged(alice, aud="http://testserver/proxy")), 401),
    "token of another issuer": (lambda alice, grant: bearer(forged(alice, iss="http://elsewhere")), 401),
    "token without an end": (lambda alice, grant: bearer(forged(alice, exp=None)), 401),
    "token without a type": (lambda alice, grant: bearer(forged(alice, token_type=None)), 401),
    "token of nobody": (lambda alice, grant: bearer(forged(alice, user_id="4711")), 401),
    "token without a user": (lambda alice, grant: bearer(forged(alice, user_id=None)), 401),
    "unsigned token": (
        lambda alice, grant: bearer(jwt.encode(OwnerAccessToken.for_user(alice).payload, "", "none")),
        401,
    ),
    "token under another key": (
        lambda alice, grant: bearer(jwt.encode(OwnerAccessToken.for_user(alice).payload, "k" * 32)),
        401,
    ),
    "expired token": (expired_token, 401),
    "token of an inactive owner": (inactive_token, 401),
    "session of an inactive owner": (inactive_session, 401),
    "basic authentication": (lambda alice, grant: Api(Authorization="Basic YWxpY2U6eA=="), 401),
    "no scheme": (lambda alice, grant: Api(Authorization=owner(alice).headers["Authorization"].split()[1]), 401),
    "two tokens": (lambda alice, grant: Api(Authorization=owner(alice).headers["Authorization"] + " x"), 401),
    "garbage": (lambda alice, grant: bearer("ä" * 10), 401),
    "a header of brackets": (lambda alice, grant: bearer("eyJhbGciOi" + "W1tb" * 1900 + ".e30.AA"), 401),
    "somebody who is no owner": (non_staff_session, 403),
    "an owner who is none any more": (unstaffed_token, 403),
}


def test_the_forgeries_of_the_matrix_differ_from_a_good_token_in_one_thing(alice: Any) -> None:
    assert bearer(forged(alice)).get("/api/grants/").status == 200


def test_every_route_is_in_the_matrix() -> None:
    assert {pattern.name for pattern in urlpatterns} == set(ROUTES)


@pytest.mark.parametrize("kind", REFUSED)
def test_owners_endpoints_let_nobody_else_in(kind: str, alice: Any, grant: Grant) -> None:
    make, status = REFUSED[kind]
    caller = make(alice, grant)
    before = AuditEvent.objects.count()
    for name, method in OF_OWNERS:
        answer = caller(method, path_of(name, grant), {} if method != "GET" else None)
        assert answer.status == status, (name, method)
        assert answer.body["error"]["code"]
        assert ("WWW-Authenticate" in answer.headers) is (status == 401)
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize(("name", "method"), [pair for pair in OF_OWNERS if pair[1] != "GET"])
def test_a_session_without_a_csrf_token_changes_nothing(name: str, method: str, alice: Any, grant: Grant) -> None:
    before = AuditEvent.objects.count()
    answer = session_without_csrf(alice, grant)(method, path_of(name, grant), {})
    assert answer.status == 403
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize(("name", "method"), ANYWHERE)
def test_a_delegated_token_is_a_credential_nowhere_in_the_api(name: str, method: str, alice: Any, grant: Grant) -> None:
    assert delegated(alice, grant)(method, path_of(name, grant), {} if method != "GET" else None).status == 401


@pytest.mark.parametrize("name", ROUTES)
def test_a_method_that_a_route_does_not_have_is_405_as_json(name: str, alice: Any, grant: Grant) -> None:
    who, methods = ROUTES[name]
    caller = anyone() if who == APPS else owner(alice)
    for method in METHODS:
        if method not in methods and name != "api-docs":
            answer = caller(method, path_of(name, grant))
            assert answer.status == (405 if methods else 404)
            assert "error" in answer.body


# What is not yours is not there


def of_bob(name: str, method: str, bob: Any, grant: Grant, bobs_key: ProviderKey, jti: str) -> int:
    body = {"provider_key": str(bobs_key.pk)} if name == "api-approve" else {}
    return owner(bob)(method, path_of(name, grant, jti), body if method != "GET" else None).status


@pytest.mark.parametrize(
    ("name", "method"),
    [(n, m) for n, m in OF_OWNERS if "<uuid:pk>" in str(next(p.pattern for p in urlpatterns if p.name == n))],
)
@pytest.mark.parametrize("state", ["approved", "denied", "revoked", "taken"])
def test_owner_b_gets_404_on_everything_of_owner_as(
    name: str, method: str, state: str, alice: Any, bob: Any, grant: Grant, sandbox_key: ProviderKey, by: Actor
) -> None:
    bobs_key = ProviderKey.add(owner=bob, provider="sandbox", label="Bob's", secret="", by=Actor("api", bob))
    jti = tokens.mint(grant, by=by).jti
    if state == "revoked":
        grant.revoke(by)
    if state in ("denied", "taken"):
        grant = Grant.request(provider="sandbox", terms=terms(), app_name="App", by=Actor("app"))[0]
        assert grant.deny(by) if state == "denied" else grant.approve(key=sandbox_key, terms=terms(), by=by)
    before = Grant.objects.filter(pk=grant.pk).values().get()
    assert of_bob(name, method, bob, grant, bobs_key, jti) == 404
    assert Grant.objects.filter(pk=grant.pk).values().get() == before
    assert not RevokedToken.objects.exists()


def test_a_token_of_another_grant_cannot_be_revoked_through_ones_own(
    alice: Any, bob: Any, grant: Grant, by: Actor
) -> None:
    bobs_key = ProviderKey.add(owner=bob, provider="sandbox", label="Bob's", secret="", by=Actor("api", bob))
    bobs = Grant.issue(key=bobs_key, terms=terms(), app_name="App", by=Actor("api", bob))
    jti = tokens.mint(grant, by=by).jti
    assert owner(bob).post(path_of("api-revoke-token", bobs, jti)).status == 404
    assert not RevokedToken.objects.exists()


def test_lists_hold_nothing_of_another_owner(alice: Any, bob: Any, grant: Grant) -> None:
    for path in ("/api/grants/", "/api/calls/", "/api/events/"):
        for query in ("", f"?grant={grant.pk}" if path != "/api/grants/" else ""):
            assert owner(bob).get(path + query).body["results"] == []
    assert owner(bob).get("/api/provider-keys/").body == []
    assert len(owner(alice).get("/api/events/").body["results"]) == 2


def test_a_superuser_reads_and_revokes_everything_and_sees_no_other_keys(root: Any, grant: Grant) -> None:
    assert [row["id"] for row in owner(root).get("/api/grants/").body["results"]] == [str(grant.pk)]
    assert owner(root).get("/api/provider-keys/").body == []
    assert owner(root).post(path_of("api-revoke-grant", grant)).status == 200


def test_a_pending_request_is_in_no_list_but_a_superusers(alice: Any, root: Any) -> None:
    pending = anyone().post("/api/grant-requests/", ask()).body["id"]
    assert owner(alice).get("/api/grants/").body["results"] == []
    assert [row["id"] for row in owner(root).get("/api/grants/").body["results"]] == [pending]


def test_a_relay_is_no_place_for_an_owner_token(alice: Any) -> None:
    with pytest.raises(tokens.InvalidToken):
        tokens.verify(owner(alice).headers["Authorization"].split()[1])
