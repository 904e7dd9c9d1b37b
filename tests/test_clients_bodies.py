"""Fields and query parameters that common clients send by themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import Inbound, UpstreamCall
from proxy.exceptions import BadRequest

from .test_dialects_routes import CHAT, GEMINI, read, refusal

# The fields of a call of Codex CLI, written by hand after its source.
CODEX: dict[str, Any] = {
    "model": "gpt-5",
    "instructions": "You are a coding agent.",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    "tools": [{"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0",
    "client_metadata": {"x-codex-installation-id": "0"},
}


def asked(
    provider: str, path: str, body: Any, limit: int | None = None, extra: tuple[str, ...] = ()
) -> tuple[UpstreamCall, Any]:
    """The call under a default limit, and its body."""
    inbound = Inbound("POST", path, content_type="application/json", body=json.dumps(body).encode())
    call = dialects.read(inbound, PROVIDERS[provider], extra, limit)
    assert isinstance(call.json, bytes)
    return call, json.loads(call.json)


# Codex


@pytest.mark.parametrize("provider", ["openai", "azure", "custom", "sandbox"])
@pytest.mark.parametrize("extra", [(), ("client_metadata",)])
def test_a_call_of_codex_goes_out_without_what_codex_says_of_itself(provider: str, extra: tuple[str, ...]) -> None:
    call, body = asked(provider, "/v1/responses", CODEX, 4096, extra)
    assert "client_metadata" not in body
    assert (call.demand.unbounded, call.demand.limit, call.stream) == ("", 4096, True)
    assert "client_metadata" not in (call.demand.fields or ())


def test_a_field_of_codex_in_another_spelling_is_not_taken_for_it() -> None:
    body = {name: value for name, value in CODEX.items() if name != "client_metadata"} | {"Client_Metadata": {}}
    for provider in ("openai", "custom"):
        with pytest.raises(BadRequest) as caught:
            asked(provider, "/v1/responses", body)
        assert caught.value.code == "unknown_field"


# Queries


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m"])
def test_unknown_parameters_of_model_lists_are_dropped(path: str) -> None:
    assert read("openai", "GET", path, query={"client_version": "0.171.0", "x": "ü&\r\n"}).query == ()
    assert read("openai", "GET", "/v1/models", query={"client_version": "1", "limit": "3"}).query == (("limit", "3"),)
    twice = Inbound("GET", path, (("client_version", "1"), ("client_version", "2")))
    assert dialects.read(twice, PROVIDERS["openai"]).query == ()


@pytest.mark.parametrize("name", ["key", "$key", "oauth_token", "Access_Token"])
def test_a_token_in_the_query_of_a_model_list_is_refused_not_dropped(name: str) -> None:
    assert refusal("openai", "GET", "/v1/models", query={name: "secret"}).code == "token_in_url"
    assert refusal("google", "GET", "/v1beta/models", query={name: "secret"}).code == "token_in_url"


def test_unknown_parameters_of_calls_are_still_refused() -> None:
    assert refusal("openai", "POST", "/v1/chat/completions", CHAT, query={"client_version": "1"}).status == 400


@pytest.mark.parametrize("name", ["alt", "$alt"])
@pytest.mark.parametrize("value", ["json", "json;enum-encoding=int"])
def test_googles_generated_clients_may_ask_for_json_in_their_words(name: str, value: str) -> None:
    call = read("google", "POST", "/v1beta/models/g:generateContent", GEMINI, query={name: value})
    assert call.query == (("alt", "json"),)  # enumerations as names: metering reads them
    assert read("google", "GET", "/v1beta/models", query={name: value}).query == (("alt", "json"),)


def test_other_formats_of_googles_answers_are_refused_as_before() -> None:
    path = "/v1beta/models/g:generateContent"
    for value in ("proto", "media", "json;enum-encoding=int;x=1", "sse"):
        assert refusal("google", "POST", path, GEMINI, query={"$alt": value}).status == 400
    stream = "/v1beta/models/g:streamGenerateContent"
    assert "alt=sse" in refusal("google", "POST", stream, GEMINI, query={"$alt": "json;enum-encoding=int"}).message
    assert read("google", "POST", stream, GEMINI, query={"$alt": "sse"}).query == (("alt", "sse"),)
    both = Inbound("POST", path, (("alt", "json"), ("$alt", "json")), {}, "application/json", b"{}")
    with pytest.raises(BadRequest, match="twice"):
        dialects.read(both, PROVIDERS["google"])
    assert refusal("openai", "POST", "/v1/chat/completions", CHAT, query={"$alt": "json"}).code == "unknown_parameter"


# No limit


@pytest.mark.parametrize(
    ("path", "named", "written"),
    [
        ("/v1/chat/completions", {"max_tokens": -1}, {"max_tokens": 4096}),
        ("/v1/chat/completions", {"max_completion_tokens": -1}, {"max_tokens": 4096}),
        ("/v1/chat/completions", {"max_tokens": -1, "max_completion_tokens": -1}, {"max_tokens": 4096}),
        ("/v1/chat/completions", {"max_tokens": 7, "max_completion_tokens": -1}, {"max_tokens": 7}),
        ("/v1/chat/completions", {"max_tokens": -1, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ("/v1/completions", {"max_tokens": -1}, {"max_tokens": 4096}),
        ("/v1/responses", {"max_output_tokens": -1}, {"max_output_tokens": 4096}),
    ],
)
def test_minus_one_at_a_server_of_the_owners_own_is_no_limit(
    path: str, named: dict[str, int], written: dict[str, int]
) -> None:
    body = {"model": "m"} | ({"input": "x"} if "responses" in path else {"prompt": "x"} if "chat" not in path else CHAT)
    free, untouched = asked("custom", path, body | named)
    assert free.demand.limit is None
    assert untouched.items() >= named.items()
    bound, sent = asked("custom", path, body | named, 4096)
    limits = {name: value for name, value in sent.items() if name.startswith("max_")}
    assert (limits, bound.demand.limit) == (written, next(iter(written.values())))
    assert bound.limited(5).demand.limit == 5


@pytest.mark.parametrize("limit", [None, 4096])
def test_minus_one_is_refused_where_it_means_nothing(limit: int | None) -> None:
    for provider in ("openai", "anthropic", "google", "groq", "sandbox"):
        with pytest.raises(BadRequest) as caught:
            asked(provider, "/v1/chat/completions", CHAT | {"max_tokens": -1}, limit)
        assert caught.value.param == "max_tokens"
    for value in (-2, -1.0, "-1", True):
        with pytest.raises(BadRequest):
            asked("custom", "/v1/chat/completions", CHAT | {"max_tokens": value}, limit)
    with pytest.raises(BadRequest):
        asked("custom", "/v1/responses", {"model": "m", "input": "x", "max_tool_calls": -1}, limit)
