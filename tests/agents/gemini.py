"""Google's Gemini API."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from .plan import SIGNATURE, Asked, Refusal, Turn


def read(body: dict[str, Any], model: str) -> Asked:
    """What is asked for.

    Raises:
        Refusal: the real service would refuse it.
    """
    config = body.get("generationConfig") or {}
    thinking = config.get("thinkingConfig") or {}
    asked = Asked(model, reasons=bool(thinking.get("includeThoughts")))
    contents = body["contents"]
    for number, content in enumerate([contents] if isinstance(contents, dict) else contents):
        for place, part in enumerate(content["parts"]):
            if "functionCall" in part and model.startswith("gemini-3") and part.get("thoughtSignature") != SIGNATURE:
                name = part["functionCall"]["name"]
                message = f"Function call `{name}` in the {number + 1}. content block is missing a `thought_signature`."
                raise Refusal(400, message, f"contents[{number}].parts[{place}]")
            if "functionResponse" in part:
                asked.results.append(str(part["functionResponse"]["response"]))
            elif content.get("role", "user") == "user":
                asked.prompt += part.get("text", "") + "\n"
                asked.images += "inlineData" in part
    for tool in body.get("tools") or ():
        for function in tool.get("functionDeclarations") or ():
            schema = function.get("parameters") or function.get("parametersJsonSchema") or {}
            asked.tools[function["name"]] = schema
    return asked


def _parts(turn: Turn) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": turn.reasoning, "thought": True}] if turn.reasoning else []
    if turn.call:
        call = {"name": turn.call.name, "args": turn.call.arguments}
        return [*parts, {"functionCall": call, "thoughtSignature": SIGNATURE}]
    return [*parts, *({"text": piece} for piece in turn.pieces)]


def _answer(model: str, parts: list[dict[str, Any]], name: str, *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 50, "candidatesTokenCount": 20, "totalTokenCount": 70}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": name}


def whole(model: str, turn: Turn) -> dict[str, Any]:
    return _answer(model, _parts(turn), uuid.uuid4().hex, last=True)


def events(model: str, turn: Turn) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name (none), data and the pause before each event of a stream."""
    parts, answered = _parts(turn), uuid.uuid4().hex
    for number, part in enumerate(parts, start=1):
        yield "", _answer(model, [part], answered, last=number == len(parts)), turn.pause
