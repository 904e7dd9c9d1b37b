"""The wire formats: which requests are relayed, what they ask for, what their answers used, how an error is said.

One module a format (``openai``, ``anthropic``, ``google``) with its table of routes; the body fields of each stand in
``*_fields.py``, what single providers do differently in ``peculiar.py``. Pure functions on frozen values.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from grants.providers import Provider

from ..exceptions import RelayError
from . import anthropic, google, openai, reader
from .base import Inbound, Observer, UpstreamCall
from .models import filter_models
from .observers import observer_of
from .routes import Directory, Route, by_headers, by_path, single_slashes

__all__ = [
    "DIALECTS",
    "ROUTES",
    "error_body",
    "error_event",
    "filter_models",
    "observer",
    "of_request",
    "read",
    "route",
    "status",
]

DIALECTS: dict[str, ModuleType] = {"openai": openai, "anthropic": anthropic, "google": google}
ROUTES: tuple[Route, ...] = tuple(route for dialect in DIALECTS.values() for route in dialect.ROUTES)

_directory = Directory({name: dialect.ROUTES for name, dialect in DIALECTS.items()})


def read(
    inbound: Inbound,
    provider: Provider,
    extra_fields: tuple[str, ...] = (),
    default_limit: int | None = None,
    *,
    may_store: bool = False,
) -> UpstreamCall:
    """What a request asks for, as the call that would go to ``provider``.

    ``extra_fields``: names of body fields that the key's owner lets through although no table knows them.
    ``default_limit``: output tokens of a text call that names no limit, where the grant limits money or tokens (the
    service tier is pinned then, too); ``None``: it limits neither, and nothing in the body is changed for it.
    ``may_store``: the grant includes ``state``, so what the provider stores by default is left to it.

    Raises:
        EndpointNotRelayed: no such route, or not with this provider.
        BadRequest: the request cannot be understood in only one way, or has what is never relayed.
    """
    place = _directory.find(inbound.method, inbound.path, inbound.headers)
    dialect = DIALECTS[place.route.dialect]
    return reader.read(inbound, place, dialect, provider, tuple(extra_fields), default_limit, may_store=may_store)


def route(method: str, path: str, headers: Mapping[str, str]) -> Route | None:
    """The route of a request, as far as its head tells; ``None`` where none is relayed."""
    place = _directory.look(method, path, headers)
    return place.route if place is not None and place.route.method == method else None


def of_request(inbound: Inbound) -> str:
    """The dialect that an error should be said in: the route's; without one, what path or headers tell of.

    Looks at the names of headers only, never at their values. Never raises.
    """
    place = _directory.look(inbound.method, inbound.path, inbound.headers)
    if place is not None:
        return place.route.dialect
    return by_path(single_slashes(inbound.path)) or by_headers(inbound.headers)


def observer(call: UpstreamCall) -> Observer:
    """A fresh observer for the answer to ``call``."""
    return observer_of(call)


def status(dialect: str, error: RelayError) -> int:
    """The HTTP status of ``error`` in this dialect: the one after which its clients show our sentence."""
    found: int = DIALECTS[dialect].STATUSES.get(error.code, error.status)
    return found


def error_body(dialect: str, error: RelayError) -> dict[str, Any]:
    """``error`` as a JSON body that makes this dialect's SDK raise its own typed exception."""
    body: dict[str, Any] = DIALECTS[dialect].error_body(error)
    return body


def error_event(dialect: str, error: RelayError) -> bytes:
    """``error`` as a server-sent event that makes this dialect's SDK raise in the middle of a stream."""
    event: bytes = DIALECTS[dialect].error_event(error)
    return event
