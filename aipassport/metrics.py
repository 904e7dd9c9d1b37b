"""``/metrics``: for Prometheus and nobody else. Without a token or a list of addresses in the settings, not there."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound

from grants.actors import address_of

_PLAIN = "text/plain; charset=utf-8"
_NO_STORE = {"Cache-Control": "no-store"}


def view(request: HttpRequest) -> HttpResponse:
    """The numbers, to who satisfies each guard that is set."""
    if not _is_near(request):
        return HttpResponseNotFound("Not found.\n", content_type=_PLAIN)
    if not _has_token(request):
        challenge = {"WWW-Authenticate": 'Bearer realm="AIPassport metrics"'}
        return HttpResponse("A token is needed.\n", status=401, content_type=_PLAIN, headers=challenge | _NO_STORE)
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    from proxy.telemetry import metrics

    return HttpResponse(metrics.exposition(), content_type=metrics.CONTENT_TYPE, headers=_NO_STORE)


def _is_near(request: HttpRequest) -> bool:
    """Whether the caller's address is in the list. Behind a proxy that is not trusted, nobody's is known: no."""
    networks = settings.AIPASSPORT_METRICS_ADDRESSES
    if not networks:
        return True
    hidden = not settings.TRUST_PROXY and ("HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META)
    address = None if hidden else address_of(request)
    return address is not None and any(ip_address(address) in network for network in networks)


def _has_token(request: HttpRequest) -> bool:
    token = settings.AIPASSPORT_METRICS_TOKEN
    if not token:
        return True
    scheme, _, given = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
