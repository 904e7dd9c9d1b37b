"""The trail, to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from ..models import AuditEvent
from ..templatetags.desk import when
from .base import DeskAdmin
from .filters import ActionFilter, OwnGrantFilter, OwnKeyFilter

# what takes rights away stands out, and so does what hands them out
EVENT_LABELS = dict.fromkeys(AuditEvent.Action.values, "info") | {
    "grant.revoked": "danger",
    "grant.denied": "danger",
    "token.revoked": "danger",
    "key.disabled": "danger",
    "signing_key.retired": "danger",
    "owner.disabled": "danger",
    "sign_in.throttled": "danger",
    "grant.displaced": "danger",
    "grant.issued": "success",
    "grant.approved": "success",
    "token.issued": "success",
    "key.enabled": "success",
}


@admin.register(AuditEvent)
class AuditEventAdmin(DeskAdmin):
    list_display = ("time", "event", "actor", "via", "address", "app", "key", "more")
    list_filter = (ActionFilter, OwnGrantFilter, OwnKeyFilter)
    list_select_related = ("grant", "provider_key")
    list_display_links = ("time",)
    paginator = InfinitePaginator
    list_fullwidth = True

    def rows(self, user: Any) -> QuerySet[Any]:
        return AuditEvent.objects.visible_to(user)

    @display(description="Time")
    def time(self, event: AuditEvent) -> str:
        return when(event.at)

    @display(description="Event", label=EVENT_LABELS)
    def event(self, event: AuditEvent) -> str:
        return event.action

    @display(description="Grant")
    def app(self, event: AuditEvent) -> str:
        if event.grant is None:
            return "—"
        url = reverse("admin:grants_grant_change", args=[event.grant_id])
        return format_html('<a class="ap-link" href="{}">{}</a>', url, event.grant.app_name)

    @display(description="Key")
    def key(self, event: AuditEvent) -> str:
        if event.provider_key is None:
            return "—"
        url = reverse("admin:grants_providerkey_change", args=[event.provider_key_id])
        return format_html('<a class="ap-link" href="{}">{}</a>', url, event.provider_key.label)

    @display(description="Token")
    def more(self, event: AuditEvent) -> str:
        return f"{event.jti[:8]}…" if event.jti else "—"

    def facts(self, event: AuditEvent) -> dict[str, dict[str, Any]]:
        said = {name.replace("_", " ").capitalize(): _text(value) for name, value in event.detail.items()}
        return {
            "The event": {
                "Event": event.action,
                "Time": when(event.at),
                "Who": event.actor,
                "Via": event.via,
                "From": event.address or "—",
                "Grant": self.app(event),
                "Key": self.key(event),
                "Token": event.jti or "—",
            },
        } | ({"What it said": said} if said else {})


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "—"
    return "—" if value is None or value == "" else str(value)
