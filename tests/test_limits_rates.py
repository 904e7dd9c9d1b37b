"""Rates measured from outside, and what the real SDKs make of a refusal.

``AIPASSPORT_LONG_TESTS=1`` measures for longer than a whole sliding minute.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from typing import Any

import anthropic
import openai
import pytest
import requests
from google.genai import errors as genai_errors

from grants.models import Call

from .callers import Caller, Said, assert_books_balance, busiest, crowd
from .live import eventually
from .test_limits_live import DOLLAR, PER_CALL, PER_TOKEN, price
from .test_relay import chat
from .test_sdks import HELLO, anthropic_of, google_of, openai_of

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

SECONDS = 75 if os.environ.get("AIPASSPORT_LONG_TESTS") else 8


# From outside


def test_requests_a_minute_pass_evenly_and_nearly_all_of_them_can_be_used(servers: Any, issue: Any) -> None:
    rate, burst = 600 / 60, 100  # ten seconds' worth at once
    grant, token = issue("openai", requests_per_minute=600)
    begun = time.monotonic()

    def work(number: int) -> list[Said]:
        caller = Caller(servers[number % 2], token)
        return list(caller.obey(begun + SECONDS, lambda: caller.ask(max_tokens=10)))

    said = [answer for answers in crowd(10, work) for answer in answers]
    passed = [answer for answer in said if answer.status == 200]
    refused = [answer for answer in said if answer.status != 200]
    assert {(answer.status, answer.code, answer.final) for answer in refused} == {(429, "request_rate_reached", False)}
    assert busiest([(answer.sent, answer.received, 1) for answer in passed], rate) <= burst
    first, last = min(answer.received for answer in refused), max(answer.received for answer in passed)
    steady = sum(answer.received > first for answer in passed)
    assert steady >= 0.95 * rate * (last - first)
    assert Call.objects.count() == len(passed)
    assert_books_balance(grant)


def test_tokens_a_minute_never_pass_the_limit_though_what_was_not_used_comes_back(servers: Any, issue: Any) -> None:
    rate = burst = 30_000  # a minute's worth at once
    grant, token = issue("openai", tokens_per_minute=rate)
    begun = time.monotonic()

    def work(number: int) -> list[Said]:
        caller, dice = Caller(servers[number % 2], token), random.Random(number)
        return list(caller.obey(begun + SECONDS, lambda: caller.ask(max_tokens=dice.randint(100, 2000))))

    said = [answer for answers in crowd(10, work) for answer in answers]
    passed = [answer for answer in said if answer.status == 200]
    refused = [answer for answer in said if answer.status != 200]
    assert {(answer.status, answer.code, answer.final) for answer in refused} == {(429, "token_rate_reached", False)}
    spans = [(answer.sent, answer.received, answer.json["usage"]["total_tokens"]) for answer in passed]
    used, lasted = sum(tokens for _, _, tokens in spans), max(end for _, end, _ in spans) - begun
    assert busiest(spans, rate / 60) <= burst
    reserved = sum(Call.objects.values_list("tokens_reserved", flat=True))
    assert reserved > burst + rate / 60 * lasted  # so some came back
    assert used > 0.5 * (burst + rate / 60 * lasted)
    assert_books_balance(grant)


def test_a_burst_is_told_how_long_to_wait_and_then_passes(server: Any, issue: Any) -> None:
    _, token = issue("openai", requests_per_minute=30)
    caller = Caller(server, token)
    said = [caller.ask(max_tokens=10) for _ in range(6)]
    assert [answer.status for answer in said] == [200] * 5 + [429]
    assert said[-1].json["error"]["limit"]["name"] == "requests-per-minute"
    assert said[-1].retry_after in (1, 2)
    time.sleep(said[-1].retry_after)
    assert caller.ask(max_tokens=10).status == 200


def test_what_a_minute_could_never_hold_is_refused_for_good(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai", tokens_per_minute=1000)
    before = len(upstream.seen)
    answer = Caller(server, token).ask(messages=[{"role": "user", "content": "x" * 2000}])
    assert (answer.status, answer.final) == (429, True)
    assert len(upstream.seen) == before
    assert not Call.objects.exists()


# Headers

_MEMBER = r'"[a-z-]+"(?:;[a-z]+=(?:\d{1,15}|"[a-z-]+"))*'
_LIST = re.compile(rf"{_MEMBER}(?:, {_MEMBER})*")  # RFC 9651, as far as these two headers go
NAMES = [
    *("requests", "concurrency", "cost", "cost-per-day", "cost-per-month", "requests-per-minute", "tokens-per-minute"),
]


def quotas(headers: Any) -> dict[str, dict[str, int]]:
    """Both headers by policy: q, w and r, t."""
    found: dict[str, dict[str, int]] = {}
    for header in ("ratelimit-policy", "ratelimit"):
        assert _LIST.fullmatch(headers[header]), headers[header]
        for member in headers[header].split(", "):
            name, *parameters = member.split(";")
            values = (parameter.split("=") for parameter in parameters)
            found.setdefault(name.strip('"'), {}).update({k: int(v) for k, v in values if v.isdecimal()})
    return found


def test_every_answer_says_how_all_limits_stand(server: Any, issue: Any) -> None:
    money = {"max_cost": DOLLAR, "max_cost_per_day": DOLLAR // 2, "max_cost_per_month": DOLLAR // 2}
    counts = {"max_requests": 50, "max_concurrency": 5, "requests_per_minute": 60, "tokens_per_minute": 6000}
    _, token = issue("openai", models=("fake-*",), **money, **counts)
    price(PER_CALL)
    body = {"model": "fake-metered", "messages": HELLO, "max_tokens": 100}

    def ask(**changes: Any) -> requests.Response:
        return requests.post(
            f"{server.url}/proxy/v1/chat/completions",
            json=body | changes,
            headers={"authorization": f"Bearer {token}"},
            timeout=20,
        )

    passed = ask()
    assert passed.status_code == 200
    found = quotas(passed.headers)
    assert list(found) == NAMES
    assert (found["requests"]["q"], found["requests"]["r"]) == (50, 49)
    assert found["cost"] == {"q": 1_000_000, "r": 990_000}  # micro-dollars
    assert found["cost-per-day"]["w"] == 86_400
    assert 0 <= found["cost-per-day"]["t"] <= 86_400
    assert found["requests-per-minute"]["w"] == 60
    others = {400: {"surprise": 1}, 404: {"model": "gpt-4o"}, 503: {"model": "fake-html-error"}}
    for status, change in others.items():
        answer = ask(**change)
        assert answer.status_code in (status, 502), answer.text
        assert list(quotas(answer.headers)) == NAMES
    assert "ratelimit" not in chat(server, "sk-nobody").headers


# The SDKs


class Counted:
    """How many answers an SDK's HTTP client got."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def __call__(self, response: Any) -> None:
        self.statuses.append(response.status_code)


