"""OpenAI's Responses API in the sandbox: one message or one function call, whole or as numbered events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from .answers import CREATED, Answer, Reply, Tool, respond, sse


def answer(body: dict[str, Any]) -> Reply:
    """``POST /v1/responses``.

    Raises:
        Refused: unknown model, or nothing said.
    """
    said = _respond(body)
    if body.get("stream") is True:
        return Reply(events=_events(said, body), pause=said.pause)
    return Reply(_response(said, body, _status(said), [_item(said, _status(said))]))


def input_tokens(body: dict[str, Any]) -> Reply:
    """``POST /v1/responses/input_tokens``."""
    return Reply({"object": "response.input_tokens", "input_tokens": _respond(body).input_tokens})


def _respond(body: dict[str, Any]) -> Answer:
    return respond(
        body.get("model"),
        body.get("input"),
        body.get("instructions"),
        limit=body.get("max_output_tokens"),
        tool=_forced(body),
    )


def _forced(body: dict[str, Any]) -> Tool | None:
    choice, tools = body.get("tool_choice"), body.get("tools")
    name = choice.get("name") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(tools, list) or (choice != "required" and name is None):
        return None
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == "function" and name in (None, tool.get("name")):
            return Tool(str(tool.get("name")), tool.get("parameters"))
    return None


def _status(said: Answer) -> str:
    return "incomplete" if said.truncated else "completed"


def _response(said: Answer, body: dict[str, Any], status: str, output: list[Any]) -> dict[str, Any]:
    over = status != "in_progress"
    usage = {
        "input_tokens": said.input_tokens,
        "output_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": said.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "truncation": "disabled",
        "service_tier": "default",
        "usage": usage if over else None,
        "metadata": body.get("metadata") or {},
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(said: Answer, status: str) -> dict[str, Any]:
    """The one output item; empty while ``status`` is ``in_progress``."""
    fresh = status == "in_progress"
    if said.tool is not None:
        made_up = "" if fresh else json.dumps(said.tool.arguments)
        return {
            "type": "function_call",
            "id": f"fc_{said.id}",
            "call_id": f"call_{said.id}",
            "name": said.tool.name,
            "arguments": made_up,
            "status": status,
        }
    content = [] if fresh else [_part(said.text)]
    return {"type": "message", "id": f"msg_{said.id}", "role": "assistant", "status": status, "content": content}


def _events(said: Answer, body: dict[str, Any]) -> Iterator[bytes]:
    numbers = count()
    item, status = _item(said, _status(said)), _status(said)
    place: dict[str, Any] = {"item_id": item["id"], "output_index": 0}

    def event(kind: str, **fields: Any) -> bytes:
        name = f"response.{kind}"
        return sse({"type": name, "sequence_number": next(numbers), **fields}, name)

    empty = _response(said, body, "in_progress", [])
    yield (
        event("created", response=empty)
        + event("in_progress", response=empty)
        + event("output_item.added", output_index=0, item=_item(said, "in_progress"))
    )
    if said.tool is not None:
        yield event("function_call_arguments.delta", delta=item["arguments"], **place) + event(
            "function_call_arguments.done", arguments=item["arguments"], name=said.tool.name, **place
        )
    else:
        yield from _text_events(said, event, place | {"content_index": 0})
    yield event("output_item.done", output_index=0, item=item) + event(
        status, response=_response(said, body, status, [item])
    )


def _text_events(said: Answer, event: Any, place: dict[str, Any]) -> Iterator[bytes]:
    added = event("content_part.added", part=_part(""), **place)
    for word in said.words:
        yield added + event("output_text.delta", delta=word, logprobs=[], **place)
        added = b""
    yield event("output_text.done", text=said.text, logprobs=[], **place) + event(
        "content_part.done", part=_part(said.text), **place
    )
