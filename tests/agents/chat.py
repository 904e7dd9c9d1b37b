"""OpenAI's chat completions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from .plan import Asked, Refusal, Turn


def read(body: dict[str, Any]) -> Asked:
    """What is asked for.

    Raises:
        Refusal: the real service would refuse it.
    """
    asked = Asked(body["model"], stream=body.get("stream") is True)
    calls: set[str] = set()
    for number, message in enumerate(body["messages"]):
        if message["role"] == "tool":
            if message["tool_call_id"] not in calls:
                text = (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'."
                )
                raise Refusal(400, text, f"messages.[{number}].role")
            asked.results.append(_text(message["content"], asked))
        elif message["role"] == "assistant":
            calls = {call["id"] for call in message.get("tool_calls") or ()}
        elif message["role"] == "user":
            asked.prompt += _text(message["content"], asked) + "\n"
    for tool in body.get("tools") or ():
        asked.tools[tool["function"]["name"]] = tool["function"].get("parameters") or {}
    return asked


def _text(content: Any, asked: Asked) -> str:
    if isinstance(content, str):
        return content
    asked.images += sum(part.get("type") == "image_url" for part in content or ())
    return " ".join(part.get("text", "") for part in content or ())


_USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}


def _calls(turn: Turn) -> list[dict[str, Any]]:
    assert turn.call is not None
    function = {"name": turn.call.name, "arguments": turn.call.json}
    return [{"id": f"call_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}]


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """With an id of its own: a client may take two answers with one id for one (LangGraph does)."""
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": 1_700_000_000, "model": body["model"]}


def whole(body: dict[str, Any], turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if turn.call:
        message["tool_calls"] = _calls(turn)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if turn.call else "stop"}
    return {**_head(body, "chat.completion"), "choices": [choice], "usage": _USAGE}


def events(body: dict[str, Any], turn: Turn) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name (none), data and the pause before each event of a stream."""
    head = _head(body, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    yield "", chunk({"role": "assistant", "content": ""}), 0
    for piece in turn.pieces:
        yield "", chunk({"content": piece}), turn.pause
    if turn.call:
        yield "", chunk({"tool_calls": [{"index": 0, **call} for call in _calls(turn)]}), 0
    yield "", chunk({}, "tool_calls" if turn.call else "stop"), 0
    if (body.get("stream_options") or {}).get("include_usage"):
        yield "", {**head, "choices": [], "usage": _USAGE}, 0
