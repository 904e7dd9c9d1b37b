"""One owner's time zone, e-mail and webhook: theirs alone, and the webhook's secret is shown once."""

from __future__ import annotations

import base64
import io
import json
import logging
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import Client

from grants import crypto
from grants.models import Actor, Allowance, AuditEvent, Grant, Preferences
from grants.models.preferences import time_zones, zone_of

from .api import owner
from .conftest import terms

pytestmark = pytest.mark.django_db

HOOK = "https://hooks.example/services/T000/path-secret"
PAGE = "/admin/grants/preferences/"


def secret_in(html: str) -> str:
    return html.partition('<code id="ap-secret">')[2].partition("</code>")[0]


def test_without_a_row_the_defaults_hold(alice: Any) -> None:
    preferences = Preferences.of(alice)
    assert (preferences.time_zone, preferences.by_email, preferences.webhook_url) == ("", True, "")
    assert not Preferences.objects.exists()


def test_a_new_time_zone_holds_for_all_grants_of_this_owner_and_no_others(
    alice: Any, bob: Any, grant: Grant, by: Actor
) -> None:
    by_bob = Actor("api", bob)
    key = type(grant.provider_key).add(owner=bob, provider="sandbox", label="Bob's", secret="", by=by_bob)  # type: ignore[union-attr]
    bobs = Grant.issue(key=key, terms=terms(), app_name="App", by=by_bob)
    before = Allowance.objects.get(grant=grant).revision
    Preferences.of(alice).change(by=by, time_zone="Pacific/Auckland")
    hers = Allowance.objects.get(grant=grant)
    assert hers.time_zone == "Pacific/Auckland"
    assert hers.revision > before
    assert Allowance.objects.get(grant=bobs).time_zone == ""
    assert zone_of(alice) == "Pacific/Auckland"
    later = Grant.issue(key=grant.provider_key, terms=terms(), app_name="Later", by=by)  # type: ignore[arg-type]
    assert later.allowance.time_zone == "Pacific/Auckland"


def test_every_change_is_in_the_trail_and_nothing_changed_is_not(alice: Any, by: Actor) -> None:
    preferences = Preferences.of(alice)
    preferences.change(by=by, time_zone="Europe/Berlin", by_email=True)
    preferences.change(by=by, time_zone="Europe/Berlin")
    event = AuditEvent.objects.get(action="preferences.changed")
    assert (event.detail, event.owner) == ({"time_zone": "Europe/Berlin"}, alice)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/localtime", "localtime", "UTC\0", "utc "])
def test_a_time_zone_is_one_of_those_that_exist(alice: Any, by: Actor, zone: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Preferences.of(alice).change(by=by, time_zone=zone)
    assert "time_zone" in refused.value.message_dict
    assert "Europe/Berlin" in time_zones()


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://192.168.1.1/",
        "https://localhost/x",
        "https://printer.local/x",
        "https://metadata.google.internal/x",
        "https://user:password@hooks.example/x",
        "https://hooks.example/x?y=z",
        "https://hooks.example/x\r\nHost: elsewhere",
        "https://hooks.example/a b",
        "sandbox://x",
        "file:///etc/passwd",
        "https://" + "a" * 300,
    ],
)
def test_a_webhook_goes_only_where_a_base_url_could(alice: Any, by: Actor, settings: Any, url: str) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    with pytest.raises(ValidationError) as refused:
        Preferences.of(alice).change(by=by, webhook_url=url)
    assert "webhook_url" in refused.value.message_dict
    assert not Preferences.objects.exclude(webhook_url="").exists()


@pytest.mark.parametrize(
    "email", ["nobody", "a@b.example\r\nBcc: c@d.example", "a@b.example,c@d.example", "@", "x" * 250 + "@b.example"]
)
def test_an_address_is_one_address(alice: Any, by: Actor, email: str) -> None:
    with pytest.raises(ValidationError):
        Preferences.of(alice).change(by=by, email=email)
    alice.refresh_from_db()
    assert alice.email == ""


