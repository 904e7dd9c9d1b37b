from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError as ModelValidationError
from django.utils.timezone import is_naive
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from ..models import Call
from ..search import Search, page


class NewestFirst(CursorPagination):
    """Pages by cursor over a column that only grows: no counting, and no row twice or missed while rows come in."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200
    ordering: tuple[str, ...] = ("-id",)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        self._column = queryset.model._meta.get_field(self.ordering[0].lstrip("-"))
        return super().paginate_queryset(queryset, request, view)

    def decode_cursor(self, request: Request) -> Cursor | None:
        """The cursor, with its position as a value of the column: what the caller sends may be anything.

        Raises:
            ValidationError: not one that this API wrote.
        """
        try:
            cursor = super().decode_cursor(request)
            if cursor is None or cursor.position is None:
                return cursor
            position = self._column.to_python(cursor.position)
            if isinstance(position, dt.datetime) and is_naive(position):
                raise ModelValidationError("without a time zone")
            return cursor._replace(position=position)
        except (NotFound, ModelValidationError) as error:
            raise ValidationError({"cursor": ["Not a cursor of this list."]}) from error


class NewestGrantsFirst(NewestFirst):
    ordering = ("-created_at", "-id")


class CallPages(NewestFirst):
    """Pages of a :class:`~grants.search.Search` in place of a queryset, with the same cursors.

    A page may be short, or empty, and have a next one: then it took too long to fill it.
    """

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        search: Search = queryset
        self._column = Call._meta.pk
        self.base_url = request.build_absolute_uri()
        self.cursor = self.decode_cursor(request)
        position: Any = self.cursor.position if self.cursor else None  # a UUID: see decode_cursor
        newer = bool(self.cursor and self.cursor.reverse)
        size = self.get_page_size(request) or self.page_size
        found = page(request.user, search, size=size, cursor=position, newer=newer)
        calls = found.calls
        back = (calls[0].pk if calls else _beside(position, -1)) if position else None
        on = (calls[-1].pk if calls else _beside(position, 1)) if position else None
        self._links = (on, found.more) if newer else (found.more, back)
        return calls

    def get_next_link(self) -> str | None:
        return self._link(self._links[0], reverse=False)

    def get_previous_link(self) -> str | None:
        return self._link(self._links[1], reverse=True)

    def _link(self, position: UUID | None, *, reverse: bool) -> str | None:
        text: Any = str(position)  # the stubs want a number
        return self.encode_cursor(Cursor(0, reverse, text)) if position else None


def _beside(position: UUID, step: int) -> UUID:
    """From there on the row at ``position`` is on the page, too."""
    return UUID(int=min(max(0, position.int + step), 2**128 - 1))
