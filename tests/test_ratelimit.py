"""What an app is told of its limits: headers on every answer, details in a refusal, in each dialect."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from grants.clock import microseconds
from grants.limits import Limit, Limits, Standing, midnight_after, month_after, report
from proxy import dialects, ratelimit
from proxy.exceptions import LimitReached

NOON = 1_795_521_600_000_000  # 2026-11-24 12:00 UTC
STANDING = Standing(NOON, 20261124, 7, 2, 600_000_000, 100_000_000, 250_000_000, 50_000_000, 0, 0, 0, 0)


def headers(standing: Standing = STANDING, **limits: int) -> dict[str, str]:
    return ratelimit.headers(report(Limits(**limits), standing, "UTC"), standing.now)


def test_a_grant_without_limits_has_no_headers() -> None:
    assert headers() == {}


def test_each_limit_is_an_item_with_its_quota_window_and_unit() -> None:
    found = headers(max_requests=100, max_concurrency=4, max_cost_per_day=1_000_000_000)
    assert found["ratelimit-policy"] == (
        '"requests";q=100, "concurrency";q=4;qu="concurrent-requests", '
        '"cost-per-day";q=1000000;w=86400;qu="micro-dollars"'
    )
    assert found["ratelimit"] == '"requests";r=93, "concurrency";r=2, "cost-per-day";r=700000;t=43200'


def test_what_is_reserved_is_not_remaining() -> None:
    (cost,) = report(Limits(max_cost=1_000_000_000), STANDING, "UTC")
    assert (cost.used, cost.reserved, cost.remaining) == (600_000_000, 100_000_000, 300_000_000)


def test_more_than_allowed_leaves_nothing_and_not_less() -> None:
    (cost,) = report(Limits(max_cost=500_000_000), STANDING, "UTC")
    assert cost.remaining == 0


def test_a_rate_tells_what_may_come_at_once() -> None:
    fresh = headers(requests_per_minute=60)
    assert fresh["ratelimit"] == '"requests-per-minute";r=10;t=0'
    ahead = STANDING._replace(requests_clock=NOON + 4_000_000)
    assert headers(ahead, requests_per_minute=60)["ratelimit"] == '"requests-per-minute";r=6;t=4'


@pytest.mark.parametrize(
    ("zone", "day", "midnight"),
    [
        ("UTC", 20261124, "2026-11-25T00:00:00+00:00"),
        ("Pacific/Auckland", 20261124, "2026-11-24T11:00:00+00:00"),
        ("America/New_York", 20261031, "2026-11-01T04:00:00+00:00"),
        ("America/New_York", 20261101, "2026-11-02T05:00:00+00:00"),  # the clocks went back that morning
    ],
)
def test_a_day_ends_at_the_owners_midnight(zone: str, day: int, midnight: str) -> None:
    assert midnight_after(day, zone) == microseconds(dt.datetime.fromisoformat(midnight))


def test_a_month_ends_with_the_year() -> None:
    assert month_after(20261231, "UTC") == midnight_after(20261231, "UTC")
    assert month_after(20261124, "UTC") == midnight_after(20261130, "UTC")


def test_yesterdays_money_is_not_todays() -> None:
    later = STANDING.on(20261125)
    assert (later.day_spent, later.day_reserved, later.spent) == (0, 0, 600_000_000)


SPENT = LimitReached(
    "This grant allows $1.00 a day.",
    code="daily_cost_limit_reached",
    final=True,
    limit=ratelimit.details(Limit("cost-per-day", "nano-dollars", 10**9, 980_000_000, 15_000_000, 86_400, NOON)),
)


def told(dialect: str, error: LimitReached = SPENT) -> Any:
    return dialects.error_body(dialect, error)["error"]


def test_openai_calls_what_is_used_up_insufficient_quota() -> None:
    body = told("openai")
    assert (body["code"], body["type"]) == ("insufficient_quota", "insufficient_quota")
    assert body["limit"] == {
        "code": "daily_cost_limit_reached",
        "name": "cost-per-day",
        "unit": "dollars",
        "allowed": "1.00",
        "used": "0.98",
        "reserved": "0.015",
        "resets_at": "2026-11-24T12:00:00+00:00",
    }


def test_anthropic_gets_a_rate_limit_error_with_the_limit() -> None:
    body = told("anthropic")
    assert (body["type"], body["code"]) == ("rate_limit_error", "daily_cost_limit_reached")
    assert body["limit"]["allowed"] == "1.00"


def test_gemini_gets_resource_exhausted_with_the_limit() -> None:
    body = told("google")
    assert body["status"] == "RESOURCE_EXHAUSTED"
    assert body["details"][0]["metadata"]["name"] == "cost-per-day"
    assert not any("RetryInfo" in detail["@type"] for detail in body["details"])


def test_gemini_is_told_when_to_retry() -> None:
    body = told("google", LimitReached("Too fast.", code="request_rate_reached", retry_after=3))
    assert body["details"][1]["retryDelay"] == "3s"


def test_a_rate_that_passes_is_no_insufficient_quota() -> None:
    body = told("openai", LimitReached("Too fast.", code="request_rate_reached", retry_after=3))
    assert (body["code"], body["type"]) == ("request_rate_reached", "rate_limit_error")
