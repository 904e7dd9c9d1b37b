"""What an answer says that it used: the part of it that metering needs.

Most of it is the provider's own: ``model``, ``usage``, ``service_tier``, for Gemini ``modelVersion`` and
``usageMetadata``, and ``tool_usage``, ``duration`` where they are. Three names are ours:

``parts``       the answer was made in several steps or by several models: a list of ``{"model", "usage"}`` that are the
                usage together, each with a price of its own. Anthropic leaves compactions and advisors out of its
                totals; Groq's systems are priced by the models within them.
``tools``       calls of hosted tools that the answer shows, by kind: ``{"web_search_call": 2}``. Of these, ``usage``
                counts at most the tokens.
``unfinished``  true where the report came before the end: more was made than it says.

Pure, and nothing here raises, whatever a provider sends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

_KEPT = ("model", "usage", "service_tier", "modelVersion", "usageMetadata", "duration", "tool_usage")
_PRICING = ("service_tier", "speed", "inference_geo")  # what of a whole usage holds for each step

# Items of a Responses output that their provider ran and may bill by the call. Functions, computers and patches are
# run by the app; calls of MCP servers cost their tokens only.
_HOSTED_ITEMS = frozenset(
    {
        "web_search_call",
        "x_search_call",
        "file_search_call",
        "collections_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "shell_call",
    }
)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, or an empty one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def dict_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list."""
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def report(answer: dict[str, Any], model: str, *, unfinished: bool = False) -> dict[str, Any] | None:
    """What of ``answer`` metering needs; ``None`` where it reports no usage. ``model``: what was asked for."""
    if not any(dict_of(answer.get(name)) for name in ("usage", "usageMetadata")):
        return None
    kept = {name: answer[name] for name in _KEPT if answer.get(name) is not None}
    if not isinstance(kept.get("model"), str):
        kept["model"] = model
    found = {"parts": _parts(answer, kept["model"]), "tools": tools(answer), "unfinished": unfinished}
    return kept | {name: value for name, value in found.items() if value}


def _parts(answer: dict[str, Any], model: str) -> list[dict[str, Any]]:
    breakdown = list(dicts(dict_of(answer.get("usage_breakdown")).get("models")))
    if breakdown:
        return [{"model": one.get("model"), "usage": dict_of(one.get("usage"))} for one in breakdown]
    usage = dict_of(answer.get("usage"))
    steps = list(dicts(usage.get("iterations")))
    if len(steps) < 2:  # a single step is the whole
        return []
    common = {name: usage[name] for name in _PRICING if name in usage}
    searched = {"server_tool_use": usage.get("server_tool_use")}  # counted for all steps together
    return [
        {"model": step.get("model") or model, "usage": common | step | ({} if place else searched)}
        for place, step in enumerate(steps)
    ]


def tools(answer: dict[str, Any]) -> dict[str, int]:
    """Calls of hosted tools by kind: items of Responses, Groq's executed tools, Gemini's searches."""
    found: Counter[str] = Counter()
    for item in dicts(answer.get("output")):
        kind = item.get("type")
        if isinstance(kind, str) and kind in _HOSTED_ITEMS and _is_billed(item):
            found[kind] += 1
    searches = dict_of(dict_of(answer.get("tool_usage")).get("web_search")).get("num_requests")
    if type(searches) is int:  # what OpenAI itself counted
        found["web_search_call"] = max(searches, 0)
    for choice in dicts(answer.get("choices")):
        found.update(executed(dict_of(choice.get("message"))).values())
    for candidate in dicts(answer.get("candidates")):
        found.update(grounded(candidate))
    return {kind: count for kind, count in found.items() if count}


def _is_billed(item: dict[str, Any]) -> bool:
    """Of web searches, opening a page that was found is not billed."""
    return item["type"] != "web_search_call" or dict_of(item.get("action")).get("type", "search") == "search"


def executed(message: dict[str, Any]) -> dict[Any, str]:
    """The tools that Groq ran for a message or delta, by their place (a stream tells of each more than once)."""
    return {
        str(tool.get("index", place)): f"groq_{tool.get('type')}"
        for place, tool in enumerate(dicts(message.get("executed_tools")))
    }


def grounded(candidate: dict[str, Any]) -> dict[str, int]:
    """What Gemini looked up for a candidate: searches by their queries, maps once."""
    metadata = dict_of(candidate.get("groundingMetadata"))
    queries = metadata.get("webSearchQueries")
    searches = len(queries) if isinstance(queries, list) else 0
    maps = any("maps" in chunk for chunk in dicts(metadata.get("groundingChunks")))
    return {kind: count for kind, count in (("google_search", searches), ("google_maps", int(maps))) if count}


def called(answer: dict[str, Any]) -> int:
    """Characters of the function calls in a Gemini chunk, without the signatures that come beside them."""
    found = 0
    for candidate in dicts(answer.get("candidates")):
        for part in dicts(dict_of(candidate.get("content")).get("parts")):
            found += len(json.dumps(part["functionCall"])) if part.get("functionCall") else 0
    return found


def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two reports of usage as one: every count the sum of both."""
    total = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            total[name] = added(dict_of(total.get(name)), value)
        elif type(value) is int:
            before = total.get(name)
            total[name] = value + before if type(before) is int else value
    return total
