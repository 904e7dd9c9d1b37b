"""Grants: issued, changed and revoked; their tokens; what was done with them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import action, display

from .. import tokens
from ..clock import day_number, moment
from ..models import Call, Grant
from ..snippets import ready_clients, snippets
from ..templatetags.desk import dollars, money, number, when
from .base import DeskAdmin, by, header_button, is_owner
from .filters import GrantStatusFilter, OwnKeyFilter
from .forms import ChangeForm, IssueForm, TokenForm
from .limits import shown_limits

STATUS_LABELS = {
    "live": "success",
    "exhausted": "warning",
    "pending": "warning",
    "closed": "danger",
    "revoked": "danger",
    "denied": "danger",
    "expired": "",
}
SHOWN = 20


@admin.register(Grant)
class GrantAdmin(DeskAdmin):
    list_display = ("app", "shown_key", "shown_status", "shown_models", "used", "shown_spent", "ends")
    list_filter = (GrantStatusFilter, OwnKeyFilter)
    search_fields = ("app_name",)
    list_select_related = ("allowance", "provider_key", "owner")
    actions = ("revoke_selected",)
    trail = "grant"
    detail_pages = ("terms", "reopen", "revoke", "token", "revoke_token", "rotate_secret")

    def rows(self, user: Any) -> QuerySet[Any]:
        return Grant.objects.owned_by(user)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_owner(request)

    # The list

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        owner = ("owner",) if request.user.is_superuser else ()
        return self.list_display[:2] + owner + self.list_display[2:]

    @display(description="App", ordering="app_name")
    def app(self, grant: Grant) -> str:
        return grant.app_name

    @display(description="Key", ordering="provider_key__label")
    def shown_key(self, grant: Grant) -> str:
        return grant.provider_key.label if grant.provider_key else f"{grant.row.label} (none yet)"

    @display(description="Status", label=STATUS_LABELS)
    def shown_status(self, grant: Grant) -> str:
        return shown_status(grant)

    @display(description="Models")
    def shown_models(self, grant: Grant) -> str:
        more = len(grant.models) - 2
        return ", ".join(grant.models[:2]) + (f" and {more} more" if more > 0 else "")

    @display(description="Requests", ordering="allowance__requests")
    def used(self, grant: Grant) -> str:
        allowance = grant.allowance
        return number(allowance.requests) + (f" of {number(allowance.max_requests)}" if allowance.max_requests else "")

    @display(description="Spent", ordering="allowance__spent")
    def shown_spent(self, grant: Grant) -> str:
        allowance = grant.allowance
        return money(allowance.spent) + (f" of {dollars(allowance.max_cost)}" if allowance.max_cost else "")

    @display(description="Ends", ordering="expires_at")
    def ends(self, grant: Grant) -> str:
        return when(grant.expires_at if grant.approved_at else grant.request_expires_at)

    @action(description="Revoke: their next calls are refused")
    def revoke_selected(self, request: HttpRequest, grants: QuerySet[Any]) -> TemplateResponse | None:
        """Asks first; pressed again on that page, does it."""
        live = [grant for grant in grants if grant.approved_at and not grant.revoked_at]
        if "confirmed" in request.POST:
            done = sum(grant.revoke(by(request)) for grant in live)
            messages.success(request, f"Revoked: {done}. Their next calls are refused.")
            return None
        if not live:
            messages.warning(request, "None of these is in force.")
            return None
        return self.render(
            request,
            "desk/confirm.html",
            title=f"Revoke {len(live)} grant{'s' if len(live) != 1 else ''}?",
            sentences=("Their next calls are refused, open streams are cut. This cannot be taken back.",),
            items=live,
            selected=[grant.pk for grant in live],
            action="revoke_selected",
            button="Revoke them",
            danger=True,
            back=self.url("changelist"),
        )

    # The pages

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        chosen = {"provider_key": request.GET.get("provider_key")}
        form = IssueForm(request.POST or None, user=request.user, initial=chosen)
        if form.is_valid():
            grant = form.issue(by(request))
            if grant is not None:
                messages.success(request, f"{grant} is granted until {when(grant.expires_at)}.")
                return redirect(self.url("token" if "_token" in request.POST else "change", grant.pk))
        return self.render(request, "desk/grant_issue.html", title="Issue a grant", form=form)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        grant = self.find(request, object_id)
        state = shown_status(grant)
        return self.render(
            request,
            "desk/grant.html",
            grant,
            title=grant.app_name,
            grant=grant,
            state=state,
            state_variant=STATUS_LABELS[state],
            allowance=grant.allowance,
            today=grant.allowance.day == day_number(dt.datetime.now(dt.UTC), grant.allowance.time_zone),
            limits=shown_limits(grant.allowance),
            overrun=_overrun(grant),
            capabilities=grant.capabilities,
            tokens=self._tokens(grant),
            calls=Call.objects.filter(grant=grant)[:SHOWN],
            events=grant.events.all()[:SHOWN],
            actions_detail=self._buttons(grant),
            calls_url=f"{reverse('admin:grants_call_changelist')}?grant={grant.pk}",
            events_url=f"{reverse('admin:grants_auditevent_changelist')}?grant={grant.pk}",
        )

    def _buttons(self, grant: Grant) -> list[dict[str, Any]]:
        if grant.status == Grant.Status.PENDING:
            return [header_button("Review the request", reverse("consent", args=[grant.pk]), "fact_check", "primary")]
        if grant.status != Grant.Status.APPROVED:
            return []
        buttons = [
            header_button("Issue a token", self.url("token", grant.pk), "key", "primary"),
            header_button("Change terms", self.url("terms", grant.pk), "tune"),
        ]
        if grant.request_secret_hash:
            buttons.append(header_button("Rotate app secret", self.url("rotate_secret", grant.pk), "autorenew"))
        return [*buttons, header_button("Revoke", self.url("revoke", grant.pk), "block", "danger")]

    @staticmethod
    def _tokens(grant: Grant) -> list[dict[str, Any]]:
        """The latest tokens, from the trail."""
        now = dt.datetime.now(dt.UTC)
        shown = []
        for event in grant.issued_tokens()[:SHOWN]:
            ends = dt.datetime.fromisoformat(event.detail["expires_at"])
            revoked_at = getattr(event, "revoked_at")  # noqa: B009  an annotation
            live = not revoked_at and ends > now and grant.status == Grant.Status.APPROVED
            shown.append(
                {
                    "event": event,
                    "ends": ends,
                    "revoked_at": revoked_at,
                    "live": live,
                    "models": event.detail.get("models"),
                    "scope": event.detail.get("scope", "").split(),
                }
            )
        return shown

    def _live(self, request: HttpRequest, grant: Grant) -> HttpResponse | None:
        """Where to send somebody who wants to change what is not in force."""
        if grant.status == Grant.Status.APPROVED:
            return None
        messages.warning(request, f"This grant is {shown_status(grant)}: there is nothing to change any more.")
        return redirect(self.url("change", grant.pk))

    def terms_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = self.find(request, object_id)
        if elsewhere := self._live(request, grant):
            return elsewhere
        form = ChangeForm(request.POST or None, grant=grant)
        won = form.change(by(request)) if form.is_valid() else None
        if won is None:
            return self.render(
                request,
                "desk/grant_terms.html",
                grant,
                title=f"Change {grant.app_name}",
                form=form,
                back=self.url("change", grant.pk),
            )
        if won:
            messages.success(request, "Changed. The next call is checked against it.")
        else:
            messages.warning(request, "Too late: the grant has ended meanwhile.")
        return redirect(self.url("change", grant.pk))

    def reopen_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = self.find(request, object_id)
        return self.confirm(
            request,
            grant,
            grant.reopen,
            title=f"Reopen {grant.app_name}?",
            button="Reopen this grant",
            danger=False,
            sentences=(
                "A call cost more than what was set aside for it, so the grant was closed.",
                "Calls are let through again, within its limits. The next overrun closes it again.",
            ),
            done="Reopened. Calls are let through again.",
            late="It is not closed.",
        )

    def revoke_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = self.find(request, object_id)
        if request.method != "POST" and (elsewhere := self._live(request, grant)):
            return elsewhere
        return self.confirm(
            request,
            grant,
            grant.revoke,
            title=f"Revoke {grant.app_name}?",
            button="Revoke this grant",
            sentences=(
                "The next call is refused, on every server. Open streams are cut within about a second.",
                "This cannot be taken back: the app needs a new grant.",
            ),
            done=f"Revoked. {grant.app_name} cannot make calls any more.",
            late="It is not in force.",
        )

    # Tokens and the app's secret

    def token_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how narrow, then show the token this once: it is in this answer and nowhere else."""
        grant = self.find(request, object_id)
        if elsewhere := self._live(request, grant):
            return elsewhere
        form = TokenForm(request.POST or None, grant=grant)
        if form.is_valid():
            narrowing = form.narrowing()
            minted = form.attempt(lambda: tokens.mint(grant, by=by(request), **narrowing))
            if minted is not None:
                narrower = {name: narrowing[name] for name in ("models", "capabilities")}
                shown = {
                    "snippets": snippets(grant, minted.token, **narrower),
                    "clients": ready_clients(grant, minted.token, **narrower),
                }
                return self._once(request, "desk/token.html", grant, title="Your token", minted=minted, **shown)
        return self.render(
            request,
            "desk/token_form.html",
            grant,
            title="Issue a token",
            form=form,
            grant=grant,
            back=self.url("change", grant.pk),
        )

    def revoke_token_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = self.find(request, object_id)
        jti = request.GET.get("jti", "")
        event = grant.issued_tokens().filter(jti=jti).first() if jti.isalnum() else None
        if event is None:
            raise Http404("No such token.")
        ends = dt.datetime.fromisoformat(event.detail["expires_at"])
        return self.confirm(
            request,
            grant,
            lambda actor: grant.revoke_token(jti, expires_at=ends, by=actor),
            title=f"Revoke token {jti[:8]}…?",
            button="Revoke this token",
            sentences=(
                "Whoever holds it is refused from the next call on. Other tokens of the grant go on.",
                f"It was issued {when(event.at)} and would end {when(ends)}.",
            ),
            done="The token is revoked.",
            late="It was revoked already.",
        )

    def rotate_secret_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = self.find(request, object_id)
        if elsewhere := self._live(request, grant):
            return elsewhere
        if not grant.request_secret_hash:
            raise Http404("This grant has no app secret.")
        if request.method == "POST":
            secret = grant.rotate_request_secret(by(request))
            return self._once(request, "desk/secret.html", grant, title="The app’s new secret", secret=secret)
        return self.confirm(
            request,
            grant,
            lambda actor: False,
            title="Rotate the app’s secret?",
            button="Make a new secret",
            sentences=(
                "The app collects its tokens with this secret. The old one is worth nothing from then on.",
                "Tokens in force stay in force. The new secret is shown once: give it to the app.",
            ),
            done="",
            late="",
            danger=False,
        )

    def _once(self, request: HttpRequest, template: str, grant: Grant, **context: Any) -> HttpResponse:
        """A page with a secret on it: not to be kept by any cache, history or session."""
        response = self.render(request, template, grant, grant=grant, back=self.url("change", grant.pk), **context)
        response.headers["Cache-Control"] = "no-store"
        return response


def shown_status(grant: Grant) -> str:
    """As owners say it: an approved grant is *live*, or in one of the ways in which it lets nothing through."""
    if grant.status != Grant.Status.APPROVED:
        return str(grant.status)
    if grant.allowance.closed_at:
        return "closed"
    return "exhausted" if grant.allowance.exhausted else "live"


def _overrun(grant: Grant) -> QuerySet[Call] | None:
    """The calls that closed the grant, newest first: they had begun when it was closed, within a day."""
    closed_at = grant.allowance.closed_at
    if closed_at is None:
        return None
    return Call.objects.filter(grant=grant).since(moment(closed_at) - dt.timedelta(days=1)).overrun()[:SHOWN]
