"""OpenAI's Responses API, as strict as the real one with what was not stored.

The messages of the refusals are those of the service, as users quote them (github.com/openai/openai-agents-python and
github.com/vercel/ai, issues on "Items are not persisted when `store` is set to false").
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

from .plan import ENCRYPTED, Asked, Refusal, Turn

_REASONS = re.compile(r"gpt-5(?!.*chat)|o\d|codex")
_stored: set[str] = set()  # ids of items of answers that were stored
_EMPTY: dict[str, dict[str, Any]] = {"message": {"content": []}, "function_call": {"arguments": ""}}
_needs: dict[str, str] = {}  # id of a function call → id of the reasoning before it


def reasons(model: str) -> bool:
    return bool(_REASONS.match(model))


def read(body: dict[str, Any]) -> Asked:
    """What is asked for.

    Raises:
        Refusal: the real service would refuse it.
    """
    model = body["model"]
    asked = Asked(model, reasons=reasons(model), stream=body.get("stream") is True)
    _check(body, asked)
    given = body.get("input", "")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    seen, calls = {item.get("id") for item in items}, set()
    for number, item in enumerate(items):
        _check_item(item, number, seen)
        kind = item.get("type", "message")
        if kind in ("function_call", "local_shell_call", "custom_tool_call"):
            calls.add(item["call_id"])
        elif kind in ("function_call_output", "local_shell_call_output", "custom_tool_call_output"):
            if item["call_id"] not in calls:
                message = f"No tool call found for function call output with call_id {item['call_id']}."
                raise Refusal(400, message, "input")
            asked.results.append(_text(item["output"], asked))
        elif kind == "message" and item["role"] == "user":
            asked.prompt += _text(item["content"], asked) + "\n"
    for tool in body.get("tools") or ():
        if tool["type"] == "function":
            asked.tools[tool["name"]] = tool.get("parameters") or {}
    return asked


def _check(body: dict[str, Any], asked: Asked) -> None:
    if not asked.reasons and "reasoning.encrypted_content" in (body.get("include") or ()):
        raise Refusal(400, "Encrypted content is not supported with this model.", "include")
    if not asked.reasons and (body.get("reasoning") or {}).get("effort"):
        raise Refusal(
            400,
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            "reasoning.effort",
            "unsupported_parameter",
        )
    if body.get("previous_response_id"):
        raise Refusal(400, "Previous response not found.", "previous_response_id", "previous_response_not_found")


def _check_item(item: dict[str, Any], number: int, seen: set[Any]) -> None:
    kind, name = item.get("type"), item.get("id")
    if "parsed_arguments" in item:  # github.com/openai/openai-python/issues/2720
        where = f"input[{number}].parsed_arguments"
        raise Refusal(400, f"Unknown parameter: '{where}'.", where, "unknown_parameter")
    unstored = name not in _stored
    if (kind == "item_reference" and unstored) or (
        kind == "reasoning" and unstored and not item.get("encrypted_content")
    ):
        message = (
            f"Item with id '{name}' not found. Items are not persisted when `store` is set to false. "
            "Try again with `store` set to true, or remove this item from your input."
        )
        raise Refusal(404, message, "input")
    if kind == "reasoning" and unstored and item["encrypted_content"] != ENCRYPTED:
        message = f"The encrypted content for item {name} could not be verified."
        raise Refusal(400, message, None, "invalid_encrypted_content")
    if kind == "function_call" and (needed := _needs.get(str(name))) and needed not in seen:
        message = (
            f"Item '{name}' of type 'function_call' was provided without its required 'reasoning' item: '{needed}'."
        )
        raise Refusal(400, message, f"input[{number}]")


def _text(content: Any, asked: Asked) -> str:
    if isinstance(content, str):
        return content
    asked.images += sum(part.get("type") == "input_image" for part in content)
    return " ".join(part.get("text", "") for part in content)


def _items(body: dict[str, Any], turn: Turn) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if turn.reasoning:
        items.append(
            {
                "id": f"rs_{uuid.uuid4().hex}",
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": turn.reasoning}],
            }
        )
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            items[0]["encrypted_content"] = ENCRYPTED
    if turn.call:
        call = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "status": "completed"}
        items.append(
            call | {"call_id": f"call_{uuid.uuid4().hex}", "name": turn.call.name, "arguments": turn.call.json}
        )
        if turn.reasoning:
            _needs[call["id"]] = items[0]["id"]
    else:
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "status": "completed", "role": "assistant"}
        items.append(message | {"content": [part]})
    if body.get("store") is not False:
        _stored.update(item["id"] for item in items)
    return items


def _usage(turn: Turn) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": 50, "output_tokens": 20, "total_tokens": 70, **details}


def whole(body: dict[str, Any], turn: Turn) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": body["model"],
        "output": _items(body, turn),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _usage(turn),
    }


def events(body: dict[str, Any], turn: Turn) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name, data and the pause before each event of a stream."""
    done = whole(body, turn)
    begun = done | {"status": "in_progress", "output": [], "usage": None}
    yield "response.created", {"response": begun}, 0
    for index, item in enumerate(done["output"]):
        at = {"output_index": index}
        place = at | {"item_id": item["id"]}
        begun_item = item | {"status": "in_progress"} | _EMPTY.get(item["type"], {})
        yield "response.output_item.added", at | {"item": begun_item}, 0
        if item["type"] == "message":
            part = item["content"][0]
            place |= {"content_index": 0}
            yield "response.content_part.added", place | {"part": part | {"text": ""}}, 0
            for piece in turn.pieces:
                yield "response.output_text.delta", place | {"delta": piece, "logprobs": []}, turn.pause
            yield "response.output_text.done", place | {"text": turn.text, "logprobs": []}, 0
            yield "response.content_part.done", place | {"part": part}, 0
        elif item["type"] == "function_call":
            yield "response.function_call_arguments.delta", place | {"delta": item["arguments"]}, 0
            yield (
                "response.function_call_arguments.done",
                place | {"arguments": item["arguments"], "name": item["name"]},
                0,
            )
        yield "response.output_item.done", at | {"item": item}, 0
    yield "response.completed", {"response": done}, 0
