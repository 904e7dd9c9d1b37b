"""The list of calls, in the API and on the desk: filters, pages, and what they cost on a large ledger."""

from __future__ import annotations

import datetime as dt
import itertools
import random
import re
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from grants.models import Actor, Call, Grant, ProviderKey
from grants.search import Search, Walk, page

from .api import owner
from .conftest import terms
from .ledger_rows import NOON, call, call_id, save

pytestmark = pytest.mark.django_db

MINUTE = dt.timedelta(minutes=1)


def grants_of(user: Any, *apps: str) -> list[Grant]:
    by = Actor("api", user)
    key = ProviderKey.add(owner=user, provider="sandbox", label="Sandbox", secret="", by=by)
    return [Grant.issue(key=key, terms=terms(), app_name=app, by=by) for app in apps]


@pytest.fixture
def ledger(alice: Any, bob: Any) -> list[Call]:
    """Three grants of Alice's and one of Bob's; calls of every kind over five days, newest first."""
    grants = [*grants_of(alice, "Notebook", "Mailer", "notes"), *grants_of(bob, "Notebook")]
    kinds: list[dict[str, Any]] = [
        {},
        {"outcome": "upstream_error", "status": 500},
        {"estimated": True, "outcome": "client_gone"},
        {"estimated": True},
        {"reserved": 500_000},
        {"reserved": 2_000_000, "model": "sandbox-2"},
        {"outcome": "open", "reserved": 2_000_000},
        {"outcome": "revoked", "reserved": 500_000, "estimated": True, "model": "sandbox-2"},
        {"cost": None, "model": ""},
    ]
    chosen = random.Random(5)
    calls = [
        call(chosen.choice(grants), NOON + number * 17 * MINUTE, **chosen.choice(kinds)) for number in range(5 * 24 * 3)
    ]
    return save(*calls)[::-1]


def told(search: Search, row: Call) -> bool:
    """What the filters mean, without any index."""
    return (
        (search.grant in (None, row.grant_id))
        and search.app.lower() in row.grant.app_name.lower()
        and search.model in ("", row.model)
        and search.outcome in ("", row.outcome)
        and search.route.lower() in row.route
        and search.estimated in (None, row.estimated)
        and search.overrun in (None, row.overrun > 0)
        and (search.first_day or 0) <= row.day <= (search.last_day or 99_999_999)
    )


CHOICES: dict[str, tuple[Any, ...]] = {
    "app": ("", "NOTE"),
    "model": ("", "sandbox-2"),
    "outcome": ("", "ok", "open", "revoked"),
    "estimated": (None, True, False),
    "overrun": (None, True, False),
    "first_day": (None, 20260312),
    "last_day": (None, 20260313),
}


