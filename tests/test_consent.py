"""The consent page: an owner decides on an app's request, and what was shown is what is minted."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from grants import money
from grants.models import Actor, AuditEvent, Grant, ProviderKey
from grants.terms import DAY, HOUR, MONEY_LIMITS, RATE_LIMITS

from .conftest import terms

APP = Actor("app", None, "198.51.100.4")


def ask(**changes: Any) -> Grant:
    wanted = terms(
        models=("sandbox-1", "sandbox-2*"),
        valid_for=30 * DAY,
        max_requests=100,
        max_concurrency=4,
        allowed_origins=("https://app.example",),
    ).with_(**changes)
    return Grant.request(provider="sandbox", terms=wanted, app_name="Mail triage", by=APP, reason="Sorts mail")[0]


@pytest.fixture
def pending(db: Any) -> Grant:
    return ask()


@pytest.fixture
def owner(client: Client, alice: Any) -> Client:
    client.force_login(alice)
    return client


def url(grant: Grant) -> str:
    return f"/consent/{grant.pk}/"


def decision(grant: Grant, key: ProviderKey, **changes: Any) -> dict[str, Any]:
    """What the page posts when nothing was changed on it."""
    return {
        "decision": "approve",
        "user_code": grant.user_code,
        "provider_key": key.pk,
        "models": "\r\n".join(grant.models),
        "capabilities": grant.capabilities,
        "expiry": str(grant.valid_for or 30 * DAY),
        "token_lifetime": str(grant.token_lifetime),
        "max_requests": grant.max_requests or "",
        "max_concurrency": grant.max_concurrency or "",
        **{name: money.dollars(getattr(grant, name)) if getattr(grant, name) else "" for name in MONEY_LIMITS},
        **{name: getattr(grant, name) or "" for name in RATE_LIMITS},
        "default_output_tokens": grant.default_output_tokens,
        "allowed_origins": "\r\n".join(grant.allowed_origins),
    } | changes


def status(grant: Grant) -> str:
    return str(Grant.objects.get(pk=grant.pk).status)


def test_the_url_given_to_the_app_leads_here(owner: Client, pending: Grant, settings: Any) -> None:
    assert owner.get(pending.consent_url.removeprefix(settings.AIPASSPORT_URL)).status_code == 200


def test_an_owner_signs_in_first_and_comes_back(client: Client, pending: Grant) -> None:
    answer = client.get(url(pending))
    assert answer.headers["location"] == f"/admin/login/?next={url(pending)}"
    assert client.post(url(pending), {"decision": "deny"}).status_code == 302
    assert status(pending) == "pending"


def test_who_is_no_owner_cannot_decide(client: Client, pending: Grant, bob: Any) -> None:
    type(bob).objects.filter(pk=bob.pk).update(is_staff=False)
    client.force_login(bob)
    assert client.post(url(pending), {"decision": "deny"}).headers["location"].startswith("/admin/login/")
    assert status(pending) == "pending"


def test_the_page_says_who_asks_for_what_and_that_nobody_checked_it(
    owner: Client, pending: Grant, sandbox_key: ProviderKey
) -> None:
    html = owner.get(url(pending)).content.decode()
    for text in (
        "Mail triage",
        "unverified",
        "Sorts mail",
        "sandbox-2*",
        "Embeddings",
        "30 days",
        "at most 100 in total, 4 at a time",
    ):
        assert text in html, text


def test_the_page_does_not_show_the_code_that_it_asks_for(
    owner: Client, pending: Grant, sandbox_key: ProviderKey
) -> None:
    assert pending.user_code not in owner.get(url(pending)).content.decode()


def test_approving_unchanged_grants_what_was_asked_for(
    owner: Client, pending: Grant, sandbox_key: ProviderKey, alice: Any
) -> None:
    asked = pending.terms
    assert owner.post(url(pending), decision(pending, sandbox_key)).headers["location"] == url(pending)
    grant = Grant.objects.get()
    assert grant.status == "approved"
    assert grant.terms == asked
    assert (grant.owner, grant.provider_key) == (alice, sandbox_key)
    event = AuditEvent.objects.get(action="grant.approved")
    assert (event.actor, event.via) == ("alice", "consent")
    assert b"Approved" in owner.get(url(grant)).content


def test_approving_less_grants_less(owner: Client, pending: Grant, sandbox_key: ProviderKey) -> None:
    narrower = {
        "models": "sandbox-1",
        "capabilities": ["chat"],
        "expiry": str(HOUR),
        "token_lifetime": "300",
        "max_requests": "5",
        "max_concurrency": "1",
        "allowed_origins": "",
    }
    owner.post(url(pending), decision(pending, sandbox_key, **narrower))
    grant = Grant.objects.get()
    assert grant.terms == terms(
        models=("sandbox-1",),
        capabilities=("chat",),
        valid_for=HOUR,
        token_lifetime=300,
        max_requests=5,
        max_concurrency=1,
    )
    assert abs(grant.expires_at - timezone.now() - dt.timedelta(hours=1)) < dt.timedelta(seconds=5)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("models", {"models": "*"}),
        ("models", {"models": "sandbox-1\nsandbox-3"}),
        ("models", {"models": ""}),
        ("capabilities", {"capabilities": ["chat", "images"]}),
        ("capabilities", {"capabilities": []}),
        ("expiry", {"expiry": str(365 * DAY)}),
        ("expiry", {"expiry": "custom"}),
        ("token_lifetime", {"token_lifetime": str(DAY)}),
        ("max_requests", {"max_requests": "101"}),
        ("max_requests", {"max_requests": ""}),
        ("max_concurrency", {"max_concurrency": "5"}),
        ("allowed_origins", {"allowed_origins": "https://app.example https://evil.example"}),
    ],
)
def test_more_than_was_asked_for_is_never_granted(
    owner: Client, pending: Grant, sandbox_key: ProviderKey, field: str, changes: dict[str, Any]
) -> None:
    answer = owner.post(url(pending), decision(pending, sandbox_key, **changes))
    assert answer.status_code == 400
    assert list(answer.context["form"].errors) == [field]
    assert status(pending) == "pending"


def test_what_the_page_offers_is_what_was_asked_for(owner: Client, pending: Grant, sandbox_key: ProviderKey) -> None:
    form = owner.get(url(pending)).context["form"]
    assert [value for value, _ in form.fields["capabilities"].choices] == ["chat", "embeddings"]
    assert max(int(value) for value, _ in form.fields["expiry"].choices) == 30 * DAY
    assert max(int(value) for value, _ in form.fields["token_lifetime"].choices) == HOUR


# The code


@pytest.mark.parametrize("wrong", ["", "BBBB-BBBB", "\x00", "ü" * 8])
def test_without_the_code_from_the_app_nothing_is_granted(
    owner: Client, pending: Grant, sandbox_key: ProviderKey, wrong: str
) -> None:
    """A link alone, sent by somebody, does not approve."""
    answer = owner.post(url(pending), decision(pending, sandbox_key, user_code=wrong))
    assert answer.status_code == 400
    assert "user_code" in answer.context["form"].errors
    assert status(pending) == "pending"


def test_case_and_hyphen_of_the_code_do_not_matter(owner: Client, pending: Grant, sandbox_key: ProviderKey) -> None:
    code = pending.user_code.lower().replace("-", " ")
    owner.post(url(pending), decision(pending, sandbox_key, user_code=code))
    assert status(pending) == "approved"


def test_the_fifth_wrong_code_ends_the_request(owner: Client, pending: Grant, sandbox_key: ProviderKey) -> None:
    for _ in range(4):
        assert owner.post(url(pending), decision(pending, sandbox_key, user_code="BBBB-BBBB")).status_code == 400
    assert status(pending) == "pending"
    answer = owner.post(url(pending), decision(pending, sandbox_key, user_code="BBBB-BBBB"))
    assert answer.status_code == 409
    assert b"Too many wrong codes" in answer.content
    assert status(pending) == "denied"
    assert owner.post(url(pending), decision(pending, sandbox_key)).status_code == 409
    assert status(pending) == "denied"


def test_the_code_of_one_request_does_not_approve_another(
    owner: Client, pending: Grant, sandbox_key: ProviderKey
) -> None:
    other = ask()
    owner.post(url(pending), decision(pending, sandbox_key, user_code=other.user_code))
    assert (status(pending), status(other)) == ("pending", "pending")


# The key


def test_only_ones_own_enabled_keys_of_that_provider_can_be_chosen(
    owner: Client, pending: Grant, sandbox_key: ProviderKey, alice: Any, bob: Any, by: Actor
) -> None:
    bobs = ProviderKey.add(owner=bob, provider="sandbox", label="Bob", secret="", by=by)
    off = ProviderKey.add(owner=alice, provider="sandbox", label="Off", secret="", by=by)
    off.disable(by)
    other = ProviderKey.add(owner=alice, provider="openai", label="Other", secret="sk-0123456789ab", by=by)
    assert list(owner.get(url(pending)).context["form"].fields["provider_key"].queryset) == [sandbox_key]
    for key in (bobs, off, other):
        assert owner.post(url(pending), decision(pending, key)).status_code == 400
    assert status(pending) == "pending"


def test_a_superuser_too_consents_with_their_own_key_only(
    client: Client, root: Any, pending: Grant, sandbox_key: ProviderKey
) -> None:
    client.force_login(root)
    assert client.post(url(pending), decision(pending, sandbox_key)).status_code == 400
    assert status(pending) == "pending"


def test_without_a_key_the_page_says_where_to_add_one(owner: Client, pending: Grant) -> None:
    html = owner.get(url(pending)).content.decode()
    assert "/admin/grants/providerkey/add/?provider=sandbox" in html
    assert 'value="approve"' not in html


# Deciding


def test_denying_needs_no_code(owner: Client, pending: Grant, alice: Any) -> None:
    owner.post(url(pending), {"decision": "deny"})
    assert status(pending) == "denied"
    assert AuditEvent.objects.get(action="grant.denied").via == "consent"
    assert b"Denied" in owner.get(url(pending)).content


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_nothing_but_a_post_decides(owner: Client, pending: Grant, sandbox_key: ProviderKey, method: str) -> None:
    getattr(owner, method)(url(pending) + "?decision=deny", {"decision": "deny"})
    assert status(pending) == "pending"


@pytest.mark.parametrize("data", [{}, {"decision": "maybe"}, {"decision": "approve"}])
def test_a_post_that_says_nothing_decides_nothing(
    owner: Client, pending: Grant, sandbox_key: ProviderKey, data: dict[str, str]
) -> None:
    assert owner.post(url(pending), data).status_code == 400
    assert status(pending) == "pending"


def test_the_first_decision_stands(owner: Client, pending: Grant, sandbox_key: ProviderKey) -> None:
    data = decision(pending, sandbox_key)
    owner.post(url(pending), data)
    assert owner.post(url(pending), {"decision": "deny"}).status_code == 409
    assert owner.post(url(pending), data).status_code == 409
    assert status(pending) == "approved"
    assert AuditEvent.objects.filter(action="grant.approved").count() == 1


def test_what_another_owner_has_decided_is_not_there_any_more(
    owner: Client, pending: Grant, sandbox_key: ProviderKey, bob: Any
) -> None:
    owner.post(url(pending), decision(pending, sandbox_key))
    owner.force_login(bob)
    assert owner.get(url(pending)).status_code == 404
    assert owner.post(url(pending), {"decision": "deny"}).status_code == 404


def test_a_request_that_waited_too_long_says_so(owner: Client, pending: Grant, sandbox_key: ProviderKey) -> None:
    Grant.objects.update(request_expires_at=timezone.now())
    assert b"Too late" in owner.get(url(pending)).content
    assert owner.post(url(pending), decision(pending, sandbox_key)).status_code == 409
    assert status(pending) == "expired"


def test_revoked_and_ended_grants_say_so(owner: Client, grant: Grant, by: Actor) -> None:
    Grant.objects.filter(pk=grant.pk).update(expires_at=timezone.now())
    assert b"Over" in owner.get(url(grant)).content
    Grant.objects.filter(pk=grant.pk).update(expires_at=timezone.now() + dt.timedelta(hours=1))
    grant.revoke(by)
    assert b"Revoked" in owner.get(url(grant)).content


# Other sites


def test_another_site_cannot_decide(alice: Any, pending: Grant, sandbox_key: ProviderKey) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    for data in (decision(pending, sandbox_key), {"decision": "deny"}):
        assert strict.post(url(pending), data).status_code == 403
    assert status(pending) == "pending"


def test_the_page_cannot_be_framed_runs_only_its_own_scripts_and_is_not_kept(
    owner: Client, pending: Grant, sandbox_key: ProviderKey
) -> None:
    for answer in (owner.get(url(pending)), owner.post(url(pending), {}), owner.get("/consent/x/")):
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    answer = owner.get(url(pending))
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "no-store" in answer.headers["cache-control"]
    assert "<style" not in answer.content.decode()
    assert "style=" not in answer.content.decode()


@pytest.mark.parametrize("path", ["x", "00000000-0000-0000-0000-000000000000", "%00", ""])
def test_what_is_not_there_is_not_found(owner: Client, path: str) -> None:
    assert owner.get(f"/consent/{path}/").status_code == 404
