"""Serializers that take exactly what they say: no unknown field, and no number where a string belongs."""

from __future__ import annotations

import datetime as dt
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from ..clock import moment


class Strict(serializers.Serializer[Any]):
    """A body or a query in which an unknown name is an error, by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError({name: ["Unknown field."] for name in unknown[:20]})
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A JSON string, as it is. (DRF's own takes numbers too, and strips.)"""

    def __init__(self, **kwargs: Any) -> None:
        shortest = {} if kwargs.get("allow_blank") else {"min_length": 1}
        super().__init__(**shortest | {"trim_whitespace": False} | kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """A JSON integer. (DRF's own takes strings and floats too.)"""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


class Id(serializers.UUIDField):
    """A UUID as RFC 9562 writes it. (DRF's own takes integers, braces and URNs too.)"""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if str(value) != str(data).lower():
            self.fail("invalid", value=data)
        return value


@extend_schema_field(OpenApiTypes.DATETIME)
class Moment(serializers.DateTimeField):
    """The ledger's microseconds, as every other time of the API."""

    def to_representation(self, value: int | dt.datetime) -> Any:
        return super().to_representation(moment(value) if isinstance(value, int) else value)


class StrictExtension(OpenApiSerializerExtension):
    """Says in the schema what :class:`Strict` does."""

    target_class = Strict
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return schema | {"additionalProperties": False}
