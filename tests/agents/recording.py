"""Small recordings of what the agents sent, for the suite: ``tests/fixtures/agents``, one file for each agent."""

from __future__ import annotations

import json
import re
from typing import Any

from .broker import ROOT
from .provider import Seen

FOLDER = ROOT / "tests" / "fixtures" / "agents"
_LONGEST = 80  # characters of a text; the prompts of agents have tens of thousands
_MOST_TOOLS = 4
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,27}|[0-9a-f]{16,}")
_FOLDER = re.compile(r"/[\w./-]*aipassport-clients-\w+[\w./-]*")
_HEADERS = re.compile(r"anthropic-|openai-|x-goog-|accept$|content-type$", re.IGNORECASE)
_SECRET = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key"})


def write(name: str, provider: str, seen: list[Seen]) -> None:
    """Keep the calls that run a model, each form of body once."""
    kept: dict[str, Any] = {}
    for one in seen:
        if one.method == "POST" and isinstance(one.body, dict):
            shape = json.dumps([one.path, sorted(one.body), [sorted(item) for item in _items(one.body)]])
            kept.setdefault(shape, _small_request(one))
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"provider": provider, "requests": list(kept.values())}, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    found = body.get("input") or body.get("messages") or body.get("contents") or []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _small_request(one: Seen) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in one.headers.items()}
    kept = {name: value for name, value in headers.items() if _HEADERS.match(name) and name not in _SECRET}
    return {"path": one.path.removeprefix("/proxy"), "headers": kept, "body": small(one.body)}


def small(value: Any) -> Any:
    """``value`` with its texts cut, without ids and folders of the machine."""
    if isinstance(value, dict):
        return {name: small(member) for name, member in value.items()}
    if isinstance(value, list):
        tools = [item for item in value if isinstance(item, dict) and ("input_schema" in item or "parameters" in item)]
        return [small(item) for item in (value[:_MOST_TOOLS] if tools else value)]
    if isinstance(value, str):
        text = _FOLDER.sub("/home/user/work", _ID.sub(lambda found: "0" * len(found[0]), value))
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return value
