"""Answers out."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from .. import usage
from ..models import Allowance, AuditEvent, Call, Grant
from .bodies import CAPABILITY_CHOICES, PROVIDER_CHOICES
from .fields import Dollars, Moment, Prices


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


class LimitAnswer(serializers.Serializer[Any]):
    """One limit as it stands. Of a rate, `left` is what may go out at once, and at `resets_at` all of it is free."""

    allowed = serializers.IntegerField()
    used = serializers.IntegerField()
    left = serializers.IntegerField(source="remaining")
    resets_at = Moment(allow_null=True, help_text="null: never.")


class MoneyLimitAnswer(LimitAnswer):
    """One limit in dollars as it stands: `left` is `allowed` less `used` and `reserved` (for calls that are open)."""

    allowed = Dollars()  # type: ignore[assignment]
    used = Dollars()  # type: ignore[assignment]
    reserved = Dollars()
    left = Dollars(source="remaining")  # type: ignore[assignment]


class LimitsAnswer(serializers.Serializer[Any]):
    """The limits of an allowance that can be used up, as they stand. null: no limit."""

    max_requests = LimitAnswer(allow_null=True)
    max_concurrency = LimitAnswer(allow_null=True)
    max_cost = MoneyLimitAnswer(allow_null=True)
    max_cost_per_day = MoneyLimitAnswer(allow_null=True)
    max_cost_per_month = MoneyLimitAnswer(allow_null=True)
    requests_per_minute = LimitAnswer(allow_null=True)
    tokens_per_minute = LimitAnswer(allow_null=True)

    def to_representation(self, allowance: Allowance) -> dict[str, Any]:
        in_force = usage.limits_in_force(allowance)
        return super().to_representation({str(name): in_force.get(str(name)) for name in self.fields})


class ForAppsAnswer(serializers.Serializer[Any]):
    """What of a grant an app needs to plan with. All of its tokens draw on the same limits."""

    limits = LimitsAnswer(required=False, source="allowance")
    max_cost_per_call = Dollars(required=False, allow_null=True)
    default_output_tokens = serializers.IntegerField(required=False)
    exhausted = serializers.BooleanField(required=False, source="allowance.exhausted")
    closed_at = Moment(required=False, allow_null=True, source="allowance.closed_at")


class IntrospectionAnswer(ForAppsAnswer):
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
    """What was used in all, and how each limit stands."""

    requests = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    spent = Dollars()
    reserved = Dollars(help_text="For calls that are open.")
    exhausted = serializers.BooleanField(help_text="Its requests or its money are used up for good.")
    closed_at = Moment(
        allow_null=True, help_text="A call cost more than its bound: nothing is admitted until you reopen the grant."
    )
    limits = LimitsAnswer(source="*")


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
    max_cost = Dollars(allow_null=True)
    max_cost_per_day = Dollars(allow_null=True)
    max_cost_per_month = Dollars(allow_null=True)
    max_cost_per_call = Dollars(allow_null=True)
    requests_per_minute = serializers.IntegerField(allow_null=True)
    tokens_per_minute = serializers.IntegerField(allow_null=True)
    default_output_tokens = serializers.IntegerField()
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
    prices = Prices(help_text="Your own, before those that AIPassport knows; the first row that matches counts.")
    margin = serializers.IntegerField(help_text="Percent, on top of every price.")
    shows_everything = serializers.BooleanField(
        help_text="Streams of this custom server show all output as it is made, as its owner says."
    )

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
    """One call that reached the ledger. Money in dollars; `cost` is null where no price is known."""

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
    output_limit = serializers.IntegerField(allow_null=True, help_text="As it went out, where the relay bounded it.")
    reserved = Dollars(help_text="Its bound, set aside until it ended; 0.00 where the grant does not limit money.")
    cost = Dollars(allow_null=True)
    overrun = Dollars(help_text="By how much it cost more than its bound.")
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
