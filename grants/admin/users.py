"""Owners' accounts. Superusers only; nobody is deleted, because history hangs on them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from ..templatetags.desk import when
from .base import is_superuser


class OwnerCreationForm(UserCreationForm):
    """A new account is an owner's: it may sign in to the desk."""

    def save(self, commit: bool = True) -> Any:
        self.instance.is_staff = True
        return super().save(commit)


admin.site.unregister(Group)
admin.site.unregister(User)


@admin.register(User)
class OwnerAdmin(BaseUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = OwnerCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "role", "shown_state", "signed_in")
    list_filter = ()
    search_fields = ("username", "email")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2")}),)
    readonly_fields = ("last_login", "date_joined")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Nobody locks themselves out."""
        own = ("is_active", "is_staff", "is_superuser") if obj == request.user else ()
        return (*self.readonly_fields, *own)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        texts = {
            "is_active": "Off: their grants are refused from the next call on, and they cannot sign in.",
            "is_staff": "May sign in to this desk, keep keys and grant access with them.",
            "is_superuser": "Sees and manages everything of everybody, users and signing keys too.",
        }
        if isinstance(field, forms.BooleanField) and db_field.name in texts:
            field.help_text = texts[db_field.name]
            field.label = {"is_staff": "Owner", "is_superuser": "Superuser"}.get(db_field.name, "Active")
        return field

    @display(description="Role", label={"superuser": "primary", "owner": "info"})
    def role(self, user: User) -> str:
        return "superuser" if user.is_superuser else "owner" if user.is_staff else "none"

    @display(description="State", label={"active": "success", "inactive": "danger"})
    def shown_state(self, user: User) -> str:
        return "active" if user.is_active else "inactive"

    @display(description="Last signed in", ordering="last_login")
    def signed_in(self, user: User) -> str:
        return when(user.last_login)