def test_openais_sdk_raises_at_once_where_no_retry_helps(server: Any, issue: Any) -> None:
    _, token = issue("openai", max_cost=DOLLAR // 100)
    price(PER_CALL)
    counted = Counted()
    with openai.OpenAI(
        **openai_of(server, token) | {"max_retries": 5},
        http_client=openai.DefaultHttpxClient(event_hooks={"response": [counted]}),
    ) as client:
        client.chat.completions.create(model="fake-metered", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="fake-metered", messages=HELLO)
    assert counted.statuses == [200, 429]
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    limit: Any = caught.value.body
    assert limit["limit"]["code"] == "cost_limit_reached"
    assert (limit["limit"]["allowed"], limit["limit"]["used"]) == ("0.01", "0.01")


def test_openais_sdk_comes_again_after_the_pause_and_passes(server: Any, issue: Any) -> None:
    _, token = issue("openai", max_concurrency=1)
    counted = Counted()
    slow = threading.Thread(target=lambda: chat(server, token, "fake-paced", stream=True).content)
    with openai.OpenAI(
        **openai_of(server, token) | {"max_retries": 3},
        http_client=openai.DefaultHttpxClient(event_hooks={"response": [counted]}),
    ) as client:
        slow.start()
        eventually(lambda: Call.objects.open().exists())
        with pytest.raises(openai.RateLimitError, match="at a time"):
            client.with_options(max_retries=0).chat.completions.create(model="gpt-4o", messages=HELLO)
        client.chat.completions.create(model="sandbox-1", messages=HELLO)
    slow.join()
    assert set(counted.statuses) == {429, 200}
    assert counted.statuses[-1] == 200


def test_anthropics_sdk_raises_its_own_error_and_tries_only_what_can_pass(server: Any, issue: Any) -> None:
    _, token = issue("anthropic", max_requests=1)
    counted = Counted()
    with anthropic.Anthropic(
        **anthropic_of(server, token) | {"max_retries": 5},
        http_client=anthropic.DefaultHttpxClient(event_hooks={"response": [counted]}),
    ) as client:
        client.messages.create(model="sandbox-1", max_tokens=100, messages=HELLO)
        with pytest.raises(anthropic.RateLimitError) as caught:
            client.messages.create(model="sandbox-1", max_tokens=100, messages=HELLO)
    assert counted.statuses == [200, 429]
    error: Any = caught.value.body
    assert error["error"]["type"] == "rate_limit_error"
    assert error["error"]["code"] == "request_limit_reached"
    assert (error["error"]["limit"]["allowed"], error["error"]["limit"]["used"]) == (1, 1)


def test_googles_sdk_raises_resource_exhausted_with_the_limit_in_its_details(server: Any, issue: Any) -> None:
    _, token = issue("google", max_cost=DOLLAR // 100)
    price({"models": "*", "input": "0", "output": "0", "request": "0.01"})
    with google_of(server, token) as client:
        client.models.generate_content(model="sandbox-1", contents="Hello there")
        with pytest.raises(genai_errors.ClientError) as caught:
            client.models.generate_content(model="sandbox-1", contents="Hello there")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    info = caught.value.details["error"]["details"][0]
    assert info["reason"] == "COST_LIMIT_REACHED"
    assert info["metadata"]["allowed"] == "0.01"


def test_a_lowered_output_limit_ends_no_sdks_stream(server: Any, issue: Any) -> None:
    _, token = issue("openai", max_cost=3 * DOLLAR // 1000)
    price(PER_TOKEN)
    with openai.OpenAI(**openai_of(server, token)) as client:
        stream = client.chat.completions.create(model="fake-metered", messages=HELLO, max_tokens=4000, stream=True)
        assert int(stream.response.headers["x-aipassport-output-limit"]) < 300
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "some words"
    assert Counter(Call.objects.values_list("outcome", flat=True)) == {"ok": 1}
