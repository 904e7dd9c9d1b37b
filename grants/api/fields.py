"""Serializers that take exactly what they say: no unknown field, and no number where a string belongs."""

from __future__ import annotations

import datetime as dt
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from .. import money
from ..clock import check_year, moment
from ..prices import MAX_ROWS, UNITS
from ..terms import PATTERN


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


class Flag(serializers.BooleanField):
    """JSON's true or false. (DRF's own takes strings and numbers too.)"""

    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid", input=data)
        return data


class Whole(serializers.IntegerField):
    """A JSON integer. (DRF's own takes strings and floats too.)"""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


@extend_schema_field({"type": "string", "pattern": f"^{money.PATTERN.pattern}$", "example": "5.00"})
class Dollars(serializers.Field[int, str, str, Any]):
    """Nano-dollars, as a JSON string of dollars with at most nine decimals. Numbers are refused: a reader that takes
    them for binary floats loses cents, and ``5`` could be cents as well.
    """

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str):
            raise serializers.ValidationError('Dollars are a string such as "5.00", not a number.')
        try:
            return money.limit(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error

    def to_representation(self, value: int) -> str:
        return money.dollars(value)


_PRICES = {
    "type": "array",
    "maxItems": MAX_ROWS,
    "items": {
        "type": "object",
        "required": ["models"],
        "additionalProperties": False,
        "properties": {
            "models": {"type": "string", "pattern": f"^({PATTERN.pattern})$"},
            "free": {"type": "boolean", "enum": [True], "description": "Instead of prices."},
            **{
                unit: {
                    "type": "string",
                    "pattern": r"^[0-9]{1,7}(\.[0-9]{1,12})?$",
                    "description": f"Dollars for {of}.",
                }
                for unit, (_, of) in UNITS.items()
            },
        },
    },
    "example": [{"models": "gpt-4o*", "input": "2.50", "output": "10.00"}, {"models": "local-*", "free": True}],
}


@extend_schema_field(_PRICES)
class Prices(serializers.Field[Any, Any, Any, Any]):
    """An owner's price rows. What makes sense of them is for :mod:`grants.prices` to say."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list):
            raise serializers.ValidationError("A list of rows.")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class Id(serializers.UUIDField):
    """A UUID as RFC 9562 writes it. (DRF's own takes integers, braces and URNs too.)"""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if str(value) != str(data).lower():
            self.fail("invalid", value=data)
        return value


@extend_schema_field(OpenApiTypes.DATETIME)
class Moment(serializers.DateTimeField):
    """The ledger's microseconds, as every other time of the API. In: a time that every time zone can tell."""

    def enforce_timezone(self, value: dt.datetime) -> Any:
        try:
            check_year(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        return super().enforce_timezone(value)

    def to_representation(self, value: int | dt.datetime) -> Any:
        return super().to_representation(moment(value) if isinstance(value, int) else value)


class StrictExtension(OpenApiSerializerExtension):
    """Says in the schema what :class:`Strict` does."""

    target_class = Strict
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return schema | {"additionalProperties": False}
