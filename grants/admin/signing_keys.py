"""The ring of signing keys: superusers add one, and retire one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from ..models import SigningKey
from ..templatetags.desk import when
from .base import DeskAdmin, header_button, is_superuser, with_buttons


@admin.register(SigningKey)
class SigningKeyAdmin(DeskAdmin):
    list_display = ("kid", "role", "made", "retired")
    detail_pages = ("retire",)
    list_pages = ("rotate",)

    def rows(self, user: Any) -> QuerySet[Any]:
        return SigningKey.objects.all() if user.is_superuser else SigningKey.objects.none()

    def allows(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    @display(description="Role", label={"signs": "success", "verifies": "info", "retired": "danger"})
    def role(self, key: SigningKey) -> str:
        if key.retired_at:
            return "retired"
        newest = SigningKey.objects.live().values_list("pk", flat=True).first()
        return "signs" if key.pk == newest else "verifies"

    @display(description="Made", ordering="created_at")
    def made(self, key: SigningKey) -> str:
        return when(key.created_at)

    @display(description="Retired", ordering="retired_at")
    def retired(self, key: SigningKey) -> str:
        return when(key.retired_at)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        rotate = header_button("Rotate", self.url("rotate"), "autorenew", "primary")
        return with_buttons(response, rotate)

    def facts(self, key: SigningKey) -> dict[str, dict[str, Any]]:
        public = {name: key.public_jwk[name] for name in ("kty", "crv", "alg", "x", "y")}
        return {
            "The key": {
                "Id": key.kid,
                "Role": self.role(key),
                "Made": when(key.created_at),
                "Retired": when(key.retired_at),
            },
            "Public half": public,
        }

    def buttons(self, key: SigningKey) -> list[dict[str, Any]]:
        return [] if key.retired_at else [header_button("Retire", self.url("retire", key.pk), "block", "danger")]

    def rotate_page(self, request: HttpRequest) -> HttpResponse:
        if not self.allows(request):
            return self.find(request, "")
        return self.confirm(
            request,
            None,
            lambda actor: bool(SigningKey.generate(actor)),
            title="Rotate the signing key?",
            sentences=(
                "A new key signs every token from now on.",
                "Tokens in force stay valid under the old key until they end, or until you retire it.",
            ),
            button="Make a new key",
            danger=False,
            done="A new key signs from now on.",
            late="",
            then=self.url("changelist"),
        )

    def retire_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.find(request, object_id)
        return self.confirm(
            request,
            key,
            key.retire,
            title="Retire this signing key?",
            sentences=(
                "Every token that it signed is refused from the next call on, for all owners and all apps.",
                "This cannot be taken back. If no other key is left, the next token makes one.",
            ),
            button="Retire it, and its tokens",
            done="Retired. Its tokens are refused.",
            late="It was retired already.",
        )