def test_a_url_comes_with_a_secret_of_its_own_and_goes_with_it(alice: Any, by: Actor) -> None:
    preferences = Preferences.of(alice)
    first = preferences.change(by=by, webhook_url=HOOK)
    assert first is not None
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32
    assert preferences.change(by=by, webhook_url=HOOK) is None
    second = preferences.change(by=by, webhook_url="https://elsewhere.example/")
    assert second not in (None, first)
    assert preferences.change(by=by, webhook_url="") is None
    assert Preferences.of(alice).webhook_secret == ""
    with pytest.raises(ValidationError):
        preferences.rotate_secret(by)


@pytest.mark.parametrize("columns", [{"webhook_url": HOOK}, {"webhook_secret": "x"}])
def test_the_database_takes_no_webhook_without_a_secret(alice: Any, columns: dict[str, str]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Preferences.objects.create(user=alice, **columns)


def test_a_secret_is_bound_to_its_row(alice: Any, bob: Any, by: Actor) -> None:
    Preferences.of(alice).change(by=by, webhook_url=HOOK)
    Preferences.objects.create(user=bob, webhook_url=HOOK, webhook_secret=Preferences.of(alice).webhook_secret)
    with pytest.raises(crypto.DecryptionError):
        Preferences.of(bob).signing_key()


def test_rotating_the_encryption_key_carries_the_webhooks_secret_over(
    alice: Any, bob: Any, by: Actor, settings: Any
) -> None:
    Preferences.of(bob).change(by=by, time_zone="Europe/Berlin")  # a row without a secret
    Preferences.of(alice).change(by=by, webhook_url=HOOK)
    before = Preferences.of(alice).signing_key()
    settings.AIPASSPORT_ENCRYPTION_KEYS = [crypto.new_key(), *settings.AIPASSPORT_ENCRYPTION_KEYS]
    call_command("rotate_encryption_key", stdout=io.StringIO())
    settings.AIPASSPORT_ENCRYPTION_KEYS = settings.AIPASSPORT_ENCRYPTION_KEYS[:1]
    assert Preferences.of(alice).signing_key() == before


# The API


def test_the_api_shows_and_changes_ones_own(alice: Any) -> None:
    api = owner(alice)
    assert api.get("/api/preferences/").body == {
        "time_zone": "",
        "email": "",
        "by_email": True,
        "webhook_url": "",
        "channels": [],
    }
    changed = api.patch("/api/preferences/", {"time_zone": "Europe/Berlin", "by_email": False, "email": "a@b.example"})
    assert changed.status == 200
    assert (changed.body["time_zone"], changed.body["webhook_secret"]) == ("Europe/Berlin", None)
    alice.refresh_from_db()
    assert alice.email == "a@b.example"


@pytest.mark.parametrize(
    "body",
    [
        {"by_email": "true"},
        {"by_email": 1},
        {"time_zone": None},
        {"time_zone": "Nowhere"},
        {"webhook_url": 7},
        {"webhook_secret": "whsec_mine"},
        {"user": 1},
    ],
)
def test_the_api_refuses_what_it_does_not_know(alice: Any, body: dict[str, Any]) -> None:
    answer = owner(alice).patch("/api/preferences/", body)
    assert answer.status == 400
    assert next(iter(body)) in answer.body["error"]["fields"]


def test_the_api_shows_the_secret_once(alice: Any) -> None:
    api = owner(alice)
    assert api.post("/api/preferences/webhook-secret/").status == 409
    first = api.patch("/api/preferences/", {"webhook_url": HOOK}).body["webhook_secret"]
    assert first not in json.dumps([api.get(path).body for path in ("/api/preferences/", "/api/events/")])
    second = api.post("/api/preferences/webhook-secret/")
    assert second.status == 201
    assert second.body["webhook_secret"] != first
    assert base64.b64decode(second.body["webhook_secret"].removeprefix("whsec_")) == Preferences.of(alice).signing_key()


def test_a_test_needs_somewhere_to_go_and_goes_once_a_minute(alice: Any) -> None:
    api = owner(alice)
    assert api.post("/api/preferences/test/").body["error"]["code"] == "no_channel"
    api.patch("/api/preferences/", {"webhook_url": HOOK})
    answers = [api.post("/api/preferences/test/") for _ in range(3)]  # the minute may change between two of them
    assert [answer.status for answer in answers].count(202) in (1, 2)
    assert answers[0].body == {"channels": ["webhook"]}
    assert {answer.body["error"]["code"] for answer in answers if answer.status == 409} == {"too_soon"}


def test_bob_reads_and_changes_nothing_of_alices(alice: Any, bob: Any, by: Actor) -> None:
    Preferences.of(alice).change(by=by, webhook_url=HOOK, email="alice@b.example")
    before = Preferences.objects.filter(user=alice).values().get()
    for path in ("/api/preferences/", "/api/notices/", "/api/events/"):
        assert "hooks.example" not in json.dumps(owner(bob).get(path).body)
    owner(bob).patch("/api/preferences/", {"time_zone": "Asia/Tokyo", "webhook_url": "https://bob.example/"})
    owner(bob).post("/api/preferences/webhook-secret/")
    assert Preferences.objects.filter(user=alice).values().get() == before


# The desk


def test_the_desk_saves_preferences_and_shows_a_new_secret_once(client: Client, alice: Any) -> None:
    client.force_login(alice)
    form = {"time_zone": "Asia/Kolkata", "by_email": "on", "email": "alice@b.example", "webhook_url": HOOK}
    shown = client.post(PAGE, form)
    assert "no-store" in shown.headers["Cache-Control"]
    secret = secret_in(shown.content.decode())
    preferences = Preferences.of(alice)
    assert base64.b64decode(secret.removeprefix("whsec_")) == preferences.signing_key()
    page = client.get(PAGE).content.decode()
    assert HOOK in page
    assert "Asia/Kolkata" in page
    assert secret not in page
    assert client.post(PAGE, form | {"by_email": ""}).status_code == 302
    assert Preferences.of(alice).by_email is False


def test_the_desk_says_what_it_does_not_take(client: Client, alice: Any) -> None:
    client.force_login(alice)
    page = client.post(PAGE, {"time_zone": "Nowhere", "webhook_url": "https://10.0.0.1/"}).content.decode()
    assert "Not a time zone" in page
    assert "A private address only where" in page


def test_the_desk_makes_a_new_secret_when_asked_twice(client: Client, alice: Any, by: Actor) -> None:
    client.force_login(alice)
    assert client.get(f"{PAGE}webhook-secret/").status_code == 302
    Preferences.of(alice).change(by=by, webhook_url=HOOK)
    before = Preferences.of(alice).webhook_secret
    assert client.get(f"{PAGE}webhook-secret/").status_code == 200
    assert Preferences.of(alice).webhook_secret == before
    secret = secret_in(client.post(f"{PAGE}webhook-secret/").content.decode())
    assert base64.b64decode(secret.removeprefix("whsec_")) == Preferences.of(alice).signing_key()


def test_the_desk_shows_everybody_their_own_preferences(
    client: Client, alice: Any, bob: Any, root: Any, by: Actor
) -> None:
    Preferences.of(alice).change(by=by, webhook_url=HOOK)
    for user in (bob, root):
        client.force_login(user)
        assert "hooks.example" not in client.get(PAGE).content.decode()
        for page in ("change/", "history/", "delete/"):
            assert client.get(f"{PAGE}{alice.pk}/{page}").status_code in (403, 404)


def test_a_secret_is_in_no_log_and_no_trail(alice: Any, by: Actor, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    preferences = Preferences.of(alice)
    secrets = [preferences.change(by=by, webhook_url=HOOK), preferences.rotate_secret(by)]
    told = caplog.text + json.dumps(list(AuditEvent.objects.values_list("detail", flat=True))) + repr(preferences)
    for secret in (*secrets, preferences.webhook_secret, "path-secret"):
        assert secret not in told
    assert "https://hooks.example" in told
