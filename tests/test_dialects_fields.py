"""The body is the hole in default deny: what each field of it asks for, and what is refused."""
# ruff: noqa: E501 - one case a line

from __future__ import annotations

import json
import sys
import time
import typing
from importlib import import_module
from typing import Any

import pytest
from google.genai import types as gemini
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects import anthropic_fields, google_fields, openai_fields, peculiar
from proxy.dialects.base import FilePart, Form, Inbound, UpstreamCall
from proxy.dialects.fields import NEVER_OPEN, Table, fold
from proxy.exceptions import RelayError

PATHS = {
    "chat": ("openai", "/v1/chat/completions", {"model": "m", "messages": []}),
    "responses": ("openai", "/v1/responses", {"model": "m", "input": "x"}),
    "completions": ("openai", "/v1/completions", {"model": "m", "prompt": "x"}),
    "images": ("openai", "/v1/images/generations", {"model": "m", "prompt": "x"}),
    "speech": ("openai", "/v1/audio/speech", {"model": "m", "input": "x", "voice": "v"}),
    "moderations": ("openai", "/v1/moderations", {"model": "m", "input": "x"}),
    "anthropic": ("anthropic", "/v1/messages", {"model": "m", "max_tokens": 1, "messages": []}),
    "count": ("anthropic", "/v1/messages/count_tokens", {"model": "m", "messages": []}),
    "google": ("google", "/v1beta/models/m:generateContent", {"contents": []}),
    "tokens": ("google", "/v1beta/models/m:countTokens", {"contents": []}),
    "embed": ("google", "/v1beta/models/m:batchEmbedContents", {"requests": []}),
}


def send(what: str, provider: str | None = None, extra: tuple[str, ...] = (), **changes: Any) -> UpstreamCall:
    usual, path, body = PATHS[what]
    whole = {key: value for key, value in {**body, **changes}.items() if value is not ...}
    inbound = Inbound("POST", path, content_type="application/json", body=json.dumps(whole).encode())
    return dialects.read(inbound, PROVIDERS[provider or usual], extra)


def asks(what: str, provider: str | None = None, **changes: Any) -> set[str]:
    """The capabilities that a body asks for beyond the route's own."""
    plain = send(what, "openai" if PATHS[what][0] == "openai" else None)
    return {str(item) for item in send(what, provider, **changes).capabilities - plain.capabilities}


def refusal(what: str, provider: str | None = None, **changes: Any) -> RelayError:
    with pytest.raises(RelayError) as caught:
        send(what, provider, **changes)
    return caught.value


def sent(call: UpstreamCall) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(call.json or b"")
    return body


# What a field asks for

