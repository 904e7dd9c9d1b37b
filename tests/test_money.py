"""Dollars in and out: exact to the nano-dollar, and nothing but plain decimal numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants import money
from grants.terms import MAX_MONEY

amounts = st.integers(0, MAX_MONEY)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5.00", 5_000_000_000),
        ("5", 5_000_000_000),
        ("0.000000001", 1),
        ("0.1", 100_000_000),
        ("007.50", 7_500_000_000),
        ("0", 0),
        ("1000000000", MAX_MONEY),
        ("0000000000.000000000", 0),
    ],
)
def test_dollars_become_nano_dollars(text: str, amount: int) -> None:
    assert money.nano_dollars(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "5.", ".5", "-1", "+1", "1e3", "1E-9", "0x10", "1_000", "1,000", "1 000", "5,00", "$5"),
        *("5.00 ", "5.00\n", "NaN", "inf", "Infinity", "٥", "５", "½", "1.0000000001", "12345678901", "1/2"),
    ],
)
def test_whatever_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 5\.00"):
        money.nano_dollars(text)


def test_the_largest_amount_is_the_terms_largest() -> None:
    assert money.nano_dollars(str(money.MAX_DOLLARS)) == MAX_MONEY


@pytest.mark.parametrize("text", ["1000000000.000000001", "1000000001", "9999999999"])
def test_more_than_a_billion_dollars_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 1000000000 dollars"):
        money.nano_dollars(text)


@pytest.mark.parametrize("text", ["0", "0.00", "0.000000000"])
def test_a_limit_of_nothing_is_no_limit_that_anybody_means(text: str) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        money.limit(text)


@given(amounts)
def test_what_is_written_is_read_again_to_the_nano_dollar(amount: int) -> None:
    assert money.nano_dollars(money.dollars(amount)) == amount
    assert Decimal(money.dollars(amount)) * money.NANO == amount


@given(amounts)
def test_people_read_the_same_amount(amount: int) -> None:
    assert money.nano_dollars(money.exactly(amount).lstrip("$").replace(",", "")) == amount


@given(st.integers(1, MAX_MONEY))
def test_at_a_glance_is_never_far_from_the_truth_and_never_nothing(amount: int) -> None:
    shown = money.about(amount)
    if shown.startswith("<"):
        assert amount < 500
    else:
        value = Decimal(shown.lstrip("$").replace(",", "")) * money.NANO
        assert abs(value - amount) <= (5_000_000 if amount >= money.NANO else 50_000 if amount >= 10_000_000 else 500)


@pytest.mark.parametrize(
    ("amount", "plain", "exact", "glance"),
    [
        (5_000_000_000, "5.00", "$5.00", "$5.00"),
        (123_000, "0.000123", "$0.000123", "$0.000123"),
        (1_234_567_890_123, "1234.567890123", "$1,234.567890123", "$1,234.57"),
        (0, "0.00", "$0.00", "$0"),
        (1, "0.000000001", "$0.000000001", "<$0.000001"),
        (499, "0.000000499", "$0.000000499", "<$0.000001"),
        (500, "0.0000005", "$0.0000005", "$0.000001"),
        (999_999_999, "0.999999999", "$0.999999999", "$1.00"),
        (1_500_000, "0.0015", "$0.0015", "$0.0015"),
        (10_000_000, "0.01", "$0.01", "$0.01"),
        (100_000_000, "0.10", "$0.10", "$0.10"),
        (MAX_MONEY, "1000000000.00", "$1,000,000,000.00", "$1,000,000,000.00"),
    ],
)
def test_the_ways_to_write_it(amount: int, plain: str, exact: str, glance: str) -> None:
    assert (money.dollars(amount), money.exactly(amount), money.about(amount)) == (plain, exact, glance)
