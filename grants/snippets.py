"""Ready-made calls: what the desk, the quickstart and the docs show beside a fresh token."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from django.conf import settings

from . import clients
from .models import Grant
from .providers import Capability, Provider
from .terms import any_covers

# What to try where a pattern has a star: the first one that the grant covers.
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "openai": ("gpt-4o-mini", "gpt-4.1-mini", "gpt-5-mini", "gpt-4o", "o4-mini"),
    "anthropic": ("claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-1"),
    "google": ("gemini-2.5-flash", "gemini-2.0-flash", "gemini-2.5-pro"),
    "mistral": ("mistral-small-latest", "mistral-large-latest"),
    "groq": ("llama-3.1-8b-instant", "llama-3.3-70b-versatile"),
    "deepseek": ("deepseek-chat",),
    "xai": ("grok-3-mini", "grok-4"),
    "cohere": ("command-r7b-12-2024", "command-a-03-2025"),
    "openrouter": ("openai/gpt-4o-mini", "anthropic/claude-haiku-4.5"),
    "perplexity": ("sonar",),
    "cerebras": ("llama3.1-8b",),
    "sandbox": ("sandbox-1",),
}
_EMBEDDING_EXAMPLES: dict[str, tuple[str, ...]] = {
    "openai": ("text-embedding-3-small",),
    "google": ("gemini-embedding-001",),
    "mistral": ("mistral-embed",),
    "cohere": ("embed-v4.0",),
    "sandbox": ("sandbox-embed",),
}


class Snippet(NamedTuple):
    title: str
    language: str
    text: str


class _Shown(NamedTuple):
    """What a snippet is made of. ``base``: the relay's address, without a trailing slash."""

    base: str
    token: str
    model: str
    provider: Provider


def snippets(
    grant: Grant, token: str, *, models: Sequence[str] | None = None, capabilities: Iterable[str] | None = None
) -> list[Snippet]:
    """Calls that work as printed, the one for the grant's usual SDK first.

    ``models`` and ``capabilities`` where the token is narrower than its grant.
    """
    allowed = set(grant.capabilities if capabilities is None else capabilities)
    patterns = tuple(grant.models if models is None else models)
    base = f"{settings.AIPASSPORT_URL}/proxy"
    row = grant.row
    if Capability.CHAT in allowed:
        shown = _Shown(base, token, example_model(row, patterns, _EXAMPLES), row)
        native = [_NATIVE[dialect](shown) for dialect in row.dialects]
        return [native[0], _curl_chat(shown), *native[1:]]
    if Capability.EMBEDDINGS in allowed:
        shown = _Shown(base, token, example_model(row, patterns, _EMBEDDING_EXAMPLES), row)
        return [_openai_embeddings(shown), _curl_embeddings(shown)]
    return [_curl_models(_Shown(base, token, "", row))]


def ready_clients(
    grant: Grant, token: str, *, models: Sequence[str] | None = None, capabilities: Iterable[str] | None = None
) -> list[clients.Ready]:
    """The lines of every client that works with the token. Arguments as in :func:`snippets`."""
    fitting = [client for client in clients.CLIENTS.values() if works_with(grant, client, capabilities=capabilities)]
    return [ready_client(grant, client, token, models=models) for client in fitting]


def ready_client(
    grant: Grant, client: clients.Client, token: str, *, models: Sequence[str] | None = None
) -> clients.Ready:
    """The lines of one client, with a model that the token covers."""
    model = example_model(grant.row, tuple(grant.models if models is None else models))
    return clients.ready(client, url=settings.AIPASSPORT_URL, token=token, model=model)


def works_with(grant: Grant, client: clients.Client, *, capabilities: Iterable[str] | None = None) -> bool:
    """Whether a token of ``grant`` (with fewer ``capabilities``, where given) lets ``client`` work."""
    allowed = set(grant.capabilities if capabilities is None else capabilities)
    return Capability.CHAT in allowed and clients.fits(client, grant.row.dialects)


def example_model(row: Provider, patterns: Sequence[str], examples: dict[str, tuple[str, ...]] = _EXAMPLES) -> str:
    """A model that ``patterns`` cover: one named outright, else a known one, else the beginning of a pattern."""
    named = next((pattern for pattern in patterns if not pattern.endswith("*")), None)
    known = (model for model in examples.get(row.id, ()) if any_covers(patterns, model))
    if patterns and patterns[0] == named:
        return named
    return next(known, None) or named or f"{patterns[0][:-1]}MODEL"


def _curl(url: str, token: str, body: Mapping[str, object] | None = None) -> str:
    lines = [f"curl -N {url}", f"  -H 'Authorization: Bearer {token}'"]
    if body is not None:
        lines += ["  -H 'Content-Type: application/json'", f"  -d '{json.dumps(body)}'"]
    return " \\\n".join(lines)


def _curl_chat(shown: _Shown) -> Snippet:
    body = {"model": shown.model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    return Snippet("curl", "sh", _curl(f"{shown.base}/v1/chat/completions", shown.token, body))


def _curl_embeddings(shown: _Shown) -> Snippet:
    body = {"model": shown.model, "input": "Hello!"}
    return Snippet("curl", "sh", _curl(f"{shown.base}/v1/embeddings", shown.token, body))


def _curl_models(shown: _Shown) -> Snippet:
    return Snippet("curl", "sh", _curl(f"{shown.base}/v1/models", shown.token))


def _openai(shown: _Shown) -> Snippet:
    if shown.provider.id == "azure":
        client, arguments = "AzureOpenAI", f'azure_endpoint="{shown.base}", api_version="2024-10-21"'
    else:
        client, arguments = "OpenAI", f'base_url="{shown.base}/v1"'
    return Snippet(
        "OpenAI SDK",
        "python",
        f"""\
from openai import {client}

client = {client}(
    {arguments},
    api_key="{shown.token}",
)
stream = client.chat.completions.create(
    model="{shown.model}",
    messages=[{{"role": "user", "content": "Hello!"}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)""",
    )


def _openai_embeddings(shown: _Shown) -> Snippet:
    return Snippet(
        "OpenAI SDK",
        "python",
        f"""\
from openai import OpenAI

client = OpenAI(
    base_url="{shown.base}/v1",
    api_key="{shown.token}",
)
answer = client.embeddings.create(model="{shown.model}", input="Hello!")
print(answer.data[0].embedding[:5])""",
    )


def _anthropic(shown: _Shown) -> Snippet:
    return Snippet(
        "Anthropic SDK",
        "python",
        f"""\
from anthropic import Anthropic

client = Anthropic(
    base_url="{shown.base}",
    api_key="{shown.token}",
)
with client.messages.stream(
    model="{shown.model}",
    max_tokens=1024,
    messages=[{{"role": "user", "content": "Hello!"}}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)""",
    )


def _google(shown: _Shown) -> Snippet:
    return Snippet(
        "Google Gen AI SDK",
        "python",
        f"""\
from google import genai

client = genai.Client(
    api_key="{shown.token}",
    http_options={{"base_url": "{shown.base}"}},
)
for chunk in client.models.generate_content_stream(
    model="{shown.model}",
    contents="Hello!",
):
    print(chunk.text or "", end="", flush=True)""",
    )


_NATIVE = {"openai": _openai, "anthropic": _anthropic, "google": _google}