HOSTED: list[tuple[str, dict[str, Any], set[str]]] = [
    ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]}, set()),
    ("chat", {"web_search_options": {}}, {"web"}),
    ("chat", {"web_search_options": None}, set()),
    ("chat", {"store": True}, {"state"}),
    ("chat", {"store": False}, set()),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, {"state"}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:"}}]}]}, set()),
    ("chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, {"state"}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]}, set()),
    ("chat", {"model": "gpt-4o-search-preview-2025-03-11"}, {"web"}),
    ("chat", {"model": "o3-deep-research"}, {"web"}),
    ("responses", {"tools": [{"type": "web_search"}]}, {"web"}),
    ("responses", {"tools": [{"type": "web_search_preview_2025_03_11"}]}, {"web"}),
    ("responses", {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]}, {"web"}),
    ("responses", {"tools": [{"type": "mcp", "server_label": "x", "tunnel_id": "t"}]}, {"web", "state"}),
    ("responses", {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, {"code"}),
    ("responses", {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, {"code", "state"}),
    ("responses", {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]}, {"code", "state"}),
    ("responses", {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "network_policy": {"type": "allowlist"}}}]}, {"code", "web"}),
    ("responses", {"tools": [{"type": "computer_use_preview"}]}, {"code"}),
    ("responses", {"tools": [{"type": "image_generation"}]}, {"images"}),
    ("responses", {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, {"state"}),
    ("responses", {"tools": [{"type": "shell"}]}, set()),
    ("responses", {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, {"code"}),
    ("responses", {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}]}, {"code", "state"}),
    ("responses", {"tools": [{"type": "namespace", "tools": [{"type": "function"}]}]}, set()),
    ("responses", {"store": True}, {"state"}),
    ("responses", {"previous_response_id": "r"}, {"state"}),
    ("responses", {"conversation": {"id": "c"}}, {"state"}),
    ("responses", {"prompt": {"id": "p"}}, {"state"}),
    ("responses", {"background": True}, {"state"}),
    ("responses", {"background": False}, set()),
    ("responses", {"prompt_cache_options": {"comparison_response_id": "r"}}, {"state"}),
    ("responses", {"input": [{"role": "user", "content": "hi"}]}, set()),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, {"state"}),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, {"state"}),
    ("responses", {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": "f"}]}]}, {"state"}),
    ("responses", {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}}]}, {"state"}),
    ("responses", {"input": [{"type": "item_reference", "id": "i"}]}, {"state"}),
    ("responses", {"input": [{"id": "i"}]}, {"state"}),
    ("responses", {"input": [{"type": None, "id": "i"}]}, {"state"}),
    ("responses", {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, {"state"}),
    ("responses", {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x"}]}, set()),
    ("responses", {"input": [{"type": "image_generation_call", "id": "ig_1"}]}, {"state"}),
    ("responses", {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]}, {"web"}),
    ("responses", {"input": [{"type": "tool_search_output", "tools": [{"type": "code_interpreter"}]}]}, {"code"}),
    ("responses", {"input": [{"type": "mcp_approval_response", "approve": True}]}, {"web"}),
    ("anthropic", {"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}, set()),
    ("anthropic", {"tools": [{"type": "bash_20250124"}, {"type": "text_editor_20250728"}, {"type": "memory_20250818"}]}, set()),
    ("anthropic", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {"web"}),
    ("anthropic", {"tools": [{"type": "web_fetch_20991231"}]}, {"web"}),
    ("anthropic", {"tools": [{"type": "code_execution_20250825"}]}, {"code"}),
    ("anthropic", {"tools": [{"type": "computer_20251124"}]}, {"code"}),
    ("anthropic", {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, {"web"}),
    ("anthropic", {"mcp_servers": [{"type": "url", "url": "https://x"}]}, {"web"}),
    ("anthropic", {"mcp_servers": []}, set()),
    ("anthropic", {"container": "c"}, {"state"}),
    ("anthropic", {"container": {"skills": [{"skill_id": "pptx"}]}}, {"state"}),
    ("anthropic", {"thread": {"type": "continue", "previous_message_id": "m"}}, {"state"}),
    ("anthropic", {"diagnostics": {"previous_message_id": "m"}}, {"state"}),
    ("anthropic", {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]}, {"state"}),
    ("anthropic", {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}]}, set()),
    ("anthropic", {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}, {"state"}),
    (
        "anthropic",
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {"type": "file"}}]}}]}]}]},
        {"state"},
    ),
    (
        "anthropic",
        {"messages": [{"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": "web_search_20260318"}}}]}]},
        {"web"},
    ),
    ("count", {"tools": [{"type": "code_execution_20250825"}]}, {"code"}),
    ("google", {"tools": [{"functionDeclarations": [{"name": "f"}]}]}, set()),
    ("google", {"tools": [{"googleSearch": {}}]}, {"web"}),
    ("google", {"tools": {"google_search": {}}}, {"web"}),
    ("google", {"tools": [{"url_context": {}}, {"codeExecution": {}}]}, {"web", "code"}),
    ("google", {"tools": [{"computerUse": {}}]}, {"code"}),
    ("google", {"tools": [{"fileSearch": {"fileSearchStoreNames": ["x"]}}]}, {"state"}),
    ("google", {"tools": [{"mcpServers": [{"name": "x"}]}]}, {"web"}),
    ("google", {"cachedContent": "cachedContents/x"}, {"state"}),
    ("google", {"cached_content": "cachedContents/x"}, {"state"}),
    ("google", {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/o"}}]}]}, {"state"}),
    ("google", {"contents": {"parts": {"file_data": {"file_uri": "files/x"}}}}, {"state"}),
    ("google", {"contents": [{"parts": [{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}}]}]}, {"state"}),
    ("google", {"contents": [{"parts": [{"fileData": {"fileUri": "https://www.youtube.com/watch?v=x"}}]}]}, {"web"}),
    ("google", {"contents": [{"parts": [{"functionResponse": {"parts": [{"fileData": {"fileUri": "gs://x"}}]}}]}]}, {"state"}),
    ("google", {"systemInstruction": {"parts": [{"fileData": {"fileUri": "gs://x"}}]}}, {"state"}),
    ("google", {"store": True}, {"state"}),
    ("tokens", {"generateContentRequest": {"model": "models/m", "tools": [{"googleSearch": {}}]}}, {"web"}),
]  # fmt: skip


