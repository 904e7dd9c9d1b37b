"""Observers of streams whose events have types: OpenAI's Responses, speech, transcriptions and images."""

from __future__ import annotations

import re
from typing import Any

from .base import Event, UpstreamCall
from .made import made, read, usual
from .reports import added, dict_of, merged, parse
from .watcher import Watcher

_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_]+(?:\.[a-z_]+)+)"')


# Members of a response that repeat the request, or are counted apart.
_ECHOES = frozenset(
    {
        *("input", "instructions", "prompt", "conversation", "metadata", "tools", "tool_choice", "text", "reasoning"),
        *("truncation", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "moderation"),
        *("previous_response_id", "error", "output", "output_text"),
    }
)


class TypedWatcher(Watcher):
    """Streams whose events have types, one of which ends the answer and reports its usage."""

    ends: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        return self.done

    def event(self, event: Event) -> None:
        if (found := usual(event.data)) and not (found[1] or found[3]):
            kind = event.name if "." in event.name else _type_of(event.data)
            if kind.endswith(".delta"):
                if not kind.endswith("audio.delta"):  # sound is no text
                    self._flowed(len(found[2]))
                return
        self._parsed(event.name, event.data)

    def _parsed(self, name: str, data: bytes) -> None:
        if data[:6] == b"[DONE]":
            self.done = True
            return
        answer = dict_of(read(data))
        kind = str(answer.get("type") or name)
        if kind in self.ends:
            self.done = True
            self.failed = self.failed or kind == "response.failed"
            self._finished(answer)
        elif kind == "error":
            self.failed = True
        elif not kind.endswith("audio.delta"):
            self._other(kind, answer)

    def _cut(self, event: Event) -> None:
        """What was cut off has not ended the answer."""
        done = self.done
        self.event(event)
        self.done = done

    def _flowed(self, size: int) -> None:
        self.output_characters += size

    def _other(self, kind: str, answer: dict[str, Any]) -> None:
        if kind.endswith(".delta"):
            self._flowed(made(answer))

    def _finished(self, answer: dict[str, Any]) -> None:
        self._answer = answer or self._answer


def _type_of(data: bytes) -> str:
    match = _TYPE.search(data)
    return match[1].decode() if match else ""


class ResponsesWatcher(TypedWatcher):
    """OpenAI Responses: the event that ends it carries the whole response.

    Events of text are followed by ever larger ones that repeat it: of the text, of its part, of the item, of the
    response. What one of them holds counts where it is more than all that it repeats.
    """

    ends = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})
    _echoes = frozenset({"response.created", "response.in_progress", "response.queued"})  # of the request

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._levels = [0, 0, 0, 0, 0]  # bytes that the next larger event repeats: deltas, texts, parts, items, all

    def _flowed(self, size: int) -> None:
        self._levels[0] += size
        self.output_characters += size

    def _other(self, kind: str, answer: dict[str, Any]) -> None:
        if kind in self._echoes:
            return
        if not kind.endswith(".done"):
            self._flowed(made(answer))
        else:
            level = 3 if kind.endswith("item.done") else 2 if kind.endswith("part.done") else 1
            self._repeats(level, made(answer))

    def _repeats(self, level: int, size: int) -> None:
        known = sum(self._levels[:level])
        self._levels[:level] = [0] * level
        self._levels[level] += max(size, known)
        self.output_characters += max(size - known, 0)

    def _finished(self, answer: dict[str, Any]) -> None:
        response = dict_of(answer.get("response")) or answer
        usage = merged(dict_of(self._answer.get("usage")), dict_of(response.get("usage")))
        self._answer = {**self._answer, **response, **({"usage": usage} if usage else {})}
        self._repeats(4, self._made(response))

    def _whole(self, answer: dict[str, Any], *, refused: bool) -> None:
        super()._whole(answer, refused=refused)
        self.failed = self.failed or answer.get("status") == "failed"

    def _made(self, answer: dict[str, Any]) -> int:
        rest = {name: value for name, value in answer.items() if name not in _ECHOES}
        return max(made(answer.get("output")), made(answer.get("output_text"))) + made(rest)


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

    def __init__(self, call: UpstreamCall) -> None:
        super().__init__(call)
        self._unreported = False  # an image was completed without a report

    def event(self, event: Event) -> None:
        if (event.name or _type_of(event.data)) not in ("image_generation.completed", "image_edit.completed"):
            self.failed = (
                self.failed
                or event.name == "error"
                or (b'"error"' in event.data and bool(parse(event.data).get("error")))
            )
            return
        answer = parse(event.data)
        usage = dict_of(answer.get("usage"))
        self._unreported = self._unreported or not usage
        self._answer = {**answer, "usage": added(dict_of(self._answer.get("usage")), usage)}

    def result(self) -> dict[str, Any] | None:
        return None if self._unreported else super().result()

    def _made(self, answer: dict[str, Any]) -> int:
        """An image is no text."""
        return 0
