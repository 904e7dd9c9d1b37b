from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from ..actors import network_of
from ..models import RateWindow


class AddressThrottle(BaseThrottle):
    """The rate of the view's ``throttle_scope`` in ``AIPASSPORT_RATES``, by address, over all workers."""

    _wait: int | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        scope = view.throttle_scope
        self._wait = RateWindow.objects.hit(scope, network_of(request._request), settings.AIPASSPORT_RATES[scope])
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait
