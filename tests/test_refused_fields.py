"""What a refusal says of the field that asks for more than was granted, and what is stored without being asked for."""
# ruff: noqa: E501 - one case a line

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from grants.providers import PROVIDERS, Capability
from proxy import dialects
from proxy.dialects import reasoning, remedies
from proxy.dialects.base import Inbound, UpstreamCall

from .test_relay_attacks import post

ENCRYPTED = "reasoning.encrypted_content"
RESPONSES, MESSAGES, GEMINI = "/v1/responses", "/v1/messages", "/v1beta/models/gemini-3-pro:generateContent"
USUAL: dict[str, dict[str, Any]] = {
    RESPONSES: {"model": "gpt-5", "input": "x"},
    MESSAGES: {"model": "claude-opus-4-5", "max_tokens": 9, "messages": []},
    GEMINI: {"contents": []},
}
PROVIDER = {RESPONSES: "openai", MESSAGES: "anthropic", GEMINI: "google"}


def read(path: str, *, provider: str = "", may_store: bool = False, **changes: Any) -> UpstreamCall:
    body = json.dumps(USUAL[path] | changes).encode()
    asked = Inbound("POST", path, content_type="application/json", body=body)
    return dialects.read(asked, PROVIDERS[provider or PROVIDER[path]], (), 1000, may_store=may_store)


def sent(call: UpstreamCall) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(call.json or b"")
    return body


# Answers that are not stored

REASONING = (
    "o1 o1-pro o3 o3-mini o3-pro-2025-06-10 o4-mini-2025-04-16 codex-mini-latest gpt-5 gpt-5-2025-08-07 gpt-5-nano "
    "gpt-5-codex gpt-5.1-codex-max gpt-5.2-pro gpt-5.5 gpt-5.6-sol gpt-6-astra gpt-6.2-sol"
)
OTHERS = (
    "gpt-4o gpt-4.1 gpt-4.1-mini chatgpt-4o-latest gpt-5-chat gpt-5-chat-latest gpt-5.1-chat-latest o1-mini gpt-5.9"
)


@pytest.mark.parametrize("provider", ["openai", "azure"])
@pytest.mark.parametrize("model", REASONING.split())
def test_a_model_that_reasons_is_asked_for_its_reasoning_where_nothing_is_stored(provider: str, model: str) -> None:
    body = sent(read(RESPONSES, provider=provider, model=model))
    assert (body["store"], body["include"]) == (False, [ENCRYPTED])


@pytest.mark.parametrize("model", OTHERS.split())
def test_a_model_that_is_not_known_to_reason_is_not_asked(model: str) -> None:
    body = sent(read(RESPONSES, model=model))
    assert body["store"] is False
    assert "include" not in body
    assert not reasoning.gives_encrypted("custom", "gpt-5")


@pytest.mark.parametrize(
    ("include", "out"),
    [
        (None, [ENCRYPTED]),
        ([], [ENCRYPTED]),
        ([ENCRYPTED], [ENCRYPTED]),
        (["message.output_text.logprobs"], ["message.output_text.logprobs", ENCRYPTED]),
    ],
)
def test_what_an_app_asks_to_be_included_stays(include: Any, out: list[str]) -> None:
    assert sent(read(RESPONSES, include=include))["include"] == out


def test_an_app_that_says_itself_what_is_stored_is_left_alone() -> None:
    assert sent(read(RESPONSES, store=False)) == USUAL[RESPONSES] | {"store": False} | extra()
    assert "include" not in sent(read(RESPONSES, store=True))


def extra() -> dict[str, Any]:
    """What the relay adds to a call under a limit on tokens."""
    return {"max_output_tokens": 1000, "service_tier": "default"}


@pytest.mark.parametrize("changes", [{}, {"store": None}])
def test_with_state_granted_an_absent_store_is_left_alone_and_counts_as_state(changes: dict[str, Any]) -> None:
    call = read(RESPONSES, may_store=True, **changes)
    assert sent(call).get("store") is None
    assert "include" not in sent(call)
    assert Capability.STATE in call.capabilities  # a grant that loses it meanwhile admits no such call


# What a refusal names


def refusal(call: UpstreamCall, capability: str) -> Any:
    assert capability in call.capabilities
    error = remedies.not_granted(Capability(capability), call.asked.get(Capability(capability)))
    assert (error.status, error.code, error.final) == (403, "capability_not_granted", True)
    assert f"'{capability}'" in error.message
    return error


TOOLS = [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]
TALK = [{"role": "user", "content": "x"}, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]


