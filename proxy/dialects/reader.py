"""From an :class:`Inbound` to an :class:`UpstreamCall`: everything is checked here, once.

What leaves is built anew: a constant path, listed query parameters and headers, a body whose every field is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import ModuleType

from grants.providers import PROVIDERS, Capability, Provider

from ..exceptions import BadRequest, EndpointNotRelayed
from . import anthropic, forms, google, lowering, peculiar, strict_json
from .base import CREDENTIAL_PARAMETERS, Demand, Form, Inbound, UpstreamCall
from .demand import field_names, message_count, text_size
from .fields import Reading, Table, check_fields
from .openai_fields import CHAT
from .routes import Place, Route

# Headers that any dialect passes on; each dialect adds its own.
_HEADERS = ("accept", "idempotency-key", "traceparent", "tracestate")
_HEADER = re.compile(r"[\x20-\x7e]{0,1000}")
_HEADER_SHAPES: dict[str, re.Pattern[str]] = {
    "anthropic-version": re.compile(r"\d{4}-\d{2}-\d{2}"),
    "anthropic-beta": re.compile(r"[a-z0-9._-]+(?:\s*,\s*[a-z0-9._-]+){0,63}"),
    "openai-beta": re.compile(r"[a-z0-9_.-]+(?:=[a-z0-9_.-]+)?(?:\s*[,;]\s*[a-z0-9_.-]+(?:=[a-z0-9_.-]+)?){0,31}"),
}
_PARAMETER = re.compile(r"[A-Za-z0-9._~=+/:-]{0,500}")
_JSON = re.compile(r'\s*application/json\s*(?:;\s*(?:charset="?utf-?8"?)?\s*)?', re.IGNORECASE)


def read(
    inbound: Inbound,
    place: Place,
    dialect: ModuleType,
    provider: Provider,
    extra_fields: tuple[str, ...] = (),
    default_limit: int | None = None,
    *,
    may_store: bool = False,
) -> UpstreamCall:
    """The call that a request at ``place`` asks for. ``dialect``: the module of its route."""
    route = place.route
    check_offered(route, provider)
    query = dialect.check_query(place, provider, _query(inbound, route))
    headers = _headers(inbound.headers, dialect, provider)
    reading = Reading(provider, extra_fields, peculiar.of(provider).prefix, default_limit, may_store=may_store)
    model = reading.model("model", place.model) if place.model else ""
    _read_body(reading, inbound, route)
    _check_model(reading, route, model)
    hides_usage = dialect.complete(reading, place)
    lowered = lowering.put_last(reading.body, reading.tally.limit_paths)
    body = strict_json.dumps(reading.body) if route.body is not None else None
    form = forms.with_model(inbound.form, reading.body.get("model")) if inbound.form is not None else None
    _ask_by_name(reading, route)
    return UpstreamCall(
        route=route.name,
        method=route.method,
        path=dialect.path(place, provider, model),
        query=query,
        models=tuple(reading.models),
        capabilities=frozenset(reading.capabilities),
        compatible=_is_compatible(route, provider),
        headers=headers,
        json=body,
        form=form,
        stream=reading.stream,
        counted=route.counted,
        flavor=route.flavor,
        hides_usage=hides_usage,
        input_characters=_characters(reading, body, form),
        limit_paths=reading.tally.limit_paths,
        demand=_demand(reading, route, body, form),
        tail=lowering.tail_of(body, lowered) if body is not None and lowered else 0,
        asked=reading.asked,
    )


def _ask_by_name(reading: Reading, route: Route) -> None:
    """What the route and the models ask for by their names."""
    if route.capability is not None:
        reading.capabilities.add(route.capability)
    for name in reading.models:
        asked, unbounded = peculiar.asked_by_model(reading.provider.id, name)
        for capability in asked:
            reading.ask(capability, "model")
        if unbounded and route.limits:
            reading.tally.beyond(unbounded)


def _demand(reading: Reading, route: Route, body: bytes | None, form: Form | None) -> Demand:
    """What the call can use. Text is counted in bytes of what goes out, less the files in it."""
    tally = reading.tally
    if route.capability is Capability.IMAGES:
        tally.pictures, tally.size, tally.quality = (
            reading.body.get("n") or 1,
            reading.body.get("size") or "",
            reading.body.get("quality") or "",
        )
    if form is not None:
        tally.files(form, route.capability)
        return tally.demand(sum(len(name) + text_size(value.encode()) for name, value in form.fields), 0)
    if body is None:
        return tally.demand(0, 0)
    if tally.limited and b'"cache_control"' in body:
        tally.cached = True
    size = text_size(body) if tally.limited else len(body)
    fields, messages = field_names(reading.body, tally.has_tools), message_count(reading.body)
    return tally.demand(size - reading.binary, reading.characters or 0, fields, messages)


def check_offered(route: Route, provider: Provider) -> None:
    """Raise :class:`EndpointNotRelayed` where the provider behind the grant does not have this endpoint."""
    native = provider.dialects[0]
    if route.dialect not in provider.dialects:
        spoken = " and ".join(_SPOKEN[name] for name in provider.dialects)
        raise EndpointNotRelayed(
            f"This grant is for {provider.label}, which does not support {_SPOKEN[route.dialect]}. Use {spoken}."
        )
    if route.dialect != native and not route.everywhere and route.dialect == "openai":
        raise EndpointNotRelayed(
            f"{provider.label} does not offer this endpoint in OpenAI's format. "
            f"It offers chat in OpenAI's format, and all of {_SPOKEN[native]}."
        )
    if route.capability is not None and route.capability not in provider.capabilities:
        raise EndpointNotRelayed(f"The broker does not relay '{route.capability}' to {provider.label}.")


_SPOKEN = {"openai": "OpenAI's format", "anthropic": "Anthropic's format", "google": "Gemini's format"}


def _is_compatible(route: Route, provider: Provider) -> bool:
    """Anthropic has one list of models, behind its native authentication; OpenAI's SDK reads it all the same."""
    return route.dialect == "openai" and not (route.method == "GET" and provider.dialects[0] == "anthropic")


