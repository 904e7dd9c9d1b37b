"""What there is to tell: a call that ended, or one that was refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from grants.ledger import Settlement
from grants.policy import Policy

from ..dialects.base import UpstreamCall

# W3C Trace Context, level 1: version, trace, parent, flags. All zeros is no id.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

_SECRET = re.compile(r"eyJ[\w-]{8,}[\w.-]*|\bsk-[\w-]{16,}|\bAIza[\w-]{30,}")
_MODEL_LENGTH = 200  # the ledger's


class Ended(NamedTuple):
    """An admitted call, settled.

    ``added_us``: what the broker took, from the request's arrival (less the time that its body was on its way) to the
    moment it was sent on, and for the settlement. ``total_us``: from arrival to settlement. ``response_model``: as the
    provider names it, ``""`` where it does not.
    """

    id: UUID
    policy: Policy
    call: UpstreamCall
    settlement: Settlement
    added_us: int
    total_us: int
    response_model: str = ""
    span: Any = None


class Refused(NamedTuple):
    """A call that was not admitted; ``policy`` and ``call`` where it came so far. ``grant``: of a genuine token."""

    code: str
    status: int
    total_us: int
    trace: str
    grant: UUID | None = None
    policy: Policy | None = None
    call: UpstreamCall | None = None
    span: None = None


def model_name(call: UpstreamCall) -> str:
    """Models' names are the caller's to choose: a credential that got there by mistake is not repeated."""
    return _SECRET.sub("…", call.model[:_MODEL_LENGTH])


def trace_id(headers: Mapping[str, str], name: str = "traceparent") -> str:
    """The caller's W3C trace id, ``""`` without a proper one: anything else in that header is not repeated."""
    given = headers.get(name)
    match = _TRACEPARENT.fullmatch(given) if given else None
    return match[1] if match else ""
