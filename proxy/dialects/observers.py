"""Observers: what an answer used, watched as it goes by.

They are on the hot path of every stream, so an event is read as JSON only where it may report usage, and of several
reports only the last one. Text is counted by a pattern, in bytes and with its escapes: never less than there was.
No observer raises, whatever a provider sends. What ``result()`` has stands in :mod:`.reports`.
"""

from __future__ import annotations

import re
from typing import Any

from .base import Event, Observer, UpstreamCall
from .reports import added, called, dict_of, dicts, executed, grounded, parse, report

_STRING = rb'\s*:\s*"((?:[^"\\]++|\\.)*+)"'
_CHAT_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments|refusal|text|transcript)"' + _STRING)
_DELTA = re.compile(rb'"delta"' + _STRING)
_BLOCK_TEXT = re.compile(rb'"(?:text|thinking|partial_json|content)"' + _STRING)
_GEMINI_TEXT = re.compile(rb'"(?:text|code)"' + _STRING)
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_]+(?:\.[a-z_]+)+)"')
_ERROR = re.compile(rb'"error"\s*:\s*[{"]')
_CLOSED = b'""'  # behind a piece that was cut off: ends the string that it was cut in
_TAIL = 2048


class Watcher:
    """What all observers have in common; by itself it observes JSON answers with ``usage``."""

    text = _CHAT_TEXT

    def __init__(self, call: UpstreamCall) -> None:
        self.done = False
        self.failed = False
        self.output_characters = 0
        self._call = call
        self._answer: dict[str, Any] = {}

    @property
    def complete(self) -> bool:
        """A stream without an event of its own for the end may end anywhere."""
        return True

    def event(self, event: Event) -> None:
        """Nothing: this kind of answer is not streamed."""

    def body(self, body: bytes) -> None:
        self._answer = answer = parse(body)
        self.failed = bool(answer.get("error"))  # OpenRouter says so under status 200
        if not dict_of(answer.get("usage")) and (error := dict_of(answer.get("error"))).get("usage"):
            self._answer = {**answer, "usage": error["usage"]}
        if self.result() is None:
            self._count(body + _CLOSED)

    def cut(self, data: bytes) -> None:
        self._count(data + _CLOSED)

    def hides(self, event: Event) -> bool:
        return False

    def result(self) -> dict[str, Any] | None:
        return report(self._answer, self._call.model, unfinished=self._unfinished())

    def _unfinished(self) -> bool:
        """Whether more was made than the last report knew of."""
        return False

    def _count(self, data: bytes) -> None:
        self.output_characters += sum(map(len, self.text.findall(data)))


def _is_error(event: Event) -> bool:
    """Whether the provider says in mid-stream that it failed."""
    return event.name == "error" or bool(_ERROR.search(event.data) and parse(event.data).get("error"))


class ChatWatcher(Watcher):
    """OpenAI-shaped chat: the last chunk with usage counts (some providers repeat it on every chunk)."""

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._report = b""
        self._last = b""
        self._executed: dict[Any, str] = {}

    @property
    def complete(self) -> bool:
        """Some servers leave out ``[DONE]``: a final report, or the reason why it finished, says as much."""
        return self.done or _is_final(self._report) or _is_final(self._last)

    def event(self, event: Event) -> None:
        data = event.data
        if data[:6] == b"[DONE]":
            self.done = True
            return
        self._last = data or self._last
        if b'"usage"' in data and _USAGE.search(data):
            self._report = data
        if b'"executed_tools"' in data:
            for choice in dicts(parse(data).get("choices")):
                self._executed |= executed(dict_of(choice.get("delta")))
        if (event.name or b'"error"' in data) and _is_error(event):
            self.failed = True
        self._count_delta(data)

    def cut(self, data: bytes) -> None:
        self._count_delta(data + _CLOSED)

    def _count_delta(self, data: bytes) -> None:
        begin = data.find(b'"delta"')
        if begin < 0:
            self._count(data)
            return
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
            self._answer = parse(self._report)
            self._answer["usage"] = _usage(self._answer)
        found = super().result()
        if found is not None and self._executed:
            tools = list(self._executed.values())
            found["tools"] = {kind: tools.count(kind) for kind in tools}
        return found

    def _unfinished(self) -> bool:
        return bool(self._report) and not (self.done or _is_final(self._report))


def _usage(chunk: dict[str, Any]) -> dict[str, Any]:
    """Groq's streams have it in a field of their own as well."""
    return dict_of(chunk.get("usage")) or dict_of(dict_of(chunk.get("x_groq")).get("usage"))


