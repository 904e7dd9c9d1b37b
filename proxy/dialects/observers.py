"""Observers: what an answer used, watched as it goes by.

They are on the hot path of every stream, so an event is read as JSON only where it may report usage, and of several
reports only the last one. Text is counted by a pattern, in bytes and with its escapes: never less than there was.
No observer raises, whatever a provider sends.

``result()`` has what genai-prices extracts usage from: ``model``, ``usage`` and ``service_tier`` as the provider named
them, for Gemini ``modelVersion`` and ``usageMetadata``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .base import Event, Observer, UpstreamCall

_STRING = rb'\s*:\s*"((?:[^"\\]++|\\.)*+)"'
_CHAT_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments|refusal|text|transcript)"' + _STRING)
_DELTA = re.compile(rb'"delta"' + _STRING)
_BLOCK_TEXT = re.compile(rb'"(?:text|thinking|partial_json|content)"' + _STRING)
_GEMINI_TEXT = re.compile(rb'"(?:text|code)"' + _STRING)
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_]+(?:\.[a-z_]+)+)"')
_KEPT = ("model", "usage", "service_tier", "modelVersion", "usageMetadata", "duration")
_TAIL = 2048


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, or an empty one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Watcher:
    """What all observers have in common; by itself it observes JSON answers with ``usage``."""

    text = _CHAT_TEXT

    def __init__(self, call: UpstreamCall) -> None:
        self.done = False
        self.output_characters = 0
        self._call = call
        self._answer: dict[str, Any] = {}

    def event(self, event: Event) -> None:
        """Nothing: this kind of answer is not streamed."""

    def body(self, body: bytes) -> None:
        self._answer = parse(body)
        if self.result() is None:
            self._count(body)

    def hides(self, event: Event) -> bool:
        return False

    def result(self) -> dict[str, Any] | None:
        answer = self._answer
        if not any(isinstance(answer.get(name), dict) and answer[name] for name in ("usage", "usageMetadata")):
            return None
        kept = {name: answer[name] for name in _KEPT if answer.get(name) is not None}
        if not isinstance(kept.get("model"), str):
            kept["model"] = self._call.model
        return kept

    def _count(self, data: bytes) -> None:
        self.output_characters += sum(map(len, self.text.findall(data)))


class ChatWatcher(Watcher):
    """OpenAI-shaped chat: the last chunk with usage counts (some providers repeat it on every chunk)."""

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._report = b""

    def event(self, event: Event) -> None:
        data = event.data
        if data[:6] == b"[DONE]":
            self.done = True
            return
        if b'"usage"' in data and _USAGE.search(data):
            self._report = data
        begin = max(data.find(b'"delta"'), 0)
        end = data.find(b'"message"', begin)  # Perplexity repeats there all text so far
        self._count(data[begin:end] if end > 0 else data[begin:])

    def hides(self, event: Event) -> bool:
        """The chunk with usage and no choices, where only the relay asked for it."""
        if not self._call.hides_usage or b'"usage"' not in event.data:
            return False
        chunk = parse(event.data)
        return isinstance(chunk.get("usage"), dict) and chunk.get("choices") == []

    def result(self) -> dict[str, Any] | None:
        if self._report:
            self._answer, self._report = parse(self._report), b""
            if not _dict(self._answer.get("usage")):  # Groq's streams have it here as well
                self._answer["usage"] = _dict(self._answer.get("x_groq")).get("usage")
        return super().result()


class TypedWatcher(Watcher):
    """Streams whose events have types, one of which ends the answer and reports its usage."""

    ends: frozenset[str] = frozenset()
    text = _DELTA

    def event(self, event: Event) -> None:
        kind = event.name or _type_of(event.data)
        if kind in self.ends:
            self.done = True
            self._ended(parse(event.data))
        elif kind.endswith(".delta") and not kind.endswith("audio.delta"):  # sound is no text
            self._count(event.data)

    def _ended(self, data: dict[str, Any]) -> None:
        self._answer = data


def _type_of(data: bytes) -> str:
    match = _TYPE.search(data)
    return match[1].decode() if match else ""


class ResponsesWatcher(TypedWatcher):
    """OpenAI Responses: the event that ends it carries the whole response."""

    ends = frozenset({"response.completed", "response.incomplete", "response.failed"})

    def _ended(self, data: dict[str, Any]) -> None:
        self._answer = _dict(data.get("response"))

    def body(self, body: bytes) -> None:
        self._answer = parse(body)
        if self.result() is None:
            self.output_characters += sum(map(len, _CHAT_TEXT.findall(body)))


class SpeechWatcher(TypedWatcher):
    ends = frozenset({"speech.audio.done"})


class TranscriptionWatcher(TypedWatcher):
    """Transcriptions are billed in tokens (``usage``) or seconds (``usage.seconds``, older ``duration``)."""

    ends = frozenset({"transcript.text.done"})

    def result(self) -> dict[str, Any] | None:
        reported = super().result()
        if reported is None and type(self._answer.get("duration")) in (int, float):
            return {"model": self._call.model, "duration": self._answer["duration"]}
        return reported


class ImagesWatcher(Watcher):
    """One event completes one image; each reports its own usage, so they add up. Nothing tells which is the last."""

    def event(self, event: Event) -> None:
        if (event.name or _type_of(event.data)) not in ("image_generation.completed", "image_edit.completed"):
            return
        answer = parse(event.data)
        before = _dict(self._answer.get("usage"))
        self._answer = {**answer, "usage": _sum(before, _dict(answer.get("usage")))}

    def _count(self, data: bytes) -> None:
        """An image is no text."""


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    total = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            total[name] = _sum(_dict(total.get(name)), value)
        elif type(value) is int:
            before = total.get(name)
            total[name] = value + before if type(before) is int else value
    return total


class EmbeddingsWatcher(Watcher):
    """Embeddings are megabytes of numbers with the usage behind them."""

    def body(self, body: bytes) -> None:
        tail = body[-_TAIL:]
        usage = re.search(rb'"usage"\s*:\s*(\{[^{}]*\})', tail)
        model = re.search(rb'"model"\s*:\s*"([^"\\]*)"', tail)
        if usage and model:
            self._answer = {"usage": parse(usage[1]), "model": model[1].decode(errors="replace")}
        else:
            self._answer = parse(body)


class AnthropicWatcher(Watcher):
    """``message_start`` reports the input; the usage of ``message_delta`` is cumulative: it overwrites."""

    text = _BLOCK_TEXT

    def event(self, event: Event) -> None:
        kind = event.name or str(parse(event.data).get("type"))
        if kind == "content_block_delta":
            self._count(event.data)
        elif kind == "message_start":
            self._answer = _dict(parse(event.data).get("message"))
        elif kind == "message_delta":
            usage = _dict(parse(event.data).get("usage"))
            known = {name: value for name, value in usage.items() if value is not None}
            self._answer = {**self._answer, "usage": {**_dict(self._answer.get("usage")), **known}}
        elif kind == "message_stop":
            self.done = True


def _parts(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All parts of all candidates of a Gemini chunk."""
    candidates = answer.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        parts = _dict(_dict(candidate).get("content")).get("parts")
        yield from map(_dict, parts if isinstance(parts, list) else ())


