"""Anthropic's wire format (https://docs.claude.com/en/api)."""

from __future__ import annotations

import json
from typing import Any

from grants.providers import Capability, Provider

from ..exceptions import RelayError
from . import anthropic_fields as tables
from . import limits
from .fields import Reading
from .routes import Place, Route, encoded

_BETA = frozenset({"beta"})  # ?beta=true of older SDKs
_LISTS = frozenset({"limit", "after_id", "before_id", "lifecycle", "beta"})

ROUTES: tuple[Route, ...] = (
    Route(
        "anthropic.messages",
        "POST",
        "/v1/messages",
        Capability.CHAT,
        "anthropic",
        body=tables.MESSAGES,
        query=_BETA,
        limits=("max_tokens",),
    ),
    Route(
        "anthropic.count_tokens",
        "POST",
        "/v1/messages/count_tokens",
        Capability.CHAT,
        body=tables.COUNT_TOKENS,
        query=_BETA,
        counted=False,
    ),
    Route("anthropic.models", "GET", "/v1/models", query=_LISTS, counted=False),
    Route("anthropic.model", "GET", "/v1/models/{model}", query=_BETA, counted=False),
)
HEADERS = ("anthropic-version", "anthropic-beta")
VERSION = "2023-06-01"

# https://docs.claude.com/en/api/errors
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Claude Code's gateway protocol asks for 400 where a model is not offered. After a 404 it says in its own words that
# the model may not exist, without our sentence.
STATUSES = {"model_not_granted": 400}


def path(place: Place, provider: Provider, model: str) -> str:
    return place.route.path.replace("{model}", encoded(model))


def complete(reading: Reading, place: Place) -> bool:
    if place.route.limits:
        limits.settle(reading, place.route.limits)
        limits.pin_tier(reading, "standard_only")
        _price(reading)
    return False


def _price(reading: Reading) -> None:
    """Fast mode and processing in one region cost more; together with a service tier they are no price that is known.

    Without ``inference_geo`` the workspace's default holds: older models refuse the field, so it cannot be pinned.
    """
    body, tally = reading.body, reading.tally
    speed, place = body.get("speed"), body.get("inference_geo")
    dearer = [tally.tier] if tally.tier else []
    if speed not in (None, "standard"):
        dearer.append(speed)
    if place not in (None, "global"):
        dearer.append(place)
    tally.tiers(*dearer)


def check_query(place: Place, provider: Provider, query: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(query.items())


def error_body(error: RelayError) -> dict[str, Any]:
    """``code``, ``param`` and ``limit`` are additions of ours, which the SDK carries along."""
    kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    body: dict[str, Any] = {"type": kind, "message": error.message, "code": error.code, "param": error.param}
    if error.limit is not None:
        body["limit"] = error.limit
    if error.details is not None:
        body["details"] = error.details
    return {"type": "error", "error": body}


def error_event(error: RelayError) -> bytes:
    return b"event: error\ndata: " + json.dumps(error_body(error)).encode() + b"\n\n"
