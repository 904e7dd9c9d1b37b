"""The ledger as CSV."""

from __future__ import annotations

import csv
import datetime as dt
import io
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from grants.exports import COLUMNS, csv_response, defused
from grants.models import Actor, Call, Grant, ProviderKey
from grants.search import Search

from .api import owner
from .conftest import terms
from .ledger_rows import NOON, call, save

pytestmark = pytest.mark.django_db


def parsed(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith('attachment; filename="calls-')
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode(), newline="")))


def exported(user: Any, query: str = "") -> list[dict[str, str]]:
    caller = owner(user)
    return parsed(caller.client.get(f"/api/calls.csv?{query}", headers=caller.headers))


def test_a_row_says_everything_in_plain_units(alice: Any, grant: Grant) -> None:
    kinds = {"reserved": 1_500_000_000, "cost": 2_000_000_001, "estimated": True, "output_limit": 64}
    (row,) = save(call(grant, NOON, **kinds))
    assert exported(alice) == [
        {
            "id": str(row.pk),
            "grant": str(grant.pk),
            "app": "Notebook",
            "model": "sandbox-1",
            "route": "openai.chat",
            "day": "2026-03-10",
            "started_at": "2026-03-10T12:00:00.000+00:00",
            "finished_at": "2026-03-10T12:00:01.500+00:00",
            "outcome": "ok",
            "status": "200",
            "stream": "false",
            "input_tokens": "10",
            "output_tokens": "20",
            "cached_tokens": "0",
            "output_limit": "64",
            "reserved": "1.50",
            "cost": "2.000000001",
            "overrun": "0.500000001",
            "estimated": "true",
        }
    ]


def test_what_nobody_knows_is_empty_and_what_is_nothing_is_zero(alice: Any, grant: Grant) -> None:
    save(call(grant, outcome="open"), call(grant, NOON - dt.timedelta(days=1), cost=0))
    first, second = exported(alice)
    assert (first["cost"], first["finished_at"], first["status"], first["reserved"]) == ("", "", "", "0.00")
    assert second["cost"] == "0.00"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_a_name_that_a_spreadsheet_would_work_out_is_text(alice: Any, grant: Grant, name: str) -> None:
    Grant.objects.update(app_name=name)
    save(call(grant, model=name))
    (row,) = exported(alice)
    assert (row["app"], row["model"]) == (f"'{name}", f"'{name}")


def test_a_name_that_goes_on_in_the_next_cell_after_a_semicolon_is_text_there(alice: Any, grant: Grant) -> None:
    """Where the comma is in numbers, spreadsheets open such files with the semicolon as separator."""
    Grant.objects.update(app_name="Notes;=HYPERLINK(A1);  @x; y")
    save(call(grant))
    assert exported(alice)[0]["app"] == "Notes;'=HYPERLINK(A1);'  @x; y"


def test_quotes_commas_and_line_breaks_stay_in_their_field(alice: Any, grant: Grant) -> None:
    save(call(grant, model='a"b,c\nd'))
    assert exported(alice)[0]["model"] == 'a"b,c\nd'


def test_ordinary_names_are_as_they_are() -> None:
    for name in ("gpt-4o", "o1-mini", "claude=4", "", "Ünicode"):
        assert defused(name) == name


def test_the_export_is_the_list_with_all_of_its_pages(alice: Any, grant: Grant) -> None:
    rows = save(*(call(grant, NOON + dt.timedelta(minutes=n), estimated=n % 3 == 0) for n in range(1200)))[::-1]
    assert [row["id"] for row in exported(alice)] == [str(row.pk) for row in rows]
    assert [row["id"] for row in exported(alice, "estimated=true&from=2026-03-10")] == [
        str(row.pk) for row in rows if row.estimated
    ]


def test_the_desk_exports_what_its_list_shows(alice: Any, grant: Grant) -> None:
    rows = save(*(call(grant, NOON + dt.timedelta(minutes=n), model=f"m{n % 2}") for n in range(70)))[::-1]
    desk = Client()
    desk.force_login(alice)
    page = desk.get("/admin/grants/call/?model=m1").content.decode()
    assert "/admin/grants/call/export/?model=m1" in page
    found = parsed(desk.get("/admin/grants/call/export/?model=m1"))
    assert [row["id"] for row in found] == [str(row.pk) for row in rows if row.model == "m1"]
    assert parsed(desk.get("/admin/grants/call/export/?outcome=nonsense")) == []


def test_bob_exports_nothing_of_alices(alice: Any, bob: Any, grant: Grant) -> None:
    save(call(grant))
    by = Actor("api", bob)
    key = ProviderKey.add(owner=bob, provider="sandbox", label="Sandbox", secret="", by=by)
    (bobs,) = save(call(Grant.issue(key=key, terms=terms(), app_name="Bob's", by=by)))
    for query in ("", f"grant={grant.pk}", "app=notebook", "outcome=ok"):
        assert {row["id"] for row in exported(bob, query)} <= {str(bobs.pk)}
    desk = Client()
    desk.force_login(bob)
    assert [row["id"] for row in parsed(desk.get("/admin/grants/call/export/"))] == [str(bobs.pk)]
    assert Client().get("/api/calls.csv").status_code == 401
    assert Client().get("/admin/grants/call/export/").status_code == 302


@pytest.mark.django_db(transaction=True)
def test_while_the_client_takes_its_time_no_connection_is_held(alice: Any, grant: Grant) -> None:
    save(*(call(grant, NOON + dt.timedelta(minutes=n)) for n in range(900)))
    pieces = iter(csv_response(alice, Search()).streaming_content)
    next(pieces)  # the head
    count = 0
    for _ in pieces:
        count += 1
        assert connections["default"].connection is None
        Call.objects.filter(pk=1).exists()  # somebody else's business, on this greenlet or another
    assert count > 3


def test_the_head_names_the_columns_even_of_nothing(alice: Any) -> None:
    assert b"".join(csv_response(alice, None).streaming_content).decode().strip() == ",".join(COLUMNS)
