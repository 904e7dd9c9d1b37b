"""Owners see and touch what is theirs; what is not, is not there. Nobody's rights depend on Django's permissions."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import URLPattern, reverse

from grants import tokens
from grants.models import Actor, AuditEvent, Call, Grant, ProviderKey, SigningKey

from .conftest import terms
from .test_admin_grants import call

MODELS = ("providerkey", "grant", "call", "auditevent")


@pytest.fixture
def hers(grant: Grant, by: Actor) -> dict[str, Any]:
    """A row of Alice's in each model."""
    tokens.mint(grant, by=by)
    return {
        "providerkey": grant.provider_key,
        "grant": grant,
        "call": call(grant),
        "auditevent": AuditEvent.objects.filter(grant=grant).first(),
    }


def detail_urls(model: str, pk: Any) -> list[str]:
    """Every URL of the desk that names a row of ``model``."""
    site = next(item for item in admin.site._registry.values() if item.opts.model_name == model)
    names = [url.name for url in site.get_urls() if isinstance(url, URLPattern) and "object_id" in str(url.pattern)]
    return [reverse(f"admin:{name}", args=[pk]) for name in names if name]


def detail_pages() -> list[tuple[str, str]]:
    return [(model, url.replace("PK", "{}")) for model in MODELS for url in detail_urls(model, "PK")]


@pytest.mark.parametrize(("model", "url"), detail_pages())
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_belongs_to_another_owner_is_not_there(
    client: Client, bob: Any, hers: dict[str, Any], model: str, url: str, method: str
) -> None:
    client.force_login(bob)
    before = AuditEvent.objects.count()
    answer = getattr(client, method)(url.format(hers[model].pk))
    assert answer.status_code in (403, 404), (url, answer.status_code)
    assert "Notebook" not in answer.content.decode()
    assert AuditEvent.objects.count() == before
    assert Grant.objects.get().revoked_at is None
    assert ProviderKey.objects.get().disabled_at is None


def test_the_walk_above_covers_the_buttons() -> None:
    urls = " ".join(url for _, url in detail_pages())
    for button in ("disable", "enable", "edit", "terms", "revoke", "token", "revoke-token", "rotate-secret", "history"):
        assert f"/{button}/" in urls, button


def test_alice_herself_opens_all_of_them(client: Client, alice: Any, hers: dict[str, Any]) -> None:
    client.force_login(alice)
    jti = AuditEvent.objects.get(action="token.issued").jti
    for model in MODELS:
        for url in detail_urls(model, hers[model].pk):
            if not url.endswith(("/delete/", "/rotate-secret/")):
                assert client.get(f"{url}?jti={jti}").status_code in (200, 302), url


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_their_filters_show_only_ones_own(client: Client, bob: Any, hers: dict[str, Any], model: str) -> None:
    client.force_login(bob)
    html = client.get(f"/admin/grants/{model}/").content.decode()
    assert "Notebook" not in html
    assert "Sandbox" not in html
    assert str(hers["grant"].pk) not in html


@pytest.mark.parametrize(
    "query", ["call/?grant={}", "auditevent/?grant={}", "auditevent/?key={}", "grant/?key={}", "grant/?q=Notebook"]
)
def test_filters_do_not_find_what_is_not_ones_own(client: Client, bob: Any, hers: dict[str, Any], query: str) -> None:
    client.force_login(bob)
    for row in (hers["grant"], hers["providerkey"]):
        answer = client.get("/admin/grants/" + query.format(row.pk))
        assert not answer.context["cl"].result_list


def test_list_actions_do_not_reach_what_is_not_ones_own(client: Client, bob: Any, hers: dict[str, Any]) -> None:
    client.force_login(bob)
    chosen = {"_selected_action": [hers["grant"].pk], "select_across": "1", "confirmed": "yes"}
    client.post("/admin/grants/grant/", {"action": "revoke_selected"} | chosen)
    chosen["_selected_action"] = [hers["providerkey"].pk]
    client.post("/admin/grants/providerkey/", {"action": "disable_selected"} | chosen)
    assert Grant.objects.live().exists()
    assert ProviderKey.objects.enabled().exists()


