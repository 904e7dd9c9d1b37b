"""What every provider answers, read from its own bytes: usage, and what it costs to the nano-dollar."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from typing import Any
from unittest import mock

import pytest

from grants.providers import PROVIDERS
from proxy.dialects.base import Demand, UpstreamCall, Usage
from proxy.exceptions import NotGranted
from proxy.pricing.bounds import Bound, bound
from proxy.pricing.metering import meter

from .answers import ANSWERS, Answer, Relayed, Wire, pieces, relay, result

NOON = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC).timestamp()  # some prices change with the hour
FREE_OF_CHARGE = {"sandbox"}
EACH = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)


def whole(answer: Answer, size: int = 65536) -> Relayed:
    return relay(answer.call, Wire(pieces(answer.body, size), answer.content_type))


def metered(answer: Answer, relayed: Relayed) -> Usage:
    provider, observer = PROVIDERS[answer.head["provider"]], relayed.observer
    with mock.patch("time.time", return_value=NOON):
        return meter(provider, answer.call, observer.result(), output_characters=observer.output_characters)


def by_hand(answer: Answer) -> int | None:
    """The sum that stands in the fixture, added up."""
    if answer.head["cost"] == "none":
        return None
    terms, _, total = answer.head["cost"].partition(" = ")
    found = Decimal(0)
    for term in terms.split(" + "):
        count, rate = term.split("*")
        found += int(count) * Decimal(rate)
    assert int(found.to_integral_value(ROUND_CEILING)) == int(total)
    return int(total)


def test_every_provider_is_there_streaming_and_not() -> None:
    kinds = {(answer.head["provider"], answer.streamed) for answer in ANSWERS.values()}
    assert kinds == {
        (provider, streamed) for provider in PROVIDERS.keys() - FREE_OF_CHARGE for streamed in (True, False)
    }


@EACH
def test_every_fixture_says_where_it_is_from(answer: Answer) -> None:
    assert answer.head["source"].startswith(("Recorded, ", "Written after "))
    assert answer.head["price"]


@EACH
def test_usage_and_cost_are_those_worked_out_by_hand(answer: Answer) -> None:
    usage = metered(answer, whole(answer))
    estimated = answer.head.get("estimated") == "yes"
    assert usage == Usage(*answer.tokens, by_hand(answer), estimated=estimated)


@EACH
@pytest.mark.parametrize("size", [1, 7, 100])
def test_it_does_not_matter_how_the_bytes_are_cut(answer: Answer, size: int) -> None:
    at_once, in_pieces = whole(answer), whole(answer, size)
    assert in_pieces.out == at_once.out == answer.body
    assert in_pieces.outcome == at_once.outcome
    assert result(in_pieces) == result(at_once)
    assert in_pieces.observer.output_characters == at_once.observer.output_characters


@EACH
def test_an_answer_ends_as_its_provider_says(answer: Answer) -> None:
    relayed = whole(answer)
    assert relayed.outcome == answer.head.get("outcome", "ok")
    assert not relayed.broken
    assert relayed.out == answer.body


@EACH
def test_hosted_tools_and_steps_of_other_models_are_not_lost(answer: Answer) -> None:
    found = result(whole(answer))
    tools = ",".join(f"{kind}={count}" for kind, count in found.get("tools", {}).items())
    assert tools == answer.head.get("tools", "")
    assert len(found.get("parts", [])) == int(answer.head.get("parts", "0"))


def bounded(answer: Answer, **more: Any) -> Bound:
    """The bound of the call that was answered, by a body that showed just as much as was used."""
    used, written, _ = answer.tokens
    tier = "flex" if "flex" in answer.name else ""
    unbounded = "hosted tools" if "tools" in answer.head or "parts" in answer.head else ""
    demand = Demand(text=used, limit=max(written, 1), cached=True, tier=tier, unbounded=unbounded)
    call = replace(answer.call, demand=demand._replace(**more))
    return bound(PROVIDERS[answer.head["provider"]], call, "", 0, max_cost_per_call=None)


PRICED = [answer for answer in ANSWERS.values() if answer.head["cost"] != "none"]
TEXT = {"chat", "responses", "anthropic", "google", "embeddings"}
BEYOND = {"tools", "parts", "estimated"}  # of what no body shows the bound
ALONE = [
    answer
    for answer in PRICED
    if not BEYOND & answer.head.keys() and "search" not in answer.name and answer.head["provider"] != "azure"
]


@pytest.mark.parametrize(
    "answer", [answer for answer in ALONE if answer.head["flavor"] in TEXT], ids=lambda answer: answer.name
)
def test_what_was_charged_is_within_the_bound(answer: Answer) -> None:
    cost = metered(answer, whole(answer)).cost
    assert cost is not None
    with mock.patch("time.time", return_value=NOON):
        limits = bounded(answer)
    assert cost <= limits.cost(limits.limit)


UNPRICED = [answer for answer in ANSWERS.values() if answer.head["cost"] == "none"]


@pytest.mark.parametrize("answer", UNPRICED, ids=lambda answer: answer.name)
def test_what_has_no_price_is_refused_under_a_limit_in_money(answer: Answer) -> None:
    with pytest.raises(NotGranted) as refused:
        bounded(answer, pictures=1, text=10)
    assert refused.value.code == ("cost_unbounded" if answer.name == "xai-responses-search.json" else "price_unknown")
    assert refused.value.final


UNKNOWN_UNITS = {
    "pictures": ("openai", "images", "gpt-4o", Demand(pictures=1, size="1024x1024"), "image"),
    "pictures of a model that no table has": ("openai", "images", "dall-e-3", Demand(pictures=1), "dall-e-3"),
    "characters": ("openai", "speech", "text-embedding-3-small", Demand(characters=9), "character"),
    "seconds": ("openai", "transcription", "text-embedding-3-small", Demand(audio=(9,)), "second"),
    "tokens of a deployment that tells no model": ("azure", "chat", "ours", Demand(text=9, limit=9), "ours"),
    "output tokens": ("openai", "chat", "text-embedding-3-small", Demand(text=9, limit=9), "output"),
    "sound in a chat": ("openai", "chat", "gpt-4o-audio-preview", Demand(text=9, limit=9, audio=(9,)), "sound"),
    "tokens of a model that no table has": ("custom", "chat", "llama3.2", Demand(text=9, limit=9), "llama3.2"),
    "tokens of an embedding": ("custom", "embeddings", "nomic-embed-text", Demand(text=9), "nomic-embed-text"),
    "tokens in another tier": ("openai", "chat", "gpt-4o", Demand(text=9, limit=9, tier="hypersonic"), "hypersonic"),
}


@pytest.mark.parametrize("unit", UNKNOWN_UNITS)
def test_a_unit_that_the_price_table_does_not_know_is_refused_by_its_name(unit: str) -> None:
    provider, flavor, model, demand, named = UNKNOWN_UNITS[unit]
    call = UpstreamCall(route="openai.x", method="POST", path="/x", models=(model,), flavor=flavor, demand=demand)
    with pytest.raises(NotGranted) as refused:
        bound(PROVIDERS[provider], call, "", 0, max_cost_per_call=None)
    assert refused.value.code == "price_unknown"
    assert named in refused.value.message
