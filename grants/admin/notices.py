"""What owners were told, and what did not arrive: to read, and to send again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from .. import letters
from ..models import Notice
from ..templatetags.desk import when
from .base import DeskAdmin, header_button
from .filters import ActionFilter, ChoiceFilter

STATE_LABELS = {"delivered": "success", "waiting": "info", "trying again": "warning", "given up": "danger"}


class EventFilter(ActionFilter):
    parameter_name = "event"
    choices_of = Notice.Event.choices


class ChannelFilter(ChoiceFilter):
    title = "channel"
    parameter_name = "channel"
    choices_of = Notice.Channel.choices


@admin.register(Notice)
class NoticeAdmin(DeskAdmin):
    list_display = ("time", "subject", "about", "shown_channel", "shown_state", "tried", "error")
    list_filter = (EventFilter, ChannelFilter)
    list_select_related = ("user",)
    list_display_links = ("time",)
    detail_pages = ("retry",)
    paginator = InfinitePaginator
    list_fullwidth = True

    def rows(self, user: Any) -> QuerySet[Any]:
        return Notice.objects.visible_to(user)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        owner = ("user",) if request.user.is_superuser else ()
        return self.list_display[:3] + owner + self.list_display[3:]

    @display(description="Time")
    def time(self, notice: Notice) -> str:
        return when(notice.created_at)

    @display(description="Said")
    def subject(self, notice: Notice) -> str:
        return capfirst(letters.letter(notice).subject)

    @display(description="About")
    def about(self, notice: Notice) -> str:
        return notice.payload.get("app_name") or notice.payload.get("label") or "—"

    @display(description="By")
    def shown_channel(self, notice: Notice) -> str:
        return capfirst(notice.get_channel_display())

    @display(description="State", label=STATE_LABELS)
    def shown_state(self, notice: Notice) -> str:
        return notice.state

    @display(description="Attempts")
    def tried(self, notice: Notice) -> int:
        return notice.attempts

    @display(description="Last error")
    def error(self, notice: Notice) -> str:
        return notice.last_error or "—"

    def facts(self, notice: Notice) -> dict[str, dict[str, Any]]:
        said = letters.letter(notice)
        return {
            capfirst(said.subject): {"Said": " ".join(said.sentences), "See": notice.payload.get("url") or "—"},
            "How it went": {
                "Event": notice.event,
                "To": notice.user.get_username(),
                "By": capfirst(notice.get_channel_display()),
                "Id": notice.pk,
                "Made": when(notice.created_at),
                "State": notice.state,
                "Attempts": notice.attempts,
                "Next attempt": when(notice.next_attempt_at),
                "Delivered": when(notice.delivered_at),
                "Given up": when(notice.given_up_at),
                "Last error": notice.last_error or "—",
            },
        }

    def buttons(self, notice: Notice) -> list[dict[str, Any]]:
        return [header_button("Send again", self.url("retry", notice.pk), "send")] if notice.given_up_at else []

    def retry_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        notice = self.find(request, object_id)
        return self.confirm(
            request,
            notice,
            lambda actor: notice.retry(),
            title="Send it again?",
            button="Send again",
            danger=False,
            sentences=("It is tried at once, and some more times if that fails.",),
            done="It goes out within some seconds.",
            late="It has not been given up: nothing to do.",
        )
