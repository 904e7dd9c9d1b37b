"""Limits that hold, seen from outside: crowds of callers, four server processes, clocks that disagree."""

from __future__ import annotations

import datetime as dt
import io
import random
import time
import wave
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import connection

from grants.models import Actor, Allowance, Call, ProviderKey
from grants.providers import PROVIDERS
from proxy.dialects import ROUTES

from .callers import Caller, Said, assert_books_balance, crowd
from .live import server

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

DOLLAR = 10**9
INPUT, OUTPUT = 1_000, 10_000  # nano-dollars a token
PER_TOKEN = {"models": "fake-*", "input": "1", "output": "10"}
PER_CALL = {"models": "fake-*", "input": "0", "output": "0", "request": "0.01"}
EVERY_UNIT = dict.fromkeys(("input", "output", "cached", "character"), "5") | dict.fromkeys(
    ("image", "second", "request"), "0.05"
)


def price(*rows: dict[str, Any]) -> None:
    """Prices of its own on every key that there is."""
    ProviderKey.objects.update(prices=list(rows))


@pytest.fixture(scope="module")
def _two_more(_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    logs = tmp_path_factory.mktemp("more")
    with server(logs / "3.log") as third, server(logs / "4.log") as fourth:
        yield third, fourth


@pytest.fixture
def four(_two_more: Any, servers: Any) -> Any:
    return (*servers, *_two_more)


# Counts


def test_sixty_four_callers_on_four_processes_get_exactly_the_hundred_calls_that_are_left(
    four: Any, issue: Any, upstream: Any
) -> None:
    grant, token = issue("openai", max_requests=103)
    assert [said.status for said in islice(Caller(four[0], token).obey(time.monotonic() + 20), 3)] == [200] * 3
    before = len(upstream.seen)

    def work(number: int) -> list[Said]:
        caller = Caller(four[number % 4], token)
        return list(caller.obey(time.monotonic() + 60, lambda: caller.ask(stream=number % 8 < 4)))

    said = [answer for answers in crowd(64, work) for answer in answers]
    assert Counter(answer.status for answer in said) == {200: 100, 429: 64}
    assert len(upstream.seen) == before + 100
    refused = [answer for answer in said if answer.status == 429]
    assert {(answer.code, answer.final) for answer in refused} == {("insufficient_quota", True)}
    assert Allowance.objects.get(grant=grant).requests == Call.objects.count() == 103
    assert_books_balance(grant)


# Money


def test_a_crowd_spends_a_budget_nearly_whole_and_never_beyond(four: Any, issue: Any) -> None:
    cap = 27 * DOLLAR // 100
    grant, token = issue("openai", max_cost=cap)
    price(PER_TOKEN)
    sampled: list[tuple[int, int]] = []

    def look() -> None:
        allowance = Allowance.objects.get(grant=grant)
        sampled.append((allowance.spent, allowance.reserved))
        assert_books_balance(grant)

    def work(number: int) -> list[Said]:
        caller, dice = Caller(four[number % 4], token), random.Random(number)
        return list(caller.obey(time.monotonic() + 60, lambda: caller.ask(max_tokens=dice.randint(50, 1000))))

    said = [answer for answers in crowd(64, work, look) for answer in answers]
    passed = [answer for answer in said if answer.status == 200]
    refused = [answer for answer in said if answer.status != 200]
    assert {answer.status for answer in refused} == {429}
    assert max(spent + reserved for spent, reserved in sampled) <= cap
    assert sum(reserved > 0 for _, reserved in sampled) >= 5  # while calls were running, however slow the machine is
    allowance = Allowance.objects.get(grant=grant)
    used = [answer.json["usage"] for answer in passed]
    assert allowance.spent == sum(INPUT * u["prompt_tokens"] + OUTPUT * u["completion_tokens"] for u in used)
    assert cap * 9 // 10 <= allowance.spent <= cap
    assert allowance.reserved == allowance.in_flight == 0
    assert not Call.objects.overrun().exists()
    assert not Call.objects.filter(estimated=True).exists()
    assert_books_balance(grant)


def test_who_is_refused_for_reserved_money_may_come_again_and_for_spent_money_not(server: Any, issue: Any) -> None:
    grant, token = issue("openai", max_cost=3 * DOLLAR // 100)
    price(PER_CALL)

    def work(number: int) -> list[Said]:
        return list(Caller(server, token).obey(time.monotonic() + 30, None))

    said = [answer for answers in crowd(8, work) for answer in answers]
    by_final = {answer.final: answer for answer in said if answer.status == 429}
    assert sorted(by_final) == [False, True]
    assert by_final[False].retry_after >= 1
    assert by_final[False].code == "cost_limit_reached"
    assert "retry-after" not in by_final[True].headers
    assert by_final[True].code == "insufficient_quota"
    limit = by_final[True].json["error"]["limit"]
    assert limit["code"] == "cost_limit_reached"
    assert (limit["name"], limit["allowed"], limit["used"], limit["reserved"]) == ("cost", "0.03", "0.03", "0.00")
    assert sum(answer.status == 200 for answer in said) == 3
    assert_books_balance(grant)


def test_what_does_not_fit_is_lowered_to_what_the_budget_pays_and_the_answer_says_so(
    server: Any, issue: Any, upstream: Any
) -> None:
    grant, token = issue("openai", max_cost=3 * DOLLAR // 1000, default_output_tokens=200)
    price(PER_TOKEN)
    caller = Caller(server, token)
    asked = caller.ask(max_tokens=1000)
    call = Call.objects.get()
    sent = upstream.last.json[
        "max_completion_tokens" if "max_completion_tokens" in upstream.last.json else "max_tokens"
    ]
    assert 64 <= sent < 300
    assert int(asked.headers["x-aipassport-output-limit"]) == call.output_limit == sent
    assert call.cost <= call.reserved <= 3 * DOLLAR // 1000
    Allowance.objects.filter(grant=grant).update(max_cost=DOLLAR)
    silent = caller.ask()
    assert int(silent.headers["x-aipassport-output-limit"]) == 200


# Changes while calls are running


def test_after_a_revocation_has_returned_no_call_of_a_crowd_is_admitted(four: Any, issue: Any, by: Actor) -> None:
    grant, token = issue("openai", max_cost=1000 * DOLLAR, requests_per_minute=100_000, max_concurrency=1000)
    price(PER_TOKEN)
    revoked_at: list[int] = []  # microseconds since the epoch, as the ledger counts

    def look() -> None:
        if not revoked_at and Call.objects.count() >= 60:
            grant.revoke(by)
            revoked_at.append(time.time_ns() // 1000)

    def work(number: int) -> list[Said]:
        caller, said = Caller(four[number % 4], token), []
        while not said or said[-1].status != 401:
            said.append(caller.ask(max_tokens=100))
        return said

    said = [answer for answers in crowd(32, work, look) for answer in answers]
    assert not Call.objects.filter(started_at__gt=revoked_at[0]).exists()
    assert {answer.code for answer in said if answer.status == 401} == {"grant_revoked"}
    assert {answer.status for answer in said} <= {200, 401, 403, 0}  # the last two: cut while they were running
    assert_books_balance(grant)


def test_a_limit_that_is_lowered_and_raised_under_a_crowd_holds_with_the_next_call(
    four: Any, issue: Any, by: Actor
) -> None:
    grant, token = issue("openai", max_cost=1000 * DOLLAR)
    price(PER_CALL)
    low: list[tuple[float, int]] = []  # when, and how many calls there were: after it was lowered, before it is raised
    raised: list[float] = []

    def change(calls: int) -> None:
        assert grant.change(terms=grant.terms.with_(max_cost=calls * DOLLAR // 100), by=by)

    def now() -> tuple[float, int]:
        return time.monotonic(), Call.objects.count()

    def look() -> None:
        if not low and Call.objects.count() >= 60:
            change(1)
            low.append(now())
        elif len(low) == 1 and time.monotonic() > low[0][0] + 1:
            low.append(now())
            change(low[0][1] + 25)
            raised.append(time.monotonic())

    def work(number: int) -> list[Said]:
        caller, said, until = Caller(four[number % 4], token), [], time.monotonic() + 60
        while time.monotonic() < until:
            said.append(answer := caller.ask(max_tokens=100))
            if answer.status == 429:
                if answer.final and raised and answer.sent > raised[0]:
                    break
                time.sleep(0.1)
        return said

    said = [answer for answers in crowd(32, work, look) for answer in answers]
    (since, before), (until, after) = low
    assert before == after
    assert {answer.status for answer in said if answer.sent > since and answer.received < until} == {429}
    assert Call.objects.count() == before + 25
    assert Allowance.objects.get(grant=grant).spent == (before + 25) * DOLLAR // 100
    assert_books_balance(grant)


# Around midnight


class Clock:
    """The clock of one server, set from outside; it goes on from there."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(dt.datetime.now(dt.UTC))

    def set(self, moment: dt.datetime) -> None:
        shift = (moment - dt.datetime.now(dt.UTC)).total_seconds()
        self.file.write_text(str(shift))
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO shifted.clock VALUES (%s, %s * interval '1s') "
                    "ON CONFLICT (name) DO UPDATE SET shift = excluded.shift",
                    [self.file.name, shift],
                )


@pytest.fixture(scope="module")
def _two_with_clocks(
    django_db_setup: Any, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """PostgreSQL has one clock, so there it is the connection that lies."""
    folder = tmp_path_factory.mktemp("clocks")
    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "CREATE SCHEMA shifted; "
                    "CREATE TABLE shifted.clock (name text PRIMARY KEY, shift interval); "
                    "CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ "
                    "SELECT pg_catalog.clock_timestamp() + shift FROM shifted.clock "
                    "WHERE name = pg_catalog.current_setting('test.clock') $$"
                )
        first, second = (Clock(folder / name) for name in ("first", "second"))
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings_shifted"}
    with (
        server(folder / "1.log", TEST_CLOCK=str(first.file), **env) as one,
        server(folder / "2.log", TEST_CLOCK=str(second.file), **env) as two,
    ):
        yield (one, first), (two, second)


@pytest.fixture
def clocks(_two_with_clocks: Any, transactional_db: Any) -> Any:
    """Two servers, each with a clock of its own."""
    return _two_with_clocks


def test_around_midnight_two_clocks_spend_no_days_and_no_months_money_twice(clocks: Any, issue: Any) -> None:
    (late, late_clock), (early, early_clock) = clocks
    now = dt.datetime.now(dt.UTC)
    midnight = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=32)).replace(day=1)
    eve = int((midnight - dt.timedelta(hours=1)).strftime("%Y%m%d"))
    first = int(midnight.strftime("%Y%m%d"))

    late_clock.set(midnight - dt.timedelta(seconds=90))
    early_clock.set(midnight + dt.timedelta(seconds=10))
    cap = 5 * DOLLAR // 100
    limited = [
        issue("openai", valid_for=90 * 86_400, max_cost_per_day=cap),
        issue("openai", valid_for=90 * 86_400, max_cost_per_month=cap),
    ]
    price(PER_CALL)

    def passed(*servers: Any) -> list[int]:
        """How many calls pass of each grant, from callers that come until they are refused for good."""

        def work(number: int) -> int:
            caller = Caller(servers[number // 2 % len(servers)], limited[number % 2][1])
            said = list(caller.obey(time.monotonic() + 30))
            assert said[-1].final
            return sum(answer.status == 200 for answer in said)

        counts = crowd(24, work)
        return [sum(counts[::2]), sum(counts[1::2])]

    assert passed(late) == [5, 5]
    for _, token in limited:
        limit = Caller(late, token).ask().json["error"]["limit"]
        assert limit["resets_at"] == midnight.isoformat(timespec="seconds")
    assert passed(early, late) == [5, 5]
    assert passed(late, early) == [0, 0]
    late_clock.set(midnight + dt.timedelta(seconds=1))
    assert passed(late, early) == [0, 0]
    for grant, _ in limited:
        assert Counter(Call.objects.filter(grant=grant).values_list("day", flat=True)) == {eve: 5, first: 5}
        assert_books_balance(grant, at=midnight)


def test_a_call_over_midnight_is_charged_to_the_day_of_its_admission(clocks: Any, issue: Any) -> None:
    (late, late_clock), (early, early_clock) = clocks
    tomorrow = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=1)
    late_clock.set(tomorrow - dt.timedelta(seconds=90))
    early_clock.set(tomorrow + dt.timedelta(seconds=5))
    grant, token = issue("openai", max_cost_per_day=3 * DOLLAR // 100)
    price(PER_CALL)
    over = Caller(late, token).stream()
    today = [Caller(early, token).ask().status for _ in range(4)]
    assert today == [200, 200, 200, 429]
    assert over.ends()
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.day_spent, allowance.day_reserved) == (3 * DOLLAR // 100, 0)
    assert allowance.spent == 4 * DOLLAR // 100
    assert_books_balance(grant, at=tomorrow)


# Every billed route

TEXT = [{"role": "user", "content": "Hello there"}]
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hello there"}]}]}
EMBED = {"content": {"parts": [{"text": "Hello there"}]}}
MODEL = "nobodys-model"


def _sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    return file.getvalue()


FORM = {"data": {"model": MODEL}, "files": {"file": ("a.wav", _sound(), "audio/wav")}}
PICTURE = {"image": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "image/png")}
BILLED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "openai.chat": ("openai", "/v1/chat/completions", {"json": {"model": MODEL, "messages": TEXT}}),
    "openai.completions": ("openai", "/v1/completions", {"json": {"model": MODEL, "prompt": "Hello there"}}),
    "openai.responses": ("openai", "/v1/responses", {"json": {"model": MODEL, "input": "Hello there"}}),
    "openai.embeddings": ("openai", "/v1/embeddings", {"json": {"model": MODEL, "input": "Hello there"}}),
    "openai.moderations": ("custom", "/v1/moderations", {"json": {"model": MODEL, "input": "Hello there"}}),
    "openai.images": ("openai", "/v1/images/generations", {"json": {"model": MODEL, "prompt": "A cat"}}),
    "openai.image_edits": (
        "openai",
        "/v1/images/edits",
        {"data": {"model": MODEL, "prompt": "A cat"}, "files": PICTURE},
    ),
    "openai.image_variations": ("openai", "/v1/images/variations", {"data": {"model": MODEL}, "files": PICTURE}),
    "openai.speech": ("openai", "/v1/audio/speech", {"json": {"model": MODEL, "input": "Hello", "voice": "alloy"}}),
    "openai.transcription": ("openai", "/v1/audio/transcriptions", FORM),
    "openai.translation": ("openai", "/v1/audio/translations", FORM),
    "anthropic.messages": (
        "anthropic",
        "/v1/messages",
        {"json": {"model": MODEL, "max_tokens": 100, "messages": TEXT}, "headers": {"anthropic-version": "2023-06-01"}},
    ),
    "google.generateContent": ("google", f"/v1beta/models/{MODEL}:generateContent", {"json": GEMINI}),
    "google.streamGenerateContent": (
        "google",
        f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
        {"json": GEMINI},
    ),
    "google.embedContent": ("google", f"/v1beta/models/{MODEL}:embedContent", {"json": EMBED}),
    "google.batchEmbedContents": (
        "google",
        f"/v1beta/models/{MODEL}:batchEmbedContents",
        {"json": {"requests": [{"model": f"models/{MODEL}", **EMBED}]}},
    ),
}
CHATTING = sorted(provider.id for provider in PROVIDERS.values() if provider.id not in ("sandbox", "openai"))


def test_the_table_names_every_route_that_costs_something() -> None:
    assert set(BILLED) == {route.name for route in ROUTES if route.flavor != "none"}


@pytest.mark.parametrize("names", [[*BILLED], CHATTING], ids=["every route", "every provider"])
def test_a_limit_that_is_used_up_is_used_up_everywhere(
    server: Any, issue: Any, upstream: Any, names: list[str]
) -> None:
    for name in names:
        provider, path, body = BILLED.get(name, (name, *BILLED["openai.chat"][1:]))

        def call(token: str, path: str = path, body: dict[str, Any] = body) -> requests.Response:
            headers = {"authorization": f"Bearer {token}", **body.get("headers", {})}
            return requests.post(f"{server.url}/proxy{path}", **{**body, "headers": headers}, timeout=20)

        terms = {"capabilities": tuple(map(str, PROVIDERS[provider].capabilities))}
        spent, spent_token = issue(provider, max_cost=DOLLAR, max_cost_per_call=DOLLAR // 4, **terms)
        counted, counted_token = issue(provider, max_requests=1, **terms)
        price({"models": "*", **EVERY_UNIT})
        Allowance.objects.filter(grant=spent).update(spent=DOLLAR)
        Allowance.objects.filter(grant=counted).update(requests=1)
        before = len(upstream.seen)
        for token, limit in ((spent_token, "cost"), (counted_token, "requests")):
            answer = call(token)
            assert (answer.status_code, answer.headers.get("x-should-retry")) == (429, "false"), (name, answer.text)
            assert f'"{limit}";r=0' in answer.headers["ratelimit"], name
        price()
        Allowance.objects.filter(grant=spent).update(spent=0)
        unpriced = call(spent_token)
        assert (unpriced.status_code, unpriced.headers.get("x-should-retry")) == (403, "false"), (name, unpriced.text)
        assert "there is no price for" in unpriced.text, name
        assert len(upstream.seen) == before, name
        assert not Call.objects.filter(grant__in=(spent, counted)).exists(), name
        price({"models": "*", **EVERY_UNIT})
        call(spent_token)
        assert len(upstream.seen) == before + 1, name
        assert Call.objects.get(grant=spent).reserved > 0, name
