"""The libraries for Python: each runs a script of ``tests/agents/scripts`` with its packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tools import Tool

_SCRIPTS = Path(__file__).parent / "scripts"
_CLAUDE: dict[str, Any] = {"lines": "anthropic", "provider": "anthropic", "model": "claude-sonnet-4-5"}
_GEMINI: dict[str, Any] = {"lines": "google-genai", "provider": "google", "model": "gemini-3-pro-preview"}


def _row(name: str, packages: str, script: str, api: str = "chat", **more: Any) -> Tool:
    """``packages``: with a space between two, the first for the version."""
    command = ("python", str(_SCRIPTS / f"{script}_app.py"), api, "@KIND@", "@MODEL@", "@PROMPT@")
    return Tool(name, "pypi", packages, command, settings=_OFFLINE.get(script, {}), **more)


# LiteLLM takes its list of prices from GitHub when it is imported; it has the same list with it.
_OFFLINE = {"litellm": {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}}
_LANGCHAIN = "langchain langchain-openai langchain-anthropic langchain-google-genai"
_PYDANTIC = "pydantic-ai-slim[openai,anthropic,google]"
_AGNO = "agno openai anthropic google-genai"

PYTHON_ROWS = (
    _row("openai", "openai", "openai"),
    _row("openai-responses", "openai", "openai", "responses", lines="openai"),
    _row("anthropic", "anthropic", "anthropic", "anthropic", **_CLAUDE),
    _row("google-genai", "google-genai", "google_genai", "google", **_GEMINI),
    _row("openai-agents", "openai-agents", "openai_agents", "responses"),
    _row("openai-agents-unstored", "openai-agents", "openai_agents", "unstored", lines="openai-agents"),
    _row("openai-agents-chat", "openai-agents", "openai_agents", lines="openai-agents"),
    _row("langchain", _LANGCHAIN, "langchain"),
    _row("langchain-responses", _LANGCHAIN, "langchain", "responses", lines="langchain"),
    _row("langchain-anthropic", _LANGCHAIN, "langchain", "anthropic", **_CLAUDE),
    _row("langchain-google", _LANGCHAIN, "langchain", "google", **_GEMINI),
    _row("litellm", "litellm", "litellm"),
    _row("litellm-responses", "litellm", "litellm", "responses", lines="litellm"),
    _row("litellm-anthropic", "litellm", "litellm", "anthropic", **_CLAUDE),
    _row("litellm-google", "litellm", "litellm", "google", **_GEMINI),
    _row("pydantic-ai", _PYDANTIC, "pydantic_ai"),
    _row("pydantic-ai-responses", _PYDANTIC, "pydantic_ai", "responses", lines="pydantic-ai"),
    _row("pydantic-ai-anthropic", _PYDANTIC, "pydantic_ai", "anthropic", **_CLAUDE),
    _row("pydantic-ai-google", _PYDANTIC, "pydantic_ai", "google", **_GEMINI),
    _row("haystack", "haystack-ai", "haystack"),
    _row("haystack-responses", "haystack-ai", "haystack", "responses", lines="haystack"),
    _row("agno", _AGNO, "agno"),
    _row("agno-responses", _AGNO, "agno", "responses", lines="agno"),
    _row("agno-anthropic", _AGNO, "agno", "anthropic", **_CLAUDE),
    _row("agno-google", _AGNO, "agno", "google", **_GEMINI),
    _row("semantic-kernel", "semantic-kernel", "semantic_kernel"),
    _row(
        "semantic-kernel-responses",
        "semantic-kernel",
        "semantic_kernel",
        "responses",
        lines="semantic-kernel",
        cannot={"picture": "it sends the user's message twice, so that the provider sees two pictures"},
    ),
)
