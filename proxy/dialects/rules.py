"""Rules and what they are built with: everything that stands behind a name in a field table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from grants.providers import Capability

from ..exceptions import BadRequest
from .fields import Kind, Reading, Rule, Table, check_fields, fold

MAX_COUNT = 2**31 - 1
NO_LIMIT = -1
_DATE = re.compile(r"_20\d{6}$")

# Fields by themselves


def needs(*capabilities: Capability, kind: Kind = "hosted") -> Rule:
    """The field asks for these. ``false`` and ``[]`` ask for nothing (but ``{}`` does: it switches a tool on).

    State is input that the body does not show; everything else costs what the provider's own tools cost.
    """
    outward = set(capabilities) != {Capability.STATE}

    def check(reading: Reading, where: str, value: Any) -> None:
        if value is not False and value != []:
            for capability in capabilities:
                reading.ask(capability, where, value)
            if Capability.STATE in capabilities:
                reading.tally.hide(where)
            if outward:
                reading.tally.beyond("hosted tools")

    return Rule(kind, check)


def beyond(why: str) -> Rule:
    """The field makes the call cost more than its output limit tells. ``false`` and ``[]`` do not."""

    def check(reading: Reading, where: str, value: Any) -> None:
        if value is not False and value != []:
            reading.tally.beyond(why)

    return Rule("priced", check)


STATEFUL = needs(Capability.STATE, kind="stateful")
WEB = needs(Capability.WEB)
CODE = needs(Capability.CODE)


def refused(why: str) -> Rule:
    """Known, and never relayed (unless the owner of the key names it among its extra fields)."""

    def check(reading: Reading, where: str, value: Any) -> None:
        if where not in reading.extra:
            raise BadRequest(f"The field '{where}' is not relayed: {why}.", code="field_not_relayed", param=where)
        reading.tally.beyond(f"the field '{where}', which the owner lets through")

    return Rule("refused", check)


def _model(reading: Reading, where: str, value: Any) -> None:
    reading.body["model"] = reading.model(where, value, first=True)


def _other_model(reading: Reading, where: str, value: Any) -> None:
    reading.model(where, value)
    reading.tally.beyond("another model may run")


def _limit(reading: Reading, where: str, value: Any) -> None:
    """An output limit. Servers of the owner's own (LM Studio, llama.cpp) take -1 for none; see ``limits.settle``."""
    if type(value) is int and value == NO_LIMIT and reading.provider.open_fields:
        return
    _natural(reading, where, value)


