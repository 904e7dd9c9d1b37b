"""Provider keys: put in once, switched off at once, never taken out."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.decorators import action, display

from ..models import AuditEvent, Grant, ProviderKey
from ..templatetags.desk import when
from .base import DeskAdmin, by, header_button, is_owner
from .filters import KeyStateFilter
from .forms import KeyEditForm, KeyForm

# What prices count → what the table calls it.
UNITS = {
    "input": "Input",
    "output": "Output",
    "cached": "Cached",
    "image": "An image",
    "character": "Characters",
    "second": "A second",
    "request": "A request",
}


@admin.register(ProviderKey)
class ProviderKeyAdmin(DeskAdmin):
    list_display = ("name", "shown_provider", "shown_hint", "state", "used", "error")
    list_filter = (KeyStateFilter,)
    search_fields = ("label",)
    list_select_related = ("owner",)
    actions = ("disable_selected", "enable_selected")
    trail = "key"
    detail_pages = ("edit", "disable", "enable")

    def rows(self, user: Any) -> QuerySet[Any]:
        return ProviderKey.objects.owned_by(user)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_owner(request)

    # The list

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        owner = ("owner",) if request.user.is_superuser else ()
        return self.list_display[:3] + owner + self.list_display[3:]

    @display(description="Key", ordering="label")
    def name(self, key: ProviderKey) -> str:
        return key.label

    @display(description="Provider", ordering="provider")
    def shown_provider(self, key: ProviderKey) -> str:
        return key.row.label

    @display(description="Ends in")
    def shown_hint(self, key: ProviderKey) -> str:
        return key.masked

    @display(description="State", label={"enabled": "success", "disabled": "danger"}, ordering="disabled_at")
    def state(self, key: ProviderKey) -> str:
        return "disabled" if key.disabled_at else "enabled"

    @display(description="Last used", ordering="last_used_at")
    def used(self, key: ProviderKey) -> str:
        return when(key.last_used_at)

    @display(description="Last error")
    def error(self, key: ProviderKey) -> str:
        return f"{when(key.last_error_at)}: {key.last_error}" if key.last_error else "—"

    @action(description="Disable: no grant on them is served")
    def disable_selected(self, request: HttpRequest, keys: QuerySet[Any]) -> None:
        done = sum(key.disable(by(request)) for key in keys)
        messages.success(request, f"Disabled: {done}. Their next calls are refused.")

    @action(description="Enable again")
    def enable_selected(self, request: HttpRequest, keys: QuerySet[Any]) -> None:
        done = sum(key.enable(by(request)) for key in keys)
        messages.success(request, f"Enabled: {done}.")

    # The pages

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        form = KeyForm(request.POST or None, initial={"provider": request.GET.get("provider", "")})
        if form.is_valid():
            key = form.add(request.user, by(request))
            if key is not None:
                messages.success(request, f"{key} is stored, encrypted. Issue a grant on it when you are ready.")
                return redirect(self.url("change", key.pk))
        return self.render(request, "desk/key_add.html", title="Add a provider key", form=form)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        key = self.find(request, object_id)
        grants = Grant.objects.filter(provider_key=key).live().select_related("allowance")[:20]
        return self.render(
            request,
            "desk/key.html",
            key,
            title=key.label,
            key=key,
            grants=grants,
            events=AuditEvent.objects.filter(provider_key=key)[:10],
            prices=_prices(key),
            price_units=[label for unit, label in UNITS.items() if any(unit in row for row in key.prices)],
            mine=key.owner_id == request.user.pk,
            actions_detail=[header_button("Edit", self.url("edit", key.pk), "edit")],
        )

    def edit_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.find(request, object_id)
        now = {name: getattr(key, name) for name in ProviderKey.CHANGEABLE}
        form = KeyEditForm(request.POST or None, initial=now)
        form.fields["shows_everything"].disabled = key.provider != "custom"
        if form.is_valid() and form.save(key, by(request)):
            messages.success(request, "Saved. The next call uses it.")
            return redirect(self.url("change", key.pk))
        if form.errors:
            key.refresh_from_db()
        return self.render(
            request,
            "desk/form.html",
            key,
            title=f"Edit {key.label}",
            form=form,
            button="Save",
            back=self.url("change", key.pk),
        )

    def disable_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.find(request, object_id)
        return self.confirm(
            request,
            key,
            key.disable,
            title=f"Disable {key.label}?",
            button="Disable this key",
            sentences=(
                "Every grant on it is refused from the next call on, and open streams are cut.",
                "You can enable it again; grants and tokens then work as before.",
            ),
            done="Disabled. No grant on this key is served any more.",
            late="It was disabled already.",
        )

    def enable_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.find(request, object_id)
        return self.confirm(
            request,
            key,
            key.enable,
            title=f"Enable {key.label}?",
            button="Enable this key",
            danger=False,
            sentences=("Grants on it that have not ended are served again.",),
            done="Enabled. Its grants are served again.",
            late="It was enabled already.",
        )


def _prices(key: ProviderKey) -> list[dict[str, Any]]:
    """The key's own prices as the rows of a table: only the columns that some row fills."""
    used = [unit for unit in UNITS if any(unit in row for row in key.prices)]
    return [
        {"models": row["models"], "free": row.get("free"), "amounts": [row.get(unit) for unit in used]}
        for row in key.prices
    ]
