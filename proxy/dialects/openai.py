"""OpenAI's wire format, which most providers speak (https://platform.openai.com/docs/api-reference)."""

from __future__ import annotations

import json
from typing import Any

from grants.providers import Capability, Provider

from ..exceptions import BadRequest, RelayError
from . import limits, peculiar, reasoning
from . import openai_fields as tables
from .fields import Reading
from .routes import DEPLOYMENTS, Place, Route, encoded

_LISTS = frozenset({"limit", "after", "order"})
_AUDIO_FILE = frozenset({"file"})
_PICTURES = frozenset({"image", "mask", "markup"})


def _post(name: str, path: str, capability: Capability, **more: Any) -> Route:
    return Route(f"openai.{name}", "POST", path, capability, **{"flavor": name, **more})


ROUTES: tuple[Route, ...] = (
    _post(
        "chat",
        "/chat/completions",
        Capability.CHAT,
        body=tables.CHAT,
        everywhere=True,
        asks_usage=True,
        limits=("max_completion_tokens", "max_tokens"),
    ),
    _post(
        "completions",
        "/completions",
        Capability.CHAT,
        body=tables.COMPLETIONS,
        flavor="chat",
        asks_usage=True,
        limits=("max_tokens",),
    ),
    _post("responses", "/responses", Capability.CHAT, body=tables.RESPONSES, limits=("max_output_tokens",)),
    _post(
        "input_tokens",
        "/responses/input_tokens",
        Capability.CHAT,
        body=tables.INPUT_TOKENS,
        flavor="none",
        counted=False,
    ),
    _post("embeddings", "/embeddings", Capability.EMBEDDINGS, body=tables.EMBEDDINGS, everywhere=True),
    _post(
        "moderations",
        "/moderations",
        Capability.MODERATION,
        body=tables.MODERATIONS,
        model="omni-moderation-latest",  # said outright, so that it can be checked
    ),
    _post("images", "/images/generations", Capability.IMAGES, body=tables.IMAGES, everywhere=True),
    _post("image_edits", "/images/edits", Capability.IMAGES, form=tables.IMAGE_EDITS, files=_PICTURES, flavor="images"),
    _post(
        "image_variations",
        "/images/variations",
        Capability.IMAGES,
        form=tables.IMAGE_VARIATIONS,
        files=_PICTURES,
        flavor="images",
    ),
    _post("speech", "/audio/speech", Capability.AUDIO, body=tables.SPEECH),
    _post(
        "transcription",
        "/audio/transcriptions",
        Capability.AUDIO,
        form=tables.TRANSCRIPTIONS,
        files=_AUDIO_FILE,
    ),
    _post(
        "translation",
        "/audio/translations",
        Capability.AUDIO,
        form=tables.TRANSLATIONS,
        files=_AUDIO_FILE,
        flavor="transcription",
    ),
    Route("openai.models", "GET", "/models", query=_LISTS, counted=False, everywhere=True),
    Route("openai.model", "GET", "/models/{model}", counted=False, everywhere=True),
)
HEADERS = ("openai-beta",)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# A model that is not granted is what OpenAI calls ``model_not_found``. Clients take a 403 for a bad key (vibe), or
# repeat it (aider, whose ``exceptions.py`` does not know it, but does not repeat a 404).
STATUSES = {"model_not_granted": 404}


def path(place: Place, provider: Provider, model: str) -> str:
    """The upstream path. Azure keeps the shape that it was called in: its API versions differ."""
    prefix = provider.openai_prefix
    if peculiar.of(provider).deployments:
        if place.prefix == DEPLOYMENTS:
            prefix = f"{DEPLOYMENTS}/{encoded(place.model)}"
        elif place.prefix == "/openai":
            prefix = "/openai"
    return prefix + place.route.path.replace("{model}", encoded(model))


def complete(reading: Reading, place: Place) -> bool:
    """Settle what the body leaves open; whether the relay asked for usage that the client did not ask for."""
    body, oddity = reading.body, peculiar.of(reading.provider)
    if place.prefix == DEPLOYMENTS and not oddity.deployments:
        body["model"] = place.model  # an Azure client on another provider: there the body has to say it
    for name in tables.DROPPED:
        body.pop(name, None)
    if place.route.flavor == "responses" and body.get("store") is None:
        _settle_store(reading)
    if place.route.capability is Capability.CHAT:
        reading.capabilities |= oddity.always
    if place.route.limits:
        _settle_limit(reading, place.route, oddity)
    if not (reading.stream and place.route.asks_usage and oddity.asks_usage):
        return False
    options = body.get("stream_options") or {}
    if options.get("include_usage") is True:
        return False
    body["stream_options"] = {**options, "include_usage": True}
    return True


def _settle_store(reading: Reading) -> None:
    """Have nothing stored (the default is true) unless the grant includes ``state``.

    An app that did not ask for that gets its reasoning items whole: it sends them back on the next turn, and an id
    alone would lead nowhere.
    """
    if reading.may_store:
        reading.ask(Capability.STATE, "store")  # the grant may lose it before the call is admitted
        return
    body = reading.body
    body["store"] = False
    if not reasoning.gives_encrypted(reading.provider.id, reading.models[0]):
        return
    include = body.get("include")
    if include is None:
        body["include"] = [reasoning.ENCRYPTED]
    elif type(include) is list and reasoning.ENCRYPTED not in include:
        include.append(reasoning.ENCRYPTED)


def _settle_limit(reading: Reading, route: Route, oddity: peculiar.Peculiarity) -> None:
    body, tally = reading.body, reading.tally
    if len(route.limits) == 1:
        limits.settle(reading, route.limits)
    else:
        own = oddity.limit_of(reading.models[0]) if tally.limited else ""
        limits.settle(reading, route.limits, own, exchangeable=oddity.either)
    tally.candidates *= max(body.get("n") or 1, body.get("best_of") or 1)
    tally.cached = oddity.caches
    if route.body is not None and "service_tier" in route.body:
        limits.pin_tier(reading, oddity.tier)


def check_query(place: Place, provider: Provider, query: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """What of the query goes upstream: an API version only to who knows one."""
    if not peculiar.of(provider).deployments:
        query.pop("api-version", None)
    elif place.prefix in (DEPLOYMENTS, "/openai") and "api-version" not in query:
        raise BadRequest("This path needs the query parameter 'api-version'.", param="api-version")
    return tuple(query.items())


def error_body(error: RelayError) -> dict[str, Any]:
    """What no waiting mends is OpenAI's ``insufficient_quota``; ``limit`` is an addition of ours."""
    kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "server_error")
    body: dict[str, Any] = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    if error.status == 429 and error.final:
        body |= {"type": "insufficient_quota", "code": "insufficient_quota"}
    if error.limit is not None:
        body["limit"] = {"code": error.code, **error.limit}
    return {"error": body}


def error_event(error: RelayError) -> bytes:
    """For chat and for Responses: the SDK raises on any event whose data has ``error`` (``openai/_streaming.py``)."""
    body = error_body(error)["error"]
    data = {"type": "error", "code": error.code, "message": error.message, "param": error.param, "sequence_number": 0}
    return b"event: error\ndata: " + json.dumps({**data, "error": body}).encode() + b"\n\n"
