"""The ledger, to read."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet, prefetch_related_objects
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from ..exports import csv_response
from ..models import Call
from ..pace import Unhurried
from ..search import Page, page
from ..templatetags.desk import elapsed, money, number, when
from .base import DeskAdmin, header_button, with_buttons
from .call_filters import FILTERS, NAMES, search_in

OUTCOME_LABELS = dict.fromkeys(Call.Outcome.values, "warning") | {
    "ok": "success",
    "open": "info",
    "revoked": "danger",
    "upstream_error": "danger",
}


BEFORE = "before"  # the id that a page begins after


class Pages(Paginator):
    """Nothing counts a ledger, and nothing skips its rows: a page begins after an id."""

    template_name = "desk/older.html"
    count = 0


class CallList(ChangeList):
    """The list as :mod:`grants.search` finds it."""

    page: Page
    before: UUID | None

    def get_filters_params(self, params: Any = None) -> Any:
        return {name: value for name, value in super().get_filters_params(params).items() if name != BEFORE}

    def get_results(self, request: HttpRequest) -> None:
        search = search_in(request.GET, request.user)
        try:
            self.before = UUID(request.GET[BEFORE]) if BEFORE in request.GET else None
        except ValueError:
            search = self.before = None
        found = Page([]) if search is None else page(request.user, search, size=self.list_per_page, cursor=self.before)
        prefetch_related_objects(found.calls, "grant")
        self.page = found
        self.result_list = Unhurried(found.calls)
        self.result_count = self.full_result_count = len(found.calls)
        self.show_full_result_count = self.can_show_all = self.multi_page = self.show_admin_actions = False
        self.paginator = Pages(found.calls, self.list_per_page)

    @property
    def newest_url(self) -> str:
        return self.get_query_string(remove=[BEFORE])

    @property
    def older_url(self) -> str:
        return self.get_query_string({BEFORE: self.page.more}) if self.page.more else ""

    @property
    def looked_back_to(self) -> int:
        """Where it gave up looking for more, in microseconds since the epoch; 0: it did not."""
        if self.page.more is None or self.result_count == self.list_per_page:
            return 0
        return (self.page.more.int >> 80) * 1000


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
    list_filter = FILTERS
    list_pages = ("export",)
    list_fullwidth = True
    sortable_by = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CallList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in NAMES

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        query = request.GET.copy()
        query.pop(BEFORE, None)
        export = f"{self.url('export')}?{query.urlencode()}"
        return with_buttons(
            super().changelist_view(request, extra_context), header_button("Export as CSV", export, "download")
        )

    def export_page(self, request: HttpRequest) -> StreamingHttpResponse:
        """The list as it is filtered, all of it, as a file."""
        if not self.allows(request):
            raise PermissionDenied
        return csv_response(request.user, search_in(request.GET, request.user))

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
        cost = f"≈ {money(call.cost)}" if call.estimated and call.cost is not None else money(call.cost)
        return format_html('{} <span class="ap-tag ap-tag-danger">over</span>', cost) if call.overrun else cost

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
                "Cost": money(call.cost) + (" (estimated)" if call.estimated else ""),
                "Bound": money(call.reserved) if call.reserved else "none",
                "Over its bound by": money(call.overrun) if call.overrun else "—",
                "Output limit": number(call.output_limit),
                "First byte after": elapsed(call.first_byte_us),
                "Took": self.duration(call),
                "Counted": "yes" if call.counted else "no",
            },
            "Credential": {"Token": call.jti, "Signing key": call.kid},
        }
