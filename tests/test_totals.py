"""What was used and spent, by grant, model and day: in the API and on the desk."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from grants.clock import day_of
from grants.models import Actor, DailyTotal, Grant, ProviderKey
from grants.spending import MOST, spending

from .api import owner
from .conftest import terms

pytestmark = pytest.mark.django_db

DOLLAR = 1_000_000_000


@pytest.fixture
def totals(alice: Any, bob: Any, grant: Grant, by: Actor) -> dict[str, Grant]:
    """Alice's Notebook and Mailer, Bob's Shop."""
    mailer = Grant.issue(key=grant.provider_key, terms=terms(), app_name="Mailer", by=by)
    theirs = Actor("api", bob)
    key = ProviderKey.add(owner=bob, provider="sandbox", label="Sandbox", secret="", by=theirs)
    shop = Grant.issue(key=key, terms=terms(), app_name="Shop", by=theirs)
    rows = [
        (grant, 20260310, "gpt", 10, 3 * DOLLAR),
        (grant, 20260311, "gpt", 20, 5 * DOLLAR),
        (grant, 20260311, "claude", 1, DOLLAR // 4),
        (mailer, 20260311, "gpt", 7, 20 * DOLLAR),
        (shop, 20260311, "gpt", 99, 900 * DOLLAR),
    ]
    DailyTotal.objects.bulk_create(
        DailyTotal(grant=of, day=day, model=model, calls=calls, requests=calls, input_tokens=calls * 10, cost=cost)
        for of, day, model, calls, cost in rows
    )
    return {"Notebook": grant, "Mailer": mailer, "Shop": shop}


def asked(user: Any, query: str = "") -> list[dict[str, Any]]:
    answer = owner(user).get(f"/api/totals/?{query}")
    assert answer.status == 200, answer
    return answer.body["totals"]


def test_by_grant_they_are_dearest_first_in_dollars(alice: Any, totals: dict[str, Grant]) -> None:
    first, second = asked(alice)
    assert (first["app"], first["grant"], first["calls"], first["cost"]) == (
        "Mailer",
        str(totals["Mailer"].pk),
        7,
        "20.00",
    )
    assert (second["app"], second["calls"], second["input_tokens"], second["cost"]) == ("Notebook", 31, 310, "8.25")


def test_any_columns_in_any_order(alice: Any, totals: dict[str, Grant]) -> None:
    assert [(row["model"], row["cost"]) for row in asked(alice, "by=model")] == [("gpt", "28.00"), ("claude", "0.25")]
    assert [(row["day"], row["cost"]) for row in asked(alice, "by=day")] == [
        ("2026-03-11", "25.25"),
        ("2026-03-10", "3.00"),
    ]
    rows = asked(alice, "by=day,model,grant")
    assert len(rows) == 4
    assert rows[0] | {"app": "Mailer", "model": "gpt", "day": "2026-03-11", "calls": 7} == rows[0]


def test_a_period_and_a_grant_narrow_them(alice: Any, totals: dict[str, Grant]) -> None:
    assert [row["cost"] for row in asked(alice, "from=2026-03-11&to=2026-03-11&by=model")] == ["25.00", "0.25"]
    assert [row["cost"] for row in asked(alice, f"grant={totals['Notebook'].pk}")] == ["8.25"]
    assert asked(alice, "to=2026-03-09") == []


@pytest.mark.parametrize("query", ["by=owner", "by=", "by=grant,", "from=x", "limit=1", "grant=x"])
def test_what_makes_no_sense_is_refused(alice: Any, totals: dict[str, Grant], query: str) -> None:
    assert owner(alice).get(f"/api/totals/?{query}").status == 400


def test_more_lines_than_anybody_reads_are_refused(alice: Any, grant: Grant) -> None:
    DailyTotal.objects.bulk_create(DailyTotal(grant=grant, day=20260310, model=f"m{n}") for n in range(3001))
    answer = owner(alice).get("/api/totals/?by=model")
    assert answer.status == 400
    assert "shorter period" in answer.body["error"]["fields"]["by"][0]
    assert asked(alice)[0]["app"] == "Notebook"


def test_bob_sees_his_own_and_root_everybodys(bob: Any, root: Any, totals: dict[str, Grant]) -> None:
    assert [row["app"] for row in asked(bob, "by=grant")] == ["Shop"]
    assert asked(bob, f"grant={totals['Mailer'].pk}") == []
    assert [row["app"] for row in asked(root)] == ["Shop", "Mailer", "Notebook"]


def test_sums_of_nothing_are_no_line(alice: Any) -> None:
    assert spending(alice) == []
    assert asked(alice) == []


# The desk


def desk(user: Any, query: str = "") -> str:
    client = Client()
    client.force_login(user)
    response = client.get(f"/admin/grants/dailytotal/?{query}")
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


@pytest.fixture
def today(alice: Any, bob: Any, totals: dict[str, Grant]) -> dict[str, Grant]:
    now = timezone.localdate()
    for total in DailyTotal.objects.all():
        total.day = day_of(now - dt.timedelta(days=20260311 - total.day))
        total.save()
    return totals


def test_the_desk_shows_spending_by_grant_model_and_day(alice: Any, today: dict[str, Grant]) -> None:
    shown = desk(alice)
    assert "$28.25" in shown
    assert shown.index("Mailer") < shown.index("Notebook")
    assert "Shop" not in shown
    assert "claude" in desk(alice, "by=model")
    assert "$3.00" in desk(alice, "by=day")
    assert "$25.25" in desk(alice, "period=today")


def test_more_models_than_anybody_reads_leave_the_sums(alice: Any, grant: Grant) -> None:
    """An app can call thousands of models that do not exist: its owner still sees what was spent."""
    day = day_of(timezone.localdate())
    DailyTotal.objects.bulk_create(
        DailyTotal(grant=grant, day=day, model=f"made-up-{number}", calls=1, cost=DOLLAR) for number in range(MOST + 1)
    )
    page = desk(alice, "by=model")
    assert "$3,001" in page
    assert "Too many" in page


def test_a_line_leads_to_its_calls(alice: Any, today: dict[str, Grant]) -> None:
    assert f"/admin/grants/call/?grant={today['Mailer'].pk}&amp;period_from=" in desk(alice)
    assert "/admin/grants/call/?model=claude&amp;period_from=" in desk(alice, "by=model")


def test_bobs_desk_shows_bobs_spending(bob: Any, today: dict[str, Grant]) -> None:
    shown = desk(bob)
    assert "$900.00" in shown
    assert "Mailer" not in shown


def test_a_choice_that_is_none_is_the_usual_one(alice: Any, today: dict[str, Grant]) -> None:
    assert "$28.25" in desk(alice, "by=owner&period=%00")


def test_a_period_without_calls_says_so(alice: Any) -> None:
    assert "Nothing was used" in desk(alice)