def _is_final(chunk: bytes) -> bool:
    """Whether a chat chunk reports usage behind all text, or says why a choice finished."""
    found = parse(chunk)
    choices = found.get("choices")
    if not choices and _usage(found):
        return True
    return any(choice.get("finish_reason") for choice in dicts(choices))


class TypedWatcher(Watcher):
    """Streams whose events have types, one of which ends the answer and reports its usage."""

    ends: frozenset[str] = frozenset()
    text = _DELTA

    @property
    def complete(self) -> bool:
        return self.done

    def event(self, event: Event) -> None:
        kind = event.name or _type_of(event.data)
        if kind in self.ends or event.data[:6] == b"[DONE]":
            self.done = True
            self.failed = self.failed or kind == "response.failed"
            self._ended(parse(event.data))
        elif kind == "error" or (not kind and parse(event.data).get("type") == "error"):
            self.failed = True
        elif kind.endswith(".delta") and not kind.endswith("audio.delta"):  # sound is no text
            self._count(event.data)

    def cut(self, data: bytes) -> None:
        if b"audio.delta" not in data:
            super().cut(data)

    def _ended(self, data: dict[str, Any]) -> None:
        self._answer = data or self._answer


def _type_of(data: bytes) -> str:
    match = _TYPE.search(data)
    return match[1].decode() if match else ""


class ResponsesWatcher(TypedWatcher):
    """OpenAI Responses: the event that ends it carries the whole response."""

    ends = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})

    def _ended(self, data: dict[str, Any]) -> None:
        self._answer = dict_of(data.get("response")) or self._answer

    def body(self, body: bytes) -> None:
        super().body(body)
        self.failed = self.failed or self._answer.get("status") == "failed"
        if self.result() is None:
            self.output_characters += sum(map(len, _CHAT_TEXT.findall(body + _CLOSED)))


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
            self.failed = self.failed or _is_error(event)
            return
        answer = parse(event.data)
        before = dict_of(self._answer.get("usage"))
        self._answer = {**answer, "usage": added(before, dict_of(answer.get("usage")))}

    def _count(self, data: bytes) -> None:
        """An image is no text."""


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

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._started = False  # only the input was reported as yet

    @property
    def complete(self) -> bool:
        return self.done

    def event(self, event: Event) -> None:
        kind = event.name or str(parse(event.data).get("type"))
        if kind == "content_block_delta":
            self._count(event.data)
        elif kind == "message_start":
            self._started = True
            self._answer = dict_of(parse(event.data).get("message"))
        elif kind == "message_delta":
            self._started = False
            usage = dict_of(parse(event.data).get("usage"))
            known = {name: value for name, value in usage.items() if value is not None}
            self._answer = {**self._answer, "usage": {**dict_of(self._answer.get("usage")), **known}}
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            self.failed = True

    def _unfinished(self) -> bool:
        return self._started and not self.done


class GoogleWatcher(Watcher):
    """Gemini: every chunk reports usage, the last one wins. No event says that it is the last."""

    text = _GEMINI_TEXT

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._report = b""
        self._grounded: dict[str, int] = {}

    def event(self, event: Event) -> None:
        data = event.data
        if b'"usageMetadata"' in data:
            self._report = data
        if b'"groundingMetadata"' in data:
            for candidate in dicts(parse(data).get("candidates")):
                for kind, count in grounded(candidate).items():  # repeated from chunk to chunk
                    self._grounded[kind] = max(count, self._grounded.get(kind, 0))
        if (event.name or b'"error"' in data) and _is_error(event):
            self.failed = True
        self._count(data)
        if b'"functionCall"' in data:
            self.output_characters += called(parse(data))

    def body(self, body: bytes) -> None:
        if b'"usageMetadata"' in body or len(body) < _TAIL:  # embeddings without it are megabytes of numbers
            super().body(body)
        else:
            self._count(body + _CLOSED)

    def result(self) -> dict[str, Any] | None:
        if self._report:
            self._answer = parse(self._report)
        found = super().result()
        if found is not None and self._grounded:
            found["tools"] = self._grounded
        return found

    def _unfinished(self) -> bool:
        """Where the last chunk gives no reason why it finished, or was blocked."""
        if not self._report:
            return False
        candidates = list(dicts(self._answer.get("candidates")))
        finished = any(candidate.get("finishReason") for candidate in candidates)
        return not finished and not dict_of(self._answer.get("promptFeedback"))


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
