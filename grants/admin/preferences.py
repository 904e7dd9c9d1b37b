"""An owner's own preferences: time zone, e-mail, webhook. Nobody opens another's, superuser or not."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from .. import notices
from ..models import Preferences
from ..models.preferences import time_zones
from .base import DeskAdmin, by
from .forms import DeskForm


class PreferencesForm(DeskForm):
    time_zone = forms.CharField(
        label="Time zone",
        required=False,
        max_length=64,
        widget=forms.TextInput(
            {
                "list": "ap-time-zones",
                "autocomplete": "off",
                "spellcheck": "false",
                "placeholder": settings.TIME_ZONE,
            }
        ),
        help_text="By which the days and months of your limits begin. Type to search, such as Berlin.",
    )
    by_email = forms.BooleanField(label="Tell me by e-mail", required=False)
    email = forms.CharField(
        label="E-mail address", required=False, max_length=254, widget=forms.EmailInput({"autocomplete": "email"})
    )
    webhook_url = forms.CharField(
        label="Webhook",
        required=False,
        max_length=300,
        widget=forms.TextInput({"placeholder": "https://…", "spellcheck": "false"}),
        help_text="Every event is posted there, signed. Each URL has a secret of its own, shown once. Empty: none.",
    )


@admin.register(Preferences)
class PreferencesAdmin(DeskAdmin):
    list_pages = ("webhook_secret", "test")

    def rows(self, user: Any) -> QuerySet[Any]:
        return Preferences.objects.filter(user=user)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The one page of this model: one's own row."""
        preferences = self._own(request)
        initial = {name: getattr(preferences, name) for name in PreferencesForm.base_fields}
        form = PreferencesForm(request.POST or None, initial=initial)
        if form.is_valid():
            saved = form.attempt(lambda: (preferences.change(by=by(request), **form.cleaned_data),))
            if saved is not None:
                messages.success(request, "Saved. A time zone holds from the next call on.")
                return self._once(request, saved[0]) if saved[0] else redirect(self.url("changelist"))
            preferences = self._own(request)
        return self.render(
            request,
            "desk/preferences.html",
            title="Preferences",
            form=form,
            preferences=preferences,
            zones=time_zones(),
            sends_email=settings.AIPASSPORT_SENDS_EMAIL,
            channels=notices.channels_of(preferences),
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        self.find(request, object_id)
        return redirect(self.url("changelist"))

    def webhook_secret_page(self, request: HttpRequest) -> HttpResponse:
        preferences = self._own(request)
        if not preferences.webhook_url:
            messages.error(request, "There is no webhook to make a secret for.")
            return redirect(self.url("changelist"))
        if request.method == "POST":
            return self._once(request, preferences.rotate_secret(by(request)))
        return self.confirm(
            request,
            None,
            lambda actor: False,
            title="Make a new secret for your webhook?",
            button="Make a new secret",
            sentences=(
                "What is sent from now on is signed with the new one, also what is being tried again.",
                "It is shown once: give it to your receiver.",
            ),
            done="",
            late="",
            danger=False,
            then=self.url("changelist"),
        )

    def test_page(self, request: HttpRequest) -> HttpResponse:
        preferences = self._own(request)
        if request.method == "POST":
            if not notices.channels_of(preferences):
                messages.error(request, "No way to tell you anything is set.")
            elif sent := notices.send_test(preferences.user):
                messages.success(request, f"On its way by {' and '.join(sent)}; the list of notices says how it went.")
            else:
                messages.warning(request, "A test was sent less than a minute ago.")
        return redirect(self.url("changelist"))

    def _own(self, request: HttpRequest) -> Preferences:
        if not self.allows(request):
            self.find(request, "")
        return Preferences.of(request.user)

    def _once(self, request: HttpRequest, secret: str) -> HttpResponse:
        """A page with a secret on it: not to be kept by any cache, history or session."""
        title, back = "The webhook’s secret", self.url("changelist")
        response = self.render(request, "desk/webhook_secret.html", title=title, secret=secret, back=back)
        response.headers["Cache-Control"] = "no-store"
        return response
