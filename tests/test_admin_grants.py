"""Grants on the desk: issue, change, revoke; tokens shown once; what was done."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from grants import tokens
from grants.clock import day_number, microseconds, uuid7
from grants.models import Actor, Allowance, AuditEvent, Call, Grant, ProviderKey

from .conftest import terms

LIST = "/admin/grants/grant/"
ADD = LIST + "add/"


def page(grant: Grant, name: str = "change") -> str:
    return reverse(f"admin:grants_grant_{name}", args=[grant.pk])


@pytest.fixture
def desk(client: Client, alice: Any) -> Client:
    client.force_login(alice)
    return client


def form(key: ProviderKey, **changes: Any) -> dict[str, Any]:
    return {
        "provider_key": key.pk,
        "app_name": "Notebook",
        "app_url": "https://app.example",
        "reason": "Notes",
        "models": "sandbox-1, sandbox-2*\nother",
        "capabilities": ["chat"],
        "expiry": "86400",
        "token_lifetime": "900",
        "max_requests": "10",
        "max_concurrency": "",
        "allowed_origins": "https://app.example",
    } | changes


def shown_token(html: str) -> str:
    return html.split('id="ap-token">')[1].split("<")[0]


# Issue


def test_a_grant_is_issued_in_one_form(desk: Client, sandbox_key: ProviderKey, alice: Any) -> None:
    answer = desk.post(ADD, form(sandbox_key))
    grant = Grant.objects.get()
    assert answer.headers["location"] == page(grant)
    assert grant.status == "approved"
    assert grant.owner == alice
    assert grant.models == ["sandbox-1", "sandbox-2*", "other"]
    assert (grant.capabilities, grant.token_lifetime, grant.max_requests) == (["chat"], 900, 10)
    assert (grant.max_concurrency, grant.allowed_origins) == (None, ["https://app.example"])
    assert grant.expires_at - grant.created_at == dt.timedelta(days=1)
    event = AuditEvent.objects.get(action="grant.issued")
    assert (event.actor, event.via, event.grant) == ("alice", "admin", grant)


def test_the_other_button_goes_on_to_a_token(desk: Client, sandbox_key: ProviderKey) -> None:
    answer = desk.post(ADD, form(sandbox_key, _token="1"))
    assert answer.headers["location"] == page(Grant.objects.get(), "token")


def test_a_grant_ends_at_a_date_of_ones_own(desk: Client, sandbox_key: ProviderKey) -> None:
    ends = (timezone.now() + dt.timedelta(days=3)).replace(second=0, microsecond=0)
    desk.post(ADD, form(sandbox_key, expiry="custom", expires_at=ends.strftime("%Y-%m-%dT%H:%M")))
    assert abs(Grant.objects.get().expires_at - ends) < dt.timedelta(seconds=2)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("models", {"models": ""}),
        ("models", {"models": "a*b"}),
        ("capabilities", {"capabilities": []}),
        ("capabilities", {"capabilities": ["images"]}),
        ("capabilities", {"capabilities": ["everything"]}),
        ("app_name", {"app_name": "two\u202elines"}),
        ("app_url", {"app_url": "javascript:alert(1)"}),
        ("app_url", {"app_url": "https://bank.example@evil.example"}),
        ("allowed_origins", {"allowed_origins": "https://app.example/path"}),
        ("expiry", {"expiry": "999999999999"}),
        ("expires_at", {"expiry": "custom", "expires_at": ""}),
        ("expires_at", {"expiry": "custom", "expires_at": "2001-01-01T00:00"}),
        ("expires_at", {"expiry": "custom", "expires_at": "2999-01-01T00:00"}),
        ("max_requests", {"max_requests": "0"}),
        ("max_requests", {"max_requests": "9" * 30}),
        ("max_requests", {"max_requests": "9" * 5000}),
        ("token_lifetime", {"token_lifetime": "1"}),
        ("provider_key", {"provider_key": "no-key"}),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    desk: Client, sandbox_key: ProviderKey, field: str, changes: dict[str, Any]
) -> None:
    answer = desk.post(ADD, form(sandbox_key, **changes))
    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [field]
    assert not Grant.objects.exists()


def test_nothing_is_granted_on_a_disabled_key(desk: Client, sandbox_key: ProviderKey, by: Actor) -> None:
    sandbox_key.disable(by)
    assert b"First, a provider key" in desk.get(ADD).content
    assert desk.post(ADD, form(sandbox_key)).status_code == 200
    assert not Grant.objects.exists()


def test_a_superuser_grants_with_their_own_keys_only(client: Client, root: Any, sandbox_key: ProviderKey) -> None:
    client.force_login(root)
    assert "provider_key" in client.post(ADD, form(sandbox_key)).context["form"].errors
    assert not Grant.objects.exists()


# Change


def test_the_terms_of_a_live_grant_are_changed_and_its_end_stays(desk: Client, grant: Grant) -> None:
    ends = grant.expires_at
    changes = form(grant.provider_key, expiry="keep", models="sandbox-1", max_requests="", max_concurrency="2")
    assert desk.post(page(grant, "terms"), changes).headers["location"] == page(grant)
    grant = Grant.objects.get()
    assert (grant.models, grant.max_requests, grant.max_concurrency) == (["sandbox-1"], None, 2)
    assert (grant.token_lifetime, grant.expires_at) == (900, ends)
    assert AuditEvent.objects.filter(action="grant.changed", actor="alice").count() == 1


def test_the_end_can_be_moved(desk: Client, grant: Grant) -> None:
    desk.post(page(grant, "terms"), form(grant.provider_key, expiry="3600"))
    grant = Grant.objects.get()
    assert abs(grant.expires_at - timezone.now() - dt.timedelta(hours=1)) < dt.timedelta(seconds=5)
    assert grant.allowance.expires_at == microseconds(grant.expires_at)


def test_what_is_wrong_with_the_change_is_said_beside_its_field(desk: Client, grant: Grant) -> None:
    answer = desk.post(page(grant, "terms"), form(grant.provider_key, expiry="keep", models="a*b"))
    assert list(answer.context["form"].errors) == ["models"]
    answer = desk.post(page(grant, "terms"), form(grant.provider_key, expiry="custom", expires_at="2999-01-01T00:00"))
    assert list(answer.context["form"].errors) == ["expires_at"]
    assert Grant.objects.get().models == grant.models


@pytest.mark.parametrize("name", ["terms", "token", "rotate_secret"])
def test_what_is_revoked_is_for_reading(desk: Client, grant: Grant, by: Actor, name: str) -> None:
    grant.revoke(by)
    before = AuditEvent.objects.count()
    for answer in (desk.get(page(grant, name)), desk.post(page(grant, name), form(grant.provider_key))):
        assert answer.headers["location"] == page(grant)
    assert AuditEvent.objects.count() == before
    assert page(grant, "terms") not in desk.get(page(grant)).content.decode()


# Revoke


def test_revoking_asks_first_and_then_is_done(desk: Client, grant: Grant) -> None:
    assert desk.get(page(grant, "revoke")).status_code == 200
    grant.refresh_from_db()
    assert grant.revoked_at is None
    desk.post(page(grant, "revoke"))
    grant.refresh_from_db()
    assert grant.status == "revoked"
    assert AuditEvent.objects.first().action == "grant.revoked"
    assert "not in force" in str(list(desk.post(page(grant, "revoke"), follow=True).context["messages"])[-1])


def test_many_are_revoked_from_the_list_and_that_asks_first(desk: Client, grant: Grant, by: Actor) -> None:
    other = Grant.issue(key=grant.provider_key, terms=terms(), app_name="Other", by=by)
    chosen = {"action": "revoke_selected", "_selected_action": [grant.pk, other.pk]}
    assert b"Revoke 2 grants?" in desk.post(LIST, chosen).content
    assert Grant.objects.live().count() == 2
    desk.post(LIST, chosen | {"confirmed": "yes"})
    assert not Grant.objects.live().exists()
    assert AuditEvent.objects.filter(action="grant.revoked").count() == 2


def test_no_grant_is_deleted(desk: Client, grant: Grant) -> None:
    assert desk.post(page(grant, "delete"), {"post": "yes"}).status_code == 403
    assert Grant.objects.exists()


# Tokens


def test_a_token_is_shown_once_and_kept_nowhere(desk: Client, grant: Grant) -> None:
    data = {"lifetime": "900", "models": "", "capabilities": ["chat", "embeddings"]}
    answer = desk.post(page(grant, "token"), data)
    token = shown_token(answer.content.decode())
    claims = tokens.verify(token)
    assert (claims.grant, claims.models, claims.scope) == (grant.pk, None, None)
    assert claims.expires_at - claims.issued_at == 900
    assert "no-store" in answer.headers["cache-control"]
    assert token not in desk.get(page(grant)).content.decode()
    assert token not in "".join(str(session.get_decoded()) for session in Session.objects.all())
    assert token not in "".join(str(event.detail) for event in AuditEvent.objects.all())
    assert claims.jti[:8] in desk.get(page(grant)).content.decode()


def test_a_token_comes_with_snippets_for_curl_and_the_sdks(desk: Client, grant: Grant) -> None:
    data = {"lifetime": "900", "models": "", "capabilities": ["chat", "embeddings"]}
    answer = desk.post(page(grant, "token"), data)
    titles = [snippet.title for snippet in answer.context["snippets"]]
    assert titles == ["OpenAI SDK", "curl", "Anthropic SDK", "Google Gen AI SDK"]


def test_a_token_can_be_narrower(desk: Client, grant: Grant) -> None:
    answer = desk.post(page(grant, "token"), {"lifetime": "300", "models": "sandbox-1", "capabilities": ["chat"]})
    claims = tokens.verify(shown_token(answer.content.decode()))
    assert (claims.models, claims.scope) == (("sandbox-1",), frozenset({"chat"}))


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("models", {"models": "gpt-4o"}),
        ("capabilities", {"capabilities": ["images"]}),
        ("capabilities", {"capabilities": []}),
        ("lifetime", {"lifetime": "604800"}),
        ("lifetime", {"lifetime": "soon"}),
    ],
)
def test_a_token_is_never_wider_than_its_grant(desk: Client, grant: Grant, field: str, data: dict[str, Any]) -> None:
    answer = desk.post(page(grant, "token"), {"lifetime": "900", "models": "", "capabilities": ["chat"]} | data)
    assert list(answer.context["form"].errors) == [field]
    assert not AuditEvent.objects.filter(action="token.issued").exists()


def test_one_token_is_revoked(desk: Client, grant: Grant, by: Actor) -> None:
    first, second = tokens.mint(grant, by=by), tokens.mint(grant, by=by)
    url = page(grant, "revoke_token") + f"?jti={first.jti}"
    assert desk.get(url).status_code == 200
    assert not grant.revoked_tokens.exists()
    desk.post(url)
    assert [row.jti for row in grant.revoked_tokens.all()] == [first.jti]
    html = desk.get(page(grant)).content.decode()
    assert f"jti={first.jti}" not in html
    assert f"jti={second.jti}" in html


@pytest.mark.parametrize("jti", ["", "0" * 32, "\x00", "' or 1=1"])
def test_a_token_that_the_grant_never_issued_is_not_found(desk: Client, grant: Grant, jti: str) -> None:
    assert desk.post(f"{page(grant, 'revoke_token')}?{urlencode({'jti': jti})}").status_code == 404


def test_the_apps_secret_is_rotated_and_shown_once(desk: Client, sandbox_key: ProviderKey, by: Actor) -> None:
    grant, old = Grant.request(provider="sandbox", terms=terms(), app_name="App", by=Actor("app"))
    grant.approve(key=sandbox_key, terms=grant.terms, by=by)
    assert desk.get(page(grant, "rotate_secret")).status_code == 200
    assert Grant.objects.get().knows(old)
    answer = desk.post(page(grant, "rotate_secret"))
    new = answer.content.decode().split('id="ap-secret">')[1].split("<")[0]
    assert "no-store" in answer.headers["cache-control"]
    assert Grant.objects.get().knows(new)
    assert not Grant.objects.get().knows(old)
    assert new not in desk.get(page(grant)).content.decode()


def test_a_grant_that_no_app_asked_for_has_no_secret_to_rotate(desk: Client, grant: Grant) -> None:
    assert desk.post(page(grant, "rotate_secret")).status_code == 404


# What the page says


def call(grant: Grant, **changes: Any) -> Call:
    now = microseconds(timezone.now())
    values: dict[str, Any] = {
        "id": uuid7(),
        "grant": grant,
        "worker": uuid7(),
        "jti": "j",
        "kid": "k",
        "route": "chat/completions",
        "model": "sandbox-1",
        "stream": False,
        "counted": 1,
        "day": day_number(timezone.now()),
        "started_at": now,
        "finished_at": now + 812_000,
        "outcome": "ok",
        "status": 200,
        "input_tokens": 1234,
        "output_tokens": 56,
        "cost": 1_500_000,
        "estimated": True,
    }
    return Call.objects.create(**values | changes)


def test_usage_calls_and_events_stand_on_the_page(desk: Client, grant: Grant) -> None:
    call(grant)
    today = day_number(timezone.now())
    Allowance.objects.update(
        requests=7, max_requests=10, in_flight=1, spent=2_500_000_000, reserved=10_000_000, day=today, day_requests=3
    )
    html = desk.get(page(grant)).content.decode()
    for text in ("7<small> of 10", "$2.50", "$0.01 reserved", "1,234 → 56", "≈ </span>$0.0015", "812 ms"):
        assert text in html, text
    assert f"/admin/grants/call/?grant={grant.pk}" in html


def test_yesterdays_counters_are_not_todays(desk: Client, grant: Grant) -> None:
    Allowance.objects.update(day=20200101, day_requests=99)
    html = desk.get(page(grant)).content.decode()
    assert ">99<" not in html


def test_a_superuser_finds_the_way_from_a_pending_request_to_consent(client: Client, root: Any) -> None:
    grant, _ = Grant.request(provider="sandbox", terms=terms(), app_name="Asking", by=Actor("app"))
    client.force_login(root)
    for url in (page(grant), "/admin/"):
        assert f"/consent/{grant.pk}/" in client.get(url).content.decode(), url


@pytest.mark.parametrize("status", ["live", "pending", "expired", "revoked", "denied", "nonsense", "\x00"])
def test_the_list_is_filtered_by_status(client: Client, root: Any, grant: Grant, by: Actor, status: str) -> None:
    Grant.request(provider="sandbox", terms=terms(), app_name="pending", by=Actor("app"))
    for name in ("revoked", "expired"):
        other = Grant.issue(key=grant.provider_key, terms=terms(), app_name=name, by=by)
        other.revoke(by) if name == "revoked" else Grant.objects.filter(pk=other.pk).update(expires_at=other.created_at)
    denied, _ = Grant.request(provider="sandbox", terms=terms(), app_name="denied", by=Actor("app"))
    denied.deny(by)
    client.force_login(root)
    rows = [row.app_name for row in client.get(LIST, {"status": status}).context["cl"].result_list]
    assert rows == {"live": ["Notebook"]}.get(status, [status] if status.isalpha() and status != "nonsense" else [])


@pytest.mark.parametrize("lookup", ["request_secret_hash__startswith=a", "provider_key__secret__startswith=v"])
def test_no_column_can_be_probed_through_the_list(desk: Client, grant: Grant, lookup: str) -> None:
    assert desk.get(f"{LIST}?{lookup}").status_code == 400
