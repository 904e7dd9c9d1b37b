"""Filters of the lists. Their choices are what the user may see, and a value that is no choice finds nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter

from ..models import AuditEvent, Call, Grant, ProviderKey


class OwnGrantFilter(DropdownFilter):
    title = "grant"
    parameter_name = "grant"
    most = 100

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The newest ones, and the one that is being looked at."""
        grants = Grant.objects.owned_by(request.user)
        newest = list(grants[: self.most])
        chosen = _uuid(self.value())
        if chosen and chosen not in {grant.pk for grant in newest}:
            newest += grants.filter(pk=chosen)
        return [(str(grant.pk), f"{grant} · {str(grant.pk)[:8]}") for grant in newest]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        chosen = _uuid(self.value())
        return queryset.filter(grant=chosen) if chosen else queryset.none()


class OwnKeyFilter(DropdownFilter):
    title = "provider key"
    parameter_name = "key"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(key.pk), str(key)) for key in ProviderKey.objects.owned_by(request.user)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        chosen = _uuid(self.value())
        return queryset.filter(provider_key=chosen) if chosen else queryset.none()


class GrantStatusFilter(DropdownFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("live", "Live"), *((str(s), s.label) for s in Grant.Status if s != Grant.Status.APPROVED)]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        decided = {"revoked": Q(revoked_at__isnull=False), "denied": Q(denied_at__isnull=False)}
        match self.value():
            case None | "":
                return queryset
            case "live":
                return queryset.live()
            case "pending":
                return queryset.pending()
            case "expired":
                live, pending = Grant.objects.live().values("pk"), Grant.objects.pending().values("pk")
                ended = queryset.exclude(decided["revoked"] | decided["denied"])
                return ended.exclude(pk__in=live).exclude(pk__in=pending)
            case status if status in decided:
                return queryset.filter(decided[status])
        return queryset.none()


class KeyStateFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("enabled", "Enabled"), ("disabled", "Disabled")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in ("enabled", "disabled"):
            return queryset
        return queryset.filter(disabled_at__isnull=self.value() == "enabled")


class ChoiceFilter(DropdownFilter):
    """One column with choices."""

    choices_of: Any = None

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label).capitalize()) for value, label in self.choices_of]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class OutcomeFilter(ChoiceFilter):
    title = "outcome"
    parameter_name = "outcome"
    choices_of = Call.Outcome.choices


class ActionFilter(ChoiceFilter):
    title = "event"
    parameter_name = "action"
    choices_of = AuditEvent.Action.choices

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value) for value, _ in self.choices_of]


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
