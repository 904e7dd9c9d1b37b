"""What an app can do about a field that asks for a capability that its grant does not include."""

from __future__ import annotations

import re
from typing import Any

from grants.providers import Capability

from ..exceptions import NotGranted
from .base import Asked

_TOOL = re.compile(r"(?:^|\.)tools(?:$|[.\[])")
_HISTORY = "Send the whole conversation in 'input' instead"
_WHOLE = "Send the item itself, as it came in the answer"

# By the type of the item, or by the field. The provider keeps nothing between calls without this capability.
_STATE = {
    "reasoning": (
        "Send reasoning items with their 'encrypted_content', which an answer has "
        'where the call asks for it: "store": false, "include": ["reasoning.encrypted_content"]'
    ),
    "item_reference": _WHOLE,
    "image_generation_call": _WHOLE,
    "store": "Leave 'store' out or set it to false, and send the whole conversation in each call",
    "previous_response_id": _HISTORY,
    "conversation": _HISTORY,
    "thread": "Send the whole conversation without 'thread'",
    "file_id": "Send the file itself in the body",
    "file_ids": "Leave it out",
    "fileUri": "Send the file itself in the body",
    "file_uri": "Send the file itself in the body",
    "cachedContent": "Send the content itself in the body",
    "cached_content": "Send the content itself in the body",
}


def not_granted(capability: Capability, asked: Asked | None) -> NotGranted:
    """The refusal of a call. ``asked``: the field that asks for the capability; ``None``: the call itself does."""
    message = f"This grant does not include the capability '{capability}'"
    if asked is None:
        return NotGranted(f"{message}.", code="capability_not_granted", final=True)
    shown = f"'{asked.where}' (type {asked.kind!a})" if asked.kind else f"'{asked.where}'"
    return NotGranted(
        f"{message}, which {shown} asks for. "
        f"{_remedy(capability, asked)}, or ask the owner of the grant to include '{capability}'.",
        code="capability_not_granted",
        param=asked.where,
        final=True,
        details=_details(capability, asked),
    )


def _remedy(capability: Capability, asked: Asked) -> str:
    if asked.where == "model":  # one that searches by nature
        return "Choose another model"
    if capability is Capability.STATE:
        field = asked.where.rpartition(".")[2]
        if found := _STATE.get(asked.kind) or _STATE.get(field):
            return found
        if re.fullmatch(r"input\[\d+\]", field):  # an item of which there is only the id
            return _WHOLE
    if _TOOL.search(asked.where):
        return "Switch this tool off in the client"
    return "Leave it out"


def _details(capability: Capability, asked: Asked) -> dict[str, Any] | None:
    """What lets Anthropic's SDKs send the whole conversation instead of a thread, by themselves."""
    if capability is Capability.STATE and asked.where == "thread":
        return {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return None
