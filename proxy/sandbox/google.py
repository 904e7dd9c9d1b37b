"""The sandbox in Google's dialect (Gemini API: ``models/{model}:method``). Events end in CRLF, as Google's do."""

from __future__ import annotations

from typing import Any

from .answers import EMBED, MODELS, Answer, Refused, Reply, Tool, check_model, count, respond, sse, texts, vector

ROUTES: dict[str, Any] = {}  # they are patterns: see answer()
_ERRORS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}


def error(refused: Refused) -> dict[str, Any]:
    status = _ERRORS[refused.status]
    return {"error": {"code": refused.status, "message": refused.message, "status": status}}


def models(model: str | None) -> Reply:
    """All models, or the one that is named."""
    rows = [
        {
            "name": f"models/{name}",
            "version": "1",
            "displayName": name.replace("-", " ").title(),
            "inputTokenLimit": 1_000_000,
            "outputTokenLimit": 10_000,
            "supportedGenerationMethods": ["embedContent"] if name == EMBED else ["generateContent", "countTokens"],
        }
        for name in MODELS
    ]
    if model is None:
        return Reply({"models": rows})
    if model not in MODELS:
        check_model(model)
    return Reply(next(row for row in rows if row["name"] == f"models/{model}"))


def answer(model: str, method: str, body: dict[str, Any], *, events: bool) -> Reply:
    """One POST. ``events``: the query has ``alt=sse``.

    Raises:
        Refused: unknown method or model, or a body that says nothing.
    """
    if method in ("generateContent", "streamGenerateContent"):
        return _generate(model, body, stream=method.startswith("stream"), events=events)
    if method == "countTokens":
        inner = body.get("generateContentRequest")
        said = _respond(model, inner if isinstance(inner, dict) else body)
        return Reply({"totalTokens": said.input_tokens})
    if method == "embedContent":
        return Reply({"embedding": _embedding(model, body), **_embedding_usage(body)})
    if method == "batchEmbedContents":
        requests = body.get("requests")
        rows = [row for row in requests if isinstance(row, dict)] if isinstance(requests, list) else []
        return Reply({"embeddings": [_embedding(model, row) for row in rows], **_embedding_usage(*rows)})
    raise Refused(404, f"The sandbox has no method {method}.")


def _generate(model: str, body: dict[str, Any], *, stream: bool, events: bool) -> Reply:
    said = _respond(model, body)
    if not stream:
        return Reply(_chunk(said, said.text, len(said.words), last=True))
    words = said.words or ("",)
    chunks = (_chunk(said, word, number, last=number == len(words)) for number, word in enumerate(words, 1))
    if not events:
        return Reply(list(chunks))  # what Google does without alt=sse: one JSON array
    return Reply(events=map(_event, chunks), pause=said.pause)


def _event(chunk: dict[str, Any]) -> bytes:
    return sse(chunk, end="\r\n")


def _respond(model: str, body: dict[str, Any]) -> Answer:
    config = _either(body, "generationConfig", "generation_config")
    limit = _either(config, "maxOutputTokens", "max_output_tokens") if isinstance(config, dict) else None
    system = _either(body, "systemInstruction", "system_instruction")
    return respond(model, body.get("contents"), system, limit=limit, tool=_forced(body))


def _either(body: dict[str, Any], *names: str) -> Any:
    """Google takes camelCase and snake_case."""
    return next((body[name] for name in names if body.get(name) is not None), None)


def _forced(body: dict[str, Any]) -> Tool | None:
    config, tools = _either(body, "toolConfig", "tool_config"), body.get("tools")
    calling = _either(config, "functionCallingConfig", "function_calling_config") if isinstance(config, dict) else None
    if not isinstance(calling, dict) or calling.get("mode") != "ANY" or not isinstance(tools, list):
        return None
    allowed = _either(calling, "allowedFunctionNames", "allowed_function_names")
    for tool in tools:
        functions = _either(tool, "functionDeclarations", "function_declarations") if isinstance(tool, dict) else None
        for function in functions if isinstance(functions, list) else []:
            if isinstance(function, dict) and (not isinstance(allowed, list) or function.get("name") in allowed):
                return Tool(str(function.get("name")), _either(function, "parameters", "parametersJsonSchema"))
    return None


def _chunk(said: Answer, text: str, output: int, *, last: bool) -> dict[str, Any]:
    """A whole answer, or one event of it; usage grows from event to event."""
    part: dict[str, Any] = {"text": text}
    if said.tool is not None:
        part, output = {"functionCall": {"name": said.tool.name, "args": said.tool.arguments}}, said.output_tokens
    candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
    if last:
        candidate["finishReason"] = "MAX_TOKENS" if said.truncated else "STOP"
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": said.input_tokens,
            "candidatesTokenCount": output,
            "totalTokenCount": said.input_tokens + output,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": said.input_tokens}],
        },
        "modelVersion": said.model,
        "responseId": said.id,
    }


def _embedding(model: str, body: dict[str, Any]) -> dict[str, Any]:
    check_model(model, among=(EMBED,))
    said = " ".join(texts(body.get("content")))
    if not said:
        raise Refused(400, "There is no content.")
    config = _either(body, "embedContentConfig", "config")
    size = _either(body, "outputDimensionality", "output_dimensionality")
    if size is None and isinstance(config, dict):
        size = _either(config, "outputDimensionality", "output_dimensionality")
    return {"values": vector(said, size)}


def _embedding_usage(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"usageMetadata": {"promptTokenCount": sum(count(texts(row.get("content"))) for row in rows)}}
