"""Every row of the catalogue, once through the whole relay: the provider's own address, its header, its usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
import responses
from django.test import Client

from grants import tokens
from grants.models import Actor, Call, Grant, ProviderKey
from grants.providers import PROVIDERS, Auth, Capability
from grants.terms import Terms

from .conftest import CANARY

pytestmark = pytest.mark.django_db(transaction=True)

# provider → base URL of the owner, where it needs one; URL and header that must arrive; a model with a known price
OPENAI_SHAPED = {
    "openai": ("", "https://api.openai.com/v1/chat/completions", "authorization", "gpt-4o-mini"),
    "anthropic": ("", "https://api.anthropic.com/v1/chat/completions", "authorization", "claude-3-5-haiku-latest"),
    "google": (
        "",
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        "authorization",
        "gemini-2.5-flash",
    ),
    "azure": (
        "https://team.openai.azure.com",
        "https://team.openai.azure.com/openai/v1/chat/completions",
        "api-key",
        "gpt-4o",
    ),
    "mistral": ("", "https://api.mistral.ai/v1/chat/completions", "authorization", "mistral-small-latest"),
    "groq": ("", "https://api.groq.com/openai/v1/chat/completions", "authorization", "llama-3.1-8b-instant"),
    "deepseek": ("", "https://api.deepseek.com/v1/chat/completions", "authorization", "deepseek-chat"),
    "xai": ("", "https://api.x.ai/v1/chat/completions", "authorization", "grok-3-mini"),
    "cohere": ("", "https://api.cohere.com/compatibility/v1/chat/completions", "authorization", "command-r"),
    "openrouter": ("", "https://openrouter.ai/api/v1/chat/completions", "authorization", "openai/gpt-4o-mini"),
    "together": (
        "",
        "https://api.together.xyz/v1/chat/completions",
        "authorization",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    "fireworks": (
        "",
        "https://api.fireworks.ai/inference/v1/chat/completions",
        "authorization",
        "accounts/fireworks/models/deepseek-v3p2",
    ),
    "perplexity": ("", "https://api.perplexity.ai/chat/completions", "authorization", "sonar"),
    "cerebras": ("", "https://api.cerebras.ai/v1/chat/completions", "authorization", "llama3.1-8b"),
    "bedrock": (
        "https://bedrock-runtime.us-west-2.amazonaws.com",
        "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1/chat/completions",
        "authorization",
        "openai.gpt-oss-20b-1:0",
    ),
    "custom": ("https://models.example/v1", "https://models.example/v1/chat/completions", "authorization", "mine"),
}
NATIVE = {
    "anthropic": (
        "/proxy/v1/messages",
        "https://api.anthropic.com/v1/messages",
        "x-api-key",
        {"model": "claude-3-5-haiku-latest", "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-3-5-haiku-latest",
            "content": [{"type": "text", "text": "Hi"}],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 100,
                "output_tokens": 50,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 0,
            },
        },
        (120, 50, 20),
    ),
    "google": (
        "/proxy/v1beta/models/gemini-2.5-flash:generateContent",
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
        "x-goog-api-key",
        {"contents": [{"parts": [{"text": "x"}]}]},
        {
            "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}}],
            "modelVersion": "gemini-2.5-flash",
            "usageMetadata": {
                "promptTokenCount": 100,
                "candidatesTokenCount": 30,
                "thoughtsTokenCount": 20,
                "cachedContentTokenCount": 20,
                "totalTokenCount": 150,
            },
        },
        (100, 50, 20),
    ),
}


def token_on(owner: Any, provider: str, base_url: str) -> str:
    by = Actor("api", owner)
    key = ProviderKey.add(owner=owner, provider=provider, label="x", secret=CANARY, base_url=base_url, by=by)
    offered = tuple(str(item) for item in key.row.capabilities)
    grant = Grant.issue(key=key, terms=Terms(models=("*",), capabilities=offered), app_name="x", by=by)
    return tokens.mint(grant, by=by).token


def call(path: str, token: str, body: Any) -> Any:
    answer = Client().post(
        path, json.dumps(body), content_type="application/json", headers={"authorization": f"Bearer {token}"}
    )
    return answer, b"".join(answer.streaming_content) if answer.streaming else answer.content  # type: ignore[attr-defined]


def assert_carries(sent: Any, header: str) -> None:
    value = f"Bearer {CANARY}" if header == "authorization" else CANARY
    assert sent.headers[header] == value
    credentials = {"authorization", "x-api-key", "x-goog-api-key", "api-key"} - {header}
    assert not credentials & {name.lower() for name in sent.headers}


@pytest.mark.parametrize("provider", OPENAI_SHAPED)
@responses.activate
def test_openai_shaped_chat(alice: Any, provider: str) -> None:
    base_url, url, header, model = OPENAI_SHAPED[provider]
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 20},
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    answered = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }
    responses.post(url, json=answered)
    token = token_on(alice, provider, base_url)
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    answer, content = call("/proxy/v1/chat/completions", token, body)
    assert answer.status_code == 200, content
    assert json.loads(content) == answered
    answer.close()
    assert_carries(responses.calls[0].request, header)
    record = Call.objects.get()
    assert (record.outcome, record.route) == ("ok", "openai.chat")
    assert (record.input_tokens, record.output_tokens) == (100, 50)
    assert not record.estimated
    assert (record.cost is None) is (provider == "custom")  # the owner's own server: no table knows its price
    assert record.cost is None or record.cost > 0


@pytest.mark.parametrize("provider", NATIVE)
@responses.activate
def test_native_calls(alice: Any, provider: str) -> None:
    path, url, header, body, answered, usage = NATIVE[provider]
    responses.post(url, json=answered)
    answer, content = call(path, token_on(alice, provider, ""), body)
    assert answer.status_code == 200, content
    assert json.loads(content) == answered
    answer.close()
    assert_carries(responses.calls[0].request, header)
    record = Call.objects.get()
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == usage
    assert record.cost
    assert record.cost > 0


def test_every_provider_of_the_catalogue_is_walked_here() -> None:
    assert set(OPENAI_SHAPED) | {"sandbox"} == set(PROVIDERS)


def test_a_key_travels_in_one_header_or_in_none() -> None:
    for auth in Auth:
        assert len(auth.header(CANARY)) == (auth is not Auth.NONE)
        assert auth.header("") == {}
    assert all(Capability.CHAT in provider.capabilities for provider in PROVIDERS.values())
