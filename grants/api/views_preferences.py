"""What an owner is told, how, and what they were told."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from .. import notices
from ..models import Notice, Preferences
from .base import OF_BODIES, OF_OWNERS, Endpoint, answers
from .bodies import NothingBody, PageQuery
from .errors import Conflict
from .fields import Strict, Text
from .views_trail import Trail

Channel, Event = Notice.Channel, Notice.Event


@extend_schema_field({"type": "boolean"})
class Flag(serializers.BooleanField):
    """A JSON boolean. (DRF's own takes words and numbers too.)"""

    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid", input=data)
        return data


class PreferencesBody(Strict):
    """What is not named stays."""

    time_zone = Text(
        required=False, allow_blank=True, max_length=64, help_text="Such as Europe/Berlin; empty: the operator's."
    )
    email = Text(required=False, allow_blank=True, max_length=254)
    by_email = Flag(required=False)
    webhook_url = Text(required=False, allow_blank=True, max_length=300, help_text="https://…; empty: none.")


class PreferencesAnswer(serializers.Serializer[Any]):
    time_zone = serializers.CharField(help_text="Where your days and months begin; empty: the operator's time zone.")
    email = serializers.CharField()
    by_email = serializers.BooleanField()
    webhook_url = serializers.CharField()
    channels = serializers.ListField(
        child=serializers.ChoiceField(Channel.choices), help_text="How you get notices at the moment."
    )


class ChangedPreferencesAnswer(PreferencesAnswer):
    webhook_secret = serializers.CharField(
        allow_null=True, help_text="Of a new webhook, shown this once; null where none was made."
    )


class WebhookSecretAnswer(serializers.Serializer[Any]):
    webhook_secret = serializers.CharField(help_text="Shown this once; the old one signs nothing any more.")


class NoticeTestAnswer(serializers.Serializer[Any]):
    channels = serializers.ListField(child=serializers.ChoiceField(Channel.choices))


class NoticeQuery(PageQuery):
    event = serializers.ChoiceField(Event.choices, required=False)
    channel = serializers.ChoiceField(Channel.choices, required=False)


class NoticeAnswer(serializers.Serializer[Any]):
    """One event on one channel. `payload` is what a webhook carries as `data`."""

    id = serializers.UUIDField()
    event = serializers.ChoiceField(Event.choices)
    channel = serializers.ChoiceField(Channel.choices)
    payload = serializers.DictField()
    created_at = serializers.DateTimeField()
    attempts = serializers.IntegerField()
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    given_up_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField()


class PreferencesEndpoint(Endpoint):
    @property
    def own(self) -> Preferences:
        """The caller's own, whoever that is: nobody reads or changes another's."""
        return Preferences.of(self.request.user)

    def shown(self, preferences: Preferences) -> dict[str, Any]:
        names = ("time_zone", "email", "by_email", "webhook_url")
        channels = notices.channels_of(preferences)
        return {name: getattr(preferences, name) for name in names} | {"channels": channels}


class OwnPreferences(PreferencesEndpoint):
    @extend_schema(
        operation_id="read_preferences",
        tags=["preferences"],
        summary="Your time zone, and how you are told what happens",
        responses=answers(200, PreferencesAnswer, *OF_OWNERS),
    )
    def get(self, request: Request) -> Response:
        return Response(PreferencesAnswer(self.shown(self.own)).data)

    @extend_schema(
        operation_id="change_preferences",
        tags=["preferences"],
        summary="Change them",
        request=PreferencesBody,
        responses=answers(200, ChangedPreferencesAnswer, *OF_BODIES, *OF_OWNERS),
    )
    def patch(self, request: Request) -> Response:
        """A new time zone holds from the next call on. A new webhook comes with its secret, shown this once."""
        preferences = self.own
        secret = preferences.change(by=self.actor, **self.body(PreferencesBody).validated_data)
        answer = self.shown(self.own) | {"webhook_secret": secret}
        return Response(ChangedPreferencesAnswer(answer).data)


class WebhookSecret(PreferencesEndpoint):
    @extend_schema(
        operation_id="rotate_webhook_secret",
        tags=["preferences"],
        summary="A new secret for your webhook",
        request=NothingBody,
        responses=answers(201, WebhookSecretAnswer, *OF_BODIES, *OF_OWNERS, 409),
    )
    def post(self, request: Request) -> Response:
        """In force at once: what is sent from now on, also another attempt, is signed with it."""
        self.body(NothingBody)
        preferences = self.own
        if not preferences.webhook_url:
            raise Conflict("There is no webhook to make a secret for.", "no_webhook")
        secret = preferences.rotate_secret(self.actor)
        return Response(WebhookSecretAnswer({"webhook_secret": secret}).data, status=201)


class SendTest(PreferencesEndpoint):
    @extend_schema(
        operation_id="send_test_notice",
        tags=["preferences"],
        summary="Send yourself a test",
        request=NothingBody,
        responses=answers(202, NoticeTestAnswer, *OF_BODIES, *OF_OWNERS, 409),
    )
    def post(self, request: Request) -> Response:
        """On every channel that is on, within some seconds; once a minute at most. `notices/` says how it went."""
        self.body(NothingBody)
        if not notices.channels_of(self.own):
            raise Conflict("No way to tell you anything is set.", "no_channel")
        channels = notices.send_test(request.user)
        if not channels:
            raise Conflict("A test was sent less than a minute ago.", "too_soon")
        return Response(NoticeTestAnswer({"channels": channels}).data, status=202)


class Notices(Trail):
    serializer_class = NoticeAnswer
    query_class = NoticeQuery

    def get_queryset(self) -> Any:
        return Notice.objects.visible_to(self.request.user).filter(**self.filters())

    @extend_schema(
        operation_id="list_notices",
        tags=["preferences"],
        summary="What you were told, newest first",
        parameters=[NoticeQuery],
        responses=answers(200, NoticeAnswer(many=True), 400, *OF_OWNERS),
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Every event on every channel, whether it has arrived, and why not."""
        return self.list(request)
