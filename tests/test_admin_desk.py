"""The desk as a house: what every page of it keeps to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from grants import tokens
from grants.admin.forms import KeyEditForm, KeyForm
from grants.models import Actor, AuditEvent, Grant, ProviderKey, SigningKey
from grants.templatetags.desk import duration, elapsed, money, when

from .conftest import PASSWORD, terms
from .test_admin_grants import call

SCRIPT = "<script>alert(1)</script>'\"`${x}{{x}}<img src=x onerror=alert(1)>"


@pytest.fixture
def desk(client: Client, root: Any) -> Client:
    client.force_login(root)
    return client


@pytest.fixture
def furnished(root: Any) -> dict[str, Any]:
    """A superuser's desk with a row of everything."""
    by = Actor("api", root, "192.0.2.1")
    key = ProviderKey.add(owner=root, provider="sandbox", label="Sandbox", secret="", by=by)
    grant = Grant.issue(key=key, terms=terms(), app_name="Notebook", by=by)
    tokens.mint(grant, by=by)
    return {
        "key": key,
        "grant": grant,
        "call": call(grant),
        "event": AuditEvent.objects.first(),
        "signing": SigningKey.objects.get(),
    }


def pages(rows: dict[str, Any]) -> list[str]:
    def one(model: str, name: str, row: str) -> str:
        return reverse(f"admin:grants_{model}_{name}", args=[rows[row].pk])

    lists = ["", *(f"grants/{name}/" for name in ("grant", "providerkey", "call", "auditevent", "signingkey"))]
    return [
        *(
            f"/admin/{name}"
            for name in [
                *lists,
                "grants/",
                "auth/user/",
                "auth/user/add/",
                "grants/grant/add/",
                "grants/providerkey/add/",
                "grants/signingkey/rotate/",
                "password_change/",
            ]
        ),
        *(one("providerkey", name, "key") for name in ("change", "edit", "disable", "enable")),
        *(one("grant", name, "grant") for name in ("change", "terms", "token", "revoke")),
        one("call", "change", "call"),
        one("auditevent", "change", "event"),
        one("signingkey", "change", "signing"),
        one("signingkey", "retire", "signing"),
    ]


def test_every_page_opens(desk: Client, furnished: dict[str, Any]) -> None:
    for url in pages(furnished):
        assert desk.get(url).status_code == 200, url


def test_every_page_works_offline_and_without_inline_scripts(desk: Client, furnished: dict[str, Any]) -> None:
    """So that the content security policy need not allow any, and no page asks another host for anything."""
    for url in pages(furnished):
        answer = desk.get(url)
        html = answer.content.decode()
        scripts = re.findall(r"<script[^>]*>", html)
        inline = [tag for tag in scripts if "src=" not in tag and "application/json" not in tag]
        assert not inline, (url, inline)
        assert not re.search(r"\son[a-z]+=[\"']", html), url
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"'](https?:)?//", html), url
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self' 'unsafe-eval';" in policy  # the theme's Alpine needs eval
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert "password_change" in url or "no-store" in answer.headers["cache-control"]


def test_what_apps_say_about_themselves_is_text_on_every_page(desk: Client, furnished: dict[str, Any]) -> None:
    """Stored cross-site scripting: names and reasons come from anybody."""
    name = SCRIPT[:100]
    grant, _ = Grant.request(
        provider="sandbox",
        terms=terms(),
        app_name=name,
        by=Actor("app"),
        reason=SCRIPT,
        app_url="https://x.example/?'\"<b>",
    )
    waiting = [f"/consent/{grant.pk}/", "/admin/", reverse("admin:grants_grant_change", args=[grant.pk])]
    assert all(desk.get(url).status_code == 200 for url in waiting)
    for url in waiting:
        assert "<script>alert" not in desk.get(url).content.decode(), url
    grant.approve(key=furnished["key"], terms=grant.terms, by=Actor("api", furnished["key"].owner))
    ProviderKey.objects.update(label=name, last_error=SCRIPT)
    furnished |= {"grant": grant, "call": call(grant, model=SCRIPT[:200]), "event": grant.events.first()}
    for url in [*pages(furnished), waiting[0]]:
        html = desk.get(url).content.decode()
        assert "<script>alert" not in html, url
        assert "<img src=x" not in html, url
    token = desk.post(
        reverse("admin:grants_grant_token", args=[grant.pk]), {"lifetime": "900", "capabilities": ["chat"]}
    )
    assert b"<script>alert" not in token.content


def test_a_stored_javascript_link_is_no_link(desk: Client, furnished: dict[str, Any]) -> None:
    """The model refuses it; were it there, the policy of the page would not run it either."""
    Grant.objects.update(app_url="javascript:alert(1)")
    answer = desk.get(reverse("admin:grants_grant_change", args=[furnished["grant"].pk]))
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"].split("script-src")[1].split(";")[0]


def test_the_first_visit_says_what_to_do(client: Client, alice: Any) -> None:
    client.force_login(alice)
    assert b"Add a provider key" in client.get("/admin/").content


def test_signing_in_leads_to_the_desk_or_to_where_one_came_from(client: Client, alice: Any) -> None:
    data = {"username": "alice", "password": PASSWORD}
    assert client.post("/admin/login/", data).headers["location"] == "/admin/"
    client.logout()
    url = "/consent/00000000-0000-0000-0000-000000000000/"
    assert client.post(f"/admin/login/?next={url}", data).headers["location"] == url


def test_the_overview_is_cheap(desk: Client, furnished: dict[str, Any], django_assert_max_num_queries: Any) -> None:
    for index in range(10):
        Grant.issue(key=furnished["key"], terms=terms(), app_name=f"App {index}", by=Actor("api"))
    desk.get("/admin/")
    with django_assert_max_num_queries(14):
        desk.get("/admin/")


