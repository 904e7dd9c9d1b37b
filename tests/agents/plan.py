"""What the local provider's model answers: one tool call where a tool fits, then a text. The same in all dialects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

MARKER = re.compile(r"MARKER-[0-9a-f]{8}")
_PATH = re.compile(r"(/[\w./-]+/marker\.txt)")
_SLOW = "count slowly"
# Tools that can read a file, the best first: of the agents, and of the scripts of the libraries.
_TOOLS = ("read_marker", "read_file", "exec_command", "shell", "shell_command", "local_shell", "bash", "read")
_MOST_TURNS = 6  # tool calls in one conversation

SIGNATURE = "c2lnbmVkLWJ5LXRoZS1wcm92aWRlcg=="  # of reasoning; what is sent back must be the same
ENCRYPTED = "ZW5jcnlwdGVkLWJ5LXRoZS1wcm92aWRlcg=="


class Refusal(Exception):
    """The provider refuses the call, as the real one does."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


@dataclass(frozen=True)
class Call:
    """A tool call: its name and arguments."""

    name: str
    arguments: dict[str, Any]

    @property
    def json(self) -> str:
        return json.dumps(self.arguments)


@dataclass
class Asked:
    """What a request asks for, whatever its dialect."""

    model: str
    prompt: str = ""  # the text of all user messages
    results: list[str] = field(default_factory=list)  # of tools
    tools: dict[str, Any] = field(default_factory=dict)  # name → JSON schema of the arguments
    images: int = 0
    reasons: bool = False
    stream: bool = False


@dataclass(frozen=True)
class Turn:
    """What the model answers. ``pause``: seconds between two pieces of its text."""

    text: str = ""
    call: Call | None = None
    reasoning: str = ""
    pause: float = 0.0

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\S+\s*", self.text)


def answer(asked: Asked) -> Turn:
    """The next turn of the conversation."""
    reasoning = "I think about the request." if asked.reasons else ""
    if _SLOW in asked.prompt:
        return Turn(" ".join(map(str, range(1, 200))), reasoning=reasoning, pause=0.2)
    if found := [marker for result in asked.results for marker in MARKER.findall(result)]:
        return Turn(f"The marker is {found[-1]}.", reasoning=reasoning)
    path = _PATH.findall(asked.prompt)
    # Semantic Kernel puts the name of the plugin before that of the function: Files-read_marker.
    own = {name: name.lower().rpartition("-")[2] for name in asked.tools}
    name = next((name for wanted in _TOOLS for name in own if own[name] == wanted), None)
    if path and name and len(asked.results) < _MOST_TURNS:
        return Turn(call=Call(name, _arguments(asked.tools[name], path[-1])), reasoning=reasoning)
    seen = f" I see {asked.images} picture(s)." if asked.images else ""
    return Turn(f"Hello from the local provider.{seen}", reasoning=reasoning)


def _arguments(schema: Any, path: str) -> dict[str, Any]:
    """Arguments that satisfy ``schema`` and read the file at ``path``."""
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    required = schema.get("required") or list(properties)
    return {name: _value(name, properties.get(name, {}), path) for name in required}


def _value(name: str, schema: dict[str, Any], path: str) -> Any:
    kind = schema.get("type", "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if "enum" in schema:
        return schema["enum"][0]
    if re.search("path|file", name, re.IGNORECASE):
        return [path] if kind == "array" else path
    if re.search("command|cmd", name, re.IGNORECASE):
        return ["cat", path] if kind == "array" else f"cat {path}"
    return {"string": "read the marker", "integer": 1000, "number": 1000, "boolean": False, "array": []}.get(kind, {})
