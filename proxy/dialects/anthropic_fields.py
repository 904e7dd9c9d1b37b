"""Every body field of Anthropic's routes, and what it asks for.

The truth is anthropic-sdk-python's ``types/**/message_create_params.py`` (2.12, with its betas) and
https://docs.claude.com/en/api/messages. Pictures and documents given by URL are plain: Anthropic fetches them.
"""

from __future__ import annotations

from typing import Any

from grants.providers import Capability

from ..exceptions import BadRequest
from .fields import PLAIN, Reading, Rule, Table, apply, plain
from .rules import (
    CODE,
    DESCRIBED,
    HIDDEN,
    LIMIT,
    MODEL,
    OBJECT,
    OTHER_MODEL,
    STATEFUL,
    STREAM,
    TIER,
    WEB,
    beyond,
    each,
    every,
    fields,
    inline,
    kinds,
    refused,
    some,
)

# Tools by type, less the date at its end. One without a type is the app's own.
TOOLS: dict[str, Rule] = {
    **plain("custom bash text_editor memory"),  # run by the app
    # Inert, but the model runs again after each search, and reads everything again.
    **apply(beyond("hosted tools"), "tool_search_tool_bm25 tool_search_tool_regex"),
    **apply(WEB, "web_search web_fetch mcp_toolset"),
    **apply(CODE, "code_execution computer computer_toolset browser_toolset"),
    "advisor": every(some(model=OTHER_MODEL, max_tokens=LIMIT), beyond("another model may run")),
}
_TOOL = every(kinds(TOOLS, what="A tool", absent=PLAIN, versioned=True), DESCRIBED)


def _nested(reading: Reading, where: str, value: Any) -> None:
    """Blocks within blocks."""
    if _CONTENT.check is not None:
        _CONTENT.check(reading, where, value)


_BLOCKS_INSIDE = some(content=Rule("checked", _nested))
SOURCES: dict[str, Rule] = {
    "base64": inline("data", "media_type"),
    **plain("text"),
    "url": HIDDEN,
    "content": _BLOCKS_INSIDE,
    "file": STATEFUL,
}


def _picture_url(reading: Reading, where: str, value: Any) -> None:
    """The provider refuses any other file at the URL of a picture (docs, "Vision")."""
    reading.tally.picture_at(value.get("url"), where)


PICTURE_SOURCES = {**SOURCES, "url": Rule("checked", _picture_url)}
_WITH_SOURCE = some(source=kinds(SOURCES, what="A source"))
_WITH_PICTURE = some(source=kinds(PICTURE_SOURCES, what="A source"))
_ADDED_TOOL: dict[str, Rule] = {
    "tool_reference": PLAIN,
    "tool_definition": some(definition=_TOOL),
    **apply(WEB, "mcp_tool_reference mcp_toolset_reference"),
}

BLOCKS: dict[str, Rule] = {
    **plain("text thinking redacted_thinking search_result tool_use fallback browser_state"),
    **plain("tool_reference tool_removal mcp_tool_listing"),
    "compaction": HIDDEN,
    # What hosted tools answered in earlier turns: text by now, but in part encrypted, or a document.
    **plain("server_tool_use tool_search_tool_result mcp_tool_use"),
    **apply(HIDDEN, "web_search_tool_result web_fetch_tool_result code_execution_tool_result mcp_tool_result"),
    **apply(HIDDEN, "bash_code_execution_tool_result text_editor_code_execution_tool_result advisor_tool_result"),
    "image": _WITH_PICTURE,
    "document": _WITH_SOURCE,
    "tool_result": _BLOCKS_INSIDE,
    "tool_addition": some(tool=kinds(_ADDED_TOOL, what="A tool")),
    "container_upload": STATEFUL,
}
_CONTENT = each(kinds(BLOCKS, what="A block"), text=True)


def _fallbacks(reading: Reading, where: str, value: Any) -> None:
    if type(value) is str:  # "default": whichever model Anthropic chooses
        raise BadRequest("'fallbacks' must list its models, so that each can be checked.", param=where)
    if value:
        reading.tally.beyond("another model may run")
    if _FALLBACKS.check is not None:
        _FALLBACKS.check(reading, where, value)


_FALLBACKS = each(fields(Table({"model": OTHER_MODEL, "max_tokens": LIMIT}, plain("output_config speed thinking"))))


def _edits(reading: Reading, where: str, value: Any) -> None:
    """Clearing old blocks takes input away; compaction lets the model run once more to sum them up."""
    edits = value.get("edits") if type(value) is dict else value
    for edit in edits if type(edits) is list else (edits,) if edits else ():
        kind = edit.get("type") if type(edit) is dict else None
        if type(kind) is not str or not kind.startswith("clear_"):
            reading.tally.beyond("compaction")


def _new_thread(reading: Reading, where: str, value: Any) -> None:
    """The provider keeps the conversation from here on, and this call shows all of it."""
    reading.ask(Capability.STATE, where)
    if value.keys() != {"type"}:
        reading.tally.hide(where)


_THREAD = kinds({"create": Rule("stateful", _new_thread), "continue": STATEFUL}, what="A thread")

COUNT_TOKENS = Table(
    plain("tool_choice thinking output_config output_format cache_control"),
    {"context_management": Rule("priced", _edits), "compaction": beyond("compaction")},
    {
        "model": MODEL,
        "messages": each(some(content=_CONTENT)),
        "system": _CONTENT,
        "tools": each(_TOOL),
        "mcp_servers": WEB,
        "speed": TIER,
        "billing_policy": refused("who pays is the owner's to say"),
    },
)
MESSAGES = Table(
    COUNT_TOKENS,
    plain("metadata stop_sequences temperature top_p top_k fallback_credit_token"),
    {"stream": STREAM, "fallbacks": Rule("checked", _fallbacks)},
    {"max_tokens": LIMIT, "service_tier": TIER, "inference_geo": TIER},
    {
        "container": STATEFUL,
        "thread": _THREAD,
        "diagnostics": every(OBJECT, some(previous_message_id=STATEFUL)),
    },
)
