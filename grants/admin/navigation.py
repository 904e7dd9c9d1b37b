"""What stands at the side of the desk."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from ..models import Grant


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The theme's ``SIDEBAR["navigation"]``: what this user can open."""
    grants = _item("Grants", "handshake", "grants_grant_changelist")
    waiting = Grant.objects.pending().count() if request.user.is_superuser else 0
    if waiting:
        grants["badge"] = str(waiting)
    groups: list[dict[str, Any]] = [
        {"items": [_item("Overview", "dashboard", "index")]},
        {
            "title": "Access",
            "separator": True,
            "items": [grants, _item("Provider keys", "vpn_key", "grants_providerkey_changelist")],
        },
        {
            "title": "Record",
            "separator": True,
            "items": [
                _item("Calls", "receipt_long", "grants_call_changelist"),
                _item("Spending", "payments", "grants_dailytotal_changelist"),
                _item("Audit trail", "history", "grants_auditevent_changelist"),
                _item("Notices", "notifications", "grants_notice_changelist"),
            ],
        },
    ]
    if request.user.is_superuser:
        items = [
            _item("Users", "group", "auth_user_changelist"),
            _item("Signing keys", "encrypted", "grants_signingkey_changelist"),
            _item("Price lists", "sell", "grants_pricelist_changelist"),
        ]
        groups.append({"title": "House", "separator": True, "items": items})
    mine = _item("Preferences", "tune", "grants_preferences_changelist")
    groups.append({"title": "You", "separator": True, "items": [mine]})
    docs = {"title": "API docs", "icon": "api", "link": reverse("api-docs")}
    return [*groups, {"title": "For developers", "separator": True, "items": [docs]}]


def _item(title: str, icon: str, name: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse(f"admin:{name}")}
