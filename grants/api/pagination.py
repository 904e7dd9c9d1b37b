from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.exceptions import ValidationError as ModelValidationError
from django.utils.timezone import is_naive
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request


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
