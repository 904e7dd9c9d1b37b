"""What is printed beside a token works as printed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from grants import tokens
from grants.models import Actor, Grant, ProviderKey
from grants.providers import PROVIDERS
from grants.snippets import snippets
from grants.terms import any_covers

from .conftest import terms


def unsaved(provider: str, models: list[str], capabilities: list[str] | None = None) -> Grant:
    return Grant(provider=provider, models=models, capabilities=capabilities or ["chat"])


def model_in(text: str) -> str:
    return text.split('"model": "')[1].split('"')[0]


@pytest.mark.parametrize(
    ("provider", "first"),
    [
        ("openai", "OpenAI SDK"),
        ("anthropic", "Anthropic SDK"),
        ("google", "Google Gen AI SDK"),
        ("azure", "OpenAI SDK"),
        ("custom", "OpenAI SDK"),
        ("sandbox", "OpenAI SDK"),
    ],
)
def test_the_providers_usual_sdk_comes_first_and_curl_second(provider: str, first: str) -> None:
    titles = [snippet.title for snippet in snippets(unsaved(provider, ["*"]), "TOKEN")]
    assert titles[:2] == [first, "curl"]
    assert len(titles) == len(PROVIDERS[provider].dialects) + 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("models", [["*"], ["my-model"], ["zz*"], ["gpt-4o*", "claude-*", "gemini-2*", "sandbox-*"]])
def test_every_provider_gets_snippets_with_a_model_that_its_grant_covers(provider: str, models: list[str]) -> None:
    for snippet in snippets(unsaved(provider, models), "TOKEN"):
        assert "TOKEN" in snippet.text
        assert "http://testserver/proxy" in snippet.text
        if snippet.language == "python":
            compile(snippet.text, snippet.title, "exec")
        else:
            assert any_covers(models, model_in(snippet.text))


@pytest.mark.parametrize(
    ("provider", "models", "model"),
    [
        ("openai", ["gpt-4o"], "gpt-4o"),
        ("openai", ["gpt-4o*"], "gpt-4o-mini"),
        ("openai", ["o4*", "x"], "o4-mini"),
        ("anthropic", ["claude-sonnet*"], "claude-sonnet-4-5"),
        ("sandbox", ["sandbox-*"], "sandbox-1"),
        ("custom", ["llama*"], "llamaMODEL"),
        ("custom", ["llama*", "mine"], "mine"),
    ],
)
def test_a_star_becomes_a_model_that_one_can_try(provider: str, models: list[str], model: str) -> None:
    curl = next(item for item in snippets(unsaved(provider, models), "TOKEN") if item.title == "curl")
    assert model_in(curl.text) == model


def test_without_chat_another_call_is_shown() -> None:
    embeddings = snippets(unsaved("openai", ["*"], ["embeddings"]), "TOKEN")
    assert [snippet.title for snippet in embeddings] == ["OpenAI SDK", "curl"]
    assert "/v1/embeddings" in embeddings[1].text
    assert "/v1/models" in snippets(unsaved("openai", ["*"], ["images"]), "TOKEN")[0].text


@pytest.mark.live
@pytest.mark.parametrize("capability", ["chat", "embeddings"])
def test_all_of_them_run_as_printed(server: Any, sandbox_key: ProviderKey, by: Actor, capability: str) -> None:
    grant = Grant.issue(key=sandbox_key, terms=terms(capabilities=(capability,)), app_name="Snippets", by=by)
    for title, language, text in snippets(grant, tokens.mint(grant, by=by).token):
        text = text.replace("http://testserver", server.url)
        command = [sys.executable, "-c", text] if language == "python" else ["sh", "-c", text]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, (title, ran.stderr)
        assert ran.stdout.strip(), title
        assert '"error"' not in ran.stdout, (title, ran.stdout)
