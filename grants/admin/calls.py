"""The ledger, to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from ..models import Call
from ..templatetags.desk import elapsed, money, number, when
from .base import DeskAdmin
from .filters import DayFilter, OutcomeFilter, OwnGrantFilter, RouteFilter

OUTCOME_LABELS = dict.fromkeys(Call.Outcome.values, "warning") | {
    "ok": "success",
    "open": "info",
    "revoked": "danger",
    "upstream_error": "danger",
}


@admin.register(Call)
class CallAdmin(DeskAdmin):
    list_display = (
        "time",
        "app",
        "shown_model",
        "route",
        "shown_outcome",
        "status",
        "tokens",
        "shown_cost",
        "duration",
    )
    list_filter = (OwnGrantFilter, OutcomeFilter, RouteFilter, DayFilter)
    list_select_related = ("grant",)
    paginator = InfinitePaginator  # a ledger grows: nothing counts it
    list_fullwidth = True

    def rows(self, user: Any) -> QuerySet[Any]:
        return Call.objects.visible_to(user)

    @display(description="Time")
    def time(self, call: Call) -> str:
        return when(call.started_at)

    @display(description="Grant")
    def app(self, call: Call) -> str:
        url = reverse("admin:grants_grant_change", args=[call.grant_id])
        return format_html('<a class="ap-link" href="{}">{}</a>', url, call.grant.app_name)

    @display(description="Model")
    def shown_model(self, call: Call) -> str:
        return call.model or "—"

    @display(description="Outcome", label=OUTCOME_LABELS)
    def shown_outcome(self, call: Call) -> tuple[str, str]:
        return call.outcome, call.get_outcome_display().lower()

    @display(description="Tokens in → out")
    def tokens(self, call: Call) -> str:
        if call.input_tokens is None and call.output_tokens is None:
            return "—"
        return f"{number(call.input_tokens)} → {number(call.output_tokens)}"

    @display(description="Cost")
    def shown_cost(self, call: Call) -> str:
        return f"≈ {money(call.cost)}" if call.estimated and call.cost is not None else money(call.cost)

    @display(description="Took")
    def duration(self, call: Call) -> str:
        return elapsed(call.duration_us)

    def facts(self, call: Call) -> dict[str, dict[str, Any]]:
        return {
            "The call": {
                "Grant": self.app(call),
                "Time": when(call.started_at),
                "Outcome": call.get_outcome_display().lower(),
                "Provider’s status": call.status or "—",
                "Route": call.route,
                "Model": call.model or "—",
                "Streamed": "yes" if call.stream else "no",
                "Request id": call.pk,
            },
            "Usage": {
                "Tokens in → out": self.tokens(call),
                "Of them cached": number(call.cached_tokens),
                "Cost": self.shown_cost(call) + (" (estimated)" if call.estimated else ""),
                "First byte after": elapsed(call.first_byte_us),
                "Took": self.duration(call),
                "Counted": "yes" if call.counted else "no",
            },
            "Credential": {"Token": call.jti, "Signing key": call.kid},
        }
