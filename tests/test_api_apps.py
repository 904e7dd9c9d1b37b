"""What apps do: ask, wait, collect tokens, ask about them, give them back."""

from __future__ import annotations

import time
import uuid
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from grants import policy, tokens, usage
from grants.models import Actor, AuditEvent, Grant, ProviderKey, RateWindow, RevokedToken, SigningKey
from grants.models import pending as pending_module
from tests.api import anyone, ask, bearer, owner
from tests.conftest import terms

pytestmark = pytest.mark.django_db


def requested(**changes: Any) -> tuple[Grant, str]:
    answer = anyone().post("/api/grant-requests/", ask(**changes))
    assert answer.status == 201, answer.body
    return Grant.objects.get(pk=answer.body["id"]), answer.body["request_secret"]


def collect(grant: Grant, secret: str, **more: Any) -> Any:
    return anyone().post("/api/tokens/", {"grant": str(grant.pk), "request_secret": secret} | more)


def approved(key: ProviderKey, by: Actor, **changes: Any) -> tuple[Grant, str]:
    grant, secret = requested(**changes)
    assert grant.approve(key=key, terms=grant.terms, by=by)
    return grant, secret


# Asking


def test_a_request_is_pending_and_its_secret_is_shown_once_and_stored_hashed() -> None:
    answer = anyone().post("/api/grant-requests/", ask(max_requests=100, token_lifetime=600, expires_in=86400))
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    grant = Grant.objects.get()
    assert answer.body == {
        "id": str(grant.pk),
        "status": "pending",
        "request_secret": answer.body["request_secret"],
        "user_code": grant.user_code,
        "consent_url": f"http://testserver/consent/{grant.pk}/",
        "expires_in": 900,
        "interval": 5,
    }
    assert answer.body["request_secret"] not in str(Grant.objects.values().get())
    assert grant.terms == terms(max_requests=100, token_lifetime=600, valid_for=86400)
    event = AuditEvent.objects.get()
    assert (event.action, event.via, event.address) == ("grant.requested", "app", "127.0.0.1")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"models": ["gpt*4"]}, "models"),
        ({"models": []}, "models"),
        ({"models": ["x"] * 101}, "models"),
        ({"models": "sandbox-1"}, "models"),
        ({"models": [1]}, "models"),
        ({"capabilities": ["images"]}, "capabilities"),
        ({"capabilities": ["everything"]}, "capabilities"),
        ({"provider": "nobody"}, "provider"),
        ({"provider": ["sandbox"]}, "provider"),
        ({"app_name": "two\nlines"}, "app_name"),
        ({"app_name": "\u202etxet"}, "app_name"),
        ({"app_name": "a\0b"}, "app_name"),
        ({"app_name": "   "}, "app_name"),
        ({"app_name": 5}, "app_name"),
        ({"app_name": None}, "app_name"),
        ({"app_url": "javascript:alert(1)"}, "app_url"),
        ({"app_url": "ftp://files.example"}, "app_url"),
        ({"app_url": "https://bank.example@evil.example/"}, "app_url"),
        ({"app_url": "http://["}, "app_url"),
        ({"reason": "x" * 501}, "reason"),
        ({"allowed_origins": ["https://app.example/path"]}, "allowed_origins"),
        ({"allowed_origins": ["https://a.example"] * 51}, "allowed_origins"),
        ({"max_requests": 0}, "max_requests"),
        ({"max_requests": "5"}, "max_requests"),
        ({"max_requests": True}, "max_requests"),
        ({"max_requests": 1.5}, "max_requests"),
        ({"max_requests": 10**30}, "max_requests"),
        ({"expires_in": 10**12}, "expires_in"),
        ({"token_lifetime": 59}, "token_lifetime"),
        ({"max_cost": 5}, "max_cost"),
        ({"owner": 1}, "owner"),
        ({"status": "approved"}, "status"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_field_and_leaves_nothing(change: Any, field: str) -> None:
    answer = anyone().post("/api/grant-requests/", ask(**change))
    assert answer.status == 400
    assert answer.body["error"]["code"] == "invalid"
    assert list(answer.body["error"]["fields"]) == [field]
    assert not Grant.objects.exists()
    assert not AuditEvent.objects.exists()


def test_the_number_of_pending_requests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_module, "MAX_PENDING_REQUESTS", 2)
    requested()
    requested()
    answer = anyone().post("/api/grant-requests/", ask())
    assert answer.status == 429
    assert answer.body["error"]["code"] == "too_many_pending_requests"
    assert int(answer.headers["Retry-After"]) > 0
    assert Grant.objects.count() == 2


