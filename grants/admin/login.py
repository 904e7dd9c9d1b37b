"""The sign-in page's form."""

from __future__ import annotations

from math import ceil

from django.contrib import admin
from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from ..logins import refusal


class SignInForm(AuthenticationForm):
    """Says that there were too many attempts, where the password was not looked at."""

    def get_invalid_login_error(self) -> ValidationError:
        refused = refusal(self.request) if self.request is not None else None
        if refused is None:
            return super().get_invalid_login_error()
        minutes = ceil(refused.seconds / 60)
        wait = f"{minutes} minutes" if minutes > 1 else "one minute"
        return ValidationError(
            f"{refused.reason} Your password was not checked. Wait {wait}, then try again. "
            "A browser that signed in to this account before is not affected.",
            code="throttled",
        )


admin.site.login_form = SignInForm