def named(value: Any) -> str:
    """The same in every process: sets have no order of their own."""
    return str(sorted(value) if isinstance(value, set) else value)[:70]


@pytest.mark.parametrize(("what", "changes", "expected"), HOSTED, ids=named)
def test_a_field_asks_for_its_capability(what: str, changes: dict[str, Any], expected: set[str]) -> None:
    assert asks(what, **changes) == expected


@pytest.mark.parametrize(
    ("provider", "changes", "expected"),
    [
        ("perplexity", {}, {"web"}),
        ("groq", {"model": "groq/compound"}, {"web", "code"}),
        ("groq", {"search_settings": {}}, {"web"}),
        ("groq", {"tools": [{"type": "browser_search"}]}, {"web"}),
        ("xai", {"search_parameters": {"mode": "auto"}}, {"web"}),
        ("xai", {"deferred": True}, {"state"}),
        ("openrouter", {"model": "openai/gpt-4o:online"}, {"web"}),
        ("openrouter", {"models": ["a/b:online"]}, {"web"}),
        ("openrouter", {"model": "perplexity/sonar"}, {"web"}),
        ("openrouter", {"model": "openai/gpt-4o@preset/x"}, {"state"}),
        ("openrouter", {"plugins": [{"id": "web"}]}, {"web"}),
        ("openrouter", {"plugins": [{"id": "file-parser"}]}, set()),
        ("azure", {"data_sources": [{"type": "azure_search"}]}, {"state", "web"}),
        ("google", {"extra_body": {"google": {"cached_content": "x"}}}, {"state"}),
        ("google", {"extra_body": {"google": {"thinking_config": {}}}}, set()),
    ],
)
def test_what_is_peculiar_to_a_provider_asks_for_its_capability(
    provider: str, changes: dict[str, Any], expected: set[str]
) -> None:
    assert asks("chat", provider, **changes) == expected


# Models


@pytest.mark.parametrize(
    ("what", "provider", "changes", "models"),
    [
        ("chat", "openrouter", {"models": ["a", "b"]}, ("m", "a", "b")),
        ("chat", "openrouter", {"model": ..., "models": ["a", "m"], "route": "fallback"}, None),
        ("chat", "together", {"safety_model": "guard"}, ("m", "guard")),
        ("chat", "groq", {"compound_custom": {"models": {"answering_model": "a"}}}, ("m", "a")),
        ("chat", "openai", {"moderation": {"model": "omni"}}, ("m", "omni")),
        ("responses", "openai", {"tools": [{"type": "image_generation", "model": "i", "svg": {"model": "s"}}]}, ("m", "i", "s")),
        ("anthropic", "anthropic", {"fallbacks": [{"model": "a"}, {"model": "b", "max_tokens": 3}]}, ("m", "a", "b")),
        ("anthropic", "anthropic", {"tools": [{"type": "advisor_20260301", "model": "a"}]}, ("m", "a")),
        ("google", "google", {"model": "models/m"}, ("m",)),
        ("chat", "google", {"model": "models/gemini-x"}, ("gemini-x",)),
        ("embed", "google", {"requests": [{"model": "models/m"}, {"model": "m"}]}, ("m",)),
        ("moderations", "openai", {"model": ...}, ("omni-moderation-latest",)),
    ],
)  # fmt: skip
def test_every_model_that_may_run_is_seen_and_the_billed_one_is_first(
    what: str, provider: str, changes: dict[str, Any], models: tuple[str, ...] | None
) -> None:
    if models is None:
        assert refusal(what, provider, **changes).code == "model_missing"
    else:
        assert send(what, provider, **changes).models == models


def test_the_billed_model_is_first_wherever_it_stands() -> None:
    body = b'{"models": ["a", "m", "b"], "messages": [], "model": "m"}'
    call = dialects.read(Inbound("POST", "/chat", content_type="application/json", body=body), PROVIDERS["openrouter"])
    assert call.models == ("m", "a", "b")
    assert call.model == "m"


def test_a_prefix_that_means_nothing_is_taken_off_what_is_sent_too() -> None:
    assert sent(send("chat", "google", model="models/gemini-x"))["model"] == "gemini-x"
    assert refusal("chat", "google", model="tunedModels/x").param == "model"
    assert send("chat", "fireworks", model="accounts/fireworks/models/x").models == ("accounts/fireworks/models/x",)