# Collecting


def test_until_the_owner_decides_a_poll_is_told_to_wait_and_a_hasty_one_to_slow_down() -> None:
    grant, secret = requested()
    first = collect(grant, secret)
    assert (first.status, first.body["error"]) == (400, "authorization_pending")
    assert first.body["error_description"]
    assert collect(grant, secret).body["error"] == "slow_down"
    Grant.objects.update(polled_at=timezone.now() - timedelta(seconds=6))
    assert collect(grant, secret).body["error"] == "authorization_pending"


def test_after_the_approval_the_secret_collects_tokens_that_the_relay_admits(sandbox_key: Any, by: Actor) -> None:
    grant, secret = approved(sandbox_key, by)
    for _ in range(2):
        answer = collect(grant, secret)
        assert answer.status == 201
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.body == {
            "token": answer.body["token"],
            "token_type": "Bearer",
            "expires_in": 3600,
            "base_url": "http://testserver/proxy/v1",
            "grant": str(grant.pk),
        }
        assert policy.read(tokens.verify(answer.body["token"])).grant == grant.pk
    assert AuditEvent.objects.filter(action="token.issued", via="app").count() == 2


def test_a_token_can_be_collected_narrower_but_never_wider(sandbox_key: Any, by: Actor) -> None:
    grant, secret = approved(sandbox_key, by)
    answer = collect(grant, secret, models=["sandbox-1"], capabilities=["chat"], lifetime=120)
    allowed = policy.read(tokens.verify(answer.body["token"]))
    assert answer.body["expires_in"] == 120
    assert allowed.capabilities == {"chat"}
    assert allowed.allows_model("sandbox-1")
    assert not allowed.allows_model("sandbox-embed")
    for wider in ({"models": ["*"]}, {"capabilities": ["images"]}):
        assert collect(grant, secret, **wider).body["error"] == "invalid_scope"
    longer = collect(grant, secret, lifetime=7200)
    assert longer.body["error"] == "invalid_request"
    assert longer.body["error_description"].startswith("lifetime: ")
    assert AuditEvent.objects.filter(action="token.issued").count() == 1


def test_every_end_of_a_request_has_its_code(sandbox_key: Any, by: Actor) -> None:
    denied, denied_secret = requested()
    denied.deny(by)
    assert collect(denied, denied_secret).body["error"] == "access_denied"
    late, late_secret = requested()
    Grant.objects.filter(pk=late.pk).update(request_expires_at=timezone.now())
    assert collect(late, late_secret).body["error"] == "expired_token"
    over, over_secret = approved(sandbox_key, by)
    Grant.objects.filter(pk=over.pk).update(expires_at=timezone.now())
    assert collect(over, over_secret).body["error"] == "expired_token"
    revoked, revoked_secret = approved(sandbox_key, by)
    revoked.revoke(by)
    answer = collect(revoked, revoked_secret)
    assert (answer.status, answer.body["error"]) == (400, "grant_revoked")


def test_a_grant_id_alone_collects_nothing_and_an_unknown_one_is_answered_alike(sandbox_key: Any, by: Actor) -> None:
    grant, _ = approved(sandbox_key, by)
    _, other_secret = requested()
    wrong = collect(grant, other_secret)
    unknown = anyone().post("/api/tokens/", {"grant": str(uuid.uuid4()), "request_secret": other_secret})
    assert (wrong.status, wrong.body["error"]) == (400, "invalid_grant")
    assert unknown.body == wrong.body
    assert unknown.status == wrong.status
    assert not AuditEvent.objects.filter(action="token.issued").exists()


def test_a_grant_that_was_issued_has_no_secret_to_guess(grant: Grant) -> None:
    for secret in ("", " ", "0" * 64):
        assert collect(grant, secret).body["error"] in ("invalid_grant", "invalid_request")


def test_a_rotated_secret_is_worth_nothing(sandbox_key: Any, by: Actor) -> None:
    grant, secret = approved(sandbox_key, by)
    fresh = grant.rotate_request_secret(by)
    assert collect(grant, secret).body["error"] == "invalid_grant"
    assert collect(grant, fresh).status == 201


@pytest.mark.parametrize(
    "body", [{}, [], "x", 5, {"grant": 5, "request_secret": 5}, {"grant": "x", "request_secret": "x"}]
)
def test_a_malformed_collection_has_the_shape_of_oauth(body: Any) -> None:
    answer = anyone().post("/api/tokens/", body)
    assert answer.status == 400
    assert answer.body["error"] == "invalid_request"
    assert answer.body["error_description"]


