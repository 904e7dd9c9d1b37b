"""Bodies and queries in: strict. What makes sense of them is for :class:`~grants.terms.Terms` and the models to say."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from ..models import AuditEvent
from ..prices import MAX_MARGIN
from ..providers import PROVIDERS, Capability
from ..terms import (
    MAX_COUNT,
    MAX_OUTPUT_TOKENS,
    MAX_RATE,
    MAX_TOKEN_LIFETIME,
    MAX_VALID_FOR,
    MIN_TOKEN_LIFETIME,
    PATTERN,
    Terms,
)
from .fields import Dollars, Flag, Id, Moment, Prices, Strict, Text, Whole

PROVIDER_CHOICES = [(row.id, row.label) for row in PROVIDERS.values()]
CAPABILITY_CHOICES = [item.value for item in Capability]


@extend_schema_field({"type": "string", "pattern": f"^({PATTERN.pattern})$", "example": "gpt-4o*"})
class Pattern(Text):
    """A model's name, or a prefix with one ``*`` at its end."""


class Models(serializers.ListField):
    child = Pattern(max_length=201)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_length": 1, "max_length": 100} | kwargs)


class Capabilities(serializers.ListField):
    child = serializers.ChoiceField(CAPABILITY_CHOICES)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_length": 1, "max_length": len(Capability)} | kwargs)


class Origins(serializers.ListField):
    child = Text(max_length=300)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 50, "required": False} | kwargs)


_NULL = "null: no limit."


class Limit(Whole):
    """A limit in whole numbers."""

    def __init__(self, most: int, of: str) -> None:
        super().__init__(required=False, allow_null=True, min_value=1, max_value=most, help_text=f"{of} {_NULL}")


class MoneyLimit(Dollars):
    """A limit in dollars."""

    def __init__(self, of: str) -> None:
        super().__init__(required=False, allow_null=True, help_text=f"{of} {_NULL}")


class TermsBody(Strict):
    """What can be said about a grant's terms; what is not said stays as it is."""

    models = Models(required=False)
    capabilities = Capabilities(required=False)
    allowed_origins = Origins(help_text="Web origins whose pages may use the grant.")
    expires_in = Whole(required=False, min_value=1, max_value=MAX_VALID_FOR, help_text="Seconds, from the approval on.")
    token_lifetime = Whole(
        required=False, min_value=MIN_TOKEN_LIFETIME, max_value=MAX_TOKEN_LIFETIME, help_text="Seconds."
    )
    max_requests = Limit(MAX_COUNT, "Calls in all.")
    max_concurrency = Limit(MAX_COUNT, "Calls at a time.")
    max_cost = MoneyLimit("Dollars in all.")
    max_cost_per_day = MoneyLimit("Dollars a calendar day, in the owner's time zone.")
    max_cost_per_month = MoneyLimit("Dollars a calendar month, in the owner's time zone.")
    max_cost_per_call = MoneyLimit(
        "Dollars a call. Also what is set aside for a call that nothing else bounds, such as one with hosted tools."
    )
    requests_per_minute = Limit(MAX_RATE, "Calls a minute.")
    tokens_per_minute = Limit(MAX_RATE, "Tokens a minute, in and out.")
    default_output_tokens = Whole(
        required=False,
        min_value=1,
        max_value=MAX_OUTPUT_TOKENS,
        help_text="The output limit of a call that names none, where money or tokens are limited.",
    )


def terms_in(body: dict[str, Any]) -> dict[str, Any]:
    """The changes to :class:`~grants.terms.Terms` that a validated :class:`TermsBody` holds."""
    names = {"expires_in": "valid_for"}
    found = {names.get(name, name): value for name, value in body.items()}
    return {name: value for name, value in found.items() if name in Terms.__dataclass_fields__}


class AppBody(TermsBody):
    models = Models()
    capabilities = Capabilities()
    app_name = Text(max_length=100, help_text="Shown to the owner, as not verified.")
    app_url = Text(max_length=300, required=False, allow_blank=True, help_text="https:// or http://")
    reason = Text(max_length=500, required=False, allow_blank=True, help_text="One line for the owner to read.")

    def labels(self) -> dict[str, str]:
        """What the app says about itself."""
        names = ("app_name", "app_url", "reason")
        return {name: self.validated_data[name] for name in names if name in self.validated_data}

    def terms(self) -> Terms:
        return Terms(models=(), capabilities=()).with_(**terms_in(self.validated_data))


class GrantRequestBody(AppBody):
    """What an app asks for."""

    provider = serializers.ChoiceField(PROVIDER_CHOICES)


class IssueBody(AppBody):
    """What an owner grants without being asked."""

    provider_key = Id(help_text="One of your own keys.")


class ChangeBody(TermsBody):
    """New terms; what is not named stays."""

    expires_in = Whole(required=False, min_value=1, max_value=MAX_VALID_FOR, help_text="Seconds from now.")
    expires_at = Moment(required=False, help_text="Instead of expires_in.")

    def validate(self, attrs: Any) -> Any:
        if "expires_in" in attrs and "expires_at" in attrs:
            raise serializers.ValidationError({"expires_at": ["Give expires_in or expires_at, not both."]})
        return attrs


class ApproveBody(TermsBody):
    """What is given narrows the request; what is not given stays as it was asked for."""

    provider_key = Id(help_text="One of your own keys, of the provider that was asked for.")
    user_code = Text(required=False, max_length=20, help_text="The code that the app shows; when given, it must match.")


class MintBody(Strict):
    """A narrower or shorter-lived token than the grant allows."""

    lifetime = Whole(required=False, min_value=MIN_TOKEN_LIFETIME, max_value=MAX_TOKEN_LIFETIME, help_text="Seconds.")
    models = Models(required=False)
    capabilities = Capabilities(required=False)


class CollectBody(MintBody):
    grant = Id()
    request_secret = Text(max_length=200)


class KeyBody(Strict):
    """What can be changed about a key; what is not named stays. Its provider and base URL never change."""

    label = Text(required=False, max_length=100)  # type: ignore[assignment]
    prices = Prices(required=False, help_text="All of your own prices for this key: what is not in the list is gone.")
    margin = Whole(required=False, min_value=0, max_value=MAX_MARGIN, help_text="Percent, on top of every price.")
    shows_everything = Flag(
        required=False, help_text="Only for custom servers: their streams show all output as it is made."
    )


class NothingBody(Strict):
    """No body, or {}."""


class LoginBody(Strict):
    username = Text(max_length=150)
    password = Text(max_length=4096, style={"input_type": "password"})


class RefreshBody(Strict):
    refresh = Text(max_length=4096)


class TokenBody(serializers.Serializer[Any]):
    """Parameters that are not known are ignored (RFC 6749 §3.2)."""

    token = Text(max_length=100_000)
    token_type_hint = Text(required=False, allow_blank=True, max_length=100)


# Queries


class PageQuery(Strict):
    cursor = serializers.CharField(required=False, help_text="From `next` or `previous`.")
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=200, default=50)


class EventQuery(PageQuery):
    grant = Id(required=False)
    action = serializers.ChoiceField(AuditEvent.Action.choices, required=False)
