"""Observers: what an answer used, watched as it goes by.

They are on the hot path of every stream, so the usual event is recognised by a pattern and only the others are parsed.
What counts as text is decided in :mod:`.made`. The counts of one answer never shrink: of several reports each count is
the largest one. No observer raises, whatever a provider sends. What ``result()`` has is described in :mod:`.reports`.
"""

from __future__ import annotations

import re
from typing import Any

from .base import Event, Observer, UpstreamCall
from .made import made, read, usual
from .reports import dict_of, dicts, executed, grounded, merged, parse
from .typed import ImagesWatcher, ResponsesWatcher, SpeechWatcher, TranscriptionWatcher
from .watcher import Watcher, later, of_error

_TAIL = 2048


class ChatWatcher(Watcher):
    """OpenAI-shaped chat: the last chunk reports usage (some providers report it on every chunk)."""

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._ends = False  # the last chunk reported usage behind all text, or said why a choice finished
        self._ended = False  # the same of the last chunk with a report
        self._streamed = False
        self._finished: set[Any] = set()  # the choices that said why they finished
        self._last = False  # the last report stood in a chunk without choices
        self._executed: dict[Any, str] = {}

    @property
    def complete(self) -> bool:
        """Some servers leave out ``[DONE]``: a final report, or the reason why it finished, says as much."""
        return self.done or self._ended or self._ends

    def event(self, event: Event) -> None:
        data = event.data
        if not event.name and (found := usual(data)) and self._takes(found, "usage"):
            self._ends = False
            self._ended = self._ended and not (found[1] or found[2] or found[3])
        elif data[:6] == b"[DONE]":
            self.done = True
        elif data or event.name:
            self._chunk(dict_of(read(data)), failed=event.name == "error")

    def _chunk(self, chunk: dict[str, Any], *, failed: bool) -> None:
        choices = list(dicts(chunk.get("choices")))
        usage = _usage(chunk, choices)
        finished = [str(choice.get("index")) for choice in choices if choice.get("finish_reason")]
        self._finished.update(finished)
        self._ends = bool(not choices and usage) or bool(finished)
        if usage:
            self._ended, self._streamed, self._last = self._ends, True, not choices
            self._answer = later(self._answer, chunk, "usage", usage)
        for choice in choices:
            self._executed |= executed(dict_of(choice.get("delta")))
        if failed or chunk.get("error"):
            self.failed = True
            self.output_characters += of_error(chunk)
        else:
            size = made(chunk) - self._repeated(choices)
            self.output_characters += size
            self._ended = self._ended and (bool(usage) or not size)

    def _repeated(self, choices: list[dict[str, Any]]) -> int:
        """Bytes of text that a chunk repeats: Perplexity's has all text so far in a message beside the delta."""
        found = 0
        for choice in choices:
            if "delta" in choice and (whole := made(choice.get("message"))):
                found += whole if made(choice["delta"]) else min(whole, self.output_characters)
        return found

    def hides(self, event: Event) -> bool:
        """The chunk without choices that reports usage, where only the relay asked for it."""
        if not self._call.hides_usage or b'"usage"' not in event.data:
            return False
        chunk = parse(event.data)
        if "usage" not in chunk or chunk.get("choices") or chunk.get("error"):
            return False
        return isinstance(chunk["usage"], dict) or not chunk.keys() - _ENVELOPE

    def _whole(self, answer: dict[str, Any], *, refused: bool) -> None:
        super()._whole(answer, refused=refused)
        if usage := _usage(answer, list(dicts(answer.get("choices")))):
            self._answer = {**answer, "usage": usage}

    def result(self) -> dict[str, Any] | None:
        found = super().result()
        if found is not None and self._executed:
            tools = list(self._executed.values())
            found["tools"] = {kind: tools.count(kind) for kind in tools}
        return found

    def _unfinished(self) -> bool:
        """A report beside the end of one choice is not the last one while other choices go on."""
        all_finished = self._last or len(self._finished) >= self._call.demand.candidates
        return self._streamed and not (self.done or (self._ended and all_finished))


# What each chunk of a chat has. A chunk of these alone has nothing for an app that asked for no usage.
_ENVELOPE = frozenset({"id", "object", "created", "model", "service_tier", "system_fingerprint", "choices", "usage"})


