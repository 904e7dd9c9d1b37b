"""What a call can use: gathered while its body is checked, given out as a :class:`Demand`.

Whatever is not certain makes the demand larger, never smaller: what claims to be a picture and does not begin like one
counts as a document, and a recording whose length is unsure leaves the call without a bound.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from grants.providers import Capability

from . import audio
from .base import Demand, Form

_HEAD = 64  # characters of base64 that a signature is looked for in
_LONGEST_TYPE = 200  # characters before the data of a data URL
_MOST_GROWING = 32  # different letters that are looked for one by one
_CONVERSATION = ("messages", "input", "contents")
_SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction")
_MOST_RECORDINGS = 64  # in one body; parsing more would hold every stream up


class Tally:
    """What the fields of one body have been seen to ask for."""

    __slots__ = (
        "audio",
        "cached",
        "candidates",
        "default_limit",
        "described",
        "has_tools",
        "hidden",
        "images",
        "least",
        "limit",
        "limit_paths",
        "limited",
        "pictures",
        "quality",
        "size",
        "text_only",
        "tier",
        "unbounded",
        "unseen",
    )

    def __init__(self, default_limit: int | None = None) -> None:
        self.default_limit = default_limit  # None: the grant limits neither money nor tokens
        self.limited = default_limit is not None
        self.limit: int | None = None
        self.limit_paths: tuple[tuple[str, ...], ...] = ()  # where in the body it stands
        self.least = 1
        self.candidates = 1
        self.images = 0
        self.audio: list[int] = []
        self.hidden = False
        self.pictures = 0
        self.size = self.quality = self.tier = self.unbounded = self.unseen = ""
        self.cached = False
        self.described = 0  # tools that the provider describes to the model in words of its own
        self.has_tools = False  # in the body or in one of its messages
        self.text_only = False

    def beyond(self, why: str) -> None:
        """The output limit does not bound this call; the first reason is the one that is told."""
        self.unbounded = self.unbounded or why

    def hide(self, where: str) -> None:
        """The field at ``where`` leads to what the body does not show; the first one is told."""
        self.hidden = True
        self.unseen = self.unseen or where

    def picture_at(self, url: Any, where: str) -> None:
        """A URL that can only be a picture's: the provider scales the picture as an inline one."""
        if type(url) is str and url.startswith(("https://", "http://")):
            self.images += 1
        else:
            self.hide(where)

    def tiers(self, *named: str) -> None:
        """Service tiers beyond the standard one. Two at once are a name that no price list has."""
        self.tier = "+".join(name.lower()[:40] for name in named)

    def inline(self, value: str, declared: str, where: str) -> None:
        """Base64, or a data URL; ``declared``: its media type (a data URL has its own); ``where``: its field."""
        start = 0
        if value[:5].lower() == "data:":
            start = value.find(",", 0, _LONGEST_TYPE) + 1
            encoded = value[5:start].lower()
            declared = encoded if encoded.endswith(";base64,") else ""
        head = _decoded(value[start : start + _HEAD])
        if declared.startswith("audio/"):
            self.recording(value, start, declared.removesuffix(";base64,"))
        elif declared.startswith("image/") and is_picture(head):
            self.images += 1
        else:
            self.hide(where)

    def recording(self, value: str, start: int, *declared: str) -> None:
        """A recording in base64, which is decoded only where its length is needed. ``declared``: its format."""
        length = audio.of_base64(value, start, *declared) if self._parses else None
        self.hidden = self.hidden or length is None
        self.seconds(length)

    def seconds(self, length: int | None) -> None:
        if length is None:
            self.beyond("unparsed audio")
        else:
            self.audio.append(length)

    @property
    def _parses(self) -> bool:
        """Whether the length of one more recording is worth its while."""
        return self.limited and not self.unbounded and len(self.audio) < _MOST_RECORDINGS

    def files(self, form: Form, capability: Capability | None) -> None:
        """The files of a form: recordings, or pictures to work on."""
        if capability is not Capability.AUDIO:
            self.images += len(form.files)
            return
        if not form.files:
            self.beyond("no recording in the form")
        for part in form.files:
            names = (part.content_type, audio.extension(part.filename))
            self.seconds(audio.of_file(part.file, part.size, *names) if self._parses else None)

    def demand(self, text: int, characters: int, fields: frozenset[str] | None = None, messages: int = 0) -> Demand:
        return Demand(
            text,
            characters,
            self.images,
            tuple(self.audio),
            self.hidden,
            self.pictures,
            self.size,
            self.quality,
            self.limit,
            self.candidates,
            self.tier,
            self.unbounded,
            self.cached,
            self.least if self.limit is None else min(self.least, self.limit),
            fields,
            messages,
            self.described,
            self.text_only,
            self.unseen,
        )


def field_names(body: dict[str, Any], has_tools: bool) -> frozenset[str]:
    """The names of a body's fields, of Gemini's ``generationConfig``, and ``tools`` where a message brings some."""
    names = frozenset((*body, "tools")) if has_tools else frozenset(body)
    for name in ("generationConfig", "generation_config"):
        if type(config := body.get(name)) is dict:
            names |= config.keys()
    return names


def message_count(body: dict[str, Any]) -> int:
    """The messages of the conversation in a checked body, the system prompt included."""
    count = sum(body.get(name) is not None for name in _SYSTEM)
    for name in _CONVERSATION:
        value = body.get(name)
        if value is not None:
            count += len(value) if type(value) is list else 1
    return count


def text_size(text: bytes) -> int:
    """The bytes of ``text`` (UTF-8), of which no token is less than one, in whatever form a tokenizer reads it.

    Some normalise to NFKC first, as the one does that Anthropic has published: there U+FDFA, of 3 bytes, becomes 33.
    """
    if text.isascii():
        return len(text)
    letters = text.decode()
    growing = [letter for letter in set(letters) if _growth(letter) > 0]
    if len(growing) > _MOST_GROWING:  # no language has so many: at the worst, rather than one by one
        return len(text) + len(letters) * max(map(_growth, growing))
    return len(text) + sum(letters.count(letter) * _growth(letter) for letter in growing)


@lru_cache(maxsize=65536)
def _growth(letter: str) -> int:
    """By how many bytes NFKC makes it longer; what it makes shorter counts as it is."""
    return max(0, len(unicodedata.normalize("NFKC", letter).encode()) - len(letter.encode()))


def is_picture(head: bytes) -> bool:
    """Whether a file begins like a still picture: PNG, JPEG, GIF, WebP, HEIC or AVIF."""
    return (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif")
    )


def _decoded(head: str) -> bytes:
    """The first bytes of what begins with these characters of base64."""
    try:
        return audio.from_base64(head[: len(head) // 4 * 4])
    except ValueError:
        return b""