@pytest.mark.parametrize(
    "model", ["", "a b", "a\n", "ü", "x" * 201, "../a", "a/../b", "-a", 1, ["m"], {"m": 1}, True, "a%2e", "a?b", "a#b"]
)
def test_a_model_has_a_sane_name(model: Any) -> None:
    for what in ("chat", "responses", "anthropic"):
        assert refusal(what, model=model).param == "model"
    assert refusal("chat", "openrouter", models=[model]).param == "models[0]"


def test_a_call_must_name_its_model_and_agree_with_its_path() -> None:
    assert refusal("chat", model=...).code == "model_missing"
    assert refusal("chat", model=None).code == "model_missing"
    assert refusal("google", model="models/other").param == "model"
    assert refusal("embed", requests=[{"model": "models/other"}]).status == 400
    assert refusal("tokens", generateContentRequest={"model": "models/other"}).status == 400


# What is refused


@pytest.mark.parametrize("what", PATHS)
def test_an_unknown_field_is_refused_by_name(what: str) -> None:
    error = refusal(what, brand_new=1)
    assert (error.status, error.code, error.param) == (400, "unknown_field", "brand_new")


@pytest.mark.parametrize(
    ("what", "changes", "param"),
    [
        ("chat", {"Model": "x"}, "Model"),
        ("chat", {"MODEL": "x"}, "MODEL"),
        ("chat", {"tools": [{"type": "teleport"}]}, "tools[0]"),
        ("chat", {"tools": [{"type": None}]}, "tools[0]"),
        ("chat", {"tools": [{"type": ["function"]}]}, "tools[0]"),
        ("chat", {"tools": [{"type": "function", "Type": "web_search"}]}, "tools[0]"),
        ("chat", {"tools": ["web_search"]}, "tools[0]"),
        ("chat", {"tools": {"type": "function"}}, "tools"),
        ("chat", {"messages": "hi"}, "messages"),
        ("chat", {"messages": [1]}, "messages[0]"),
        ("chat", {"messages": [{"content": [{"type": "hologram"}]}]}, "messages[0].content[0]"),
        ("chat", {"messages": [{"content": [{"type": "file", "file": {"File_id": "x"}}]}]}, "messages[0].content[0].file.File_id"),
        ("chat", {"stream": "true"}, "stream"),
        ("chat", {"stream": 1}, "stream"),
        ("chat", {"stream_options": []}, "stream_options"),
        ("chat", {"store": "true"}, "store"),
        ("chat", {"n": 0}, "n"),
        ("chat", {"n": 1.0}, "n"),
        ("chat", {"n": True}, "n"),
        ("chat", {"n": -1}, "n"),
        ("chat", {"n": 10**20}, "n"),
        ("chat", {"max_tokens": -1}, "max_tokens"),
        ("chat", {"max_completion_tokens": "9"}, "max_completion_tokens"),
        ("chat", {"service_tier": 1}, "service_tier"),
        ("chat", {"moderation": {"model": "m", "other": 1}}, "moderation.other"),
        ("completions", {"best_of": 0}, "best_of"),
        ("responses", {"input": [{"type": "telepathy"}]}, "input[0]"),
        ("responses", {"tools": [{"type": "image_generation", "new": 1}]}, "tools[0].new"),
        ("responses", {"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]}, "tools[0].tools[0]"),
        ("responses", {"access_programs": {"cyber": "daybreak_red"}}, "access_programs"),
        ("anthropic", {"fallbacks": "default"}, "fallbacks"),
        ("anthropic", {"fallbacks": [{"model": "a", "tools": []}]}, "fallbacks[0].tools"),
        ("anthropic", {"tools": [{"type": "telescope_20260101"}]}, "tools[0]"),
        ("anthropic", {"messages": [{"content": [{"type": "new"}]}]}, "messages[0].content[0]"),
        ("anthropic", {"messages": [{"content": [{"type": "image", "source": {"type": "new"}}]}]}, "messages[0].content[0].source"),
        ("anthropic", {"billing_policy": {"bill_to": "user_profile"}}, "billing_policy"),
        ("google", {"cachedContent": "a", "cached_content": "b"}, None),
        ("google", {"CachedContent": "a"}, "CachedContent"),
        ("google", {"tools": [{"googleSearch": None, "google_search": {}}]}, "tools[0]"),
        ("google", {"tools": [{"timeMachine": {}}]}, "tools[0].timeMachine"),
        ("google", {"tools": [[{"googleSearch": {}}]]}, "tools[0]"),
        ("google", {"generationConfig": {"candidateCount": 0}}, "generationConfig.candidateCount"),
        ("google", {"generation_config": {"max_output_tokens": "1"}}, "generation_config.max_output_tokens"),
        ("google", {"generationConfig": {"routingConfig": {}}}, "generationConfig.routingConfig"),
        ("google", {"generationConfig": {"new": 1}}, "generationConfig.new"),
        ("google", {"contents": [{"parts": [{"newData": {}}]}]}, "contents[0].parts[0].newData"),
        ("google", {"contents": [{"parts": [{"fileData": {"fileUri": 1}}]}]}, "contents[0].parts[0].fileData.fileUri"),
        ("google", {"contents": [{"parts": [{"fileData": {"fileUri": "http://[x"}}]}]}, "contents[0].parts[0].fileData.fileUri"),
        ("speech", {"input": ["x"]}, "input"),
    ],
)  # fmt: skip
def test_what_is_malformed_or_not_known_is_refused_with_its_place(
    what: str, changes: dict[str, Any], param: str | None
) -> None:
    error = refusal(what, **changes)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize(
    ("changes", "param"),
    [({"plugins": [{"id": "telnet"}]}, "plugins[0]"), ({"route": "x"}, "route"), ({"preset": "p"}, "preset")],
)
def test_what_openrouter_would_take_from_the_account_is_refused(changes: dict[str, Any], param: str) -> None:
    assert refusal("chat", "openrouter", **changes).param == param


def test_a_field_of_one_provider_is_not_known_to_another() -> None:
    assert refusal("chat", "openai", plugins=[]).code == "unknown_field"
    assert refusal("chat", "groq", models=["a"]).code == "unknown_field"


# What the owner opens


def test_the_owner_can_let_fields_through() -> None:
    assert sent(send("chat", extra=("brand_new",), brand_new={"a": 1}))["brand_new"] == {"a": 1}
    assert send("responses", extra=("access_programs",), access_programs={})
    assert refusal("chat", None, brand_new=1).code == "unknown_field"


def test_an_extra_field_cannot_be_another_spelling_of_a_checked_one() -> None:
    for name in ("Model", "modeL", "max-tokens", "MaxTokens", "mode\u017f", "TOOLS"):
        with pytest.raises(RelayError):
            send("chat", "custom", **{name: 1}) if fold(name) in openai_fields.CHAT.folded else send(
                "chat", **{name: 1}
            )
    with pytest.raises(RelayError):
        send("chat", extra=("Model",), Model="x")
    assert asks("chat", store=True) == {"state"}
    assert "state" in {str(item) for item in send("chat", extra=("store",), store=True).capabilities}


def test_a_server_of_the_owners_own_takes_unknown_plain_fields() -> None:
    call = send("chat", "custom", chat_template_kwargs={"a": 1}, guided_json={})
    assert sent(call)["chat_template_kwargs"] == {"a": 1}
    assert send("chat", "custom", messages=[{"content": [{"type": "video"}]}])


@pytest.mark.parametrize(
    "name",
    ["fallbacks", "models", "api_base", "apiBase", "API_KEY", "previous_response_id", "mcp_servers", "plugins"],
)
def test_a_server_of_the_owners_own_takes_no_field_that_leads_elsewhere(name: str) -> None:
    assert refusal("chat", "custom", **{name: "x"}).code == "unknown_field"
    assert send("chat", "custom", extra=(name,), **{name: "x"})


def test_what_any_table_knows_as_hosted_or_stateful_is_never_let_through_unknown() -> None:
    tables = [route.body for route in dialects.ROUTES if route.body is not None]
    tables += [one.chat for one in peculiar.PECULIAR.values()]
    names = {name for table in tables for name, rule in table.items() if rule.kind in ("hosted", "stateful", "refused")}
    assert {fold(name) for name in names} <= NEVER_OPEN


def test_two_unknown_fields_cannot_be_spellings_of_each_other() -> None:
    assert refusal("chat", "custom", Guided=1, guided=2).code == "unknown_field"


# What goes out


def test_responses_go_out_unstored_unless_asked_for() -> None:
    assert sent(send("responses"))["store"] is False
    assert sent(send("responses", store=None))["store"] is False
    assert sent(send("responses", store=True))["store"] is True
    assert "store" not in sent(send("chat"))


@pytest.mark.parametrize("what", ["chat", "completions"])
def test_a_stream_reports_its_usage_whether_the_client_asked_or_not(what: str) -> None:
    call = send(what, stream=True)
    assert (call.stream, call.hides_usage) == (True, True)
    assert sent(call)["stream_options"] == {"include_usage": True}
    call = send(what, stream=True, stream_options={"include_usage": False, "include_obfuscation": False})
    assert call.hides_usage
    assert sent(call)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    call = send(what, stream=True, stream_options={"include_usage": True})
    assert not call.hides_usage
    call = send(what, stream=False)
    assert (call.stream, call.hides_usage) == (False, False)
    assert "stream_options" not in sent(call)


@pytest.mark.parametrize("provider", ["mistral", "cohere", "perplexity"])
def test_a_provider_that_reports_usage_by_itself_is_not_asked(provider: str) -> None:
    call = send("chat", provider, stream=True)
    assert not call.hides_usage
    assert "stream_options" not in sent(call)


def test_other_streams_report_usage_by_themselves() -> None:
    for what in ("responses", "anthropic", "images"):
        call = send(what, stream=True)
        assert (call.stream, call.hides_usage) == (True, False)
        assert "stream_options" not in sent(call)


def test_characters_of_the_input_leave_out_pictures() -> None:
    picture = "data:image/png;base64," + "A" * 100_000
    call = send("chat", messages=[{"content": [{"type": "image_url", "image_url": {"url": picture}}]}])
    assert 50 < call.input_characters < 300
    call = send(
        "anthropic", messages=[{"content": [{"type": "image", "source": {"type": "base64", "data": "A" * 9999}}]}]
    )
    assert 50 < call.input_characters < 300
    call = send("google", contents=[{"parts": [{"inlineData": {"data": "A" * 9999}}]}])
    assert 20 < call.input_characters < 300
    assert send("speech", input="abcdef").input_characters == 6


def test_a_small_call_is_read_fast_and_a_large_picture_too() -> None:
    def seconds(times: int, **changes: Any) -> float:
        started = time.process_time()
        for _ in range(times):
            send("chat", **changes)
        return (time.process_time() - started) / times

    assert min(seconds(200) for _ in range(3)) < 0.0005
    picture = [{"content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 3_000_000}}]}]
    assert seconds(3, messages=picture) < 0.3


# Forms


def form(
    path: str, *fields: tuple[str, str], files: tuple[str, ...] = ("file",), provider: str = "openai"
) -> UpstreamCall:
    parts = tuple(FilePart(name, "a.bin", "application/octet-stream", 3, None) for name in files)
    inbound = Inbound("POST", path, content_type="multipart/form-data; boundary=x", form=Form(fields, parts))
    return dialects.read(inbound, PROVIDERS[provider])


TRANSCRIPTION = "/v1/audio/transcriptions"
EDITS = "/v1/images/edits"


def test_a_form_is_read_by_the_same_tables() -> None:
    call = form(
        TRANSCRIPTION,
        ("model", "whisper-1"),
        ("include[]", "logprobs"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("chunking_strategy[type]", "server_vad"),
        ("stream", "true"),
    )
    assert (call.route, call.models, call.stream, call.flavor) == (
        "openai.transcription",
        ("whisper-1",),
        True,
        "transcription",
    )
    assert call.json is None
    assert call.form is not None
    assert ("timestamp_granularities[]", "segment") in call.form.fields
    call = form(EDITS, ("model", "m"), ("prompt", "x"), ("n", "2"), files=("image[]", "image[]", "mask"))
    assert call.capabilities == {"images"}
    assert form("/v1/images/variations", ("model", "m"), files=("image",)).models == ("m",)
    assert form("/v1/audio/translations", ("model", "m")).flavor == "transcription"


@pytest.mark.parametrize(
    ("path", "fields", "files", "param"),
    [
        (TRANSCRIPTION, [("model", "a"), ("model", "b")], ("file",), "model"),
        (TRANSCRIPTION, [("model", "a"), ("model[]", "b")], ("file",), "model[]"),
        (TRANSCRIPTION, [("model", "a"), ("Model", "b")], ("file",), "Model"),
        (TRANSCRIPTION, [("model", "a")], ("file", "model"), "model"),
        (TRANSCRIPTION, [], ("file", "model"), "model"),
        (TRANSCRIPTION, [], ("file",), "model"),
        (TRANSCRIPTION, [("model", "a"), ("file", "x")], (), "file"),
        (TRANSCRIPTION, [("model", "a"), ("new", "x")], ("file",), "new"),
        (TRANSCRIPTION, [("model", "a"), ("new[]", "x")], ("file",), "new[]"),
        (TRANSCRIPTION, [("model", "a"), ("stream", "maybe")], ("file",), "stream"),
        (TRANSCRIPTION, [("model", "a"), ("stream[]", "true")], ("file",), "stream[]"),
        (TRANSCRIPTION, [("model", "a"), ("prompt", "x"), ("prompt", "y")], ("file",), "prompt"),
        (EDITS, [("model", "a"), ("n", "many")], ("image",), "n"),
        (EDITS, [("model", "a"), ("n", "0")], ("image",), "n"),
        (EDITS, [("model", "a"), ("n", "1"), ("n[]", "9")], ("image",), "n[]"),
        (EDITS, [("model", "a"), ("image", "https://x")], (), "image"),
        (EDITS, [("model", "a"), ("svg[model]", "b")], ("image",), "svg[model]"),
    ],
)
def test_a_form_with_two_meanings_is_refused(
    path: str, fields: list[tuple[str, str]], files: tuple[str, ...], param: str
) -> None:
    with pytest.raises(RelayError) as caught:
        form(path, *fields, files=files)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_list_of_models_is_no_model_even_where_unknown_fields_pass() -> None:
    for name in ("model[]", "Model[]", "new[]"):
        with pytest.raises(RelayError):
            form(TRANSCRIPTION, ("model", "a"), (name, "b"), provider="custom")
    assert form(TRANSCRIPTION, ("model", "a"), ("hotwords", "b"), provider="custom").models == ("a",)


def test_an_azure_deployment_takes_a_form_without_a_model_and_others_get_it_added() -> None:
    path = "/openai/deployments/dep/audio/transcriptions"
    inbound = Inbound("POST", path, (("api-version", "2024-10-21"),), form=Form((("prompt", "x"),), ()))
    call = dialects.read(inbound, PROVIDERS["azure"])
    assert (call.path, call.models) == (path, ("dep",))
    call = dialects.read(inbound, PROVIDERS["openai"])
    assert call.form is not None
    assert dict(call.form.fields)["model"] == "dep"


# The tables against the SDKs

OPENAI_PARAMS = [
    ("openai.types.chat.completion_create_params", "CompletionCreateParams", openai_fields.CHAT),
    ("openai.types.completion_create_params", "CompletionCreateParams", openai_fields.COMPLETIONS),
    ("openai.types.responses.response_create_params", "ResponseCreateParams", openai_fields.RESPONSES),
    ("openai.types.responses.input_token_count_params", "InputTokenCountParams", openai_fields.INPUT_TOKENS),
    ("openai.types.embedding_create_params", "EmbeddingCreateParams", openai_fields.EMBEDDINGS),
    ("openai.types.moderation_create_params", "ModerationCreateParams", openai_fields.MODERATIONS),
    ("openai.types.image_generate_params", "ImageGenerateParams", openai_fields.IMAGES),
    ("openai.types.audio.speech_create_params", "SpeechCreateParams", openai_fields.SPEECH),
    ("openai.types.image_edit_params", "ImageEditParams", openai_fields.IMAGE_EDITS),
    ("openai.types.image_create_variation_params", "ImageCreateVariationParams", openai_fields.IMAGE_VARIATIONS),
    ("openai.types.audio.transcription_create_params", "TranscriptionCreateParams", openai_fields.TRANSCRIPTIONS),
    ("openai.types.audio.translation_create_params", "TranslationCreateParams", openai_fields.TRANSLATIONS),
    ("anthropic.types.message_create_params", "MessageCreateParams", anthropic_fields.MESSAGES),
    ("anthropic.types.beta.message_create_params", "MessageCreateParams", anthropic_fields.MESSAGES),
    ("anthropic.types.message_count_tokens_params", "MessageCountTokensParams", anthropic_fields.COUNT_TOKENS),
    ("anthropic.types.beta.message_count_tokens_params", "MessageCountTokensParams", anthropic_fields.COUNT_TOKENS),
]
FILES = {"image", "mask", "markup", "file"}
IN_HEADERS = {"betas", "user_profile_id", "workspace_id"}  # parameters of the SDK that are no fields of the body


@pytest.mark.parametrize(("module", "name", "table"), OPENAI_PARAMS, ids=lambda value: str(value)[:50])
def test_every_parameter_of_the_sdks_is_in_a_table(module: str, name: str, table: Table) -> None:
    kind = getattr(import_module(module), name)
    params = {key for one in typing.get_args(kind) or (kind,) for key in one.__annotations__}
    assert len(params) > 1
    assert params - FILES - IN_HEADERS <= set(table)


def literal_types(module: str, name: str) -> set[str]:
    """The values of ``type`` of every member of a union of TypedDicts."""
    union = getattr(import_module(module), name)
    found: set[str] = set()
    for member in typing.get_args(union):
        member = typing.get_args(member)[0] if typing.get_origin(member) is typing.Annotated else member
        hints = (
            typing.get_type_hints(member, vars(sys.modules[member.__module__]))
            if hasattr(member, "__annotations__")
            else {}
        )
        stack = [hints.get("type")]
        while stack:
            hint = stack.pop()
            found |= {value for value in typing.get_args(hint) if isinstance(value, str)}
            stack += [inner for inner in typing.get_args(hint) if not isinstance(inner, str)]
    return found


@pytest.mark.parametrize(
    ("module", "name", "known"),
    [
        ("openai.types.responses.tool_param", "ToolParam", openai_fields.TOOLS),
        ("openai.types.responses.response_input_item_param", "ResponseInputItemParam", openai_fields.ITEMS),
        ("openai.types.chat.chat_completion_content_part_param", "ChatCompletionContentPartParam", openai_fields.CHAT_PARTS),
        ("openai.types.responses.response_input_content_param", "ResponseInputContentParam", openai_fields.RESPONSE_PARTS),
        ("anthropic.types.beta.beta_tool_union_param", "BetaToolUnionParam", anthropic_fields.TOOLS),
        ("anthropic.types.beta.beta_content_block_param", "BetaContentBlockParam", anthropic_fields.BLOCKS),
        ("anthropic.types.tool_union_param", "ToolUnionParam", anthropic_fields.TOOLS),
    ],
)  # fmt: skip
def test_every_tool_item_and_part_of_the_sdks_is_in_a_table(module: str, name: str, known: dict[str, Any]) -> None:
    types = {
        kind[:-9] if kind[-9:-6] == "_20" and kind[-8:].isdigit() else kind for kind in literal_types(module, name)
    }
    assert len(types) > 2
    assert types <= set(known)


@pytest.mark.parametrize(
    ("model", "table", "elsewhere"),
    [
        (
            gemini.GenerateContentConfig,
            {**google_fields.GENERATE, **google_fields.GENERATION_CONFIG},
            # used by the SDK itself, never sent
            {"http_options", "should_return_http_response", "automatic_function_calling", "automatic_continuation"},
        ),
        (gemini.GenerationConfig, google_fields.GENERATION_CONFIG, set()),
        (gemini.Tool, google_fields.TOOL, set()),
        (gemini.Part, google_fields.PART, set()),
        (gemini.EmbedContentConfig, google_fields.EMBED, {"http_options"}),
    ],
)
def test_every_field_of_google_genai_is_in_a_table_in_both_spellings(
    model: Any, table: dict[str, Any], elsewhere: set[str]
) -> None:
    for name in set(model.model_fields) - elsewhere:
        assert name in table, name
        assert to_camel(name) in table, name


def test_no_table_has_two_names_that_a_lenient_parser_takes_for_one() -> None:
    for route in dialects.ROUTES:
        table = route.body or route.form
        if table is not None and not table.aliased:
            assert len(table.folded) == len(table), route.name


def test_what_is_peculiar_belongs_to_a_provider_of_the_catalogue() -> None:
    assert set(peculiar.PECULIAR) <= set(PROVIDERS)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["function", "web_search", "file"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "source", "tools", "file", "parts", "x", "model"]), inner)
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(PATHS)), st.data())
def test_no_value_of_any_field_raises_anything_but_a_relay_error(what: str, data: Any) -> None:
    tables = {"chat": openai_fields.CHAT, "responses": openai_fields.RESPONSES, "anthropic": anthropic_fields.MESSAGES}
    name = data.draw(st.sampled_from(sorted(tables.get(what, google_fields.GENERATE))))
    try:
        call = send(what, **{name: data.draw(JSON)})
    except RelayError:
        return
    assert call.models
