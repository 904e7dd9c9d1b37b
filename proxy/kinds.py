"""What an answer's body is: decided by its first bytes, since labels are missing or wrong. Pure.

Some servers send events as ``text/plain``, JSON as ``text/event-stream``, or a web page under status 200.
"""

from __future__ import annotations

from enum import Enum

from .exceptions import UpstreamFailed, WebPage

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")  # how a stream of events begins
_PAGES = (b"<!doctype html", b"<html")
_NOT_JSON = frozenset({"speech", "transcription"})  # flavors whose answers may be audio or plain text


class Kind(Enum):
    EVENTS = "server-sent events"
    JSON = "JSON"
    PAGE = "a web page"
    OTHER = "anything else"


def kind_of(head: bytes, content_type: str, *, flavor: str, stream: bool) -> Kind | None:
    """What the body is that begins with ``head``; ``None`` where more bytes are needed.

    ``stream``: the call asked for events. Audio and plain text may begin like events or like JSON, so that such answers
    are one or the other only where the label agrees.
    """
    text = head.removeprefix(_BOM).lstrip(_BLANK)
    label = content_type.lower()
    labelled = label.startswith("text/event-stream")
    if not text or (len(head) < len(_BOM) and _BOM.startswith(head)):
        return Kind.EVENTS if labelled else None
    if text[:1] == b"<" and (begins := _begins(text, _PAGES)) is not False:
        return Kind.PAGE if begins else None
    if text[:1] in (b"{", b"[") and (_json_due(flavor) or labelled or "json" in label):
        return Kind.JSON
    if labelled:
        return Kind.EVENTS
    if stream and (begins := _begins(text, _FIELDS)) is not False:
        return Kind.EVENTS if begins else None
    return Kind.OTHER


def refuse(kind: Kind | None, flavor: str) -> None:
    """Raise an error where a body of this kind is no answer to such a call.

    Raises:
        UpstreamFailed: nothing, a web page, or no JSON where that is due.
    """
    if kind is None:
        raise UpstreamFailed("The provider's answer is empty.", code="upstream_error")
    if kind is Kind.PAGE:
        raise WebPage("The provider answered with a web page. The base URL of the key may be wrong.")
    if kind is Kind.OTHER and _json_due(flavor):
        raise UpstreamFailed("The provider's answer is not JSON.", code="upstream_error")


def _json_due(flavor: str) -> bool:
    return flavor not in _NOT_JSON


def may_be_empty(flavor: str, content_type: str) -> bool:
    """A transcription as plain text is empty where nothing was said."""
    return flavor == "transcription" and "json" not in content_type.lower()


def _begins(text: bytes, words: tuple[bytes, ...]) -> bool | None:
    """Whether ``text`` begins with one of ``words``; ``None`` where it is too short to tell."""
    text = text[:16].lower()
    if text.startswith(words):
        return True
    return None if any(word.startswith(text) for word in words) else False
