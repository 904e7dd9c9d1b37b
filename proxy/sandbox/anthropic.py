"""The sandbox in Anthropic's dialect (Messages API, version 2023-06-01)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .answers import MODELS, Answer, Refused, Reply, Tool, check_model, respond, sse

_ERRORS = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 500: "api_error"}


def error(refused: Refused) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _ERRORS[refused.status], "message": refused.message}}


def models(model: str | None) -> Reply:
    """All models, or the one that is named."""
    rows = [
        {
            "type": "model",
            "id": name,
            "display_name": name.replace("-", " ").title(),
            "lifecycle": "active",
            "created_at": "2026-01-01T00:00:00Z",
        }
        for name in MODELS
    ]
    if model is None:
        return Reply({"data": rows, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})
    if model not in MODELS:
        check_model(model)
    return Reply(next(row for row in rows if row["id"] == model))


def _messages(body: dict[str, Any]) -> Reply:
    if "max_tokens" not in body:
        raise Refused(400, "max_tokens: Field required", param="max_tokens")
    answer = respond(
        body.get("model"), body.get("messages"), body.get("system"), limit=body["max_tokens"], tool=_forced(body)
    )
    if body.get("stream") is True:
        return Reply(events=_events(answer), pause=answer.pause)
    return Reply(_message(answer) | {"content": [_block(answer)], "stop_reason": _stop_reason(answer)})


def _count_tokens(body: dict[str, Any]) -> Reply:
    return Reply({"input_tokens": respond(body.get("model"), body.get("messages"), body.get("system")).input_tokens})


def _forced(body: dict[str, Any]) -> Tool | None:
    choice, tools = body.get("tool_choice"), body.get("tools")
    if not isinstance(choice, dict) or not isinstance(tools, list) or choice.get("type") not in ("tool", "any"):
        return None
    for tool in tools:
        if isinstance(tool, dict) and "input_schema" in tool and choice.get("name") in (None, tool.get("name")):
            return Tool(str(tool.get("name")), tool["input_schema"])
    return None


def _message(answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": answer.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": answer.output_tokens,
            "service_tier": "standard",
        },
    }


def _block(answer: Answer, *, empty: bool = False) -> dict[str, Any]:
    if answer.tool is None:
        return {"type": "text", "text": "" if empty else answer.text}
    made_up = {} if empty else answer.tool.arguments
    return {"type": "tool_use", "id": f"toolu_{answer.id}", "name": answer.tool.name, "input": made_up}


def _stop_reason(answer: Answer) -> str:
    return "tool_use" if answer.tool else "max_tokens" if answer.truncated else "end_turn"


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _events(answer: Answer) -> Iterator[bytes]:
    start = _message(answer)
    start["usage"] |= {"output_tokens": 1}  # as providers do: the true number comes with message_delta
    yield (
        _event("message_start", message=start)
        + _event("content_block_start", index=0, content_block=_block(answer, empty=True))
        + _event("ping")
    )
    if answer.tool is not None:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(answer.tool.arguments)}
        yield _event("content_block_delta", index=0, delta=delta)
    for word in answer.words:
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield (
        _event("content_block_stop", index=0)
        + _event(
            "message_delta",
            delta={"stop_reason": _stop_reason(answer), "stop_sequence": None},
            usage={"output_tokens": answer.output_tokens},
        )
        + _event("message_stop")
    )


ROUTES = {"/v1/messages": _messages, "/v1/messages/count_tokens": _count_tokens}
