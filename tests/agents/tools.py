"""How each command-line agent is installed and called. Its settings are the lines that the broker prints for it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Tool(NamedTuple):
    """``package``: on npm or PyPI. ``command``: with ``@PROMPT@`` and ``@MODEL@``. ``settings``: more environment.

    ``cannot``: cases that mean nothing for it, with the reason. ``lines``: the row of the table of clients. ``files``:
    settings instead of the row's own, place → text.
    """

    name: str
    registry: str
    package: str
    command: tuple[str, ...]
    provider: str = "openai"
    model: str = "gpt-5"
    lines: str = ""
    settings: dict[str, str] = {}
    files: dict[str, str] = {}
    cannot: dict[str, str] = {}


_BUILT_IN = """\
model = "gpt-5"
openai_base_url = "@URL@/proxy/v1"
web_search = "disabled"
"""
_CODEX = ("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "@PROMPT@")
_NO_TOOLS = "it has no tools"

TOOLS = (
    Tool(
        "claude-code",
        "npm",
        "@anthropic-ai/claude-code",
        ("claude", "-p", "@PROMPT@", "--allowedTools", "Bash", "Read"),
        provider="anthropic",
        model="claude-sonnet-4-5",
    ),
    Tool("codex", "npm", "@openai/codex", _CODEX),
    Tool(
        "codex, built-in provider",
        "npm",
        "@openai/codex",
        _CODEX,
        lines="codex",
        files={"~/.codex/config.toml": _BUILT_IN},
        settings={"CODEX_API_KEY": "@TOKEN@"},
    ),
    Tool(
        "gemini-cli",
        "npm",
        "@google/gemini-cli",
        ("gemini", "-p", "@PROMPT@", "--approval-mode", "yolo", "--skip-trust"),
        provider="google",
        model="gemini-2.5-pro",
    ),
    Tool("opencode", "npm", "opencode-ai", ("opencode", "run", "@PROMPT@")),
    Tool("qwen-code", "npm", "@qwen-code/qwen-code", ("qwen", "-p", "@PROMPT@", "--approval-mode", "yolo")),
    Tool(
        "aider",
        "pypi",
        "aider-chat",
        ("aider", "--message", "@PROMPT@", "--yes-always", "--no-git", "--no-check-update", "--no-show-model-warnings"),
        cannot={"tools": _NO_TOOLS, "money": _NO_TOOLS},
    ),
    Tool("llm", "pypi", "llm", ("llm", "@PROMPT@"), cannot={"tools": _NO_TOOLS, "money": _NO_TOOLS}),
)


def version(text: str) -> str:
    """The version in what ``--version`` printed."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else "?"
