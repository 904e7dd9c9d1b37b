"""Gemini's wire format (https://ai.google.dev/api)."""

from __future__ import annotations

import json
from typing import Any

from grants.providers import Capability, Provider

from ..exceptions import BadRequest, RelayError
from . import google_fields as tables
from . import limits
from .fields import Reading
from .routes import Place, Route, encoded

_ALT = frozenset({"alt"})
_LISTS = frozenset({"alt", "pageSize", "pageToken"})
_LIMITS = ("generationConfig.maxOutputTokens",)


def _post(verb: str, capability: Capability, **more: Any) -> Route:
    return Route(f"google.{verb}", "POST", f"/models/{{model}}:{verb}", capability, query=_ALT, **more)


ROUTES: tuple[Route, ...] = (
    _post("generateContent", Capability.CHAT, flavor="google", body=tables.GENERATE, limits=_LIMITS),
    _post("streamGenerateContent", Capability.CHAT, flavor="google", body=tables.GENERATE, limits=_LIMITS),
    _post("embedContent", Capability.EMBEDDINGS, flavor="google", body=tables.EMBED),
    _post("batchEmbedContents", Capability.EMBEDDINGS, flavor="google", body=tables.BATCH_EMBED),
    _post("countTokens", Capability.CHAT, body=tables.COUNT_TOKENS, counted=False),
    Route("google.models", "GET", "/models", query=_LISTS, counted=False),
    Route("google.model", "GET", "/models/{model}", query=_ALT, counted=False),
)
HEADERS = ()

# https://cloud.google.com/apis/design/errors#handling_errors
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
STATUSES = {"model_not_granted": 404}  # as for a model that the provider does not have; a 403 is taken for a bad key


def path(place: Place, provider: Provider, model: str) -> str:
    return place.prefix + place.route.path.replace("{model}", encoded(model))


def complete(reading: Reading, place: Place) -> bool:
    reading.stream = place.route.name == "google.streamGenerateContent"
    if place.route.limits:
        limits.settle_gemini(reading)
        for name in ("serviceTier", "service_tier"):
            limits.pin_tier(reading, "", name)  # absent is standard: no account sets it otherwise
    return False


def parameter(name: str, value: str) -> tuple[str, str]:
    """A query parameter as the API documents it. Google's generated REST clients write ``$alt=json;enum-encoding=int``.

    Enumerations stay names: those clients read both, and the reports of usage are read by name.
    """
    if name not in ("alt", "$alt"):
        return name, value
    return "alt", value.removesuffix(";enum-encoding=int")


def check_query(place: Place, provider: Provider, query: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """A stream must be one of events: the JSON array that is the default can neither be watched nor be cut cleanly."""
    wanted = "sse" if place.route.name == "google.streamGenerateContent" else "json"
    if query.get("alt", "json") != wanted:
        raise BadRequest(
            "Streams are relayed as server-sent events: call streamGenerateContent with '?alt=sse'."
            if wanted == "sse"
            else "'alt' must be 'json' here.",
            param="alt",
        )
    return tuple(query.items())


def error_body(error: RelayError) -> dict[str, Any]:
    """``details`` carries our code the way Google's services carry theirs (google.rpc.ErrorInfo, RetryInfo)."""
    status = _STATUSES.get(error.status) or ("FAILED_PRECONDITION" if error.status < 500 else "INTERNAL")
    info: dict[str, Any] = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error.code.upper(),
        "domain": "aipassport",
    }
    limit = {name: str(value) for name, value in (error.limit or {}).items() if value is not None}
    if metadata := limit | ({"param": error.param} if error.param else {}):
        info["metadata"] = metadata
    details = [info]
    if error.retry_after is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{error.retry_after}s"})
    return {"error": {"code": error.status, "message": error.message, "status": status, "details": details}}


def error_event(error: RelayError) -> bytes:
    """google-genai raises on a chunk that begins with ``{"error":`` (``_api_client.request_streamed``)."""
    return b"data: " + json.dumps(error_body(error)).encode() + b"\n\n"