# Asking about a token, and giving it back


def form(path: str, token: str) -> Any:
    body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
    return anyone().raw(path, body, "application/x-www-form-urlencoded")


def test_introspection_says_what_a_token_may_do_in_both_body_formats(grant: Grant, by: Actor) -> None:
    minted = tokens.mint(grant, by=by, models=("sandbox-1",), capabilities=("chat",))
    claims = tokens.verify(minted.token)
    answer = form("/api/tokens/introspect/", minted.token)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.body == {
        "active": True,
        "iss": "http://testserver",
        "aud": "http://testserver/proxy",
        "sub": str(grant.pk),
        "client_id": str(grant.pk),
        "jti": minted.jti,
        "iat": claims.issued_at,
        "nbf": claims.not_before,
        "exp": claims.expires_at,
        "token_type": "Bearer",
        "scope": "chat",
        "models": ["sandbox-1"],
        "provider": "sandbox",
        "limits": dict.fromkeys(usage.TERMS_NAMES.values()),
        "max_cost_per_call": None,
        "default_output_tokens": 4096,
        "exhausted": False,
        "closed_at": None,
    }
    assert anyone().post("/api/tokens/introspect/", {"token": minted.token}).body == answer.body


def _retire(grant: Grant, by: Actor) -> None:
    SigningKey.objects.get().retire(by)


def _deactivate(grant: Grant, by: Actor) -> None:
    assert grant.owner is not None
    grant.owner.is_active = False
    grant.owner.save()


@pytest.mark.parametrize(
    "end",
    [
        lambda grant, by: grant.revoke(by),
        lambda grant, by: grant.provider_key.disable(by),
        lambda grant, by: grant.revoke_token(
            AuditEvent.objects.exclude(jti="").get().jti, expires_at=grant.expires_at, by=by
        ),
        _retire,
        _deactivate,
    ],
    ids=["grant revoked", "key disabled", "token revoked", "signing key retired", "owner deactivated"],
)
def test_a_token_that_the_relay_would_refuse_is_not_active_and_nothing_is_said_of_it(
    end: Any, grant: Grant, by: Actor
) -> None:
    minted = tokens.mint(grant, by=by)
    assert form("/api/tokens/introspect/", minted.token).body["active"] is True
    end(grant, by)
    assert form("/api/tokens/introspect/", minted.token).body == {"active": False}


@pytest.mark.parametrize("token", ["x", "a.b.c", "ä.ö.ü", "." * 5000, "e30." + "W1tb" * 2000 + ".x", "x" * 90_000])
@pytest.mark.parametrize("path", ["/api/tokens/introspect/", "/api/tokens/revoke/"])
def test_a_token_that_is_none_is_inactive_and_its_revocation_a_success(path: str, token: str) -> None:
    answer = form(path, token)
    assert answer.status == 200
    assert answer.body == ({"active": False} if "introspect" in path else {})
    assert not RevokedToken.objects.exists()


def test_a_header_of_thousands_of_brackets_is_no_token() -> None:
    header = urlsafe_b64encode(b'{"alg":' + b"[" * 5900).decode().rstrip("=")
    assert form("/api/tokens/introspect/", f"{header}.e30.AA").body == {"active": False}


def test_an_owner_token_is_no_delegated_token(alice: Any) -> None:
    access = owner(alice).headers["Authorization"].removeprefix("Bearer ")
    assert form("/api/tokens/introspect/", access).body == {"active": False}


@pytest.mark.parametrize("path", ["/api/tokens/introspect/", "/api/tokens/revoke/"])
@pytest.mark.parametrize("query", ["", "?token=x"])
def test_a_question_without_a_token_in_its_body_is_refused(path: str, query: str) -> None:
    for answer in (
        anyone().raw(path + query, b"", "application/x-www-form-urlencoded"),
        anyone().raw(path, b"token=a&token=b", "application/x-www-form-urlencoded"),
        anyone().post(path, {}),
        anyone().post(path, {"token": ["a"]}),
        anyone().post(path, {"token": "a\0"}),
    ):
        assert answer.status == 400
        assert set(answer.body) == {"error", "error_description"}


def test_a_returned_token_is_refused_at_once_and_its_sisters_live(grant: Grant, by: Actor) -> None:
    mine, other = tokens.mint(grant, by=by), tokens.mint(grant, by=by)
    for _ in range(2):
        answer = form("/api/tokens/revoke/", mine.token)
        assert (answer.status, answer.body) == (200, {})
    with pytest.raises(policy.Denied):
        policy.read(tokens.verify(mine.token))
    assert policy.read(tokens.verify(other.token))
    assert RevokedToken.objects.get().expires_at == mine.expires_at
    assert AuditEvent.objects.filter(action="token.revoked", via="app", jti=mine.jti).count() == 1


