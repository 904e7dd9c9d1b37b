"""The lines that point a client at the broker: the same on the token page, on the command line and in the docs."""

from __future__ import annotations

import io
import json
import re
import tomllib
from html import unescape
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client as Browser

from grants import clients, tokens
from grants.models import Actor, Grant, ProviderKey
from grants.snippets import ready_clients

from . import client_docs
from .conftest import CANARY, terms

pytestmark = pytest.mark.django_db

NAMES = (
    "claude-code",
    "codex",
    "gemini-cli",
    "opencode",
    "qwen-code",
    "aider",
    "llm",
    "openai",
    "anthropic",
    "google-genai",
    "openai-agents",
    "langchain",
    "vercel-ai",
    "litellm",
    "pydantic-ai",
    "haystack",
    "agno",
    "semantic-kernel",
)
SUFFIXES = {"/proxy", "/proxy/v1"}


@pytest.fixture
def grant(sandbox_key: ProviderKey, by: Actor) -> Grant:
    return Grant.issue(key=sandbox_key, terms=terms(models=("sandbox-1",)), app_name="Clients", by=by)


def printed(grant: Grant, *args: str) -> str:
    out = io.StringIO()
    call_command("issue_token", str(grant.pk), *args, stdout=out)
    return out.getvalue()


def expected(name: str, url: str, token: str) -> clients.Ready:
    return clients.ready(clients.CLIENTS[name], url=url, token=token, model="sandbox-1")


def test_every_client_of_the_list_has_a_row() -> None:
    assert tuple(clients.CLIENTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_command_page_and_docs_hold_the_same_lines(name: str, grant: Grant, alice: Any, settings: Any) -> None:
    settings.AIPASSPORT_URL = client_docs.URL
    out = printed(grant, "--for", name)
    token = re.search(r"eyJ\S+", out)
    assert token
    assert clients.as_text(expected(name, client_docs.URL, token[0])) in out

    browser = Browser()
    browser.force_login(alice)
    answer = browser.post(f"/admin/grants/grant/{grant.pk}/token/", {"lifetime": "900", "capabilities": ["chat"]})
    html = answer.content.decode()
    shown = expected(name, client_docs.URL, answer.context["minted"].token)
    for number, part in enumerate(shown.parts, start=1):
        found = re.search(rf'<code id="ap-{name}-{number}"[^>]*>(.*?)</code>', html, re.DOTALL)
        assert found
        assert unescape(found[1]) == part.text
    for note in shown.notes:
        assert note in unescape(html)

    _, mark, rest = client_docs.PAGE.read_text().partition(client_docs.MARK)
    assert mark
    assert rest == "\n" + client_docs.document(), "run: python -m tests.client_docs"


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_filled_in_completely_and_names_its_base_url(name: str) -> None:
    client = clients.CLIENTS[name]
    assert client.base in SUFFIXES
    assert client.fresh
    ready = expected(name, "https://b.example", "TOKEN")
    text = "\n".join(part.text for part in ready.parts)
    assert not re.search("@(URL|TOKEN|MODEL)@", clients.as_text(ready))
    assert set(re.findall(r"https://b\.example([^\s\"']*)", text)) == {client.base}
    assert "TOKEN" in text
    for part in ready.parts:
        if part.language == "python":
            compile(part.text, name, "exec")
        elif part.language == "json":
            json.loads(part.text)
        elif part.language == "toml":
            tomllib.loads(part.text)


def test_codex_and_the_libraries_keep_off_what_a_grant_refuses() -> None:
    assert 'web_search = "disabled"' in clients.CLIENTS["codex"].parts[0].text
    assert "store: false" in clients.CLIENTS["vercel-ai"].parts[1].text
    assert "OPENAI_AGENTS_DISABLE_TRACING=1" in clients.CLIENTS["openai-agents"].parts[1].text


def test_the_agents_sdk_leaves_store_open() -> None:
    """With ``store: false`` from the client, the broker does not ask for encrypted reasoning, and tools fail."""
    assert not any("store" in part.text.casefold() for part in clients.CLIENTS["openai-agents"].parts)


def test_json_has_the_lines_too_and_without_for_nothing_is_added(grant: Grant) -> None:
    data = json.loads(printed(grant, "--for", "llm", "--json"))
    assert data["for"] == "llm"
    assert data["token"] in data["lines"]
    assert set(json.loads(printed(grant, "--json"))) == {"token", "jti", "expires_at"}


@pytest.mark.parametrize(
    ("provider", "works", "does_not"),
    [
        ("openai", {"codex", "llm", "vercel-ai"}, {"claude-code", "gemini-cli"}),
        ("anthropic", {"claude-code", "anthropic", "llm"}, {"codex", "google-genai", "openai-agents"}),
        ("google", {"gemini-cli", "opencode"}, {"codex", "anthropic"}),
        ("sandbox", set(NAMES), set()),
    ],
)
def test_only_clients_that_the_provider_understands_are_offered(
    provider: str, works: set[str], does_not: set[str]
) -> None:
    offered = {
        one.client.name for one in ready_clients(Grant(provider=provider, models=["*"], capabilities=["chat"]), "T")
    }
    assert works <= offered
    assert not does_not & offered


@pytest.mark.parametrize("args", [("--for", "codex"), ("--for", "llm", "--models", "")])
def test_a_client_that_cannot_work_gets_no_token(alice: Any, by: Actor, args: tuple[str, ...]) -> None:
    key = ProviderKey.add(owner=alice, provider="anthropic", label="A", secret=CANARY, by=by)
    grant = Grant.issue(key=key, terms=terms(models=("*",), capabilities=("chat",)), app_name="Clients", by=by)
    with pytest.raises(CommandError) as caught:
        printed(grant, *args)
    assert "\n" not in str(caught.value)
    assert not grant.issued_tokens().exists()


def test_without_chat_no_client_is_offered(grant: Grant) -> None:
    with pytest.raises(CommandError, match="capability chat"):
        printed(grant, "--for", "llm", "--capabilities", "embeddings")


def test_an_unknown_client_is_refused_with_the_list(grant: Grant) -> None:
    with pytest.raises(CommandError, match="claude-code"):
        printed(grant, "--for", "netscape")


def test_the_token_is_a_token(grant: Grant) -> None:
    data = json.loads(printed(grant, "--for", "claude-code", "--json"))
    assert tokens.verify(data["token"]).grant == grant.pk