def _usage(chunk: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    """What a chunk reports. Groq has it in a field of its own as well, Moonshot in the last choice."""
    places = (chunk, dict_of(chunk.get("x_groq")), dict_of(chunk.get("error")), *choices)
    found: dict[str, Any] = {}
    for place in places:
        if usage := dict_of(place.get("usage")):
            found = merged(found, usage) if found else usage
    return found


class EmbeddingsWatcher(Watcher):
    """Embeddings are megabytes of numbers with the usage behind them."""

    def body(self, body: bytes, *, refused: bool = False) -> None:
        tail = body[-_TAIL:]
        usage = re.search(rb'"usage"\s*:\s*(\{[^{}]*\})', tail)
        model = re.search(rb'"model"\s*:\s*"([^"\\]*)"', tail)
        if usage and model:
            self._answer = {"usage": parse(usage[1]), "model": model[1].decode(errors="replace")}
        else:
            self._answer = parse(body)


class AnthropicWatcher(Watcher):
    """``message_start`` reports the input; the usage of ``message_delta`` is cumulative."""

    _silent = frozenset({"ping", "content_block_stop"})

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._started = False  # only the input was reported as yet

    @property
    def complete(self) -> bool:
        return self.done

    def event(self, event: Event) -> None:
        if event.name == "content_block_delta" and (found := usual(event.data)) and self._takes(found):
            self._started = True  # whatever was reported before, more was made
            return
        if event.name in self._silent:
            return
        answer = dict_of(read(event.data))
        kind = str(answer.get("type") or event.name)
        if kind == "message_start":
            self._started = True
            message = dict_of(answer.get("message"))
            self._answer = later(self._answer, message, "usage", dict_of(message.get("usage")))
            self.output_characters += made(message.get("content"))
            return
        if usage := dict_of(answer.get("usage")):
            self._started = self._started and not usage.get("output_tokens")
            self._answer = {**self._answer, "usage": merged(dict_of(self._answer.get("usage")), usage)}
        if kind == "message_delta":
            self.output_characters += made(answer.get("delta"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            self.failed = True
        elif kind not in self._silent:
            self.output_characters += made(answer)

    def _unfinished(self) -> bool:
        return self._started and not self.done


class GoogleWatcher(Watcher):
    """Gemini: every chunk reports usage of all so far. No event says that it is the last."""

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._streamed = False
        self._ends = False  # the last chunk with a report said why it finished, or was blocked
        self._grounded: dict[str, int] = {}

    def event(self, event: Event) -> None:
        if not event.name and (found := usual(event.data)) and self._takes(found, "usageMetadata"):
            self._ends = False
        elif event.data or event.name:
            self._chunk(dict_of(read(event.data)), failed=event.name == "error")

    def _chunk(self, chunk: dict[str, Any], *, failed: bool = False) -> None:
        if usage := dict_of(chunk.get("usageMetadata")):
            self._streamed = True
            self._answer = later(self._answer, chunk, "usageMetadata", usage)
            self._ends = self._finished(chunk)
        for candidate in dicts(chunk.get("candidates")):
            for kind, count in grounded(candidate).items():  # repeated from chunk to chunk
                self._grounded[kind] = max(count, self._grounded.get(kind, 0))
        if failed or chunk.get("error"):
            self.failed = True
            self.output_characters += of_error(chunk)
        else:
            self.output_characters += made(chunk)

    def body(self, body: bytes, *, refused: bool = False) -> None:
        if b'"usageMetadata"' not in body and len(body) > _TAIL and "mbed" in self._call.route:
            return  # megabytes of numbers
        if not refused and body.lstrip()[:1] == b"[":  # a stream without ``alt=sse`` is a list of its chunks
            chunks = read(body)
            for chunk in dicts(chunks if isinstance(chunks, list) else [chunks]):
                self._chunk(chunk)
        else:
            super().body(body, refused=refused)

    def result(self) -> dict[str, Any] | None:
        found = super().result()
        if found is not None and self._grounded:
            found["tools"] = self._grounded
        return found

    def _unfinished(self) -> bool:
        return self._streamed and not self._ends

    @staticmethod
    def _finished(chunk: dict[str, Any]) -> bool:
        candidates = dicts(chunk.get("candidates"))
        blocked = bool(dict_of(chunk.get("promptFeedback")))
        return blocked or any(candidate.get("finishReason") for candidate in candidates)


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
