"""Calls from browser pages. A preflight carries no token, so it is always answered; the real request decides.

Never credentials (cookies): the only credential is the token in a header that the page sets itself.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBase

_METHODS = "GET, POST, OPTIONS"
_EXPOSED = (
    "x-request-id, request-id, retry-after, retry-after-ms, x-should-retry, ratelimit, ratelimit-policy, "
    "x-aipassport-call, x-aipassport-output-limit"
)
_PREFLIGHT_SECONDS = "7200"


def preflight(request: HttpRequest) -> HttpResponse:
    """Yes to every header that an SDK sends: ``x-stainless-*`` and ``anthropic-*`` are too many to list."""
    response = HttpResponse(status=204)
    response.headers["access-control-allow-methods"] = _METHODS
    asked = request.META.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if asked.isascii() and asked.isprintable() and len(asked) < 4096:
        response.headers["access-control-allow-headers"] = asked
    response.headers["access-control-max-age"] = _PREFLIGHT_SECONDS
    return response


def expose(request: HttpRequest, response: HttpResponseBase) -> None:
    """Let the page read this answer, refusals too: a page that may not call still learns why."""
    if origin := request.META.get("HTTP_ORIGIN"):
        response.headers["access-control-allow-origin"] = origin
        response.headers["access-control-expose-headers"] = _EXPOSED
        response.headers["vary"] = "Origin"
