"""The price lists that were taken over, and what each changed: for superusers, to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from ..models import PriceList
from ..templatetags.desk import when
from .base import DeskAdmin, is_superuser

_SHOWN = 500


@admin.register(PriceList)
class PriceListAdmin(DeskAdmin):
    list_display = ("named", "state", "taken_over", "source", "actor", "what_changed")
    list_display_links = ("named",)

    def rows(self, user: Any) -> QuerySet[Any]:
        lists = PriceList.objects.defer("data", "changes")
        return lists if user.is_superuser else lists.none()

    def allows(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    @display(description="List", ordering="number")
    def named(self, row: PriceList) -> str:
        return str(row)

    @display(description="State", label={"in force": "success", "replaced": "info"})
    def state(self, row: PriceList) -> str:
        newest = PriceList.objects.values_list("number", flat=True).first()
        return "in force" if row.number == newest else "replaced"

    @display(description="Since", ordering="created_at")
    def taken_over(self, row: PriceList) -> str:
        return when(row.created_at)

    @display(description="Changes")
    def what_changed(self, row: PriceList) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in row.counts.items()) or "—"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = self.find(request, object_id)
        facts = {
            "State": self.state(row),
            "Since": when(row.created_at),
            "Source": row.source,
            "By": row.actor,
            "Lower prices": "accepted" if row.accepted_lower else "not taken: the earlier prices stay in force",
            "SHA-256": row.digest,
        }
        return self.render(
            request,
            "desk/price_list.html",
            row,
            title=str(row),
            row=row,
            facts=facts,
            summary=self.what_changed(row),
            changes=row.changes[:_SHOWN],
            more=max(0, sum(row.counts.values()) - _SHOWN),
        )
