"""Where an owner decides on an app's request: who asks for what, with which key, and no more than what is shown."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_protect

from .actors import actor_of
from .admin.forms import ConsentForm
from .models import Grant, ProviderKey
from .providers import CAPABILITY_LABELS, Capability
from .templatetags.desk import limits_in_words

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@method_decorator((never_cache, xframe_options_deny, csrf_protect, staff_member_required), "dispatch")
class Consent(View):
    """GET shows the request, POST decides it (``decision``: ``approve`` or ``deny``)."""

    http_method_names = ["get", "post", "head"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        response = super().dispatch(request, *args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "same-origin"  # the id in this address is a secret of three
        return response

    def get(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        grant = self._grant(pk)
        if grant.status != Grant.Status.PENDING:
            return self._decided(grant)
        grant.opened()
        return self._ask(grant, self._form(grant))

    def post(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        grant = self._grant(pk)
        if grant.status != Grant.Status.PENDING:
            return self._decided(grant, status=409)
        if request.POST.get("decision") == "deny":
            won = grant.deny(self._actor)
            return redirect("consent", grant.pk) if won else self._decided(grant, status=409)
        form = self._form(grant, request.POST)
        if form.is_valid() and self._approve(grant, form):
            return redirect("consent", grant.pk)
        if grant.status != Grant.Status.PENDING:
            return self._decided(grant, status=409)
        return self._ask(grant, form, status=400)

    @property
    def _actor(self) -> Any:
        return actor_of(self.request, "consent")

    def _grant(self, pk: UUID) -> Grant:
        grants = Grant.objects.open_to(self.request.user).select_related("allowance", "provider_key", "owner")
        return get_object_or_404(grants, pk=pk)

    def _keys(self, grant: Grant) -> Any:
        """Whoever consents does so with a key of their own, superuser or not."""
        return ProviderKey.objects.held_by(self.request.user).enabled().filter(provider=grant.provider)

    def _form(self, grant: Grant, data: Any = None) -> ConsentForm:
        return ConsentForm(data, grant=grant, keys=self._keys(grant))

    def _approve(self, grant: Grant, form: ConsentForm) -> bool:
        """What stands in the form is what is granted. The code comes first: a wrong one is counted."""
        if not grant.confirms(form.cleaned_data["user_code"], self._actor):
            if grant.status == Grant.Status.PENDING:
                form.add_error("user_code", "Not the code of this request. Look again at the app that asks.")
            else:
                messages.error(self.request, "Too many wrong codes: the request was denied.")
            return False
        terms, key = form.terms(form.asked), form.cleaned_data["provider_key"]
        return form.attempt(lambda: grant.approve(key=key, terms=terms, by=self._actor)) or False

    def _ask(self, grant: Grant, form: ConsentForm, status: int = 200) -> HttpResponse:
        wanted = [(item, CAPABILITY_LABELS[Capability(item)]) for item in grant.capabilities]
        context = {
            "grant": grant,
            "form": form,
            "wanted": wanted,
            "limits": limits_in_words(grant.terms),
            "has_keys": self._keys(grant).exists(),
        }
        return render(self.request, "consent/ask.html", context, status=status)

    def _decided(self, grant: Grant, status: int = 200) -> HttpResponse:
        mine = grant.owner_id == self.request.user.pk or self.request.user.is_superuser
        context = {
            "grant": grant,
            "status": str(grant.status),
            "limits": limits_in_words(grant.terms),
            "may_manage": mine and grant.owner_id is not None,
        }
        return render(self.request, "consent/decided.html", context, status=status)
