"""The sandbox in OpenAI's dialect: chat completions, Responses, embeddings, moderations, models."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from . import responses
from .answers import (
    CREATED,
    EMBED,
    MODELS,
    Answer,
    Refused,
    Reply,
    Tool,
    check_model,
    count,
    respond,
    sse,
    texts,
    vector,
)

# Routes that OpenAI has and the sandbox answers with a clear 400.
NOT_HERE = frozenset(
    f"/v1/{path}"
    for path in (
        "images/generations",
        "images/edits",
        "images/variations",
        "audio/speech",
        "audio/transcriptions",
        "audio/translations",
        "completions",
    )
)
_ERRORS = {429: "requests", 500: "server_error"}
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_MAX_CHOICES = 8


def error(refused: Refused) -> dict[str, Any]:
    kind = _ERRORS.get(refused.status, "invalid_request_error")
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}


def models(model: str | None) -> Reply:
    """All models, or the one that is named."""
    rows = [{"id": name, "object": "model", "created": CREATED, "owned_by": "sandbox"} for name in MODELS]
    if model is None:
        return Reply({"object": "list", "data": rows})
    if model not in MODELS:
        check_model(model)
    return Reply(next(row for row in rows if row["id"] == model))


def _chat(body: dict[str, Any]) -> Reply:
    limit = body.get("max_completion_tokens")
    answer = respond(
        body.get("model"),
        body.get("messages"),
        limit=body.get("max_tokens") if limit is None else limit,
        tool=_forced(body),
    )
    wanted = body.get("n")
    choices = 1 if wanted is None else wanted
    if not isinstance(choices, int) or not 1 <= choices <= _MAX_CHOICES:
        raise Refused(400, f"n must be between 1 and {_MAX_CHOICES}.", param="n")
    if body.get("stream") is True:
        options = body.get("stream_options")
        usage = isinstance(options, dict) and options.get("include_usage") is True
        return Reply(events=_chunks(answer, choices, usage=usage), pause=answer.pause)
    return Reply(_completion(answer, choices))


def _forced(body: dict[str, Any]) -> Tool | None:
    """The function tool that ``tool_choice`` forces."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    named = choice.get("function") if isinstance(choice, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    if not isinstance(tools, list) or (choice != "required" and name is None):
        return None
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and name in (None, function.get("name")):
            return Tool(str(function.get("name")), function.get("parameters"))
    return None


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.tool else "length" if answer.truncated else "stop"


def _usage(answer: Answer, choices: int) -> dict[str, Any]:
    output = answer.output_tokens * choices
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": output,
        "total_tokens": answer.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _tool_calls(answer: Answer, tool: Tool) -> list[dict[str, Any]]:
    function = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
    return [{"id": f"call_{answer.id}", "type": "function", "function": function}]


def _completion(answer: Answer, choices: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool is not None:
        message |= {"content": None, "tool_calls": _tool_calls(answer, answer.tool)}
    rows = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": _finish_reason(answer)}
        for index in range(choices)
    ]
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": answer.model,
        "choices": rows,
        "usage": _usage(answer, choices),
        "service_tier": "default",
    }


def _chunks(answer: Answer, choices: int, *, usage: bool) -> Iterator[bytes]:
    head = {"id": f"chatcmpl-{answer.id}", "object": "chat.completion.chunk", "created": CREATED, "model": answer.model}
    tail = {"usage": None} if usage else {}  # as OpenAI does: null in all but the last chunk

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return b"".join(
            sse({**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **tail})
            for index in range(choices)
        )

    yield chunk({"role": "assistant", "content": None if answer.tool else ""})
    if answer.tool is not None:
        yield chunk({"tool_calls": [{"index": 0, **call} for call in _tool_calls(answer, answer.tool)]})
    for word in answer.words:
        yield chunk({"content": word})
    last = sse({**head, "choices": [], "usage": _usage(answer, choices)}) if usage else b""
    yield chunk({}, _finish_reason(answer)) + last + sse("[DONE]")


def _embeddings(body: dict[str, Any]) -> Reply:
    check_model(body.get("model"), among=(EMBED,))
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise Refused(400, "There is no input.", param="input")
    inputs = given if isinstance(given, list) and isinstance(given[0], str | list) else [given]
    rows = []
    for index, text in enumerate(inputs):
        values: Any = vector(text, body.get("dimensions"))
        if body.get("encoding_format") == "base64":
            values = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        rows.append({"object": "embedding", "index": index, "embedding": values})
    tokens = sum(count([text]) if isinstance(text, str) else len(text) for text in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply({"object": "list", "data": rows, "model": EMBED, "usage": usage})


def _moderations(body: dict[str, Any]) -> Reply:
    """Nothing is ever flagged. Without a model ``sandbox-1`` answers, as OpenAI has a default."""
    model = body.get("model") or "sandbox-1"
    check_model(model)
    given = body.get("input")
    many = len(given) if isinstance(given, list) and all(isinstance(text, str) for text in given) else 1
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return Reply({"id": f"modr-{count(texts(given))}", "model": model, "results": [result] * many})


ROUTES = {
    "/v1/chat/completions": _chat,
    "/v1/responses": responses.answer,
    "/v1/responses/input_tokens": responses.input_tokens,
    "/v1/embeddings": _embeddings,
    "/v1/moderations": _moderations,
}