# Kept apart


def test_endpoints_for_apps_refuse_every_authorization_header(grant: Grant, by: Actor, alice: Any) -> None:
    delegated = bearer(tokens.mint(grant, by=by).token)
    for caller in (delegated, owner(alice), bearer("x")):
        for path, body in (
            ("/api/grant-requests/", ask()),
            ("/api/tokens/", {}),
            ("/api/tokens/revoke/", {"token": "x"}),
        ):
            answer = caller.post(path, body)
            assert answer.status == 401
            assert "WWW-Authenticate" in answer.headers
    assert Grant.objects.count() == 1


# Throttles


@pytest.fixture
def narrow_rates(settings: Any) -> None:
    settings.AIPASSPORT_RATES = dict.fromkeys(settings.AIPASSPORT_RATES, (2, 60))


@pytest.mark.usefixtures("narrow_rates")
@pytest.mark.parametrize(
    "path", ["/api/grant-requests/", "/api/tokens/", "/api/tokens/introspect/", "/api/tokens/revoke/"]
)
def test_public_endpoints_are_throttled_by_address(path: str) -> None:
    for _ in range(2):
        assert anyone().post(path, {}).status == 400
    answer = anyone().post(path, {})
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.body["error"] == "slow_down" if "tokens" in path else answer.body["error"]["code"] == "throttled"
    elsewhere = Client(REMOTE_ADDR="192.0.2.7").post(path, "{}", content_type="application/json")
    assert elsewhere.status_code == 400


@pytest.mark.usefixtures("narrow_rates")
def test_a_window_that_is_over_begins_again_and_names_nobody() -> None:
    for _ in range(3):
        answer = anyone().post("/api/tokens/", {})
    assert answer.status == 429
    window = RateWindow.objects.get()
    assert "127.0.0.1" not in window.key
    RateWindow.objects.update(started_at=window.started_at - 60)
    assert anyone().post("/api/tokens/", {}).status == 400
    assert RateWindow.objects.get().requests == 1


def test_forwarded_addresses_count_only_behind_the_operators_proxy_and_only_its_own(
    settings: Any, narrow_rates: Any
) -> None:
    def post(forwarded: str) -> int:
        return anyone()("POST", "/api/tokens/", {}, **{"X-Forwarded-For": forwarded}).status

    assert [post(f"198.51.100.{n}") for n in range(3)] == [400, 400, 429]
    settings.TRUST_PROXY = True
    assert [post(f"198.51.100.{n}, 203.0.113.9") for n in range(3)] == [400, 400, 429]
    assert post("198.51.100.1, 203.0.113.10") == 400
    assert [post(f"2001:db8:1:2::{n}") for n in range(3)] == [400, 400, 429]
    assert post("2001:db8:1:3::1") == 400
    assert post("nonsense, <script>") == 400


@pytest.mark.django_db(transaction=True)
def test_a_throttle_counts_exactly_under_many_callers_at_once() -> None:
    def hit(_: int) -> int | None:
        try:
            return RateWindow.objects.hit("tokens", "192.0.2.1", (25, 60))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(hit, range(80)))
    assert waits.count(None) == 25
    assert RateWindow.objects.get().requests == 80


def test_windows_that_are_over_can_be_purged_and_open_ones_stay() -> None:
    RateWindow.objects.hit("tokens", "192.0.2.1", (25, 60))
    RateWindow.objects.create(key="old", started_at=int(time.time()) - 90_000, requests=1)
    assert [window.key for window in RateWindow.objects.stale(time.time())] == ["old"]


def test_pages_of_other_origins_read_nothing_unless_the_operator_names_them(settings: Any) -> None:
    def allowed(origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return Client().options("/api/tokens/", headers=headers).headers.get("Access-Control-Allow-Origin")

    assert allowed("https://app.example") is None
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    assert allowed("https://app.example") == "https://app.example"
    assert allowed("https://evil.example") is None


def test_base_urls_are_what_the_providers_sdks_want() -> None:
    for provider, path in (("openai", "/v1"), ("anthropic", ""), ("google", "")):
        grant, _ = requested(provider=provider, models=["m"], capabilities=["chat"])
        assert grant.base_url == f"{settings.AIPASSPORT_URL}/proxy{path}"
