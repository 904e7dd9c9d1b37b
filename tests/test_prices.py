"""An owner's own prices: what a row may say, which row counts, and that a key keeps them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from grants import prices
from grants.models import Allowance, AuditEvent, Grant, ProviderKey

ROWS: list[dict[str, Any]] = [
    {"models": "gpt-4o-mini*", "input": "0.15", "output": "0.60", "cached": "0.075"},
    {"models": "gpt-4o*", "input": "2.50", "output": "10.00"},
    {"models": "tts-*", "character": "15"},
    {"models": "whisper-1", "second": "0.0001", "request": "0.001"},
    {"models": "dall-e-3", "image": "0.04"},
    {"models": "local-*", "free": True},
]
TEXT = json.dumps(ROWS)


def test_rows_of_every_unit_are_taken() -> None:
    prices.validate(ROWS)
    prices.validate([])


@pytest.mark.parametrize(
    ("model", "rates"),
    [
        ("gpt-4o", {"input": 2500, "output": 10_000}),  # nano-dollars for one
        ("gpt-4o-mini-2024-07-18", {"input": 150, "output": 600, "cached": 75}),
        ("tts-1", {"character": 15_000}),
        ("whisper-1", {"second": 100_000, "request": 1_000_000}),
        ("dall-e-3", {"image": 40_000_000}),
        ("local-llama", {}),
    ],
)
def test_the_first_row_that_matches_a_model_counts(model: str, rates: dict[str, int]) -> None:
    row = prices.row_for(TEXT, model)
    assert row is not None
    assert dict(row.rates) == {unit: Decimal(rate) for unit, rate in rates.items()}
    assert row.free == (model == "local-llama")


@pytest.mark.parametrize("model", ["gpt-4", "GPT-4o", "my-gpt-4o", "dall-e-3-hd", ""])
def test_a_model_without_a_row_has_none(model: str) -> None:
    assert prices.row_for(TEXT, model) is None
    assert prices.row_for("[]", model) is None
    assert prices.row_for("", model) is None


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"models": "gpt-4o"}, "needs a price"),
        ({"input": "1"}, "“models”"),
        ({"models": "*gpt", "input": "1"}, "“models”"),
        ({"models": "a*b", "input": "1"}, "“models”"),
        ({"models": "", "input": "1"}, "“models”"),
        ({"models": ["gpt"], "input": "1"}, "“models”"),
        ("gpt-4o", "“models”"),
        (None, "“models”"),
        ({"models": "gpt", "inputs": "1"}, "“inputs” is no unit"),
        ({"models": "gpt", "free": False}, "“free” is true"),
        ({"models": "gpt", "free": 1}, "“free” is true"),
        ({"models": "gpt", "free": "true"}, "“free” is true"),
        ({"models": "gpt", "free": True, "input": "1"}, "stands alone"),
        *(
            ({"models": "gpt", "input": price}, "“input” must be dollars")
            for price in (1, 2.5, None, True, "", "-1", "+1", "1e3", "NaN", "Infinity", "1,5", "$1", " 1", "1\n", "٣")
        ),
        ({"models": "gpt", "output": "1000001"}, "“output” must be dollars"),
        ({"models": "gpt", "output": "0.0000000000001"}, "“output” must be dollars"),
    ],
)
def test_what_is_no_price_is_refused_by_the_number_of_its_row(row: Any, sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        prices.validate([ROWS[0], row])
    assert [message[:6] for message in error.value.messages] == ["Row 2:"]
    assert sentence in error.value.messages[0]


@pytest.mark.parametrize("value", [None, {}, "[]", 1, ({"models": "a", "input": "1"},)])
def test_prices_are_a_list(value: Any) -> None:
    with pytest.raises(ValidationError, match="A list of rows"):
        prices.validate(value)


def test_there_is_an_end_to_the_rows() -> None:
    prices.validate([ROWS[0]] * prices.MAX_ROWS)
    with pytest.raises(ValidationError, match="No more than"):
        prices.validate([ROWS[0]] * (prices.MAX_ROWS + 1))


@pytest.mark.parametrize("margin", [-1, 1001, 1.5, "10", True, None])
def test_a_margin_is_a_whole_percentage(margin: Any) -> None:
    with pytest.raises(ValidationError, match="whole percentage"):
        prices.validate_margin(margin)


UNREADABLE = ("", "nonsense", "{}", "[1]", '[{"input": "1"}]', '[{"models": "*", "input": "x"}]', "[" * 10_000, "null")


@pytest.mark.parametrize("text", UNREADABLE)
def test_stored_rows_that_cannot_be_read_price_nothing_rather_than_something(text: str) -> None:
    """They stand before the bundled table, so they refuse under a limit in money."""
    rows = prices.parse(text)
    assert all(not row.rates and not row.free for row in rows)


@given(st.text(max_size=50) | st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=5).map(json.dumps))
def test_reading_stored_rows_never_raises(text: str) -> None:
    prices.parse(text)


DECIMAL = st.decimals(0, 10**6, places=6, allow_nan=False).map(lambda value: format(value, "f"))


@given(DECIMAL)
def test_a_price_is_kept_to_its_last_digit(price: str) -> None:
    rows = [{"models": "*", "input": price}]
    prices.validate(rows)
    row = prices.row_for(json.dumps(rows), "any")
    assert row is not None
    assert row.rates["input"] == Decimal(price) * 1000  # dollars a million → nano-dollars


# On a key


@pytest.fixture
def key(alice: Any, by: Any) -> ProviderKey:
    return ProviderKey.add(
        owner=alice, provider="openai", label="Team", secret="sk-123", by=by, prices=ROWS[:1], margin=10
    )


def test_a_key_is_added_with_its_prices(key: ProviderKey) -> None:
    kept = ProviderKey.objects.get(pk=key.pk)
    assert (kept.prices, kept.margin) == (ROWS[:1], 10)


def test_a_key_without_prices_has_the_tables(alice: Any, by: Any) -> None:
    key = ProviderKey.add(owner=alice, provider="openai", label="Team", secret="sk-123", by=by)
    assert (key.prices, key.margin) == ([], 0)


@pytest.mark.parametrize(
    ("field", "changes"),
    [("prices", {"prices": [{"models": "gpt"}]}), ("prices", {"prices": [ROWS[0], 1]}), ("margin", {"margin": 1001})],
)
def test_wrong_prices_are_refused_under_their_field_and_nothing_is_kept(
    key: ProviderKey, by: Any, field: str, changes: dict[str, Any]
) -> None:
    before = {"label": "Team", "extra_fields": [], "prices": ROWS[:1], "margin": 10}
    with pytest.raises(ValidationError) as error:
        key.change(**before | {"label": "Other"} | changes, by=by)
    assert list(error.value.message_dict) == [field]
    kept = ProviderKey.objects.get(pk=key.pk)
    assert {name: getattr(kept, name) for name in before} == before


def test_new_prices_are_in_force_with_the_next_call_and_stand_in_the_trail(key: ProviderKey, by: Any) -> None:
    from .conftest import terms

    grant = Grant.issue(key=key, terms=terms(models=("gpt-*",)), app_name="Notebook", by=by)
    revision = Allowance.objects.get(grant=grant).revision
    key.change(label="Team", extra_fields=[], prices=ROWS, margin=25, by=by)
    assert Allowance.objects.get(grant=grant).revision > revision  # the policy that a call was read by is stale now
    event = AuditEvent.objects.filter(action=AuditEvent.Action.KEY_CHANGED).latest("at")
    assert event.detail["prices"] == ROWS
    assert event.detail["margin"] == 25
