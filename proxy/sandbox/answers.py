"""What the sandbox says, and what all its dialects share: models, words, tokens, vectors."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CREATED = 1_767_225_600  # 2026-01-01T00:00:00Z: a clock would make answers differ
CHAT = ("sandbox-1", "sandbox-slow")
EMBED = "sandbox-embed"
MODELS = (*CHAT, EMBED, "sandbox-error", "sandbox-limited")
PAUSE = {"sandbox-slow": 0.2}  # seconds before each word

_ECHOED = 200  # characters of the user's message
_COUNT = re.compile(r"\bcount to (\d{1,4})\b", re.IGNORECASE)
_PER_MESSAGE = 3  # tokens beside the words, as providers count them


class Refused(Exception):
    """An error answer of the sandbox; each dialect's ``error`` words it."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = {"retry-after": str(retry_after)} if retry_after else {}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer: ``json``, or ``events`` with ``pause`` seconds between them."""

    json: Any = None
    events: Iterator[bytes] | None = None
    pause: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the request forces; ``arguments`` are made up from its JSON schema."""

    name: str
    schema: Any

    @property
    def arguments(self) -> dict[str, Any]:
        made_up = example(self.schema)
        return made_up if isinstance(made_up, dict) else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """``words`` carry the space before them: joined they are the text. A forced ``tool`` comes instead of words."""

    id: str
    model: str
    words: tuple[str, ...]
    input_tokens: int
    truncated: bool = False
    tool: Tool | None = None

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def output_tokens(self) -> int:
        return len(self.words) if self.tool is None else 4 + len(self.tool.arguments)

    @property
    def pause(self) -> float:
        return PAUSE.get(self.model, 0.0)


def respond(model: Any, messages: Any, system: Any = None, *, limit: Any = None, tool: Tool | None = None) -> Answer:
    """The answer of a chat model. ``limit``: most tokens of output, ``None`` for no limit.

    Raises:
        Refused: no such chat model, nothing said, or the model's job is to refuse.
    """
    check_model(model, among=CHAT)
    if not isinstance(messages, str | list) or not messages:
        raise Refused(400, "There are no messages.", param="messages")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise Refused(400, "The limit of output tokens must be a positive integer.", param="max_tokens")
    spoken = [*texts(system), *texts(messages)]
    said = last_said(messages)
    words = () if tool else _words(said)
    kept = words if limit is None else words[:limit]
    many = 1 if isinstance(messages, str) else len(messages)
    return Answer(
        id=hashlib.sha256("\0".join([model, str(limit), *spoken]).encode("utf-8", "replace")).hexdigest()[:24],
        model=model,
        words=kept,
        input_tokens=count(spoken) + _PER_MESSAGE * many,
        truncated=len(kept) < len(words),
        tool=tool,
    )


def check_model(model: Any, *, among: Iterable[str] = MODELS) -> None:
    """Raise what the provider would answer for this model, if it is not one of those that can do the job."""
    if model == "sandbox-error":
        raise Refused(500, "The sandbox failed, as this model always does.", code="sandbox_error")
    if model == "sandbox-limited":
        raise Refused(429, "Rate limit reached, as always with this model.", code="rate_limit_exceeded", retry_after=1)
    if model not in MODELS:
        raise Refused(404, f"The model {str(model)[:100]!r} does not exist.", code="model_not_found", param="model")
    if model not in among:
        raise Refused(404, f"The model {model!r} cannot do this.", code="model_not_found", param="model")


def _words(said: str) -> tuple[str, ...]:
    counting = _COUNT.search(said)
    if counting:
        text = " ".join(str(number) for number in range(1, int(counting[1]) + 1))
    elif said:
        short = said if len(said) <= _ECHOED else said[: _ECHOED - 1] + "…"
        text = f'You said: "{short}". The sandbox hears you; no provider was asked and nothing is billed.'
    else:
        text = "Hello from the sandbox; no provider was asked and nothing is billed."
    return tuple(re.findall(r"\s*\S+", text))


def texts(value: Any) -> Iterator[str]:
    """Every text in messages of any dialect."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for key in ("text", "content", "parts", "output"):
            yield from texts(value.get(key))


def last_said(messages: Any) -> str:
    """The last message of the user, white space folded."""
    for message in [messages] if isinstance(messages, str) else reversed(messages):
        if not isinstance(message, dict) or message.get("role", "user") == "user":
            return " ".join(" ".join(texts(message)).split())
    return ""


def count(spoken: Iterable[str]) -> int:
    """Tokens of some texts: their words."""
    return sum(len(text.split()) for text in spoken)


def example(schema: Any) -> Any:
    """The smallest value that a plain JSON schema allows: required fields only."""
    if not isinstance(schema, dict):
        return {}
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = str(kind[0] if isinstance(kind, list) and kind else kind).lower()
    if kind in ("object", "none") and isinstance(schema.get("properties"), dict):
        required = schema.get("required")
        return {
            name: example(part)
            for name, part in schema["properties"].items()
            if isinstance(required, list) and name in required
        }
    return {"string": "sandbox", "integer": 1, "number": 1, "boolean": True, "array": [], "null": None}.get(kind, {})


def vector(text: Any, dimensions: Any = None) -> list[float]:
    """A unit vector (of 32-bit floats) that depends on ``text`` alone.

    Raises:
        Refused: ``dimensions`` is not between 1 and 4096.
    """
    size = 256 if dimensions is None else dimensions
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 4096:
        raise Refused(400, "Dimensions must be between 1 and 4096.", param="dimensions")
    said = text if isinstance(text, str) else json.dumps(text)
    digest = hashlib.shake_256(said.encode("utf-8", "replace")).digest(2 * size)
    raw = [number - 32767.5 for number in struct.unpack(f"<{size}H", digest)]  # never 0
    length = math.sqrt(sum(number * number for number in raw))
    return list(struct.unpack(f"<{size}f", struct.pack(f"<{size}f", *(number / length for number in raw))))


def sse(data: Any, name: str = "", end: str = "\n") -> bytes:
    """One server-sent event; ``data`` is JSON, or a string as it is."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return ((f"event: {name}{end}" if name else "") + f"data: {text}{end}{end}").encode("utf-8", "replace")
