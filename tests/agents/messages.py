"""Anthropic's Messages API."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from .plan import SIGNATURE, Asked, Refusal, Turn


def read(body: dict[str, Any]) -> Asked:
    """What is asked for.

    Raises:
        Refusal: the real service would refuse it.
    """
    if "max_tokens" not in body:
        raise Refusal(400, "max_tokens: Field required")
    asked = Asked(body["model"], stream=body.get("stream") is True)
    asked.reasons = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    calls: set[str] = set()
    for number, message in enumerate(body["messages"]):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for place, block in enumerate(blocks):
            _read_block(asked, calls, block, message["role"], f"messages.{number}.content.{place}")
    for tool in body.get("tools") or ():
        if "input_schema" in tool:
            asked.tools[tool["name"]] = tool["input_schema"]
    return asked


def _read_block(asked: Asked, calls: set[str], block: dict[str, Any], role: str, where: str) -> None:
    if block["type"] == "tool_use":
        calls.add(block["id"])
    elif block["type"] == "thinking" and block["signature"] != SIGNATURE:
        raise Refusal(400, f"{where}: Invalid `signature` in `thinking` block")
    elif block["type"] == "tool_result":
        if (name := block["tool_use_id"]) not in calls:
            raise Refusal(400, f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {name}")
        asked.results.append(_text(block.get("content", ""), asked))
    elif role == "user":
        asked.prompt += _text([block], asked) + "\n"


def _text(content: Any, asked: Asked) -> str:
    if isinstance(content, str):
        return content
    asked.images += sum(block["type"] == "image" for block in content)
    return " ".join(block.get("text", "") for block in content)


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if turn.reasoning:
        blocks.append({"type": "thinking", "thinking": turn.reasoning, "signature": SIGNATURE})
    if turn.call:
        use = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}"}
        blocks.append(use | {"name": turn.call.name, "input": turn.call.arguments})
    else:
        blocks.append({"type": "text", "text": turn.text})
    return blocks


def whole(body: dict[str, Any], turn: Turn) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": _blocks(turn),
        "stop_reason": "tool_use" if turn.call else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 50, "output_tokens": 20},
    }


def events(body: dict[str, Any], turn: Turn) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name, data and the pause before each event of a stream."""
    done = whole(body, turn)
    begun: dict[str, Any] = {"content": [], "stop_reason": None, "usage": {"input_tokens": 50, "output_tokens": 1}}
    yield "message_start", {"message": done | begun}, 0
    for index, block in enumerate(done["content"]):
        at = {"index": index}
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        yield "content_block_start", at | {"content_block": block | empty[block["type"]]}, 0
        if block["type"] == "text":
            for piece in turn.pieces:
                yield "content_block_delta", at | {"delta": {"type": "text_delta", "text": piece}}, turn.pause
        elif block["type"] == "thinking":
            yield "content_block_delta", at | {"delta": {"type": "thinking_delta", "thinking": turn.reasoning}}, 0
            yield "content_block_delta", at | {"delta": {"type": "signature_delta", "signature": SIGNATURE}}, 0
        elif turn.call:
            delta = {"type": "input_json_delta", "partial_json": turn.call.json}
            yield "content_block_delta", at | {"delta": delta}, 0
        yield "content_block_stop", at, 0
    stop = {"stop_reason": done["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": stop, "usage": {"output_tokens": 20}}, 0
    yield "message_stop", {}, 0
