"""Why a provider refused a call: what its owner and the log are told of it. Pure.

Providers quote keys, accounts and requests in their errors. So the reason is masked, shortened and without control
characters. The app is never told: its developer must not learn anything of the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_LONGEST = 145  # with the words before it, what the field of a key's latest error holds
_READ = 2000  # characters of a reason that are looked at

# A 401 for which the key is not to blame, and an error with another status for which it is.
_NOT_THE_KEY = re.compile(
    r"missing scopes?|insufficient[ _]permissions?|unsupported_country|ip_not_authorized"
    r"|\bip\b[^.]{0,60}\bnot (?:authorized|allowed)"
)
_THE_KEY = re.compile(
    r"\b(?:invalid|incorrect|wrong|expired|revoked)[ -](?:x-)?"
    r"(?:(?:api|subscription|access|security)[ -])?(?:key|token)\b"
    r"|\b(?:api|subscription) key\b[^.;:]{0,40}\b(?:invalid|incorrect|not valid|expired|revoked|leaked)\b"
    r"|\b(?:security|bearer|access) token\b[^.;:]{0,40}\b(?:invalid|not valid|expired|revoked)\b"
    r"|\bmake sure your api key is valid\b"
)
_KEY_CODES = frozenset(
    {
        "access_token_expired",
        "api_key_expired",
        "api_key_invalid",
        "authentication_error",
        "expired_api_key",
        "incorrect_api_key",
        "invalid_api_key",
        "unauthenticated",
        "unrecognizedclientexception",
        "wrong_api_key",
    }
)
_QUOTED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"")  # what a provider repeats of a request decides nothing

_MASK = "…"
_WORD = re.compile(r"\S+")
_STARRED = re.compile(r"\*{2}|\w\.{3}\w|\w…\w")  # a provider's own mask: it leaves the ends of the key
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_ACCOUNT = re.compile(
    r"\b(org|proj|organization|project|acct|account|user|tenant|workspace)([-_:/])(?=[A-Za-z0-9]*\d|[A-Za-z0-9]{12})[A-Za-z0-9]{6,}",
    re.I,
)
_SECRET_LIKE = re.compile(r"(?<![A-Za-z0-9])(?:\d{10,}|(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{10,})(?![A-Za-z0-9])")


class Refusal(NamedTuple):
    """``of_key``: the provider does not accept the key at all. Else only this call: a region, a model, a scope."""

    of_key: bool
    reason: str

    def told(self, status: int) -> str:
        """One line for the key's owner."""
        what = "this key" if self.of_key else "a call with this key"
        return f"The provider refused {what} (HTTP {status}){f': {self.reason}' if self.reason else '.'}"


def refusal(status: int, body: bytes, secret: str) -> Refusal | None:
    """What an error says about the key, or ``None`` where it is an ordinary error of a call. Never raises."""
    *codes, message = _said(body)
    text = _QUOTED.sub("", " ".join((*codes, message))).lower()
    of_key = any(code.lower() in _KEY_CODES for code in codes)
    if status == 401:
        of_key = of_key or not _NOT_THE_KEY.search(text)
    elif status == 403:
        of_key = of_key or bool(_THE_KEY.search(text))
    elif status == 400:  # Gemini's code, xAI's words
        of_key = of_key or message.lower().startswith("incorrect api key")
    if status not in (401, 403) and not (status == 400 and of_key):
        return None
    return Refusal(of_key, masked(": ".join(dict.fromkeys((*codes, message))), secret))


def is_safe(body: bytes, secret: str) -> bool:
    """Whether an error of a provider may go to the app: JSON without a piece of the key."""
    try:
        read = json.dumps(json.loads(body), ensure_ascii=False)  # escapes spell a key as well
    except (ValueError, RecursionError):
        return False
    text = f"{body.decode(errors='replace')} {read}"
    if len(secret) < 12:
        return not secret or secret not in text
    if secret[:12] in text or secret[-8:] in text:
        return False
    ends = (secret[:4], secret[-4:])
    return not any(_STARRED.search(word) and any(end in word for end in ends) for word in text.split())


def masked(text: str, secret: str) -> str:
    """``text`` as one short line without the key, pieces of it, account names, addresses and whatever looks secret."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:_READ]).split())
    if secret:
        line = line.replace(secret, _MASK)
    line = _ADDRESS.sub(_MASK, _ACCOUNT.sub(rf"\1\2{_MASK}", line))
    ends = (secret[:6], secret[-4:]) if len(secret) >= 12 else ()
    line = _WORD.sub(lambda word: _MASK if _quotes_a_key(word[0], ends) else word[0], line)
    line = _SECRET_LIKE.sub(_MASK, line)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}{_MASK}"


def _quotes_a_key(word: str, ends: tuple[str, ...]) -> bool:
    return bool(_STARRED.search(word)) or any(end in word for end in ends)


def _said(body: bytes) -> Iterator[str]:
    """The codes and then the message of an error; nothing of a web page."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        text = body[: 4 * _READ].decode("utf-8", "replace")
        yield "" if text.lstrip().startswith("<") else text[:_READ]
        return
    if isinstance(answer, list) and answer:  # Gemini's streams
        answer = answer[0]
    if not isinstance(answer, dict):
        answer = {"message": answer}
    error = answer.get("error")
    inner = error if isinstance(error, dict) else answer
    details = inner.get("details")
    reasons = [item.get("reason") for item in details if isinstance(item, dict)] if isinstance(details, list) else []
    for code in (inner.get("status"), inner.get("type"), inner.get("code"), answer.get("__type"), *reasons[:3]):
        if isinstance(code, str) and code:
            yield code[:_READ]
    yield _message(inner, error)


def _message(inner: dict[str, Any], error: Any) -> str:
    for said in (
        inner.get("message"),
        inner.get("Message"),
        error,
        inner.get("detail"),
        inner.get("error_description"),
    ):
        if isinstance(said, str):
            return said[:_READ]
    return ""
