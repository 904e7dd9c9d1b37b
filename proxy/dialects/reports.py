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

KEPT = ("model", "usage", "service_tier", "modelVersion", "usageMetadata", "duration", "tool_usage")
_PRICING = ("service_tier", "speed", "inference_geo")  # what of a whole usage holds for each step

# Items of a Responses output that cost their tokens only. The app runs functions, computers, local shells and patches;
# calls of MCP servers and searches for tools are billed by the token (developers.openai.com, "Pricing"). Any other item
# may be a call of a tool that its provider ran, and bills by the call.
_TOKENS_ONLY = frozenset(
    {
        "message",
        "reasoning",
        "compaction",
        "function_call",
        "custom_tool_call",
        "computer_call",
        "local_shell_call",
        "apply_patch_call",
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "tool_search_call",
        "tool_search_output",
    }
)
# What of Gemini's grounding says nothing of what was looked up.
_UNBILLED_GROUNDING = frozenset(
    {
        "webSearchQueries",
        "groundingChunks",
        "groundingSupports",
        "searchEntryPoint",
        "retrievalMetadata",
        "googleMapsWidgetContextToken",
        "retrievalQueries",
        "sourceFlaggingUris",
    }
)
_CHUNKS = frozenset({"web", "maps", "retrievedContext"})  # documents that the app stored are billed by the token


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
    kept = {name: answer[name] for name in KEPT if answer.get(name) is not None}
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
        if isinstance(kind, str) and kind not in _TOKENS_ONLY and _is_billed(item):
            found[kind] += 1
    for name, count in dict_of(dict_of(answer.get("usage")).get("server_side_tool_usage_details")).items():  # xAI
        told = name.removesuffix("s")
        if type(count) is int and told not in _TOKENS_ONLY:
            found[told] = max(found[told], count)
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
    """What Gemini looked up for a candidate: searches by their queries, maps and what is not known once."""
    metadata = dict_of(candidate.get("groundingMetadata"))
    queries, chunks = metadata.get("webSearchQueries"), list(dicts(metadata.get("groundingChunks")))
    searches = len(queries) if isinstance(queries, list) else 0
    searched = bool(metadata.get("searchEntryPoint")) or any("web" in chunk for chunk in chunks)
    found = {
        "google_search": max(searches, int(searched)),
        "google_maps": int(any("maps" in chunk for chunk in chunks)),
    }
    for name in {name for name, value in metadata.items() if value} - _UNBILLED_GROUNDING:
        found[f"google_{name}"] = 1
    for name in {name for chunk in chunks for name in chunk} - _CHUNKS:
        found[f"google_{name}"] = 1
    return {kind: count for kind, count in found.items() if count}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two reports of the usage of one answer: of each count the larger one, of all else the later one."""
    total = dict(one)
    for name, value in other.items():
        before = total.get(name)
        if before == value:
            continue
        if isinstance(before, dict):
            total[name] = merged(before, dict_of(value))
        elif isinstance(before, list):
            total[name] = _merged_lists(before, value if isinstance(value, list) else [])
        elif _is_number(before):
            total[name] = max(before, value) if _is_number(value) else before
        elif value is not None:
            total[name] = value
    return total


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _merged_lists(one: list[Any], other: list[Any]) -> list[Any]:
    """Gemini's counts by modality come in any order; of other lists the longer one has more of the answer."""
    if all(isinstance(item, dict) and isinstance(item.get("modality"), str) for item in (*one, *other)):
        found: dict[str, dict[str, Any]] = {}
        for item in (*one, *other):
            found[item["modality"]] = merged(found.get(item["modality"], {}), item)
        return list(found.values())
    return other if len(other) >= len(one) else one


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
