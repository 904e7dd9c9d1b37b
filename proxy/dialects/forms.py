"""Multipart forms by the same tables as JSON bodies.

Parsers differ in what they make of a field that comes twice, or with a filename (Django takes the last of the two and
puts it among the files). So what a rule reads occurs once, spelled exactly, and without a filename.
"""

from __future__ import annotations

from typing import Any

from ..exceptions import BadRequest
from .base import Form
from .fields import Reading, Rule, Table, check_fields
from .rules import COUNT, STREAM

_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


def check(reading: Reading, form: Form, table: Table, files: frozenset[str]) -> None:
    """Check every field and file of ``form``; what was read stands in ``reading.body`` afterwards.

    Raises:
        BadRequest: a field is unknown, or comes twice, or is a file where it must not be.
    """
    for name, value in form.fields:
        base = _base(name)
        if base in files:
            raise BadRequest(f"'{base}' must be a file.", param=base)
        rule = table.get(base)
        if base != name:  # a list or an object, spread over several parts
            if rule is None or rule.kind != "plain":
                raise BadRequest(f"The field {_shown(name)} is unknown.", code="unknown_field", param=name[:80])
            if rule.check is not None:
                rule.check(reading, base, value)
            continue
        if name in reading.body:
            raise BadRequest(f"The field {_shown(name)} occurs twice.", code="duplicate_key", param=name[:80])
        reading.body[name] = _value(rule, value)
    for part in form.files:
        if _base(part.name) not in files:
            raise BadRequest(f"The field {_shown(part.name)} must not be a file.", param=_base(part.name)[:80])
    check_fields(reading, table, reading.body)


def with_model(form: Form, model: str | None) -> Form:
    """The form with the model's name as it was checked."""
    rest = tuple(field for field in form.fields if field[0] != "model")
    return Form((*rest, ("model", model)), form.files) if model else form


def _base(name: str) -> str:
    """``image[]`` and ``chunking_strategy[type]``, as SDKs spread lists and objects, belong to their first word."""
    base, bracket, rest = name.partition("[")
    return base if bracket and rest.endswith("]") and "[" not in rest else name


def _value(rule: Rule | None, text: str) -> Any:
    """A form knows only text: what a rule reads as another type is converted; what cannot be, the rule refuses."""
    if rule is STREAM:
        return _BOOLEANS.get(text, text)
    if rule is COUNT and text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    return text


def _shown(name: str) -> str:
    return ascii(name)[:80]