def test_nobody_grants_with_anothers_key(client: Client, bob: Any, hers: dict[str, Any]) -> None:
    client.force_login(bob)
    form = {
        "provider_key": hers["providerkey"].pk,
        "app_name": "Thief",
        "models": "*",
        "capabilities": "chat",
        "expiry": "3600",
        "token_lifetime": "900",
    }
    client.post("/admin/grants/grant/add/", form)
    assert not Grant.objects.filter(app_name="Thief").exists()


def test_a_token_of_anothers_grant_is_not_revoked_through_ones_own(
    client: Client, bob: Any, hers: dict[str, Any]
) -> None:
    by_bob = Actor("api", bob)
    key = ProviderKey.add(owner=bob, provider="sandbox", label="Mine", secret="", by=by_bob)
    mine = Grant.issue(key=key, terms=terms(), app_name="Mine", by=by_bob)
    jti = AuditEvent.objects.get(action="token.issued").jti
    client.force_login(bob)
    url = reverse("admin:grants_grant_revoke_token", args=[mine.pk])
    assert client.post(f"{url}?jti={jti}").status_code == 404


@pytest.mark.parametrize("query", ["", "?app_label=grants&model_name=grant&field_name=provider_key"])
def test_autocomplete_tells_nothing(client: Client, bob: Any, hers: dict[str, Any], query: str) -> None:
    client.force_login(bob)
    answer = client.get(f"/admin/autocomplete/{query}")
    assert answer.status_code in (200, 403, 404)
    assert "Sandbox" not in answer.content.decode()


def test_the_overview_counts_only_ones_own(client: Client, bob: Any, hers: dict[str, Any]) -> None:
    client.force_login(bob)
    context = client.get("/admin/").context
    assert (context["live_count"], context["has_keys"], len(context["calls"])) == (0, False, 0)
    assert not context["events"]


def test_pending_requests_are_shown_to_superusers_only(client: Client, bob: Any, root: Any) -> None:
    request, _ = Grant.request(provider="sandbox", terms=terms(), app_name="Asking", by=Actor("app"))
    for user, seen in ((bob, False), (root, True)):
        client.force_login(user)
        for url in ("/admin/", "/admin/grants/grant/"):
            assert ("Asking" in client.get(url).content.decode()) is seen
        assert (client.get(reverse("admin:grants_grant_change", args=[request.pk])).status_code == 200) is seen


@pytest.mark.parametrize(
    "url",
    ["/admin/auth/user/", "/admin/auth/user/add/", "/admin/grants/signingkey/", "/admin/grants/signingkey/rotate/"],
)
def test_users_and_signing_keys_are_the_superusers(client: Client, bob: Any, root: Any, url: str) -> None:
    client.force_login(bob)
    for answer in (client.get(url), client.post(url, {"username": "eve"})):
        assert answer.status_code == 403
    assert not SigningKey.objects.exists()
    client.force_login(root)
    assert client.get(url).status_code == 200


def test_an_owner_cannot_open_accounts_of_others_or_their_own(client: Client, bob: Any, alice: Any) -> None:
    client.force_login(bob)
    for user in (alice, bob):
        assert client.get(f"/admin/auth/user/{user.pk}/change/").status_code == 403
        assert client.post(f"/admin/auth/user/{user.pk}/password/", {"password1": "x"}).status_code == 403


@pytest.mark.parametrize("change", [{"is_staff": False}, {"is_active": False}])
def test_who_is_no_owner_is_sent_to_the_sign_in_page(client: Client, bob: Any, change: dict[str, bool]) -> None:
    client.force_login(bob)
    type(bob).objects.filter(pk=bob.pk).update(**change)
    for url in ("/admin/", "/admin/grants/grant/", "/admin/grants/grant/add/"):
        assert client.get(url).headers["location"].startswith("/admin/login/")


def test_a_superuser_sees_everything(client: Client, root: Any, hers: dict[str, Any]) -> None:
    client.force_login(root)
    for model in MODELS:
        assert client.get(f"/admin/grants/{model}/").context["cl"].result_list, model
    assert Call.objects.exists()
