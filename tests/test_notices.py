"""What owners are told, when and how often: thresholds, exhaustion, closure, refused keys, requests that wait."""

from __future__ import annotations

import json
import smtplib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.db import OperationalError, connection, connections, transaction
from django.test import Client
from django.utils import timezone

from grants import ledger, letters, notices, policy, tokens
from grants.clock import day_number
from grants.models import Actor, Allowance, AuditEvent, Call, Grant, Notice, Preferences, ProviderKey
from grants.models.notices import BACKOFF, LEASE, MAX_ATTEMPTS
from grants.terms import MAX_COUNT, MAX_MONEY
from proxy import courier
from proxy.watch import Watch

from .api import anyone, ask, owner
from .conftest import terms

DOLLAR = 1_000_000_000


@pytest.fixture(autouse=True)
def _mail(settings: Any) -> None:
    settings.AIPASSPORT_SENDS_EMAIL = True


@pytest.fixture
def told(alice: Any) -> Any:
    """Alice has an address: ``told()`` → the events and their percents that she was told, oldest first."""
    alice.email = "alice@b.example"
    alice.save()

    def read() -> list[tuple[str, int | None]]:
        rows = Notice.objects.filter(user=alice).order_by("created_at", "id")
        return [(notice.event, notice.payload.get("percent")) for notice in rows]

    return read


def use(grant: Grant, **columns: Any) -> None:
    """As if calls had used it, today in the owner's time zone."""
    zone = Allowance.objects.get(grant=grant).time_zone
    Allowance.objects.filter(grant=grant).update(**{"day": day_number(timezone.now(), zone)} | columns)


def consider(grant: Grant, *refusals: str) -> None:
    notices.consider({grant.pk: set(refusals)})


LIMITED = {
    "max_requests": (10, "requests"),
    "max_cost": (5 * DOLLAR, "spent"),
    "max_cost_per_day": (5 * DOLLAR, "day_spent"),
    "max_cost_per_month": (5 * DOLLAR, "month_spent"),
}


@pytest.fixture
def limited(sandbox_key: ProviderKey, by: Actor, told: Any) -> Any:
    def make(**limits: Any) -> Grant:
        return Grant.issue(key=sandbox_key, terms=terms(**limits), app_name="Notebook", by=by)

    return make


# Thresholds


@pytest.mark.django_db
@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize(
    ("share", "percent"), [(0.4, None), (0.5, 50), (0.7, 50), (0.8, 80), (0.9, 80), (1, 100), (1.2, 100)]
)
def test_each_limit_that_can_be_used_up_has_its_thresholds(
    name: str, share: float, percent: int | None, limited: Any, told: Any
) -> None:
    allowed, column = LIMITED[name]
    grant = limited(**{name: allowed})
    use(grant, **{column: int(allowed * share)})
    consider(grant)
    event = "grant.exhausted" if percent == 100 and name in ("max_requests", "max_cost") else "limit.threshold"
    assert told() == ([] if percent is None else [(event, percent)])


