"""Pages that belong to no app: what a browser shows where Django's own page would be bare."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page for a form that Django's CSRF protection refused (``CSRF_FAILURE_VIEW``).

    The usual cause is a new sign-in in another tab while the form was open. ``reason`` is not shown: it is for
    developers.
    """
    back = "/" + request.path.lstrip("/")  # a path that begins with // would name another host
    return render(request, "403_csrf.html", {"back": back}, status=403)
