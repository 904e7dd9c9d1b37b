"""Provider keys on the desk: write-only, switched off at once, nobody else's business."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from grants.models import AuditEvent, Grant, ProviderKey

from .conftest import CANARY

ADD = "/admin/grants/providerkey/add/"
LIST = "/admin/grants/providerkey/"
EVENTS = "/admin/grants/auditevent/"


def page(key: ProviderKey, name: str = "change") -> str:
    return reverse(f"admin:grants_providerkey_{name}", args=[key.pk])


@pytest.fixture
def desk(client: Client, alice: Any) -> Client:
    client.force_login(alice)
    return client


@pytest.fixture
def key(alice: Any, by: Any) -> ProviderKey:
    return ProviderKey.add(owner=alice, provider="openai", label="Team", secret=CANARY, by=by)


def test_a_key_is_added_encrypted_and_in_the_trail(desk: Client, alice: Any) -> None:
    answer = desk.post(ADD, {"provider": "openai", "label": "Team", "secret": f" {CANARY}\n"}, REMOTE_ADDR="192.0.2.9")
    key = ProviderKey.objects.get()
    assert answer.status_code == 302
    assert (key.owner, key.hint) == (alice, CANARY[-4:])
    assert CANARY not in key.secret
    event = AuditEvent.objects.get(action="key.added")
    assert (event.actor, event.via, event.address) == ("alice", "admin", "192.0.2.9")


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("secret", {"secret": ""}),
        ("secret", {"secret": "two words"}),
        ("label", {"label": ""}),
        ("provider", {"provider": "nobody"}),
        ("base_url", {"base_url": "http://localhost:11434"}),
        ("base_url", {"provider": "azure"}),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_stored(
    desk: Client, field: str, data: dict[str, str]
) -> None:
    answer = desk.post(ADD, {"provider": "openai", "label": "Team", "secret": CANARY} | data)
    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [field]
    assert CANARY not in answer.content.decode()
    assert not ProviderKey.objects.exists()


def test_a_label_is_used_once_an_owner(desk: Client, key: ProviderKey) -> None:
    answer = desk.post(ADD, {"provider": "openai", "label": "Team", "secret": CANARY})
    assert answer.context["form"].errors
    assert ProviderKey.objects.count() == 1


def test_the_secret_is_on_no_page_ever(desk: Client, key: ProviderKey, root: Any) -> None:
    desk.post(page(key, "edit"), {"label": "Renamed", "secret": CANARY + "x", "extra_fields": ""})
    desk.post(page(key, "edit"), {"label": "", "secret": CANARY, "extra_fields": ""})
    key.refresh_from_db()
    for user in (key.owner, root):
        desk.force_login(user)
        for url in (LIST, ADD, *(page(key, name) for name in ("change", "edit", "disable")), "/admin/", EVENTS):
            html = desk.get(url).content.decode()
            assert CANARY not in html, url
            assert key.secret not in html, url
    told = [str(entry.detail) for entry in AuditEvent.objects.all()] + [
        f"{entry.object_repr}{entry.change_message}" for entry in LogEntry.objects.all()
    ]
    assert CANARY not in "".join(told)


def test_a_password_field_that_browsers_do_not_fill_takes_the_secret(desk: Client) -> None:
    html = desk.get(ADD).content.decode()
    tag = next(tag for tag in html.split("<input ") if 'name="secret"' in tag).split(">")[0]
    assert 'type="password"' in tag
    assert 'autocomplete="new-password"' in tag


def test_an_empty_secret_keeps_the_one_that_is_stored(desk: Client, key: ProviderKey) -> None:
    desk.post(page(key, "edit"), {"label": "Renamed", "secret": "", "extra_fields": "one, two"})
    changed = ProviderKey.objects.get()
    assert (changed.label, changed.secret, changed.extra_fields) == ("Renamed", key.secret, ["one", "two"])


def test_a_replaced_secret_is_used_from_then_on_and_the_trail_says_only_that(desk: Client, key: ProviderKey) -> None:
    ProviderKey.objects.update(last_error="401")
    desk.post(page(key, "edit"), {"label": "Team", "secret": "sk-another-secret-of-9999", "extra_fields": ""})
    changed = ProviderKey.objects.get()
    assert changed.secret != key.secret
    assert (changed.hint, changed.last_error) == ("9999", "")
    assert AuditEvent.objects.get(action="key.changed").detail == {"changed": "secret"}


def test_provider_and_base_url_cannot_be_changed(desk: Client, key: ProviderKey) -> None:
    """The stored key would go to another host."""
    desk.post(
        page(key, "edit"), {"label": "x", "extra_fields": "", "provider": "groq", "base_url": "https://evil.example"}
    )
    desk.post(page(key), {"label": "y", "provider": "groq", "base_url": "https://evil.example"})
    key.refresh_from_db()
    assert (key.provider, key.base_url, key.label) == ("openai", "", "x")


def test_one_click_disables_and_one_enables_again(desk: Client, sandbox_key: ProviderKey, grant: Grant) -> None:
    before = grant.allowance.revision
    desk.post(page(sandbox_key, "disable"))
    sandbox_key.refresh_from_db()
    grant.allowance.refresh_from_db()
    assert sandbox_key.disabled_at
    assert grant.allowance.revision == before + 1
    desk.post(page(sandbox_key, "enable"))
    sandbox_key.refresh_from_db()
    assert sandbox_key.disabled_at is None
    assert list(AuditEvent.objects.values_list("action", flat=True))[:2] == ["key.enabled", "key.disabled"]


@pytest.mark.parametrize("button", ["disable", "enable"])
def test_a_link_changes_nothing(desk: Client, key: ProviderKey, button: str) -> None:
    before = AuditEvent.objects.count()
    assert desk.get(page(key, button)).status_code == 200
    assert AuditEvent.objects.count() == before


def test_another_site_cannot_press_the_buttons(alice: Any, key: ProviderKey) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    assert strict.post(page(key, "disable")).status_code == 403
    key.refresh_from_db()
    assert key.disabled_at is None


def test_many_are_disabled_from_the_list(desk: Client, key: ProviderKey, sandbox_key: ProviderKey) -> None:
    desk.post(LIST, {"action": "disable_selected", "_selected_action": [key.pk, sandbox_key.pk]})
    assert not ProviderKey.objects.enabled().exists()
    desk.post(LIST, {"action": "enable_selected", "_selected_action": [key.pk]})
    assert list(ProviderKey.objects.enabled()) == [key]


def test_no_key_is_deleted(desk: Client, key: ProviderKey) -> None:
    assert desk.post(page(key, "delete"), {"post": "yes"}).status_code == 403
    desk.post(LIST, {"action": "delete_selected", "_selected_action": [key.pk], "post": "yes"})
    assert ProviderKey.objects.exists()


def test_the_list_says_what_happened_last(desk: Client, key: ProviderKey) -> None:
    ProviderKey.objects.update(last_error="401 invalid key", last_error_at=key.created_at, last_used_at=key.created_at)
    assert b"401 invalid key" in desk.get(LIST).content
    assert b"Its last use failed" in desk.get(page(key)).content
    assert b"Keys with trouble" in desk.get("/admin/").content


@pytest.mark.parametrize("lookup", ["secret__startswith=v1", "owner__password__startswith=a", "hint=cdef"])
def test_no_column_can_be_probed_through_the_list(desk: Client, key: ProviderKey, lookup: str) -> None:
    assert desk.get(f"{LIST}?{lookup}").status_code == 400