@pytest.mark.django_db
@pytest.mark.parametrize("percent", notices.THRESHOLDS)
@pytest.mark.parametrize("allowed", [1, 7, 100, 999_999_999_999_999_999, MAX_MONEY])
@pytest.mark.parametrize("name", LIMITED)
def test_a_threshold_is_told_from_exactly_there_on(
    name: str, allowed: int, percent: int, limited: Any, told: Any
) -> None:
    allowed = min(allowed, MAX_COUNT) if name == "max_requests" else allowed
    grant, column = limited(**{name: allowed}), LIMITED[name][1]
    boundary = -(-allowed * percent // 100)
    use(grant, **{column: boundary - 1})
    consider(grant)
    assert percent not in [told_percent for _, told_percent in told()]
    use(grant, **{column: boundary})
    consider(grant)
    assert told()[-1][1] == max(p for p in notices.THRESHOLDS if boundary * 100 >= allowed * p)


@pytest.mark.django_db
@pytest.mark.parametrize(("in_flight", "percent"), [(3, 50), (4, None)])
def test_requests_on_their_way_are_not_used_at_the_boundary_either(
    in_flight: int, percent: int | None, limited: Any, told: Any
) -> None:
    grant = limited(max_requests=9)
    use(grant, requests=8, in_flight=in_flight)
    consider(grant)
    assert told() == ([] if percent is None else [("limit.threshold", percent)])


@pytest.mark.django_db
@pytest.mark.parametrize(("used", "percent"), [(79, 50), (80, 100)])
@pytest.mark.parametrize("name", LIMITED)
def test_a_refusal_makes_a_limit_used_up_from_four_fifths_on(
    name: str, used: int, percent: int, limited: Any, told: Any
) -> None:
    grant = limited(**{name: 100})
    use(grant, **{LIMITED[name][1]: used})
    code = next(code for code, limit in notices.REFUSALS.items() if limit == name)
    consider(grant, code)
    assert [told_percent for _, told_percent in told()] == [percent]


@pytest.mark.django_db
def test_of_grants_that_have_used_less_than_half_no_row_is_read(
    limited: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = limited(max_requests=100, max_cost=100, max_cost_per_day=100, max_cost_per_month=100)
    use(grant, requests=49, spent=49, day_spent=49, month_spent=49, reserved=51, day_reserved=51, month_reserved=51)
    monkeypatch.setattr(notices, "_of_grant", pytest.fail)
    consider(grant, *notices.REFUSALS)


@pytest.mark.django_db
def test_counters_of_a_grant_without_that_limit_may_be_as_large_as_they_come(limited: Any, told: Any) -> None:
    grant = limited(max_requests=10)
    use(grant, requests=5, **dict.fromkeys(("spent", "day_spent", "month_spent"), 2**63 - 1))
    consider(grant)
    assert told() == [("limit.threshold", 50)]


@pytest.mark.django_db
def test_a_threshold_is_told_once(limited: Any, told: Any) -> None:
    grant = limited(max_requests=10)
    for used in (5, 6, 7, 8, 8, 9, 10, 10):
        use(grant, requests=used)
        consider(grant)
    assert told() == [("limit.threshold", 50), ("limit.threshold", 80), ("grant.exhausted", 100)]


@pytest.mark.django_db
def test_a_raised_limit_has_thresholds_of_its_own(limited: Any, told: Any, by: Actor) -> None:
    grant = limited(max_cost=DOLLAR)
    use(grant, spent=DOLLAR)
    consider(grant)
    assert grant.change(terms=grant.terms.with_(max_cost=2 * DOLLAR), by=by)
    consider(grant)
    assert told() == [("grant.exhausted", 100), ("limit.threshold", 50)]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["max_cost_per_day", "max_cost_per_month"])
def test_another_day_is_told_anew_and_yesterdays_use_is_not_todays(
    name: str, limited: Any, told: Any, alice: Any, by: Actor
) -> None:
    grant = limited(**{name: DOLLAR})
    used = {LIMITED[name][1]: DOLLAR}
    periods: set[int] = set()
    for zone in ("Etc/GMT+12", "Etc/GMT-14"):  # 26 hours apart: another day, whatever the time; mostly the same month
        Preferences.of(alice).change(by=by, time_zone=zone)
        use(grant, **used, day=20200229)
        consider(grant)
        assert len(told()) == len(periods)
        use(grant, **used)
        consider(grant)
        day = Allowance.objects.get(grant=grant).day
        periods.add(day if name == "max_cost_per_day" else day // 100)
        assert told() == [("limit.threshold", 100)] * len(periods)


@pytest.mark.django_db
def test_requests_on_their_way_may_be_given_back_and_are_not_told_yet(limited: Any, told: Any) -> None:
    grant = limited(max_requests=2)
    use(grant, requests=2, in_flight=2)
    consider(grant)
    assert told() == []
    use(grant, requests=2, in_flight=0)
    consider(grant)
    assert told() == [("grant.exhausted", 100)]


@pytest.mark.django_db
def test_a_rest_that_pays_for_no_call_is_told_as_used_up(limited: Any, told: Any) -> None:
    grant = limited(max_cost=DOLLAR, max_cost_per_day=2 * DOLLAR)
    use(grant, spent=DOLLAR * 97 // 100, day_spent=DOLLAR * 97 // 100)
    consider(grant, "cost_limit_reached")
    assert told() == [("grant.exhausted", 100)]


@pytest.mark.django_db
def test_a_call_that_asks_for_too_much_does_not_alarm_the_owner(limited: Any, told: Any) -> None:
    grant = limited(max_cost=DOLLAR)
    use(grant, spent=DOLLAR // 10)
    consider(grant, "cost_limit_reached", "call_cost_limit_reached", "grant_closed", "anything")
    assert told() == []


@pytest.mark.django_db
def test_a_closed_grant_is_told_once_each_time_that_it_is_closed(limited: Any, told: Any, by: Actor) -> None:
    grant = limited(max_cost_per_call=DOLLAR)
    for closed_at in (1_700_000_000_000_000, 1_700_000_000_000_001):
        use(grant, closed_at=closed_at)
        consider(grant, "grant_closed")
        consider(grant, "grant_closed")
        grant.reopen(by)
    assert told() == [("grant.closed", None)] * 2


@pytest.mark.django_db
def test_nobody_is_told_who_does_not_want_to_be(limited: Any, told: Any, alice: Any, by: Actor, settings: Any) -> None:
    grant = limited(max_requests=1)
    use(grant, requests=1)
    Preferences.of(alice).change(by=by, by_email=False)
    consider(grant)
    Preferences.of(alice).change(by=by, by_email=True)
    settings.AIPASSPORT_SENDS_EMAIL = False
    consider(grant)
    settings.AIPASSPORT_SENDS_EMAIL = True
    type(alice).objects.filter(pk=alice.pk).update(is_active=False)
    consider(grant)
    type(alice).objects.filter(pk=alice.pk).update(is_active=True)
    grant.revoke(by)
    consider(grant)
    assert told() == []


@pytest.mark.django_db
def test_a_grant_without_limits_costs_one_select(grant: Grant, told: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        consider(grant)
    assert told() == []


@pytest.mark.django_db
def test_what_is_known_already_is_not_written_again(limited: Any, told: Any, django_assert_num_queries: Any) -> None:
    grant = limited(max_requests=1)
    use(grant, requests=1)
    consider(grant)
    with django_assert_num_queries(2) as captured:
        consider(grant)
    assert all(query["sql"].startswith("SELECT") for query in captured)


def together(act: Any, times: int = 8) -> list[Any]:
    def one(_: int) -> Any:
        try:
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


@pytest.mark.django_db(transaction=True)
def test_workers_that_look_at_the_same_time_tell_once(limited: Any, told: Any) -> None:
    grant = limited(max_requests=10, max_cost=DOLLAR)
    use(grant, requests=8, spent=DOLLAR)
    together(lambda: consider(grant))
    assert sorted(told()) == [("grant.exhausted", 100), ("limit.threshold", 80)]


# From the relay, out of its way


@pytest.mark.django_db
def test_noting_a_call_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    watch, grant = Watch(), uuid4()
    with django_assert_num_queries(0):
        for _ in range(3):
            watch.touch(grant)
            watch.touch(grant, "cost_limit_reached")
            watch.rejected(uuid4(), "The provider refused this key (HTTP 401).")


@pytest.mark.django_db
def test_what_was_noted_is_told_by_the_next_look(limited: Any, told: Any) -> None:
    watch, grant = Watch(), limited(max_requests=1)
    use(grant, requests=1)
    watch.touch(grant.pk)
    watch.rejected(grant.provider_key_id, "The provider refused this key (HTTP 401).")
    watch.tell()
    watch.tell()
    assert sorted(event for event, _ in told()) == ["grant.exhausted", "key.rejected"]


@pytest.mark.django_db
def test_an_idle_look_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    watch = Watch()
    with django_assert_num_queries(0):
        watch.tell()


@pytest.mark.django_db
def test_an_idle_courier_asks_once(told: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert courier.deliver() == 0


@pytest.mark.django_db
def test_what_the_database_refuses_is_kept_for_the_next_look(limited: Any, told: Any) -> None:
    watch, grant = Watch(), limited(max_cost=DOLLAR)
    use(grant, spent=DOLLAR * 9 // 10)

    def away(*args: Any) -> Any:
        raise OperationalError("away")

    watch.touch(grant.pk, "cost_limit_reached")
    with connection.execute_wrapper(away), pytest.raises(OperationalError):
        watch.tell()
    watch.tell()
    assert told() == [("grant.exhausted", 100)]


@pytest.mark.django_db
def test_counters_of_the_real_ledger_are_what_is_told(limited: Any, told: Any, by: Actor) -> None:
    grant = limited(max_requests=2)
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    worker = uuid4()
    ledger.beat(worker)
    for percent in (50, 100):
        call = uuid4()
        ledger.admit(
            policy.read(claims),
            ledger.Entry(id=call, jti=claims.jti, kid=claims.kid, worker=worker, route="openai.chat"),
        )
        consider(grant)
        assert (None if percent == 50 else 50) == (told()[-1][1] if told() else None)
        ledger.settle(call, ledger.Settlement("ok", 200, cost=0))
        consider(grant)
        assert told()[-1][1] == percent
    assert Call.objects.count() == 2


# Keys that a provider refuses


@pytest.mark.django_db
def test_a_refused_key_is_told_once_a_day(sandbox_key: ProviderKey, told: Any, by: Actor) -> None:
    for _ in range(3):
        notices.keys_rejected({sandbox_key.pk: "The provider refused this key (HTTP 401)."})
    assert told() == [("key.rejected", None)]
    sandbox_key.disable(by)
    Notice.objects.all().delete()
    notices.keys_rejected({sandbox_key.pk: "The provider refused this key (HTTP 401)."})
    assert told() == []


# Requests that wait


@pytest.mark.django_db(transaction=True)
def test_a_request_is_told_to_whoever_could_give_it_at_most_once_an_hour(
    alice: Any, bob: Any, sandbox_key: ProviderKey, told: Any
) -> None:
    bob.email = "bob@b.example"  # has no key: he could not give it
    bob.save()
    for _ in range(5):
        assert anyone().post("/api/grant-requests/", ask()).status == 201
    assert told() == [("request.waiting", None)]
    assert not Notice.objects.filter(user=bob).exists()
    Notice.objects.update(created_at=timezone.now() - notices.REQUESTS_EVERY * 1.01, once="requests:earlier")
    anyone().post("/api/grant-requests/", ask())
    assert len(told()) == 2
    assert Notice.objects.order_by("-created_at")[0].payload["waiting"] == 6


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", ["disabled key", "inactive owner", "no owner any more", "key of another provider"])
def test_a_request_is_told_to_nobody_else(
    alice: Any, sandbox_key: ProviderKey, told: Any, by: Actor, change: str
) -> None:
    if change == "disabled key":
        sandbox_key.disable(by)
    if change == "inactive owner":
        type(alice).objects.update(is_active=False)
    if change == "no owner any more":
        type(alice).objects.update(is_staff=False)
    if change == "key of another provider":
        ProviderKey.objects.update(provider="openai")
    anyone().post("/api/grant-requests/", ask())
    assert told() == []


@pytest.mark.django_db(transaction=True)
def test_a_request_that_is_rolled_back_is_told_to_nobody(sandbox_key: ProviderKey, told: Any) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        Grant.request(provider="sandbox", terms=terms(), app_name="App", by=Actor("app"))
        raise RuntimeError
    assert told() == []


# E-mail

EVIL = "Notebook\r\nBcc: victim@c.example\r\n\r\nhttps://evil.example \u202eklaw\u0000"


def sent(grant: Grant, *, app_name: str = "Notebook") -> Any:
    Grant.objects.filter(pk=grant.pk).update(app_name=app_name)
    consider(grant)
    assert courier.deliver() == 1
    return mail.outbox[-1]


@pytest.mark.django_db
def test_an_email_says_what_happened_and_where_to_look(limited: Any) -> None:
    grant = limited(max_cost_per_day=5 * DOLLAR)
    use(grant, day_spent=4 * DOLLAR)
    message = sent(grant)
    assert message.to == ["alice@b.example"]
    assert message.subject == "AIPassport: 80 % of a grant’s money for the day"
    assert (
        "The app that calls itself “Notebook” has used 80 % of what it may spend a day: $4.00 of $5.00." in message.body
    )
    assert "The period ends at" in message.body
    assert f"http://testserver/admin/grants/grant/{grant.pk}/change/" in message.body
    assert message.extra_headers["Message-ID"] == f"<{Notice.objects.get().pk}@testserver>"
    assert Notice.objects.get().state == "delivered"
    assert courier.deliver() == 0


@pytest.mark.django_db
def test_an_apps_name_cannot_write_headers_or_lines(limited: Any) -> None:
    """Names are checked where they come in; this one got into the table past that."""
    grant = limited(max_requests=1)
    use(grant, requests=1)
    message = sent(grant, app_name=EVIL.replace("\0", "")).message()
    assert message.get_all("Bcc") is None
    assert message["To"] == "alice@b.example"
    assert "Notebook" not in str(message["Subject"])
    lines = message.get_payload(decode=True).decode().splitlines()
    assert sum("evil.example" in line for line in lines) == 1
    assert "\u202e" not in "".join(lines)


@pytest.mark.django_db
def test_a_quotation_cannot_be_ended_from_within() -> None:
    assert letters.quoted('a” was approved. “b" c') == "The app that calls itself “a' was approved. 'b' c”"
    assert len(letters.quoted("x" * 5000)) < 200


@pytest.mark.django_db(transaction=True)
def test_strangers_cannot_have_their_words_mailed(sandbox_key: ProviderKey, told: Any) -> None:
    anyone().post("/api/grant-requests/", ask(app_name="Visit https://evil.example", reason="evil.example"))
    assert courier.deliver() == 1
    message = mail.outbox[-1].message().as_string()
    assert "evil.example" not in message
    assert f"http://testserver/consent/{Grant.objects.get().pk}/" in message


@pytest.mark.django_db
def test_every_event_has_words(limited: Any, alice: Any, sandbox_key: ProviderKey) -> None:
    grant = limited(max_requests=4, max_cost=DOLLAR, max_cost_per_day=DOLLAR, max_cost_per_month=DOLLAR)
    use(
        grant, requests=2, spent=DOLLAR, day_spent=DOLLAR, month_spent=DOLLAR * 4 // 5, closed_at=time.time_ns() // 1000
    )
    consider(grant)
    notices.keys_rejected({sandbox_key.pk: "The provider refused this key (HTTP 401)."})
    notices.request_waiting(Grant.request(provider="sandbox", terms=terms(), app_name="App", by=Actor("app"))[0])
    notices.send_test(alice)
    assert {notice.event for notice in Notice.objects.all()} == set(Notice.Event.values)
    while courier.deliver():
        pass
    assert len(mail.outbox) == Notice.objects.count() == 8
    assert all(len(message.subject) < 78 and message.body.count("\n") > 3 for message in mail.outbox)


@pytest.mark.django_db
def test_a_mail_server_that_fails_is_tried_again_with_longer_and_longer_waits(
    limited: Any, settings: Any, alice: Any
) -> None:
    settings.EMAIL_BACKEND = "tests.test_notices.Refusing"
    notices.send_test(alice)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        before = timezone.now()
        assert courier.deliver() == 1
        notice = Notice.objects.get()
        assert notice.attempts == attempt
        assert notice.last_error == "The mail server did not take it."
        if attempt < MAX_ATTEMPTS:
            assert notice.next_attempt_at is not None
            waits = notice.next_attempt_at - before
            assert BACKOFF[attempt - 1] <= waits < BACKOFF[attempt - 1] * 1.5
            assert courier.deliver() == 0
            Notice.objects.update(next_attempt_at=before)
    assert notice.state == "given up"
    assert courier.deliver() == 0
    assert notice.retry()
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert courier.deliver() == 1
    assert len(mail.outbox) == 1
    assert Notice.objects.get().state == "delivered"


class Refusing:
    """A mail backend whose server says no, in words that name a secret host."""

    def __init__(self, **kwargs: Any) -> None:
        pass

    def send_messages(self, messages: Any) -> int:
        raise smtplib.SMTPRecipientsRefused({"alice@b.example": (550, b"mail.internal says no")})


# Claims


@pytest.mark.django_db(transaction=True)
def test_of_workers_that_want_the_same_notice_one_gets_it(alice: Any, told: Any) -> None:
    notices.send_test(alice)
    stale = [Notice.objects.get() for _ in range(8)]
    won = together(lambda: stale.pop().claim(timezone.now()))
    assert sorted(won) == [False] * 7 + [True]


@pytest.mark.django_db
def test_a_worker_that_died_in_an_attempt_loses_it_after_its_lease(alice: Any, told: Any) -> None:
    notices.send_test(alice)
    dead = Notice.objects.get()
    assert dead.claim(timezone.now())
    assert courier.deliver() == 0
    Notice.objects.update(next_attempt_at=timezone.now() - LEASE)
    assert courier.deliver() == 1
    dead.failed(timezone.now(), "I was not dead after all.")
    assert Notice.objects.get().state == "delivered"


@pytest.mark.django_db
def test_what_was_switched_off_meanwhile_is_not_sent(alice: Any, told: Any, by: Actor) -> None:
    notices.send_test(alice)
    Preferences.of(alice).change(by=by, by_email=False)
    assert courier.deliver() == 1
    assert Notice.objects.get().state == "given up"
    assert mail.outbox == []


# To read


@pytest.fixture
def given_up(alice: Any, told: Any) -> Notice:
    notices.send_test(alice)
    Notice.objects.update(next_attempt_at=None, given_up_at=timezone.now(), attempts=7, last_error="It did not work.")
    return Notice.objects.get()


@pytest.mark.django_db
def test_the_desk_lists_notices_and_sends_one_again(client: Client, alice: Any, given_up: Notice) -> None:
    client.force_login(alice)
    assert "It did not work." in client.get("/admin/grants/notice/").content.decode()
    page = f"/admin/grants/notice/{given_up.pk}/"
    assert "Notices will reach you here" in client.get(f"{page}change/").content.decode()
    assert client.get(f"{page}retry/").status_code == 200
    assert Notice.objects.get().state == "given up"
    client.post(f"{page}retry/")
    assert Notice.objects.get().state == "waiting"
    for query in ("?event=test", "?channel=email"):
        assert client.get(f"/admin/grants/notice/{query}").context["cl"].result_list
    assert not client.get("/admin/grants/notice/?event=nothing").context["cl"].result_list


@pytest.mark.django_db
def test_bob_finds_nothing_of_alices(client: Client, bob: Any, given_up: Notice) -> None:
    client.force_login(bob)
    before = AuditEvent.objects.count()
    for page in ("change/", "retry/", "history/", "delete/"):
        for method in (client.get, client.post):
            assert method(f"/admin/grants/notice/{given_up.pk}/{page}").status_code in (403, 404)
    assert not client.get("/admin/grants/notice/").context["cl"].result_list
    assert owner(bob).get("/api/notices/").body["results"] == []
    assert Notice.objects.get().state == "given up"
    assert AuditEvent.objects.count() == before


@pytest.mark.django_db
def test_the_api_lists_what_an_owner_was_told(alice: Any, given_up: Notice) -> None:
    api = owner(alice)
    row = api.get("/api/notices/").body["results"][0]
    assert (row["id"], row["event"], row["channel"]) == (str(given_up.pk), "test", "email")
    assert (row["last_error"], row["next_attempt_at"]) == ("It did not work.", None)
    assert api.get("/api/notices/?channel=webhook").body["results"] == []
    assert api.get("/api/notices/?user=1").status == 400
    assert "request_secret" not in json.dumps(row)