def _natural(reading: Reading, where: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise BadRequest(f"'{where}' must be a whole number, not negative.", param=where)


def _count(reading: Reading, where: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        raise BadRequest(f"'{where}' must be a whole number of at least 1.", param=where)


def _name(reading: Reading, where: str, value: Any) -> None:
    if type(value) is not str:
        raise BadRequest(f"'{where}' must be a string.", param=where)


def _stream(reading: Reading, where: str, value: Any) -> None:
    if type(value) is not bool:
        raise BadRequest(f"'{where}' must be true or false.", param=where)
    reading.stream = value


def _switch(reading: Reading, where: str, value: Any) -> None:
    if type(value) is not bool:
        raise BadRequest(f"'{where}' must be true or false.", param=where)
    if value:
        reading.ask(Capability.STATE, where)


def _object(reading: Reading, where: str, value: Any) -> None:
    if type(value) is not dict:
        raise BadRequest(f"'{where}' must be an object.", param=where)


def _binary(reading: Reading, where: str, value: Any) -> None:
    """A file in base64 or a data URL: no text that a model is billed for by the character."""
    if type(value) is str:
        reading.binary += len(value)
    reading.tally.hide(where)


def _recording(reading: Reading, where: str, value: Any) -> None:
    """``{"data", "format"}``: a recording in base64. A further field may tell a decoder another length."""
    _object(reading, where, value)
    data, kind = value.get("data"), value.get("format")
    if data is not None and type(data) is not str:
        raise BadRequest(f"'{where}.data' must be a string.", param=f"{where}.data")
    if type(kind) not in (str, type(None)) or not value.keys() <= {"data", "format"}:
        reading.tally.beyond("unparsed audio")
    if data is None:
        reading.tally.hide(where)
        return
    reading.binary += len(data)
    reading.tally.recording(data, 0, kind or "")


def _hidden(reading: Reading, where: str, value: Any) -> None:
    reading.tally.hide(where)


_MODALITIES: dict[str, tuple[Capability, ...]] = {
    "text": (),
    "audio": (Capability.AUDIO,),
    "image": (Capability.IMAGES,),
}


def _modalities(reading: Reading, where: str, value: Any) -> None:
    """What an answer may consist of: spoken or drawn answers are more than chat."""
    items = value if type(value) is list else [value]
    for item in items:
        asked = _MODALITIES.get(item.lower()) if type(item) is str else None
        if asked is None:
            raise BadRequest(f"'{where}' may name text, audio and image.", param=where)
        if asked:
            for capability in asked:
                reading.ask(capability, where)
            reading.tally.beyond("spoken or drawn answers")
    reading.tally.text_only = bool(items) and all(item.lower() == "text" for item in items)


def inline(data: str, *declared: str) -> Rule:
    """An object with a file in its field ``data``, in base64; its media type stands in one of ``declared``."""

    def check(reading: Reading, where: str, value: Any) -> None:
        found = value.get(data)
        kind = next((value[name] for name in declared if value.get(name) is not None), "")
        if type(found) is str and type(kind) is str:
            reading.binary += len(found)
            reading.tally.inline(found, kind.lower(), where)
        else:
            reading.tally.hide(where)

    return Rule("checked", check)


def _described(reading: Reading, where: str, value: Any) -> None:
    """Note a tool, wherever it stands in the body, and count one that the provider describes in words of its own."""
    reading.tally.has_tools = True
    if value.get("type") not in (None, "function", "custom"):
        reading.tally.described += 1


MODEL = Rule("checked", _model)
DESCRIBED = Rule("checked", _described)
MODALITIES = Rule("priced", _modalities)
OTHER_MODEL = Rule("checked", _other_model)
LIMIT = Rule("priced", _limit)
NATURAL = Rule("priced", _natural)
COUNT = Rule("priced", _count)
TIER = Rule("priced", _name)  # the account's own setting where it is "auto" or absent
STREAM = Rule("checked", _stream)
STORED = Rule("stateful", _switch)
OBJECT = Rule("checked", _object)
BINARY = Rule("checked", _binary)  # a document
RECORDING = Rule("checked", _recording)
HIDDEN = Rule("checked", _hidden)  # leads to what the body does not show
NAME = Rule("priced", _name)


# Fields of fields


def fields(table: Table) -> Rule:
    """An object whose fields are all known."""

    def check(reading: Reading, where: str, value: Any) -> None:
        _object(reading, where, value)
        check_fields(reading, table, value, where)

    return Rule("checked", check)


def some(**checked: Rule) -> Rule:
    """An object of which only these fields matter; apps send much else in it."""
    folded = frozenset(map(fold, checked))

    def check(reading: Reading, where: str, value: Any) -> None:
        _object(reading, where, value)
        for name in value:
            if name not in checked and fold(name) in folded:
                raise BadRequest(
                    f"Two fields in '{where}' are too similar. Use the documented spellings.",
                    code="unknown_field",
                    param=where,
                )
        for name, rule in checked.items():
            item = value.get(name)
            if item is not None and rule.check is not None:
                rule.check(reading, f"{where}.{name}", item)

    return Rule("checked", check)


def each(rule: Rule, *, text: bool = False, single: bool = False) -> Rule:
    """A list, each item by ``rule``. ``text``: a string will do instead; ``single``: the bare item will do."""
    inner = rule.check

    def check(reading: Reading, where: str, value: Any) -> None:
        if type(value) is str and text:
            return
        if type(value) is dict and single:
            if inner is not None:
                inner(reading, where, value)
            return
        if type(value) is not list:
            raise BadRequest(f"'{where}' must be a list.", param=where)
        if inner is not None:
            for index, item in enumerate(value):
                inner(reading, f"{where}[{index}]", item)

    return Rule("checked", check)


def kinds(
    table: Mapping[str, Rule],
    *,
    what: str,
    absent: Rule | None = None,
    key: str = "type",
    versioned: bool = False,
    openly: bool = False,
) -> Rule:
    """An object whose ``type`` says what it is, checked by that type's rule; a type in no table is refused.

    ``absent``: the rule where it has no type. ``versioned``: a date at the end of a type is no part of its name.
    ``openly``: servers of the owner's own may have more types.
    """
    lookalikes = _spellings(key)

    def check(reading: Reading, where: str, value: Any) -> None:
        _object(reading, where, value)
        if not lookalikes.isdisjoint(value):
            raise BadRequest(
                f"A field in '{where}' is too similar to '{key}'. Use the documented spelling.",
                code="unknown_field",
                param=where,
            )
        kind = value.get(key)
        rule = absent if kind is None else None
        if type(kind) is str:
            rule = table.get(_DATE.sub("", kind) if versioned else kind)
        if rule is None and openly and reading.provider.open_fields:
            reading.tally.hide(where)
            return
        if rule is None:
            shown = ascii(kind)[:80]
            raise BadRequest(
                f"{what} of {key} {shown} in '{where}' is unknown, so it is not relayed.",
                code="unknown_field",
                param=where,
            )
        if rule.check is not None:
            rule.check(reading, where, value)

    return Rule("checked", check)


def _spellings(word: str) -> frozenset[str]:
    """``word`` in every other mix of upper and lower case."""
    mixes = [""]
    for letter in word:
        mixes = [mix + case for mix in mixes for case in (letter.lower(), letter.upper())]
    return frozenset(mixes) - {word}


def every(*rules: Rule) -> Rule:
    """All of these rules on the same value; the kind is the first one's."""
    checks = [rule.check for rule in rules if rule.check is not None]

    def check(reading: Reading, where: str, value: Any) -> None:
        for one in checks:
            one(reading, where, value)

    return Rule(rules[0].kind, check)
