"""What all observers of answers have in common (see :mod:`.observers`)."""

from __future__ import annotations

import re
from typing import Any

from .base import Event, UpstreamCall
from .made import made, read
from .reports import KEPT, dict_of, merged, parse, report

_LINE = re.compile(rb"\r\n?|\n")
_ANSWERS = ("choices", "candidates", "content", "output")  # members that hold what a model made, beside an error


class Watcher:
    """What all observers have in common; by itself it observes JSON answers with ``usage``."""

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

    def body(self, body: bytes, *, refused: bool = False) -> None:
        self._whole(_object(body), refused=refused)

    def cut(self, data: bytes) -> None:
        """An event whose end never came is an event of what came of it."""
        name, values = "", []
        for line in _LINE.split(data):
            field, _, value = line.partition(b":")
            if field == b"event":
                name = value.strip().decode(errors="replace")
            elif field == b"data":
                values.append(value.removeprefix(b" "))
        if values:
            self._cut(Event(b"", name, b"\n".join(values)))

    def _cut(self, event: Event) -> None:
        self.event(event)

    def hides(self, event: Event) -> bool:
        return False

    def result(self) -> dict[str, Any] | None:
        return report(self._answer, self._call.model, unfinished=self._unfinished())

    def _unfinished(self) -> bool:
        """Whether more was made than the last report knew of."""
        return False

    def _whole(self, answer: dict[str, Any], *, refused: bool) -> None:
        """A JSON answer. ``refused``: it came under the status of an error."""
        self._answer = answer
        self.failed = bool(answer.get("error"))  # OpenRouter says so under status 200
        if not dict_of(answer.get("usage")) and (error := dict_of(answer.get("error"))).get("usage"):
            self._answer = {**answer, "usage": error["usage"]}
        self.output_characters += of_error(answer) if refused or self.failed else self._made(answer)

    def _takes(self, found: re.Match[bytes], name: str = "") -> bool:
        """Count the text of a usual event, and take its report as ``name``; false where the event must be parsed.

        Of the first report all of the event is wanted.
        """
        told = found[1] or found[3]
        if told is not None:
            before, usage = self._answer.get(name), parse(told)
            if not (before and usage):
                return False
            self._answer[name] = merged(before, usage)
        self.output_characters += len(found[2])
        return True

    def _made(self, answer: dict[str, Any]) -> int:
        """Bytes of text that the model made, in an answer that is no error."""
        return made(answer)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, as far as it came. Anything else is no answer: a web page, or an empty body."""
    return dict_of(read(body)) if body.lstrip()[:1] == b"{" else {}


def of_error(answer: dict[str, Any]) -> int:
    """Bytes of text in an error that a model made. The rest of an error is the provider's own words."""
    error = answer.get("error")
    generated = error.get("failed_generation") if isinstance(error, dict) else None  # Groq
    return made(generated) + sum(made(answer.get(name)) for name in _ANSWERS)


def later(before: dict[str, Any], after: dict[str, Any], name: str, usage: dict[str, Any]) -> dict[str, Any]:
    """A later part of an answer, with what only an earlier one reported. ``name``: of the report, ``usage``: new."""
    kept = {key: before[key] for key in KEPT if key in before}
    news = {key: value for key, value in after.items() if value is not None}
    return kept | news | {name: merged(dict_of(before.get(name)), usage)}