def _called(part: dict[str, Any]) -> int:
    """Characters of a function call, without the signature that comes beside it."""
    return len(json.dumps(part["functionCall"])) if part.get("functionCall") else 0


class GoogleWatcher(Watcher):
    """Gemini: every chunk reports usage, the last one wins. No event says that it is the last."""

    text = _GEMINI_TEXT

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._report = b""

    def event(self, event: Event) -> None:
        data = event.data
        if b'"usageMetadata"' in data:
            self._report = data
        self._count(data)
        if b'"functionCall"' in data:
            self.output_characters += sum(_called(part) for part in _parts(parse(data)))

    def body(self, body: bytes) -> None:
        if b'"usageMetadata"' in body:  # embeddings without it are megabytes of numbers
            self._answer = parse(body)
        if self.result() is None:
            self._count(body)

    def result(self) -> dict[str, Any] | None:
        if self._report:
            self._answer, self._report = parse(self._report), b""
        return super().result()


_WATCHERS: dict[str, type[Watcher]] = {
    "chat": ChatWatcher,
    "responses": ResponsesWatcher,
    "embeddings": EmbeddingsWatcher,
    "images": ImagesWatcher,
    "speech": SpeechWatcher,
    "transcription": TranscriptionWatcher,
    "moderations": Watcher,
    "anthropic": AnthropicWatcher,
    "google": GoogleWatcher,
    "none": Watcher,
}
FLAVORS = frozenset(_WATCHERS)


def observer_of(call: UpstreamCall) -> Observer:
    return _WATCHERS[call.flavor](call)