@pytest.mark.parametrize(
    ("path", "changes", "capability", "param", "words"),
    [
        (RESPONSES, {"input": [*TALK, {"type": "reasoning", "id": "rs", "summary": []}]}, "state", "input[2]", "encrypted_content"),
        (RESPONSES, {"input": [*TALK, {"type": "item_reference", "id": "i"}]}, "state", "input[2]", "item itself"),
        (RESPONSES, {"input": [*TALK, {"id": "i"}]}, "state", "input[2]", "item itself"),
        (RESPONSES, {"store": True}, "state", "store", "set it to false"),
        (RESPONSES, {"previous_response_id": "r"}, "state", "previous_response_id", "whole conversation"),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "state", "input[0].content[0].file_id", "file itself"),
        (RESPONSES, {"tools": [*TOOLS, {"type": "web_search"}]}, "web", "tools[2]", "web_search"),
        (RESPONSES, {"tools": [*TOOLS, {"type": "image_generation"}]}, "images", "tools[2]", "image_generation"),
        (RESPONSES, {"tools": [*TOOLS, {"type": "code_interpreter", "container": {"type": "auto"}}]}, "code", "tools[2]", "code_interpreter"),
        (RESPONSES, {"input": [{"type": "additional_tools", "tools": [{"type": "mcp", "server_label": "x"}]}]}, "web", "input[0].tools[0]", "mcp"),
        (MESSAGES, {"tools": [{"name": "f"}, {"type": "web_search_20250305", "name": "w"}]}, "web", "tools[1]", "web_search_20250305"),
        (MESSAGES, {"thread": {"type": "create"}}, "state", "thread", "without 'thread'"),
        (GEMINI, {"tools": [{"functionDeclarations": []}, {"googleSearch": {}}]}, "web", "tools[1].googleSearch", "Switch this tool off"),
        (RESPONSES, {"model": "o3-deep-research"}, "web", "model", "Choose another model"),
        (GEMINI, {"tools": {"code_execution": {}}}, "code", "tools.code_execution", "Switch this tool off"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_the_remedy(
    path: str, changes: dict[str, Any], capability: str, param: str, words: str
) -> None:
    error = refusal(read(path, **changes), capability)
    assert error.param == param
    assert f"'{param}'" in error.message
    assert words in error.message
    assert "ask the owner" in error.message


def test_a_tool_is_to_be_switched_off_whatever_else_it_asks_for() -> None:
    error = refusal(read(RESPONSES, tools=[{"type": "file_search", "vector_store_ids": ["v"]}]), "state")
    assert (error.param, "Switch this tool off" in error.message) == ("tools[0]", True)


def test_what_the_call_itself_asks_for_has_no_field() -> None:
    assert remedies.not_granted(Capability.CHAT, read(RESPONSES).asked.get(Capability.CHAT)).param is None


# Tools that the app runs itself


@pytest.mark.parametrize("more", [{}, {"execution": None}, {"execution": "server"}])
def test_a_tool_search_of_the_providers_is_hosted(more: dict[str, Any]) -> None:
    assert read(RESPONSES, tools=[{"type": "tool_search", **more}]).demand.unbounded == "hosted tools"


def test_a_tool_search_of_the_apps_own_is_not_hosted() -> None:
    call = read(RESPONSES, tools=[{"type": "tool_search", "execution": "client", "parameters": {}}])
    assert (call.demand.unbounded, call.demand.described) == ("", 1)


@pytest.mark.parametrize("more", [{"execution": "elsewhere"}, {"execution": "client", "Execution": "server"}])
def test_a_tool_search_that_runs_nobody_knows_where_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(dialects.RelayError):
        read(RESPONSES, tools=[{"type": "tool_search", **more}])


# Anthropic's threads


def test_a_new_thread_is_bounded_as_the_call_that_it_is() -> None:
    made, plain = read(MESSAGES, thread={"type": "create"}), read(MESSAGES)
    assert (made.demand.hidden, made.demand.unbounded) == (False, plain.demand.unbounded)
    assert read(MESSAGES, thread={"type": "continue", "previous_message_id": "m"}).demand.hidden
    assert read(MESSAGES, thread={"type": "create", "from": "m"}).demand.hidden


def test_a_thread_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(dialects.RelayError):
        read(MESSAGES, thread={"type": "fork", "previous_message_id": "m"})


# Over a socket


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("padding", [0, 400_000])  # read at once, and by a process of its own
def test_what_is_granted_decides_what_is_stored(server: Any, issue: Any, upstream: Any, padding: int) -> None:
    body = {"model": "gpt-5", "input": "x" * padding, "tools": [{"type": "function", "name": "f"}] * 3}
    for granted, store, include in (("chat",), False, [ENCRYPTED]), (("chat", "state"), None, None):
        _, token = issue("openai", capabilities=granted)
        post(server, "/proxy/v1/responses", token, body)
        seen = json.loads(upstream.seen[-1].body)
        assert (seen.get("store"), seen.get("include")) == (store, include)


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "limits",
    [{"max_cost": 1_000_000_000}, {"max_cost_per_call": 1_000_000_000}, {"tokens_per_minute": 10_000}],
)
def test_a_refusal_for_money_says_why_the_bound_is_high(server: Any, issue: Any, limits: dict[str, int]) -> None:
    _, token = issue("openai", **limits)
    pdf = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
    told = []
    for part in (pdf, {"type": "input_text", "text": "x" * 1_200_000}):
        body = {"model": "gpt-5.5", "input": [{"role": "user", "content": [part]}]}
        answer = post(server, "/proxy/v1/responses", token, body)
        assert answer.status_code == 429, answer.text
        told.append(answer.json()["error"]["message"])
    assert "'input[0].content[0].file_data', which counts as the model's whole context window" in told[0]
    assert "context window" not in told[1]


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_refused_field_is_named_in_the_answer(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    before = len(upstream.seen)
    answer = post(server, "/proxy/v1/responses", token, {**USUAL[RESPONSES], "tools": [{"type": "web_search"}]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (403, "capability_not_granted", "tools[0]")
    assert answer.headers["x-should-retry"] == "false"
    assert len(upstream.seen) == before


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_anthropics_tool_runner_goes_on_without_a_thread(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("anthropic")
    before = len(upstream.seen)
    client = anthropic.Anthropic(base_url=f"{server.url}/proxy", auth_token=token, api_key=None, max_retries=0)

    @anthropic.beta_tool
    def clock() -> str:
        """Tell the time."""
        return "noon"

    message = [{"role": "user", "content": "x"}]
    runner = client.beta.messages.tool_runner(
        model="sandbox-1",
        max_tokens=50,
        messages=message,
        tools=[clock],  # type: ignore[arg-type]
    )
    assert runner.until_done().content
    calls = [json.loads(one.body) for one in upstream.seen[before:]]
    assert calls
    assert not any("thread" in call for call in calls)
