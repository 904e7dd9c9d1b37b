"""An owner's prices on the desk, in the API and in the command: typed once, kept as typed, refused with a reason."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from grants import pricelist
from grants.admin.keys import UNITS as COLUMNS
from grants.models import Allowance, AuditEvent, Grant, ProviderKey
from grants.prices import UNITS

from .api import owner
from .conftest import CANARY

TYPED = "gpt-4o*: input=2.50, output=10.00, cached=1.25\n\nopenai/whisper:free: second=0.0001\n  local-*:free  "
ROWS = [
    {"models": "gpt-4o*", "input": "2.50", "output": "10.00", "cached": "1.25"},
    {"models": "openai/whisper:free", "second": "0.0001"},
    {"models": "local-*", "free": True},
]


@pytest.fixture
def key(alice: Any, by: Any) -> ProviderKey:
    return ProviderKey.add(owner=alice, provider="openai", label="Team", secret=CANARY, by=by)


@pytest.fixture
def desk(client: Client, alice: Any) -> Client:
    client.force_login(alice)
    return client


def page(key: ProviderKey, name: str = "change") -> str:
    return reverse(f"admin:grants_providerkey_{name}", args=[key.pk])


def edit(desk: Client, key: ProviderKey, **changes: Any) -> Any:
    return desk.post(page(key, "edit"), {"label": "Team", "secret": "", "extra_fields": ""} | changes)


# The notation


def test_lines_are_rows_in_their_order() -> None:
    assert pricelist.rows(TYPED) == ROWS
    assert pricelist.text(ROWS).splitlines() == [
        "gpt-4o*: input=2.50, output=10.00, cached=1.25",
        "openai/whisper:free: second=0.0001",
        "local-*: free",
    ]


_names = st.from_regex(r"[A-Za-z0-9._:/@+-]{1,30}\*?", fullmatch=True)
_units = st.dictionaries(st.sampled_from(["input", "output", "cached", "image"]), st.just("0.5"), min_size=1)


@given(st.lists(st.tuples(_names, st.one_of(_units, st.just({"free": True})))))
def test_what_is_written_is_read_again(drawn: list[tuple[str, dict[str, Any]]]) -> None:
    rows = [{"models": models, **units} for models, units in drawn]
    assert pricelist.rows(pricelist.text(rows)) == rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("gpt-4o", "such as"),
        ("gpt-4o:", "such as"),
        ("gpt-4o: input=1,", "such as"),
        ("gpt-4o: input", "no price"),
        ("gpt-4o: input=1, input=2", "twice"),
        ("gpt-4o: models=1", "twice"),
    ],
)
def test_a_line_that_is_none_is_named_with_its_number(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"Row 2: .*{reason}"):
        pricelist.rows(f"local-*: free\n\n{line}")


# The desk


def test_prices_are_typed_kept_and_shown_again(desk: Client, key: ProviderKey) -> None:
    assert edit(desk, key, prices=TYPED, margin="10").headers["location"] == page(key)
    changed = ProviderKey.objects.get()
    assert (changed.prices, changed.margin) == (ROWS, 10)
    assert (changed.secret, changed.label) == (key.secret, "Team")
    html = desk.get(page(key)).content.decode()
    for text in ("gpt-4o*", "10.00", "Cached", "A second", "free</span>", "On top of every price: 10 %"):
        assert text in html, text
    assert "An image" not in html
    shown = desk.get(page(key, "edit")).content.decode()
    assert "gpt-4o*: input=2.50, output=10.00, cached=1.25\nopenai/whisper:free: second=0.0001" in shown


def test_saving_the_form_unchanged_changes_nothing(desk: Client, key: ProviderKey) -> None:
    edit(desk, key, prices=TYPED, margin="10")
    before = AuditEvent.objects.count()
    edit(desk, key, prices=pricelist.text(ROWS), margin="10")
    assert AuditEvent.objects.count() == before
    edit(desk, key, prices="", margin="")
    assert (ProviderKey.objects.get().prices, ProviderKey.objects.get().margin) == ([], 0)


def test_prices_come_with_a_new_key(desk: Client) -> None:
    data = {"provider": "openai", "label": "Team", "secret": CANARY, "prices": TYPED, "margin": "5"}
    desk.post("/admin/grants/providerkey/add/", data)
    assert (ProviderKey.objects.get().prices, ProviderKey.objects.get().margin) == (ROWS, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prices", "gpt-4o"),
        ("prices", "gpt-4o: input=cheap"),
        ("prices", "gpt-4o: input=-1"),
        ("prices", "gpt-4o: input=1e3"),
        ("prices", "gpt-4o: tokens=1"),
        ("prices", "gpt 4o: input=1"),
        ("prices", "g*4o: input=1"),
        ("prices", ": input=1"),
        ("prices", "gpt-4o: free, input=1"),
        ("prices", "gpt-4o: free=1"),
        ("margin", "-1"),
        ("margin", "1001"),
        ("margin", "1.5"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_changed(
    desk: Client, key: ProviderKey, field: str, value: str
) -> None:
    answer = edit(desk, key, label="Renamed", **{field: value})
    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [field]
    assert value in answer.content.decode().replace("&amp;", "&")
    stored = ProviderKey.objects.get()
    assert (stored.label, stored.prices, stored.margin) == ("Team", [], 0)


# The API


def test_prices_are_read_and_replaced_over_rest_and_hold_for_the_next_call(
    alice: Any, sandbox_key: ProviderKey, grant: Grant
) -> None:
    path = f"/api/provider-keys/{sandbox_key.pk}/"
    assert owner(alice).get(path).body["prices"] == []
    revision = Allowance.objects.get().revision
    answer = owner(alice).patch(path, {"prices": ROWS, "margin": 15})
    assert (answer.status, answer.body["prices"], answer.body["margin"]) == (200, ROWS, 15)
    stored = ProviderKey.objects.get()
    assert (stored.prices, stored.margin, stored.label, stored.secret) == (ROWS, 15, "Sandbox", sandbox_key.secret)
    assert Allowance.objects.get().revision > revision, "the next call would not look"
    assert owner(alice).get("/api/provider-keys/").body[0]["prices"] == ROWS
    assert owner(alice).patch(path, {"label": "Toys"}).body | {"id": ""} == answer.body | {"id": "", "label": "Toys"}
    assert AuditEvent.objects.filter(action="key.changed", via="api").count() == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prices", None),
        ("prices", "gpt-4o: free"),
        ("prices", {}),
        ("prices", ["gpt-4o"]),
        ("prices", [{}]),
        ("prices", [{"models": "gpt-4o", "input": 2.5}]),
        ("prices", [{"models": "gpt-4o", "input": 2}]),
        ("prices", [{"models": "gpt-4o", "input": True}]),
        ("prices", [{"models": "gpt-4o", "input": None}]),
        ("prices", [{"models": "gpt-4o", "input": "1e3"}]),
        ("prices", [{"models": "gpt-4o", "input": "-1"}]),
        ("prices", [{"models": "gpt-4o", "surprise": "1"}]),
        ("prices", [{"models": 4, "input": "1"}]),
        ("prices", [{"models": "a*b", "input": "1"}]),
        ("prices", [{"models": "gpt-4o"}]),
        ("prices", [{"models": "gpt-4o", "free": "yes"}]),
        ("prices", [{"models": "gpt-4o", "free": True, "input": "1"}]),
        ("prices", [*ROWS, {"models": "gpt-4o", "input": "x"}]),
        ("margin", -1),
        ("margin", 1001),
        ("margin", 10.0),
        ("margin", "10"),
        ("margin", None),
        ("label", ""),
        ("secret", "sk-new"),
        ("base_url", "https://evil.example"),
    ],
    ids=repr,
)
def test_nonsense_is_refused_by_name_and_nothing_is_changed(
    alice: Any, sandbox_key: ProviderKey, field: str, value: Any
) -> None:
    path = f"/api/provider-keys/{sandbox_key.pk}/"
    answer = owner(alice).patch(path, {"label": "Renamed"} | {field: value})
    assert answer.status == 400
    assert list(answer.body["error"]["fields"]) == [field]
    assert all(text.strip() for text in answer.body["error"]["fields"][field])
    stored = ProviderKey.objects.get()
    assert (stored.label, stored.prices, stored.margin, stored.base_url) == ("Sandbox", [], 0, "")


def test_a_key_of_another_owner_is_not_there(client: Client, bob: Any, root: Any, key: ProviderKey) -> None:
    path = f"/api/provider-keys/{key.pk}/"
    assert owner(bob).get(path).status == 404
    assert owner(bob).patch(path, {"margin": 10}).status == 404
    client.force_login(bob)
    assert client.post(page(key, "edit"), {"label": "x", "prices": "*: free"}).status_code == 404
    assert (ProviderKey.objects.get().margin, ProviderKey.objects.get().prices) == (0, [])
    answer = owner(root).get(path)
    assert answer.status == 200
    assert CANARY not in json.dumps(answer.body)
    assert key.secret not in json.dumps(answer.body)


def test_the_schema_says_how_a_row_is_written() -> None:
    schemas = json.loads(Client().get("/api/schema/").content)["components"]["schemas"]
    for name in ("PatchedKeyBody", "KeyAnswer"):
        row = schemas[name]["properties"]["prices"]["items"]
        assert row["additionalProperties"] is False
        assert set(row["properties"]) == {"models", "free", *UNITS}


def test_every_unit_has_a_column_on_the_desk() -> None:
    assert set(COLUMNS) == set(UNITS)


# The command


def add_key(monkeypatch: Any, *args: str) -> ProviderKey:
    monkeypatch.setattr("sys.stdin", io.StringIO(CANARY))
    out = io.StringIO()
    required = ("--owner", "alice", "--provider", "openai", "--label", "Team", "--json")
    call_command("add_key", *required, *args, stdout=out)
    return ProviderKey.objects.get(pk=json.loads(out.getvalue())["id"])


def test_the_command_takes_prices_and_a_margin(alice: Any, monkeypatch: Any) -> None:
    prices = ("--price", "gpt-4o*:input=2.50,output=10.00,cached=1.25", "--price", "openai/whisper:free:second=0.0001")
    key = add_key(monkeypatch, *prices, "--price", "local-*:free", "--margin", "10")
    assert (key.prices, key.margin) == (ROWS, 10)


@pytest.mark.parametrize(
    "bad",
    [
        ("--price", "gpt-4o"),
        ("--price", "gpt-4o:input=cheap"),
        ("--price", "gpt-4o:tokens=1"),
        ("--margin", "-1"),
        ("--margin", "1001"),
        ("--margin", "a lot"),
    ],
    ids=str,
)
def test_the_command_refuses_nonsense_in_one_line_and_stores_nothing(
    alice: Any, monkeypatch: Any, bad: tuple[str, str]
) -> None:
    with pytest.raises(CommandError) as caught:
        add_key(monkeypatch, *bad)
    assert "\n" not in str(caught.value)
    assert CANARY not in str(caught.value)
    assert not ProviderKey.objects.exists()
