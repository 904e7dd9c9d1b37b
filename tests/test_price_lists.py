"""Price files are checked before they count, and no price falls unless that is accepted."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import count, pairwise
from typing import Any

import pytest
from genai_prices import data as bundled
from genai_prices.types import Provider
from hypothesis import given, settings
from hypothesis import strategies as st

from grants.providers import PROVIDERS
from proxy import price_lists
from proxy.dialects.base import Demand, UpstreamCall
from proxy.pricing import lists, patterns, price_file
from proxy.pricing.bounds import bound
from proxy.pricing.changes import Change, TooManyTables, merged
from proxy.pricing.documented import DOCUMENTED, SNAPSHOTS
from proxy.pricing.lists import INSTALLED
from proxy.pricing.metering import meter
from proxy.pricing.tariffs import at_minute

from .price_files import Tables, changed, first, installed, model, priced, without

pytestmark = pytest.mark.slow  # most tests read a whole price list

NUMBERS = count()


def read(data: bytes) -> dict[str, Provider]:
    return price_file.read(data, price_lists.NEEDED, price_lists.LENDERS)


def refusal(data: bytes) -> str:
    with pytest.raises(price_file.Unacceptable) as error:
        read(data)
    return str(error.value)


def after(*edits: Callable[[Tables], None], before: lists.Tables | None = None, accept: bool = False) -> Any:
    """The list that follows the installed one when a file with ``edits`` arrives, and the changes."""
    start = lists.tables(INSTALLED) if before is None else before
    return merged(start, read(changed(*edits)), accept_lower=accept)


def kinds(changes: list[Change]) -> dict[tuple[str, str, str], str]:
    return {(change.model, change.unit, change.when): change.kind for change in changes}


def kept(tables: lists.Tables) -> str:
    """A name for a list, so that calls can be priced by it."""
    number = f"list {next(NUMBERS)}"
    lists.keep(number, tables)
    return number


def rate(number: str, provider: str, name: str, unit: str = "input_tokens", at: float | None = None) -> Decimal | None:
    tariff = at_minute(provider, name, (), int((at or time.time()) // 60), number)
    return None if tariff is None else next((one.base for one in tariff.rates if one.usage_key == unit), None)


# Reading


def test_the_installed_data_is_written_and_read_without_a_difference() -> None:
    for provider in bundled.providers:
        line = price_file.write(provider)
        again = price_file.parse(line, lambda: None)
        assert price_file.write(again) == line
        for row, same in zip(provider.models, again.models, strict=True):
            assert (same.id, same.match, same.context_window) == (row.id, row.match, row.context_window)
            assert same.prices == row.prices
            assert (same.price_variants or []) == (row.price_variants or [])


def test_what_an_upstream_file_says_beside_prices_is_allowed_and_dropped() -> None:
    def edit(tables: Tables) -> None:
        tables["openai"] |= {"name": "OpenAI", "api_pattern": "(a+)+$", "pricing_urls": [], "model_match": {"x": 1}}
        tables["openai"] |= {"extractors": [{"root": "nonsense"}]}
        model(tables, "openai", "gpt-4o").update(name="GPT 4o", description="\n", deprecated=True)
        tables["unknown"] = {"id": "unknown", "models": "nothing that anybody reads"}

    table = read(changed(edit))["openai"]
    assert table.extractors is None
    assert table.model_match is None


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        ("NaN", "NaN is not a number"),
        ("Infinity", "Infinity is not a number"),
        ("-1", "from 0 to 100000"),
        ("-0.000001", "from 0 to 100000"),
        ("100001", "from 0 to 100000"),
        ("1e400", "from 0 to 100000"),
        ("1e-400", "at most 20 decimals"),
        ("0.12345678901234567890", "at most 17 digits"),
        ('"2.5"', "must be a number"),
        ("true", "must be a number"),
        ("[1]", "must be a number"),
        ('{"base": 1}', "a list"),
        ('{"base": -1, "tiers": []}', "from 0 to 100000"),
        ('{"base": 1, "tiers": [{"start": -1, "price": 1}]}', "a whole number"),
        ('{"base": 1, "tiers": [{"start": 1, "price": 1, "until": 2}]}', "'until' is not known"),
        ("9" * 5000, "out of range"),
    ],
)
def test_a_price_is_a_finite_number_of_dollars_or_the_file_is_refused(price: str, reason: str) -> None:
    data = changed(priced("openai", "gpt-4o", input_mtok=-77777))
    assert data.count(b"-77777") == 1
    assert reason in refusal(data.replace(b"-77777", price.encode()))


def _hours(start: str, end: str) -> list[dict[str, Any]]:
    return [{"prices": {}, "constraint": {"start_time": start, "end_time": end}}]


def _set(**values: Any) -> Callable[[Tables], None]:
    return lambda tables: model(tables, "openai", "gpt-4o").update(values)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_set(surcharge=2), "'surcharge' is not known"),
        (_set(prices=[]), "no prices"),
        (_set(prices=None), "an object of prices"),
        (_set(prices=[{"prices": {"input_mtok": 1}, "unless": 1}]), "'unless' is not known"),
        (_set(prices=[{"prices": {}, "constraint": {"start_date": "soon"}}]), "from a date on"),
        (_set(prices=_hours("01:10:00Z", "02:00:00Z")), "half hours"),
        (_set(prices=_hours("01:00:00", "02:00:00Z")), "of UTC"),
        (_set(price_variants=[{"when": {}, "prices": {}}]), "price variant"),
        (_set(context_window=-1), "whole number"),
        (_set(context_window="many"), "whole number"),
        (_set(match={}), "match is not understood"),
        (_set(match={"or": []}), "match is empty"),
        (_set(match={"starts_with": ""}), "printable text"),
        (_set(match={"equals": "a", "or": []}), "match is not understood"),
        (_set(match={"sounds_like": "gpt"}), "'sounds_like' is not known"),
        (_set(match={"or": [{"equals": "x"}] * 301}), "at most 300"),
        (_set(match={"or": [{"or": [{"or": [{"or": [{"or": [{"or": [{"equals": "x"}]}]}]}]}]}]}), "not understood"),
        (_set(id="a\nb"), "printable text"),
        (lambda tables: tables.pop("mistral"), "lacks providers that are in use: mistral"),
        (lambda tables: tables.update(again=tables["openai"]), "'openai' occurs twice"),
        (lambda tables: tables["openai"].update(markup=2), "'markup' is not known"),
        (lambda tables: tables["openai"].update(models={}), "a list"),
    ],
)
def test_what_is_not_understood_refuses_the_whole_file(edit: Callable[[Tables], Any], reason: str) -> None:
    assert reason in refusal(changed(edit))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff[]", "not JSON in UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'[{"id":"openai","id":"openai"}]', "'id' occurs twice"),
        (b"{}", "a list"),
        (b"[1]", "lacks providers"),
        (b" " * (8 * 2**20 + 1), "larger than 8 MB"),
    ],
)
def test_a_file_that_is_no_price_file_is_refused(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


BOMBS = [
    "(a+)+$",
    "^(a+)+$",
    "^(a|a)*$",
    "^a*a*a*a*b$",
    "^(?:a?){40}a{40}$",
    "^a?a?a?a?a?a?a?a?a?a?aaaaaaaaaa$",
    "^(x+x+)+y$",
    "^a{1,90}a{1,90}a{1,90}b$",
    "^(.*a){20}$",
    "(?=a)*",
    "^(",
    "^(?P<n>a)",
    "^[a-",
    "^\\1",
]


@pytest.mark.parametrize("pattern", BOMBS)
def test_a_regular_expression_that_may_take_long_is_refused(pattern: str) -> None:
    assert "regular expression" in refusal(changed(first("openai", id="bomb", match={"regex": pattern}, prices={})))


@pytest.mark.parametrize(
    "pattern", [r"^gpt-7-sol-\d{4}-\d{2}-\d{2}$", r"^claude-opus-6[-@]\d{8}$", r"^(typesafe/)?jev-2\.0(-\d{8})?$"]
)
def test_the_patterns_of_dated_names_are_accepted(pattern: str) -> None:
    assert read(changed(first("openai", id="new", match={"regex": pattern}, prices={})))


@given(st.text(alphabet="a0-^$()[]?+|\\d{}123.", max_size=30))
def test_an_accepted_regular_expression_needs_little_time_for_any_name(tail: str) -> None:
    try:
        clause = patterns.clause({"regex": f"^{tail}"}, "here")
    except price_file.Unacceptable:
        return
    for name in ("a" * 256, "0" * 256, "a0" * 128, "-" * 256, "aaaa-0000" * 28):
        began = time.process_time()
        clause.is_match(name)
        assert time.process_time() - began < 0.05


def test_a_model_in_an_unknown_unit_has_no_price_and_the_rest_of_the_file_counts() -> None:
    found, changes = after(
        priced("openai", "gpt-4o", output_hologram_mtok=3),
        first("openai", id="gpt-9", match={"equals": "gpt-9"}, prices={"input_mtok": 1, "thought_mtok": 1}),
        priced("anthropic", "claude-3-haiku", input_mtok=9),
    )
    number = kept(found)
    assert kinds(changes)["gpt-4o", "input_mtok", ""] == "lost"
    assert rate(number, "openai", "gpt-4o") == 2500  # the earlier table's
    tariff = at_minute("openai", "gpt-9", (), int(time.time() // 60), number)
    assert tariff is not None
    assert not tariff.rated
    assert rate(number, "anthropic", "claude-3-haiku") == 9000


# What changed


def test_the_same_data_changes_nothing() -> None:
    found, changes = after()
    assert changes == []
    assert all(len(tables) == 1 for tables in found.values())
    again, changes = after(before=found)
    assert changes == []
    assert price_lists.dumps(again) == price_lists.dumps(found)


def test_new_and_higher_prices_hold_at_once() -> None:
    found, changes = after(
        priced("openai", "gpt-4o", input_mtok=3),
        first("openai", id="gpt-9", match={"starts_with": "gpt-9"}, prices={"input_mtok": 7, "output_mtok": 70}),
    )
    assert kinds(changes) == {
        ("gpt-4o", "input_mtok", ""): "higher",
        ("gpt-9", "input_mtok", ""): "new",
        ("gpt-9", "output_mtok", ""): "new",
    } | {key: kind for key, kind in kinds(changes).items() if key[2]}
    number = kept(found)
    assert rate(number, "openai", "gpt-4o") == 3000
    assert rate(number, "openai", "gpt-9-2027-01-01") == 7000
    assert rate(number, "azure", "gpt-4o") == 3000  # by OpenAI's rows


EVERY_WAY_DOWN: list[tuple[str, Callable[[Tables], None], str, str]] = [
    ("lower", priced("openai", "gpt-3.5-turbo", output_mtok=0.1), "gpt-3.5-turbo", "output_tokens"),
    ("zero", priced("openai", "gpt-3.5-turbo", input_mtok=0), "gpt-3.5-turbo", "input_tokens"),
    ("lost", priced("openai", "gpt-3.5-turbo", output_mtok=None), "gpt-3.5-turbo", "output_tokens"),
    ("lost", without("openai", "gpt-3.5-turbo"), "gpt-3.5-turbo", "input_tokens"),
    ("lower", priced("openai", "gpt-4", cache_read_mtok=0.5), "gpt-4", "cache_read_tokens"),
    (
        "lower",
        first("openai", id="x", match={"equals": "gpt-3.5-turbo"}, prices={"input_mtok": 0.01, "output_mtok": 99}),
        "gpt-3.5-turbo",
        "input_tokens",
    ),
    (
        "lower",
        first("azure", id="x", match={"equals": "gpt-3.5-turbo"}, prices={"input_mtok": 0.01, "output_mtok": 99}),
        "gpt-3.5-turbo",
        "input_tokens",
    ),
    ("lower", priced("openai", "gpt-4o-transcribe", input_audio_mtok=None), "gpt-4o-transcribe", "input_audio_tokens"),
]


@pytest.mark.parametrize(("kind", "edit", "name", "unit"), EVERY_WAY_DOWN)
def test_nothing_gets_cheaper_until_that_is_accepted(
    kind: str, edit: Callable[[Tables], None], name: str, unit: str
) -> None:
    rises = priced("openai", "gpt-4-32k", input_mtok=100)
    found, changes = after(edit, rises)
    assert kind in {change.kind for change in changes}
    number = kept(found)
    assert rate(number, "openai", "gpt-4-32k") == 100_000  # a rise does not wait
    whole = {"input_tokens": 1000, "output_tokens": 1000}
    for provider in ("openai", "azure"):
        for counts in (whole, whole | {"input_audio_tokens": 500}, whole | {"cache_read_tokens": 400}):
            before, now = (at_minute(provider, name, (), int(time.time() // 60), one) for one in (INSTALLED, number))
            assert before is not None
            assert now is not None
            assert now.covers(counts) == before.covers(counts)
            assert now.cost(counts) >= before.cost(counts)


@pytest.mark.parametrize(("kind", "edit", "name", "unit"), EVERY_WAY_DOWN)
def test_accepted_lower_prices_are_those_of_the_file_alone(
    kind: str, edit: Callable[[Tables], None], name: str, unit: str
) -> None:
    found, changes = after(edit, accept=True)
    assert kind in {change.kind for change in changes}
    assert price_lists.dumps(found) == price_lists.dumps({name: (one,) for name, one in read(changed(edit)).items()})


def test_a_price_that_falls_at_a_later_date_stays_up_until_that_is_accepted() -> None:
    in_a_week = time.time() + 7 * 86400
    falls = time.strftime("%Y-%m-%d", time.gmtime(in_a_week - 86400))
    prices = [
        {"prices": {"input_mtok": 2.5, "output_mtok": 10}},
        {"constraint": {"start_date": falls}, "prices": {"input_mtok": 1, "output_mtok": 12}},
    ]
    edit = first("openai", id="gpt-4o", match={"equals": "gpt-4o"}, prices=prices)
    for accept, input_rate in ((False, 2500), (True, 1000)):
        found, changes = after(edit, accept=accept)
        assert ("gpt-4o", "input_mtok", f"from {falls}") in kinds(changes)
        number = kept(found)
        assert rate(number, "openai", "gpt-4o") == 2500
        assert rate(number, "openai", "gpt-4o", at=in_a_week) == input_rate
        assert rate(number, "openai", "gpt-4o", "output_tokens", at=in_a_week) == 12_000


def test_a_cheaper_service_tier_and_a_cheaper_hour_count_as_lower() -> None:
    tier = [{"when": {"service_tier": "flex"}, "prices": {"input_mtok": 0.1}}]
    hour = [
        {"prices": {"input_mtok": 30, "output_mtok": 60}},
        _hours("03:00:00Z", "04:30:00Z")[0] | {"prices": {"input_mtok": 1, "output_mtok": 60}},
    ]
    _, changes = after(
        lambda tables: model(tables, "openai", "gpt-3.5-turbo").update(price_variants=tier),
        lambda tables: model(tables, "openai", "gpt-4").update(prices=hour),
    )
    assert kinds(changes)["gpt-3.5-turbo", "input_mtok", "service_tier flex"] == "lower"
    assert kinds(changes)["gpt-4", "input_mtok", ""] == "lower"


def test_a_tier_for_long_inputs_that_falls_away_is_lower() -> None:
    row = model(installed(), "google", "gemini-2.5-pro")["prices"]["input_mtok"]
    assert row["tiers"]
    found, changes = after(priced("google", "gemini-2.5-pro", input_mtok=row["base"]))
    assert kinds(changes)["gemini-2.5-pro", "input_mtok", ""] == "lower"
    tariff = at_minute("google", "gemini-2.5-pro", (), int(time.time() // 60), kept(found))
    assert tariff is not None
    assert tariff.cost({"input_tokens": 300_000}) == 300_000 * Decimal(row["tiers"][0]["price"]) * 1000


def test_an_earlier_table_goes_when_nothing_depends_on_it_any_more() -> None:
    lower, changes = after(priced("openai", "gpt-4o", input_mtok=1))
    assert len(lower["openai"]) == 2
    assert len(lower["anthropic"]) == 1
    again, _ = after(priced("openai", "gpt-4o", input_mtok=1), before=lower)
    assert price_lists.dumps(again) == price_lists.dumps(lower)
    back, changes = after(before=lower)
    assert not any(change.lowers for change in changes)
    assert len(back["openai"]) == 1
    accepted, _ = after(priced("openai", "gpt-4o", input_mtok=1), before=lower, accept=True)
    assert len(accepted["openai"]) == 1
    assert rate(kept(accepted), "openai", "gpt-4o") == 1000


def test_falling_prices_that_nobody_accepts_end_in_a_refusal_and_not_in_endless_tables(monkeypatch: Any) -> None:
    monkeypatch.setattr("proxy.pricing.changes._MOST", 2)
    found, _ = after(priced("openai", "gpt-4", input_mtok=5000), before=lists.tables(INSTALLED))
    found, _ = after(priced("openai", "gpt-4o", input_mtok=5000), before=found)  # takes the rise before back
    assert len(found["openai"]) == 2
    with pytest.raises(TooManyTables):
        after(before=found)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=10, deadline=None)
def test_the_highest_price_of_all_tables_is_charged(one: int, two: int, three: int) -> None:
    found: Mapping[str, Any] = lists.tables(INSTALLED)
    for price in (one, two, three):
        table = price_file.table(
            {"id": "groq", "models": [{"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": price}}]}
        )
        found, _ = merged(found, {"groq": table}, accept_lower=False)
    assert rate(kept(found), "groq", "m") == max(one, two, three) * 1000


# Gaps of the installed data


@pytest.mark.parametrize(
    ("provider", "name", "unit", "dollars"),
    [
        ("openai", "gpt-6.2-sol", "output_tokens", "10"),
        ("anthropic", "claude-mythos-5", "cache_read_tokens", "1"),
        ("anthropic", "claude-mythos-5-20260601", "input_tokens", "10"),
        ("anthropic", "claude-mythos-5-1", "cache_read_tokens", "0.25"),
        ("openai", "gpt-4o-mini-tts-2025-12-15", "output_tokens", "12"),
        ("openai", "gpt-4o-mini-transcribe-2025-03-20", "input_audio_tokens", "3"),
    ],
)
def test_documented_prices_fill_gaps_of_the_installed_data(provider: str, name: str, unit: str, dollars: str) -> None:
    assert rate(INSTALLED, provider, name, unit) == Decimal(dollars) * 1000


def test_a_price_list_that_knows_a_model_goes_before_a_documented_price() -> None:
    row = first("openai", id="new", match={"equals": "gpt-6.2-sol"}, prices={"input_mtok": 9, "output_mtok": 90})
    assert rate(kept(after(row)[0]), "openai", "gpt-6.2-sol") == 9000


def test_a_price_list_lowers_a_documented_price_only_when_that_is_accepted() -> None:
    row = first("openai", id="new", match={"equals": "gpt-6.2-sol"}, prices={"input_mtok": 1, "output_mtok": 90})
    assert rate(kept(after(row)[0]), "openai", "gpt-6.2-sol") == 2000
    assert rate(kept(after(row, accept=True)[0]), "openai", "gpt-6.2-sol") == 1000


def test_no_documented_row_is_left_that_the_installed_data_has() -> None:
    for provider, rows in DOCUMENTED.items():
        (table,) = lists.tables(INSTALLED)[provider]
        assert not [row.id for row in rows if table.find_model(row.id)]
        assert not [name for name in SNAPSHOTS.get(provider, ()) if table.find_model(name)]


# Bound and charge


def chat(name: str, **demand: Any) -> UpstreamCall:
    return UpstreamCall("openai.test", "POST", "/", models=(name,), flavor="chat", json=b"{}", demand=Demand(**demand))


def test_bound_and_charge_of_a_call_rest_on_the_list_that_it_names() -> None:
    number = kept(after(priced("openai", "gpt-4o", input_mtok=25, output_mtok=100))[0])
    call = chat("gpt-4o", text=100, limit=50)
    report = {"model": "gpt-4o-2024-08-06", "usage": {"prompt_tokens": 100, "completion_tokens": 50}}
    openai = PROVIDERS["openai"]
    bounds = [bound(openai, call, "[]", 0, max_cost_per_call=None, price_list=one) for one in (INSTALLED, number)]
    costs = [meter(openai, call, report, output_characters=9, price_list=one).cost for one in (INSTALLED, number)]
    assert bounds[1].cost(50) == 10 * bounds[0].cost(50)
    assert costs == [100 * 2500 + 50 * 10_000, 100 * 25_000 + 50 * 100_000]


def test_an_owners_own_price_goes_before_every_list() -> None:
    number = kept(after(priced("openai", "gpt-4o", input_mtok=25, output_mtok=100))[0])
    own = json.dumps([{"models": "gpt-4o", "input": "1", "output": "2"}])
    call = chat("gpt-4o", text=9, limit=50)
    found = bound(PROVIDERS["openai"], call, own, 0, max_cost_per_call=None, price_list=number)
    assert found.per_token == 2000


def test_a_list_is_written_and_read_without_a_difference() -> None:
    found, _ = after(priced("openai", "gpt-4o", input_mtok=1))
    text = price_lists.dumps(found)
    assert price_lists.dumps(price_lists.loads(text, lambda: None)) == text
    assert not re.search(r"\s", re.sub(r'"[^"]*"', "", text.replace("\n", "")))


def test_reading_a_list_pauses_often_enough_for_open_streams() -> None:
    text = price_lists.dumps(after(priced("openai", "gpt-4o", input_mtok=1))[0])
    pauses = [time.process_time()]
    price_lists.loads(text, lambda: pauses.append(time.process_time()))
    longest = max(later - sooner for sooner, later in pairwise(pauses))
    assert longest < 0.05