@pytest.mark.parametrize(("who", "many"), [("alice", 10_000), ("root", 10_000), ("alice", 0)])
def test_every_combination_of_filters_finds_what_it_says_newest_first(
    who: str, many: int, ledger: list[Call], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grants.search._MANY", many)
    user = request.getfixturevalue(who)
    mine = [row for row in ledger if user.is_superuser or row.grant.owner == user]
    found = 0
    for values in itertools.product(*CHOICES.values()):
        search = Search(**dict(zip(CHOICES, values, strict=True)))
        expected = [row.pk for row in mine if told(search, row)]
        assert [row.pk for row in page(user, search, size=1000).calls] == expected, search
        found += bool(expected)
    assert found > 50


@pytest.mark.parametrize("many", [10_000, 0], ids=["by grant", "by time"])
def test_pages_lead_through_everything_once_in_both_directions(
    many: int, alice: Any, ledger: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grants.search._MANY", many)
    for search in (Search(), Search(estimated=True), Search(outcome="ok", model="sandbox-2"), Search(outcome="open")):
        expected = [row.pk for row in ledger if row.grant.owner == alice and told(search, row)]
        there, cursor = [], None
        while True:
            found = page(alice, search, size=3, cursor=cursor)
            there += [row.pk for row in found.calls]
            if (cursor := found.more) is None:
                break
        assert there == expected
        back: list[uuid.UUID] = []
        cursor = uuid.UUID(int=1)
        while cursor is not None:
            found = page(alice, search, size=3, cursor=cursor, newer=True)
            back = [row.pk for row in found.calls] + back
            cursor = found.more
        assert list(dict.fromkeys(back)) == back
        assert sorted(back, reverse=True) == expected


def test_a_walk_gives_every_call_once_however_its_steps_fall(root: Any, ledger: list[Call]) -> None:
    for size in (1, 2, 7, 1000):
        walked = [row.pk for calls in Walk(root, Search(app="o"), size=size) for row in calls]
        assert walked == [row.pk for row in ledger if "o" in row.grant.app_name.lower()]


def test_where_there_are_many_grants_none_of_them_is_looked_at(
    alice: Any, bob: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = grants_of(alice, *(f"App {number}" for number in range(60)))
    (other,) = grants_of(bob, "Notebook")
    save(*(call(other if n % 2 else grants[n % 60], NOON + n * MINUTE) for n in range(3000)))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE grants_call")
    monkeypatch.setattr("grants.search._MANY", 50)
    walk = Walk(alice, Search(), size=20)
    with CaptureQueriesContext(connection) as captured:
        found = next(calls for calls in walk if calls)
    assert [row.started_at for row in found] == sorted((row.started_at for row in found), reverse=True)
    assert {row.grant.owner for row in found} == {alice}
    assert len(captured) == 3
    with connection.cursor() as cursor:
        cursor.execute(
            ("EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN ") + captured[-1]["sql"]
        )
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert "call_grant" not in plan


def test_calls_that_come_in_meanwhile_move_no_page(alice: Any, ledger: list[Call]) -> None:
    first = page(alice, Search(), size=5)
    save(*(call(ledger[0].grant, NOON + dt.timedelta(days=9, seconds=n)) for n in range(7)))
    mine = [row.pk for row in ledger if row.grant.owner == alice]
    second = page(alice, Search(), size=5, cursor=first.more)
    assert [row.pk for row in first.calls + second.calls] == mine[:10]


def test_a_day_is_the_owners_wherever_on_earth_that_is(alice: Any) -> None:
    (grant,) = grants_of(alice, "Notebook")
    midnight = dt.datetime(2026, 3, 10, tzinfo=dt.UTC)
    early = call(grant, midnight - dt.timedelta(hours=13, minutes=59), day=20260310)  # Kiribati
    late = call(grant, midnight + dt.timedelta(hours=35, minutes=59), day=20260310)  # Baker Island
    other = call(grant, midnight + dt.timedelta(hours=3), day=20260311)
    save(early, other, late)
    found = page(alice, Search(first_day=20260310, last_day=20260310), size=9)
    assert [row.pk for row in found.calls] == [late.pk, early.pk]


LEADS = {
    Search(grant=uuid.UUID(int=1)): "call_grant",
    Search(grant=uuid.UUID(int=1), model="m"): "call_model",
    Search(grant=uuid.UUID(int=1), outcome="lost"): "call_outcome",
    Search(grant=uuid.UUID(int=1), estimated=True): "call_estimated",
    Search(grant=uuid.UUID(int=1), overrun=True): "call_overrun",
}


@pytest.mark.parametrize("search", LEADS, ids=LEADS.values())
def test_every_filter_is_led_by_its_index(search: Search, alice: Any) -> None:
    grant, other = grants_of(alice, "Notebook", "Mailer")
    save(*(call(other if n % 40 else grant, NOON + n * MINUTE) for n in range(2000)))
    save(call(grant, model="m"), call(grant, outcome="lost"), call(grant, estimated=True))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE grants_call")
    led = search.led().filter(grant=grant, id__gte=uuid.UUID(int=0), id__lte=call_id(NOON)).order_by("-id")[:50]
    assert LEADS[search] in led.explain()


def test_a_list_takes_the_same_statements_on_a_large_ledger_as_on_a_small_one(alice: Any) -> None:
    (grant,) = grants_of(alice, "Notebook")

    def statements() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert len(page(alice, Search(), size=20).calls) == 20
        return len(captured)

    save(*(call(grant, NOON + n * MINUTE) for n in range(21)))
    few = statements()
    save(*(call(grant, NOON - n * MINUTE) for n in range(1, 3000)))
    assert statements() == few


# The API


def test_the_api_filters_by_everything_it_says(alice: Any, ledger: list[Call]) -> None:
    caller = owner(alice)
    mine = [row for row in ledger if row.grant.owner == alice]
    for query, search in {
        "app=NOTE": Search(app="note"),
        "model=sandbox-2": Search(model="sandbox-2"),
        "outcome=revoked": Search(outcome="revoked"),
        "estimated=true": Search(estimated=True),
        "overrun=true&estimated=false": Search(overrun=True, estimated=False),
        "from=2026-03-11&to=2026-03-12": Search(first_day=20260311, last_day=20260312),
        f"grant={mine[0].grant_id}&outcome=ok": Search(grant=mine[0].grant_id, outcome="ok"),
    }.items():
        rows = caller.get(f"/api/calls/?page_size=200&{query}").body["results"]
        expected = [str(row.pk) for row in mine if told(search, row)][:200]
        assert [row["id"] for row in rows] == expected, query
        assert expected, query


@pytest.mark.parametrize("query", ["from=tomorrow", "to=2026-13-01", "estimated=perhaps", "overrun=2", "app=%00"])
def test_a_filter_that_makes_no_sense_is_refused(alice: Any, query: str) -> None:
    for path in ("/api/calls/", "/api/calls.csv"):
        assert owner(alice).get(f"{path}?{query}").status == 400, path


def test_the_apis_links_lead_forth_and_back(alice: Any, ledger: list[Call]) -> None:
    caller = owner(alice)
    pages, link = [], "/api/calls/?page_size=40"
    while link:
        body = caller.get(link).body
        pages.append([row["id"] for row in body["results"]])
        link, last = body["next"], body
    assert list(itertools.chain(*pages)) == [str(row.pk) for row in ledger if row.grant.owner == alice]
    link = last["previous"]
    for expected in pages[-2::-1]:
        body = caller.get(link).body
        assert [row["id"] for row in body["results"]] == expected
        link = body["previous"]
    assert link is None


# The desk


def shown(client: Client, query: str = "") -> list[str]:
    """The ids of the calls that the desk lists, in order."""
    response = client.get(f"/admin/grants/call/?{query}")
    assert response.status_code == 200, query
    found = re.findall(r"/admin/grants/call/([0-9a-f-]{36})/change/", response.content.decode())
    return list(dict.fromkeys(found))


@pytest.fixture
def desk(alice: Any) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def test_the_desk_filters_by_everything_it_says(desk: Client, alice: Any, ledger: list[Call]) -> None:
    mine = [row for row in ledger if row.grant.owner == alice]
    for query, search in {
        "": Search(),
        "app=mail": Search(app="mail"),
        "model=sandbox-2": Search(model="sandbox-2"),
        "outcome=revoked": Search(outcome="revoked"),
        "estimated=yes&overrun=yes": Search(estimated=True, overrun=True),
        "period_from=2026-03-11&period_to=2026-03-12": Search(first_day=20260311, last_day=20260312),
        "period_from=2026-03-11&day=today": Search(first_day=20990101),
        f"grant={mine[0].grant_id}&estimated=no": Search(grant=mine[0].grant_id, estimated=False),
        "route=openai": Search(route="openai"),
    }.items():
        assert shown(desk, query) == [str(row.pk) for row in mine if told(search, row)][:50], query


@pytest.mark.parametrize(
    "query",
    ["grant=x", "outcome=x", "estimated=x", "day=x", "period_from=x", "model=%00", "before=x", "grant=&app=%07"],
)
def test_on_the_desk_a_value_that_is_no_choice_finds_nothing(desk: Client, ledger: list[Call], query: str) -> None:
    assert shown(desk, query) == []


def test_the_desks_pages_lead_through_everything(desk: Client, alice: Any, ledger: list[Call]) -> None:
    seen, query = [], ""
    while True:
        seen += shown(desk, query)
        links = re.findall(
            r'href="\?(before=[0-9a-f-]{36})"', desk.get(f"/admin/grants/call/?{query}").content.decode()
        )
        if not links:
            break
        (query,) = links
    assert seen == [str(row.pk) for row in ledger if row.grant.owner == alice]
    assert len(seen) > 100


def test_a_page_that_found_too_little_in_its_time_says_how_far_it_looked(
    desk: Client, ledger: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grants.search.PATIENCE", 0.0)
    save(*(call(ledger[0].grant, NOON + n * MINUTE / 10) for n in range(1000)))
    answer = desk.get("/admin/grants/call/?outcome=ok&estimated=yes&period_to=2026-03-11").content.decode()
    assert "looked back to" in answer
    assert "Look further back" in answer


def test_bob_sees_nothing_of_alices_calls(bob: Any, alice: Any, ledger: list[Call]) -> None:
    bobs = [str(row.pk) for row in ledger if row.grant.owner == bob]
    alices = next(row for row in ledger if row.grant.owner == alice)
    desk = Client()
    desk.force_login(bob)
    assert [row["id"] for row in owner(bob).get("/api/calls/?page_size=200").body["results"]] == bobs
    assert shown(desk) == bobs[:50]
    for query in (f"grant={alices.grant_id}", "outcome=open&app=mailer", "app=mailer", f"before={call_id(NOON)}"):
        assert not shown(desk, query)
    assert owner(bob).get(f"/api/calls/?grant={alices.grant_id}").body["results"] == []
    assert desk.get(f"/admin/grants/call/{alices.pk}/change/").status_code == 404
