"""Limits on the desk, in the API, in the command and on the consent page: what is typed is what is kept and shown."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from grants import tokens
from grants.clock import day_number, microseconds, uuid7
from grants.models import Actor, Allowance, AuditEvent, Call, Grant, ProviderKey
from grants.terms import Terms

from .api import anyone, ask, owner
from .conftest import terms

pytestmark = pytest.mark.django_db

# As it is typed, and as it is kept.
TYPED: dict[str, Any] = {
    "max_cost": "5.00",
    "max_cost_per_day": "1.00",
    "max_cost_per_month": "4.000000001",
    "max_cost_per_call": "0.10",
    "requests_per_minute": 60,
    "tokens_per_minute": 40_000,
    "max_requests": 100,
    "max_concurrency": 4,
    "default_output_tokens": 1000,
}
KEPT: dict[str, int] = {
    "max_cost": 5_000_000_000,
    "max_cost_per_day": 1_000_000_000,
    "max_cost_per_month": 4_000_000_001,
    "max_cost_per_call": 100_000_000,
    "requests_per_minute": 60,
    "tokens_per_minute": 40_000,
    "max_requests": 100,
    "max_concurrency": 4,
    "default_output_tokens": 1000,
}
SHOWN = TYPED | {"max_cost_per_day": "1.00", "max_cost_per_month": "4.000000001"}
NO_MONEY = [
    *(5, 5.0, 0.1, True, [], {}, "", "5,00", "$5", "-1", "+1", "1e3", " 5", "5 ", "5.", ".5", "NaN", "Infinity"),
    *("0", "0.00", "0.0000000001", "1000000000.01", "9" * 5000, "\u0665", "5\u0000"),
]


def issue(user: Any, key: ProviderKey, **changes: Any) -> Any:
    body = ask(provider_key=str(key.pk)) | changes
    del body["provider"]
    return owner(user).post("/api/grants/", body)


def kept(grant: Grant) -> dict[str, Any]:
    return {name: getattr(Grant.objects.get(pk=grant.pk).terms, name) for name in KEPT}


@pytest.fixture
def limited(sandbox_key: ProviderKey, by: Actor) -> Grant:
    return Grant.issue(key=sandbox_key, terms=terms(**KEPT), app_name="Notebook", by=by)


@pytest.fixture
def desk(client: Client, alice: Any) -> Client:
    client.force_login(alice)
    return client


def page(grant: Grant, name: str = "change") -> str:
    return reverse(f"admin:grants_grant_{name}", args=[grant.pk])


# The API


def test_every_limit_can_be_set_in_dollars_and_plain_units(alice: Any, sandbox_key: ProviderKey) -> None:
    answer = issue(alice, sandbox_key, **TYPED)
    assert answer.status == 201
    grant = Grant.objects.get()
    assert kept(grant) == KEPT
    assert {name: answer.body[name] for name in SHOWN} == SHOWN
    assert Allowance.objects.get().max_cost_per_month == KEPT["max_cost_per_month"]


def test_a_limit_that_nobody_sets_is_none(alice: Any, sandbox_key: ProviderKey) -> None:
    body = issue(alice, sandbox_key).body
    assert {name: body[name] for name in KEPT} == dict.fromkeys(KEPT) | {"default_output_tokens": 4096}
    assert set(body["usage"]["limits"].values()) == {None}


@pytest.mark.parametrize("name", [name for name in KEPT if name.startswith("max_cost")])
@pytest.mark.parametrize("value", NO_MONEY, ids=lambda value: repr(value)[:20])
def test_what_is_no_amount_of_dollars_is_refused_by_name_and_nothing_is_written(
    alice: Any, sandbox_key: ProviderKey, limited: Grant, name: str, value: Any
) -> None:
    before = kept(limited)
    for answer in (
        issue(alice, sandbox_key, **{name: value}),
        owner(alice).patch(f"/api/grants/{limited.pk}/", {name: value, "max_requests": 7}),
        anyone().post("/api/grant-requests/", ask(**{name: value})),
    ):
        assert answer.status == 400
        assert list(answer.body["error"]["fields"]) == [name]
    assert kept(limited) == before
    assert Grant.objects.count() == 1


def test_a_number_instead_of_a_string_is_told_how_to_write_it(alice: Any, sandbox_key: ProviderKey) -> None:
    for value in (5, 5.5):
        [sentence] = issue(alice, sandbox_key, max_cost=value).body["error"]["fields"]["max_cost"]
        assert '"5.00"' in sentence


@pytest.mark.parametrize("name", [name for name in KEPT if not name.startswith("max_cost")])
@pytest.mark.parametrize("value", [0, -1, 1.5, "60", True, 2**60, []], ids=repr)
def test_what_is_no_number_of_them_is_refused_by_name(alice: Any, limited: Grant, name: str, value: Any) -> None:
    answer = owner(alice).patch(f"/api/grants/{limited.pk}/", {name: value})
    assert (answer.status, list(answer.body["error"]["fields"])) == (400, [name])
    assert kept(limited) == KEPT


def test_limits_of_a_live_grant_are_raised_lowered_and_taken_away(alice: Any, limited: Grant) -> None:
    path = f"/api/grants/{limited.pk}/"
    for change, expected in (
        ({"max_cost": "7.50"}, 7_500_000_000),
        ({"max_cost": "0.000000001"}, 1),
        ({"max_cost": None}, None),
    ):
        revision = Allowance.objects.get().revision
        assert owner(alice).patch(path, change).status == 200
        assert kept(limited) == KEPT | {"max_cost": expected}
        assert Allowance.objects.get().revision > revision, "the next call would not look"
    told = [event.detail["max_cost"] for event in AuditEvent.objects.filter(action="grant.changed")]
    assert told == [None, 1, 7_500_000_000]


def test_an_app_asks_for_limits_and_the_owner_lowers_them(alice: Any, sandbox_key: ProviderKey) -> None:
    asked = Grant.objects.get(pk=anyone().post("/api/grant-requests/", ask(**TYPED)).body["id"])
    assert kept(asked) == KEPT
    path, body = f"/api/grants/{asked.pk}/approve/", {"provider_key": str(sandbox_key.pk)}
    for wider in ({"max_cost": "5.000000001"}, {"max_cost_per_day": None}, {"tokens_per_minute": 40_001}):
        answer = owner(alice).post(path, body | wider)
        assert (answer.status, list(answer.body["error"]["fields"])) == (400, list(wider))
    assert owner(alice).post(path, body | {"max_cost": "0.50"}).status == 200
    assert kept(asked) == KEPT | {"max_cost": 500_000_000}


def _use(**counters: int) -> None:
    today = day_number(timezone.now())
    Allowance.objects.update(**{"day": today, "requests": 7, "in_flight": 2, "spent": 1_200_000_000} | counters)


def test_the_answer_says_of_each_limit_what_is_used_reserved_and_left(alice: Any, limited: Grant) -> None:
    _use(reserved=100_000_000, day_spent=300_000_000, day_reserved=100_000_000, month_spent=900_000_000)
    usage = owner(alice).get(f"/api/grants/{limited.pk}/").body["usage"]
    assert (usage["requests"], usage["in_flight"], usage["spent"], usage["reserved"]) == (7, 2, "1.20", "0.10")
    limits = usage["limits"]
    assert limits["max_cost"] == {
        "allowed": "5.00",
        "used": "1.20",
        "reserved": "0.10",
        "left": "3.70",
        "resets_at": None,
    }
    assert limits["max_requests"] == {"allowed": 100, "used": 7, "left": 93, "resets_at": None}
    assert limits["max_concurrency"] == {"allowed": 4, "used": 2, "left": 2, "resets_at": None}
    assert limits["max_cost_per_day"]["left"] == "0.60"
    assert limits["max_cost_per_month"]["left"] == "3.100000001"
    assert (limits["requests_per_minute"]["allowed"], limits["requests_per_minute"]["used"]) == (60, 0)
    assert limits["tokens_per_minute"]["left"] == 40_000
    ends = dt.datetime.fromisoformat(limits["max_cost_per_day"]["resets_at"])
    assert dt.timedelta(0) < ends - timezone.now() <= dt.timedelta(days=1)
    assert ends <= dt.datetime.fromisoformat(limits["max_cost_per_month"]["resets_at"])


def test_yesterdays_money_is_not_todays_nor_last_months_this_months(alice: Any, limited: Grant) -> None:
    _use(day=20200131, day_spent=900_000_000, month_spent=900_000_000, reserved=1, day_reserved=1, month_reserved=1)
    limits = owner(alice).get(f"/api/grants/{limited.pk}/").body["usage"]["limits"]
    assert limits["max_cost_per_day"]["left"] == "1.00"
    assert limits["max_cost_per_month"]["left"] == "4.000000001"
    assert limits["max_cost"]["left"] == "3.799999999"


def test_a_day_ends_at_the_owners_midnight(alice: Any, limited: Grant) -> None:
    for zone, hour in (("Pacific/Kiritimati", 10), ("Asia/Kolkata", 18)):
        Allowance.objects.update(time_zone=zone)
        limits = owner(alice).get(f"/api/grants/{limited.pk}/").body["usage"]["limits"]
        ends = dt.datetime.fromisoformat(limits["max_cost_per_day"]["resets_at"]).astimezone(dt.UTC)
        assert ends.hour == hour
        assert ends > timezone.now()


def test_a_limit_lowered_below_what_is_used_has_nothing_left_and_not_less(alice: Any, limited: Grant) -> None:
    _use(spent=9_000_000_000, requests=500)
    usage = owner(alice).get(f"/api/grants/{limited.pk}/").body["usage"]
    assert usage["exhausted"] is True
    assert (usage["limits"]["max_cost"]["left"], usage["limits"]["max_requests"]["left"]) == ("0.00", 0)


def test_an_app_reads_what_is_left_off_its_own_token(limited: Grant, by: Actor) -> None:
    _use()
    token = tokens.mint(limited, by=by).token
    answer = anyone().post("/api/tokens/introspect/", {"token": token}).body
    assert answer["active"] is True
    assert answer["limits"]["max_cost"]["left"] == "3.80"
    assert answer["limits"]["max_requests"]["left"] == 93
    assert (answer["max_cost_per_call"], answer["default_output_tokens"]) == ("0.10", 1000)
    assert (answer["exhausted"], answer["closed_at"]) == (False, None)
    limited.revoke(by)
    assert anyone().post("/api/tokens/introspect/", {"token": token}).body == {"active": False}


def test_the_schema_says_how_to_write_them() -> None:
    schemas = json.loads(Client().get("/api/schema/").content)["components"]["schemas"]
    for body in ("IssueBody", "PatchedChangeBody", "ApproveBody", "GrantRequestBody"):
        properties = schemas[body]["properties"]
        assert set(KEPT) <= set(properties)
        assert (properties["max_cost"]["type"], properties["tokens_per_minute"]["type"]) == ("string", "integer")
    assert set(KEPT) <= set(schemas["GrantAnswer"]["properties"])
    assert set(schemas["MoneyLimitAnswer"]["properties"]) == {"allowed", "used", "reserved", "left", "resets_at"}


# Closed by an overrun


def overrun(grant: Grant, **changes: Any) -> Call:
    now = microseconds(timezone.now())
    values: dict[str, Any] = {
        "id": uuid7(),
        "grant": grant,
        "worker": uuid7(),
        "jti": "j",
        "kid": "k",
        "route": "openai.responses",
        "model": "searching-model",
        "stream": False,
        "counted": 1,
        "day": day_number(timezone.now()),
        "started_at": now,
        "finished_at": now + 900_000,
        "outcome": "ok",
        "reserved": 100_000_000,
        "cost": 350_000_000,
    }
    call = Call.objects.create(**values | changes)
    Allowance.objects.filter(grant=grant).update(closed_at=now + 900_000)
    return call


def test_a_closed_grant_says_so_shows_the_call_and_is_reopened_by_a_button(desk: Client, limited: Grant) -> None:
    call = overrun(limited)
    overrun(limited, model="well-behaved", cost=99_000_000)
    html = desk.get(page(limited)).content.decode()
    for text in (
        "Closed: a call cost more",
        "searching-model",
        "$0.35",
        "$0.25",
        str(call.pk),
        page(limited, "reopen"),
    ):
        assert text in html, text
    assert [row.model for row in desk.get(page(limited)).context["overrun"]] == ["searching-model"]
    assert b"Reopen Notebook?" in desk.get(page(limited, "reopen")).content
    assert Allowance.objects.get().closed_at
    revision = Allowance.objects.get().revision
    assert desk.post(page(limited, "reopen")).headers["location"] == page(limited)
    allowance = Allowance.objects.get()
    assert (allowance.closed_at, allowance.revision) == (None, revision + 1)
    assert AuditEvent.objects.filter(action="grant.reopened", actor="alice", grant=limited).count() == 1
    html = desk.get(page(limited)).content.decode()
    assert "Closed: a call cost more" not in html
    desk.post(page(limited, "reopen"))
    assert AuditEvent.objects.filter(action="grant.reopened").count() == 1


def test_the_list_of_grants_says_which_are_closed_and_which_are_used_up(desk: Client, limited: Grant) -> None:
    list_url = reverse("admin:grants_grant_changelist")
    assert "closed" not in desk.get(list_url).content.decode().split("result_list")[1]
    overrun(limited)
    assert "closed" in desk.get(list_url).content.decode().split("result_list")[1]
    Allowance.objects.update(closed_at=None, spent=KEPT["max_cost"])
    html = desk.get(list_url).content.decode().split("result_list")[1]
    assert "exhausted" in html
    assert "$5.00 of $5.00" in html


def test_the_api_reopens_it_and_doing_it_twice_does_no_harm(alice: Any, limited: Grant, by: Actor) -> None:
    overrun(limited)
    path = f"/api/grants/{limited.pk}/"
    assert owner(alice).get(path).body["usage"]["closed_at"]
    for _ in range(2):
        answer = owner(alice).post(path + "reopen/")
        assert (answer.status, answer.body["usage"]["closed_at"]) == (200, None)
    assert AuditEvent.objects.filter(action="grant.reopened", via="api").count() == 1
    overrun(limited)
    limited.revoke(by)
    answer = owner(alice).post(path + "reopen/")
    assert (answer.status, answer.body["error"]["code"]) == (409, "grant_revoked")
    assert Allowance.objects.get().closed_at


def test_nobody_else_reopens_it_and_a_link_does_not(client: Client, bob: Any, limited: Grant) -> None:
    overrun(limited)
    client.force_login(bob)
    assert client.post(page(limited, "reopen")).status_code == 404
    assert owner(bob).post(f"/api/grants/{limited.pk}/reopen/").status == 404
    client.force_login(limited.owner)
    assert client.get(page(limited, "reopen")).status_code == 200
    assert Allowance.objects.get().closed_at


# The desk


def form(key: ProviderKey, **changes: Any) -> dict[str, Any]:
    return {
        "provider_key": key.pk,
        "app_name": "Notebook",
        "models": "sandbox-*",
        "capabilities": ["chat"],
        "expiry": "86400",
        "token_lifetime": "900",
    } | changes


def test_every_limit_can_be_set_in_the_form(desk: Client, sandbox_key: ProviderKey) -> None:
    desk.post("/admin/grants/grant/add/", form(sandbox_key, **TYPED | {"max_cost": " $5.00 "}))
    assert kept(Grant.objects.get()) == KEPT


def test_an_empty_field_is_no_limit(desk: Client, sandbox_key: ProviderKey) -> None:
    desk.post("/admin/grants/grant/add/", form(sandbox_key, **dict.fromkeys(TYPED, "")))
    assert kept(Grant.objects.get()) == dict.fromkeys(KEPT) | {"default_output_tokens": 4096}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("value", ["0", "-1", "five", "1e3", "1,5", "9" * 40, "5.0000000001"])
def test_what_is_wrong_is_said_beside_its_field(desk: Client, limited: Grant, name: str, value: str) -> None:
    answer = desk.post(page(limited, "terms"), form(limited.provider_key, **TYPED | {"expiry": "keep", name: value}))
    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [name]
    assert kept(limited) == KEPT


def test_the_form_of_a_live_grant_holds_its_limits_and_changes_them(desk: Client, limited: Grant) -> None:
    html = desk.get(page(limited, "terms")).content.decode()
    for text in ('value="5.00"', 'value="4.000000001"', 'value="40000"', 'value="1000"'):
        assert text in html, text
    changed = TYPED | {"expiry": "keep", "max_cost": "9", "max_cost_per_day": "", "tokens_per_minute": "1"}
    desk.post(page(limited, "terms"), form(limited.provider_key, **changed))
    assert kept(limited) == KEPT | {"max_cost": 9_000_000_000, "max_cost_per_day": None, "tokens_per_minute": 1}


def test_the_page_shows_of_each_limit_what_is_used_and_left_and_when_it_begins_anew(
    desk: Client, limited: Grant
) -> None:
    _use(reserved=100_000_000, day_spent=300_000_000, month_spent=900_000_000)
    html = desk.get(page(limited)).content.decode()
    for text in (
        "$3.70 of $5.00 left",
        "$1.20 used, $0.10 reserved for open calls",
        "$0.70 of $1.00 left",
        "resets",
        "of $4.000000001 left",
        "93 of 100 left",
        "2 open",
        "$0.10 at most",
        "1,000 tokens",
    ):
        assert text in html, text
    assert 'aria-label="24 % used, 2 % reserved"' in html


def test_a_grant_without_limits_says_what_that_means(desk: Client, grant: Grant) -> None:
    assert "No limit is set" in desk.get(page(grant)).content.decode()


# Consent


def test_the_owner_reads_the_limits_in_words_before_and_after(desk: Client, sandbox_key: ProviderKey) -> None:
    wanted = terms(**KEPT | {"valid_for": 86_400})
    grant, _ = Grant.request(provider="sandbox", terms=wanted, app_name="Asking", by=Actor("app"))
    words = (
        "at most $5.00 in total, $1.00 a day, $4.000000001 a month, $0.10 a call",
        "at most 100 in total, 60 a minute, 4 at a time",
        "at most 40,000 a minute",
    )
    html = desk.get(f"/consent/{grant.pk}/").content.decode()
    for text in words:
        assert text in html, text
    decision = {
        **form(sandbox_key, **TYPED),
        "decision": "approve",
        "user_code": grant.user_code,
        "capabilities": ["chat", "embeddings"],
        "token_lifetime": "3600",
        "max_cost": "2.5",
    }
    answer = desk.post(f"/consent/{grant.pk}/", decision | {"max_cost": "5.01"})
    assert list(answer.context["form"].errors) == ["max_cost"]
    assert "max_cost" in desk.post(f"/consent/{grant.pk}/", decision | {"max_cost": ""}).context["form"].errors
    desk.post(f"/consent/{grant.pk}/", decision)
    assert kept(grant) == KEPT | {"max_cost": 2_500_000_000}
    assert "at most $2.50 in total, $1.00 a day" in desk.get(f"/consent/{grant.pk}/").content.decode()


def test_a_request_without_a_limit_on_money_says_so(desk: Client) -> None:
    grant, _ = Grant.request(provider="sandbox", terms=terms(), app_name="Asking", by=Actor("app"))
    limits = desk.get(f"/consent/{grant.pk}/").context["limits"]
    assert limits == {"Money": "no limit", "Requests": "no limit", "Tokens": "no limit"}


# The command


def run(*args: str) -> Any:
    out = io.StringIO()
    call_command(*args, "--json", stdout=out)
    return json.loads(out.getvalue())


def options(key: ProviderKey, **limits: Any) -> list[str]:
    required = {"key": key.pk, "app": "Nightly", "models": "*", "capabilities": "chat", "expires": "24h"}
    return [part for name, value in (required | limits).items() for part in (f"--{name.replace('_', '-')}", str(value))]


def test_the_command_takes_every_limit(sandbox_key: ProviderKey) -> None:
    grant = Grant.objects.get(pk=run("issue_grant", *options(sandbox_key, **TYPED))["id"])
    assert kept(grant) == KEPT
    grant = Grant.objects.get(pk=run("issue_grant", *options(sandbox_key))["id"])
    assert grant.terms == Terms(models=("*",), capabilities=("chat",), valid_for=86_400)


@pytest.mark.parametrize(
    "bad",
    [
        *({"max_cost": value} for value in ("5,00", "$5", "1e3", "0", "-1", "1.0000000001", "2000000000")),
        *({name: value} for name in ("requests_per_minute", "tokens_per_minute") for value in ("0", "-5", "1.5")),
        {"default_output_tokens": "0"},
    ],
    ids=str,
)
def test_the_command_refuses_nonsense_in_one_line_and_issues_nothing(sandbox_key: ProviderKey, bad: Any) -> None:
    with pytest.raises(CommandError) as caught:
        run("issue_grant", *options(sandbox_key, **bad))
    assert "\n" not in str(caught.value)
    assert next(iter(bad)) in str(caught.value).replace("-", "_")
    assert not Grant.objects.exists()
