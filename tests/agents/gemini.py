"""Google's Gemini API."""

from __future__ import annotations

import re
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
    thinking = _get(config, "thinkingConfig") or {}
    asked = Asked(model, reasons=bool(_get(thinking, "includeThoughts")))
    contents = body["contents"]
    for number, content in enumerate([contents] if isinstance(contents, dict) else contents):
        for place, part in enumerate(content["parts"]):
            call = _get(part, "functionCall")
            if call and model.startswith("gemini-3") and _get(part, "thoughtSignature") != SIGNATURE:
                name = f"Function call `{call['name']}`"
                message = f"{name} in the {number + 1}. content block is missing a `thought_signature`."
                raise Refusal(400, message, f"contents[{number}].parts[{place}]")
            if response := _get(part, "functionResponse"):
                asked.results.append(str(response["response"]))
            elif content.get("role", "user") == "user":
                asked.prompt += part.get("text", "") + "\n"
                asked.images += _get(part, "inlineData") is not None
    for tool in body.get("tools") or ():
        for function in _get(tool, "functionDeclarations") or ():
            schema = function.get("parameters") or _get(function, "parametersJsonSchema") or {}
            asked.tools[function["name"]] = schema
    return asked


def _get(given: dict[str, Any], name: str) -> Any:
    """The member ``name``, also under its name in snake case: the service takes both, and the SDK for Python mixes."""
    return given.get(name, given.get(re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)))


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
