"""What stands before the views: the relay's own lane, and the headers that every page of the desk carries."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from aipassport import metrics
from grants.logins import answer_sign_in
from proxy.views import RelayView

_relay = RelayView.as_view()
_RELAY_PREFIX = "/proxy/"
_RELAY_BASE = "/proxy"  # the base URL of some SDKs, which clients ask for at their start
_METRICS_PATH = "/metrics"

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-eval'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


def security_headers(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A content security policy for every answer that does not bring its own (the relay's do)."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        return response

    return middleware


def sign_ins(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """For every page that signs people in: the cookie of a known browser, and 429 after too many attempts."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        answer_sign_in(request, response)
        return response

    return middleware


def is_relayed(path: str) -> bool:
    return path.startswith(_RELAY_PREFIX) or path == _RELAY_BASE


def relay(request: HttpRequest) -> HttpResponseBase:
    return _relay(request, path=request.path_info[len(_RELAY_PREFIX) :])


def relay_lane(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Calls under ``/proxy/`` leave here: sessions, CSRF, messages and redirects are the desk's, and cost time.

    (Those that come through our own ``wsgi.application`` do not even come so far.) So do scrapes, which have a guard of
    their own and may come to this server by its address.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if is_relayed(request.path_info):
            return relay(request)
        if request.path_info == _METRICS_PATH and settings.AIPASSPORT_METRICS:
            return metrics.view(request)
        return get_response(request)

    return middleware
