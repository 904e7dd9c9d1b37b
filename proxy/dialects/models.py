"""Model lists, less what a grant does not allow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .base import UpstreamCall

_EMPTY: dict[str, dict[str, Any]] = {
    "openai": {"object": "list", "data": []},
    "anthropic": {"data": [], "first_id": None, "has_more": False, "last_id": None},
    "google": {"models": []},
}


def filter_models(call: UpstreamCall, body: bytes, allowed: Callable[[str], bool]) -> bytes:
    """The list in ``body`` with only those models that ``allowed`` says yes to.

    Lists are read where providers put them: ``data`` (OpenAI, Anthropic), ``models`` (Gemini), both (llama.cpp), or
    bare (Together). Whatever else holds a list or an object is left out; no list of models is an empty one.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, list):
        return _dump(_kept(answer, allowed))
    if not isinstance(answer, dict) or not any(isinstance(answer.get(name), list) for name in ("data", "models")):
        return _dump(_EMPTY[call.dialect])
    kept = {
        name: _kept(value, allowed) if name in ("data", "models") and isinstance(value, list) else value
        for name, value in answer.items()
        if (name in ("data", "models") and isinstance(value, list)) or not isinstance(value, list | dict)
    }
    return _dump(kept)


def _kept(entries: list[Any], allowed: Callable[[str], bool]) -> list[Any]:
    return [entry for entry in entries if isinstance(entry, dict) and (name := _name(entry)) and allowed(name)]


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("id") or entry.get("name") or entry.get("model")
    return name.removeprefix("models/") if isinstance(name, str) else ""


def _dump(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
