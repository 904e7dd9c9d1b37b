"""Answers out."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from ..models import AuditEvent, Call, Grant
from .bodies import CAPABILITY_CHOICES, PROVIDER_CHOICES
from .fields import Moment


class RequestAnswer(serializers.Serializer[Any]):
    """A pending request. `request_secret` is shown this once: it collects the token, and later ones."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(["pending"])
    request_secret = serializers.CharField()
    user_code = serializers.CharField(help_text="Show it to your user: the owner types it before approving.")
    consent_url = serializers.URLField()
    expires_in = serializers.IntegerField(help_text="Seconds until the request ends.")
    interval = serializers.IntegerField(help_text="Seconds between two polls.")


class TokenAnswer(serializers.Serializer[Any]):
    """A delegated token, shown this once."""

    token = serializers.CharField()
    token_type = serializers.ChoiceField(["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds.")
    base_url = serializers.URLField(help_text="What this provider's SDK takes as its base URL.")
    grant = serializers.UUIDField()


class MintedAnswer(TokenAnswer):
    jti = serializers.CharField()
    expires_at = serializers.DateTimeField()


class SecretAnswer(serializers.Serializer[Any]):
    grant = serializers.UUIDField()
    request_secret = serializers.CharField(help_text="Shown this once; the old one is worth nothing now.")


class LoginAnswer(serializers.Serializer[Any]):
    access = serializers.CharField()
    refresh = serializers.CharField()


class RefreshAnswer(serializers.Serializer[Any]):
    access = serializers.CharField()


class IntrospectionAnswer(serializers.Serializer[Any]):
    """RFC 7662 §2.2. A token that the relay would not admit is `{"active": false}` and nothing else."""

    active = serializers.BooleanField()
    iss = serializers.CharField(required=False)
    aud = serializers.CharField(required=False)
    sub = serializers.CharField(required=False)
    client_id = serializers.CharField(required=False)
    jti = serializers.CharField(required=False)
    iat = serializers.IntegerField(required=False)
    nbf = serializers.IntegerField(required=False)
    exp = serializers.IntegerField(required=False)
    token_type = serializers.CharField(required=False)
    scope = serializers.CharField(required=False, help_text="Capabilities, space-delimited.")
    models = serializers.ListField(child=serializers.CharField(), required=False)
    provider = serializers.CharField(required=False)


class UsageAnswer(serializers.Serializer[Any]):
    """Money in nano-dollars (1e-9 USD)."""

    requests = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    spent = serializers.IntegerField()
    reserved = serializers.IntegerField()
    exhausted = serializers.BooleanField()


class GrantAnswer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(Grant.Status.choices)
    owner = serializers.CharField(source="owner.username", allow_null=True, default=None)
    provider = serializers.ChoiceField(PROVIDER_CHOICES)
    provider_key = serializers.UUIDField(source="provider_key_id", allow_null=True)
    app_name = serializers.CharField(help_text="As the app says; not verified.")
    app_url = serializers.CharField()
    reason = serializers.CharField()
    models = serializers.ListField(child=serializers.CharField())
    capabilities = serializers.ListField(child=serializers.ChoiceField(CAPABILITY_CHOICES))
    allowed_origins = serializers.ListField(child=serializers.CharField())
    expires_in = serializers.IntegerField(
        source="valid_for", allow_null=True, help_text="Seconds from the approval on, as asked for."
    )
    token_lifetime = serializers.IntegerField()
    max_requests = serializers.IntegerField(allow_null=True)
    max_concurrency = serializers.IntegerField(allow_null=True)
    base_url = serializers.URLField()
    created_at = serializers.DateTimeField()
    request_expires_at = serializers.DateTimeField(allow_null=True)
    approved_at = serializers.DateTimeField(allow_null=True)
    denied_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    usage = UsageAnswer(source="allowance")


class KeyAnswer(serializers.Serializer[Any]):
    """A provider key, as far as anybody ever sees it."""

    id = serializers.UUIDField()
    label = serializers.CharField()  # type: ignore[assignment]
    provider = serializers.ChoiceField(PROVIDER_CHOICES)
    hint = serializers.CharField(help_text="The last four characters.")
    disabled = serializers.SerializerMethodField()

    def get_disabled(self, key: Any) -> bool:
        return key.disabled_at is not None


class IssuedTokenAnswer(serializers.Serializer[Any]):
    """A token that was issued, from the audit trail; the token itself is stored nowhere. null: not narrowed."""

    jti = serializers.CharField()
    issued_at = serializers.DateTimeField(source="at")
    expires_at = serializers.DateTimeField(source="detail.expires_at")
    models = serializers.ListField(child=serializers.CharField(), source="detail.models", default=None, allow_null=True)
    capabilities = serializers.SerializerMethodField()
    issued_by = serializers.CharField(source="actor")
    revoked_at = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(serializers.ListField(child=serializers.CharField(), allow_null=True))
    def get_capabilities(self, event: AuditEvent) -> list[str] | None:
        return event.detail["scope"].split() if "scope" in event.detail else None


class RevokedTokenAnswer(serializers.Serializer[Any]):
    jti = serializers.CharField()
    revoked = serializers.BooleanField()


class CallAnswer(serializers.Serializer[Any]):
    """One call that reached the ledger. `cost` in nano-dollars, null where no price is known."""

    id = serializers.UUIDField()
    grant = serializers.UUIDField(source="grant_id")
    jti = serializers.CharField()
    route = serializers.CharField()
    model = serializers.CharField()
    stream = serializers.BooleanField()
    outcome = serializers.ChoiceField(Call.Outcome.choices)
    status = serializers.IntegerField(allow_null=True, help_text="The provider's.")
    started_at = Moment()
    finished_at = Moment(allow_null=True)
    first_byte_us = serializers.IntegerField(allow_null=True)
    duration_us = serializers.IntegerField(allow_null=True)
    input_tokens = serializers.IntegerField(allow_null=True)
    output_tokens = serializers.IntegerField(allow_null=True)
    cached_tokens = serializers.IntegerField(allow_null=True)
    cost = serializers.IntegerField(allow_null=True)
    estimated = serializers.BooleanField()


class EventAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    action = serializers.ChoiceField(AuditEvent.Action.choices)
    actor = serializers.CharField()
    via = serializers.CharField()
    address = serializers.CharField(allow_null=True)
    grant = serializers.UUIDField(source="grant_id", allow_null=True)
    provider_key = serializers.UUIDField(source="provider_key_id", allow_null=True)
    jti = serializers.CharField()
    detail = serializers.DictField()


# Errors


class ErrorDetail(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="For programs.")
    message = serializers.CharField(help_text="For people.")
    fields = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()), required=False
    )


class ErrorAnswer(serializers.Serializer[Any]):
    error = ErrorDetail()


class OAuthErrorAnswer(serializers.Serializer[Any]):
    """RFC 6749 §5.2, with the codes of RFC 8628 §3.5."""

    error = serializers.CharField()
    error_description = serializers.CharField()