@pytest.mark.parametrize("model", ["call", "auditevent"])
def test_long_lists_are_never_counted(
    desk: Client, furnished: dict[str, Any], model: str, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(9) as captured:
        desk.get(f"/admin/grants/{model}/")
    table = f'FROM "grants_{model}"'
    assert not [query for query in captured.captured_queries if "COUNT(" in query["sql"] and table in query["sql"]]


@pytest.mark.parametrize(
    "query",
    [
        "outcome=ok",
        "day=today",
        "day=month",
        "route=chat",
        "route=%00",
        "outcome=nonsense",
        "day=x",
        "grant=x",
        "grant=%00",
        "p=x",
        "p=99999999",
        "o=9.x",
        "_facets=1",
        "all=",
    ],
)
@pytest.mark.parametrize("model", ["call"])
def test_the_ledger_is_filtered_and_bad_filters_break_nothing(
    desk: Client, furnished: dict[str, Any], model: str, query: str
) -> None:
    assert desk.get(f"/admin/grants/{model}/?{query}").status_code in (200, 302)


def test_a_call_of_last_month_is_not_todays(desk: Client, furnished: dict[str, Any]) -> None:
    from uuid import UUID

    old = call(furnished["grant"], id=UUID(int=(1_500_000_000_000 << 80) | 7 << 76 | 2 << 62), model="old-model")
    html = desk.get("/admin/grants/call/?day=today").content.decode()
    assert str(furnished["call"].pk) in html
    assert str(old.pk) not in html
    assert str(old.pk) in desk.get("/admin/grants/call/").content.decode()


@pytest.mark.parametrize("model", ["call", "auditevent"])
def test_the_record_is_for_reading(desk: Client, furnished: dict[str, Any], model: str) -> None:
    pk = furnished["call" if model == "call" else "event"].pk
    assert desk.get(f"/admin/grants/{model}/add/").status_code == 403
    assert desk.post(f"/admin/grants/{model}/{pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("object_id", ["x", "00000000-0000-0000-0000-000000000000", "%00", "a/b", "_5F", "ü"])
def test_what_is_not_there_is_not_found(desk: Client, furnished: dict[str, Any], object_id: str) -> None:
    for model in ("grant", "providerkey", "call", "auditevent", "signingkey"):
        assert desk.get(f"/admin/grants/{model}/{object_id}/change/").status_code == 404, model


@pytest.mark.parametrize("model", ["grant", "providerkey"])
@pytest.mark.parametrize("chosen", ["x", "\x00", ""])
def test_bad_choices_in_a_list_are_refused(desk: Client, furnished: dict[str, Any], model: str, chosen: str) -> None:
    for name in ("revoke_selected", "disable_selected", "nonsense", ""):
        answer = desk.post(f"/admin/grants/{model}/", {"action": name, "_selected_action": [chosen]})
        assert answer.status_code in (302, 400)


@pytest.mark.parametrize("query", ["s=grants", "s=grants&page=x", "s=x&page=9&extended=1"])
def test_the_themes_own_search_is_off(desk: Client, query: str) -> None:
    assert desk.get(f"/admin/search/?{query}").headers["location"] == "/admin/"


@pytest.mark.parametrize("query", ["provider_key=x", "provider_key=%00", "models=*&capabilities=code&app_name=Evil"])
def test_a_link_fills_in_nothing_but_the_key(desk: Client, furnished: dict[str, Any], query: str) -> None:
    html = desk.get(f"/admin/grants/grant/add/?{query}").content.decode()
    assert "Evil" not in html


# Signing keys


def test_the_signing_key_is_rotated_and_retired_after_asking(desk: Client, furnished: dict[str, Any]) -> None:
    first = furnished["signing"]
    desk.get("/admin/grants/signingkey/rotate/")
    assert SigningKey.objects.count() == 1
    desk.post("/admin/grants/signingkey/rotate/")
    assert SigningKey.objects.live().count() == 2
    url = reverse("admin:grants_signingkey_retire", args=[first.pk])
    desk.get(url)
    assert SigningKey.objects.live().count() == 2
    desk.post(url)
    assert first not in SigningKey.objects.live()
    events = [(event.action, event.actor, event.via) for event in AuditEvent.objects.all()[:2]]
    assert events == [("signing_key.retired", "root", "admin"), ("signing_key.created", "root", "admin")]


def test_the_private_half_is_on_no_page(desk: Client, furnished: dict[str, Any]) -> None:
    key = furnished["signing"]
    for url in ("/admin/grants/signingkey/", reverse("admin:grants_signingkey_change", args=[key.pk])):
        html = desk.get(url).content.decode()
        assert key.private_key not in html
        assert "PRIVATE" not in html


# Users


def test_a_new_account_is_an_owners(desk: Client) -> None:
    data = {"username": "carol", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    desk.post("/admin/auth/user/add/", data)
    carol = get_user_model().objects.get(username="carol")
    assert (carol.is_staff, carol.is_superuser, carol.check_password(PASSWORD)) == (True, False, True)


def test_switching_an_owner_off_takes_their_grants_away(desk: Client, grant: Grant) -> None:
    before = grant.allowance.revision
    desk.post(f"/admin/auth/user/{grant.owner_id}/change/", {"username": "alice", "is_staff": "on"})
    grant.allowance.refresh_from_db()
    assert grant.allowance.revision == before + 1
    assert AuditEvent.objects.filter(action="owner.disabled").exists()


def test_superusers_do_not_lock_themselves_out(desk: Client, root: Any) -> None:
    desk.post(f"/admin/auth/user/{root.pk}/change/", {"username": "root"})
    root.refresh_from_db()
    assert root.is_active
    assert root.is_superuser


def test_nobody_is_deleted(desk: Client, alice: Any) -> None:
    assert desk.post(f"/admin/auth/user/{alice.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_password_hash_cannot_be_probed_through_the_list(desk: Client) -> None:
    assert desk.get("/admin/auth/user/?password__startswith=a").status_code == 400


# The audit's address


@pytest.mark.parametrize(("trusted", "address"), [(False, "192.0.2.7"), (True, "203.0.113.5")])
def test_the_trail_names_the_address_that_cannot_be_forged(
    desk: Client, furnished: dict[str, Any], settings: Any, trusted: bool, address: str
) -> None:
    settings.TRUST_PROXY = trusted
    url = reverse("admin:grants_grant_revoke", args=[furnished["grant"].pk])
    desk.post(url, REMOTE_ADDR="192.0.2.7", HTTP_X_FORWARDED_FOR="6.6.6.6, 203.0.113.5")
    assert AuditEvent.objects.first().address == address


# How it writes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 hour", 3600),
        ("90 minutes", 5400),
        ("30 days", 30 * 86400),
        ("61 seconds", 61),
        ("1 year", 365 * 86400),
        ("—", None),
    ],
)
def test_durations_read_like_a_sentence(text: str, value: int | None) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$0", 0),
        ("$1,234.50", 1_234_500_000_000),
        ("$0.0658", 65_800_000),
        ("$0.000012", 12_000),
        ("<$0.000001", 3),
        ("—", None),
    ],
)
def test_money_is_dollars(text: str, value: int | None) -> None:
    assert money(value) == text


def test_times_are_short() -> None:
    assert (elapsed(812_345), elapsed(3_400_000), elapsed(None)) == ("812 ms", "3.4 s", "—")
    assert when("2001-02-03T04:05:00+00:00") == when(981_173_100_000_000) == "3 Feb 2001, 04:05"


def test_a_form_left_open_across_a_new_sign_in_ends_at_a_page_with_a_way_back() -> None:
    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "alice"}, HTTP_HOST="localhost")
    page = answer.content.decode()
    assert answer.status_code == 403
    assert "This form is out of date" in page
    assert 'href="/admin/login/"' in page
    assert "CSRF" not in page


def test_browsers_do_not_fill_the_account_password_into_a_field_for_a_provider_key() -> None:
    for form in (KeyForm, KeyEditForm):
        assert form.base_fields["secret"].widget.attrs["autocomplete"] == "new-password"
