"""The libraries for Node: each runs a script of ``tests/agents/scripts`` beside its packages."""

from __future__ import annotations

import json
from pathlib import Path

from .tools import Tool

SCRIPTS = Path(__file__).parent / "scripts"
_BESIDE = frozenset({"zod", "@langchain/core"})  # what a library needs beside itself; its version says nothing


def _row(name: str, packages: str, script: str, **more: str) -> Tool:
    """``packages``: with a space between two."""
    command = ("node", f"@PACKAGES@/{script}.mjs", "@KIND@", "@MODEL@", "@PROMPT@")
    settings = {"AGENT_API": api} if (api := more.pop("api", "")) else {}
    return Tool(f"node-{name}", "npm", packages, command, settings=settings, **more)


_LANGCHAIN = "@langchain/openai langchain @langchain/core"

NODE_ROWS = (
    _row("openai", "openai", "openai-chat", lines="openai"),
    _row("openai-responses", "openai", "openai-responses", lines="openai"),
    _row(
        "anthropic",
        "@anthropic-ai/sdk",
        "anthropic",
        lines="anthropic",
        provider="anthropic",
        model="claude-sonnet-4-5",
    ),
    _row(
        "google-genai",
        "@google/genai",
        "google-genai",
        lines="google-genai",
        provider="google",
        model="gemini-3-pro-preview",
    ),
    _row("openai-agents", "@openai/agents zod", "openai-agents", lines="openai-agents"),
    _row("langchain", _LANGCHAIN, "langchain", lines="langchain", api="chat"),
    _row("langchain-responses", _LANGCHAIN, "langchain", lines="langchain", api="responses"),
    _row("vercel-ai", "ai @ai-sdk/openai zod", "vercel-ai", lines="vercel-ai"),
    _row("vercel-ai-compatible", "ai @ai-sdk/openai-compatible zod", "vercel-ai-compatible", lines="openai"),
)


def versions(tool: Tool, folder: Path) -> str:
    """The versions of the packages of ``tool`` that are installed in ``folder``."""
    names = [name for name in tool.package.split() if name not in _BESIDE]
    found = {
        name: json.loads((folder / "node_modules" / name / "package.json").read_text())["version"] for name in names
    }
    return next(iter(found.values())) if len(found) == 1 else ", ".join(f"{name} {found[name]}" for name in found)