def _query(inbound: Inbound, route: Route) -> dict[str, str]:
    """The parameters that pass. Of a GET unknown ones are dropped: they run no model, and clients add their own."""
    query: dict[str, str] = {}
    for name, value in inbound.query:
        if route.dialect == "google":
            name, value = google.parameter(name, value)
        shown = ascii(name)[1:-1][:80]
        if name.lower() in CREDENTIAL_PARAMETERS:
            raise BadRequest("Send the token in a header, not in the URL: URLs end up in logs.", code="token_in_url")
        if name not in route.query and not (name == "api-version" and route.dialect == "openai"):
            if route.method == "GET":
                continue
            raise BadRequest(
                f"The query parameter '{shown}' is not relayed here.", code="unknown_parameter", param=shown
            )
        if name in query:
            raise BadRequest(f"The query parameter '{shown}' occurs twice.", param=shown)
        if not _PARAMETER.fullmatch(value):
            raise BadRequest(f"The query parameter '{shown}' has characters that are not allowed.", param=shown)
        query[name] = value
    return query


def _headers(given: Mapping[str, str], dialect: ModuleType, provider: Provider) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name in (*_HEADERS, *dialect.HEADERS):
        if value := given.get(name):
            if not _HEADER.fullmatch(value) or (name in _HEADER_SHAPES and not _HEADER_SHAPES[name].fullmatch(value)):
                raise BadRequest(f"The header '{name}' is malformed.", param=name)
            headers[name] = value
    if provider.dialects[0] == "anthropic":
        headers.setdefault("anthropic-version", anthropic.VERSION)
    return headers


def _read_body(reading: Reading, inbound: Inbound, route: Route) -> None:
    if inbound.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest(
            "Compressed bodies are not supported. Send no Content-Encoding.", code="unsupported_encoding", status=415
        )
    if route.body is not None:
        _check_type(inbound)
        reading.body = strict_json.loads(inbound.body)
        table = _chat(reading.provider.id) if route.body is CHAT else route.body
        check_fields(reading, table, reading.body)
    elif route.form is not None:
        if inbound.form is None:
            raise _wrong_type("a body of 'Content-Type: multipart/form-data'")
        forms.check(reading, inbound.form, route.form, route.files)
    elif inbound.body or inbound.form is not None:
        raise BadRequest("This endpoint takes no body.")


@cache
def _chat(provider: str) -> Table:
    """OpenAI-shaped chat as this provider means it."""
    own = peculiar.of(PROVIDERS[provider]).chat
    return Table(CHAT, own) if own else CHAT


def _check_type(inbound: Inbound) -> None:
    if inbound.form is None and len(inbound.content_type) < 100 and _JSON.fullmatch(inbound.content_type):
        return
    raise _wrong_type("a JSON body in UTF-8, with 'Content-Type: application/json'")


def _wrong_type(wanted: str) -> BadRequest:
    return BadRequest(f"This endpoint takes {wanted}.", code="unsupported_media_type", status=415)


def _check_model(reading: Reading, route: Route, model: str) -> None:
    """Every call that runs something names what; a name in the path and one in the body are the same."""
    if route.method != "POST":
        return
    named = reading.body.get("model")
    if model:
        if route.dialect == "openai" and named not in (None, model):
            raise BadRequest("'model' must name the same deployment as the path.", param="model")
    elif named is None:
        if not route.model:
            raise BadRequest("The body must name a model.", code="model_missing", param="model")
        reading.body["model"] = reading.model("model", route.model)


def _characters(reading: Reading, body: bytes | None, form: Form | None) -> int:
    """Characters of text in the request, or somewhat more."""
    if reading.characters is not None:
        return reading.characters
    if form is not None:
        return sum(len(value) for _, value in form.fields)
    return max(0, len(body) - reading.binary) if body is not None else 0
