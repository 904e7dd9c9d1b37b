"""The patterns of price tables: which names a row prices. Read with every value checked, and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from genai_prices import types as library
from genai_prices.data import providers as _installed

_MAX_TEXT = 256
_MAX_CLAUSES = 300  # of one model
_MAX_DEPTH = 4
# What a pattern may consist of. Python's regular expressions backtrack, and they run on names that apps choose.
_REGEX = re.compile(
    r"\^(?:[\w/ :@=-]|\\[.\-/\[\]()+@]|\\d|\[[\w@.-]+\]|(?<=[\w\]])\{\d{1,2}\}|\((?:\?:)?|\)|\||\?|\$|(?<=[\w\]])\+)+"
)
_MAX_CHOICES = 4  # optional parts and alternatives; each may double the work
_CHOICE = re.compile(r"(?<!\\)(?:(?<!\()\?|\||\+)")


class Unacceptable(ValueError):
    """The file cannot be taken. The message says where, and why."""


def text(value: Any, place: str) -> str:
    if type(value) is not str or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise Unacceptable(f"{place}: a printable text of 1 to {_MAX_TEXT} characters is needed.")
    return value


def items(value: Any, place: str, most: int) -> list[Any]:
    if type(value) is not list or len(value) > most:
        raise Unacceptable(f"{place}: a list of at most {most} items is needed.")
    return value


def clause(value: Any, place: str) -> Any:
    """A pattern of genai-prices.

    Raises:
        Unacceptable: it is not understood, or may take too long.
    """
    return _clause(value, place, [_MAX_CLAUSES])


def clause_value(one: Any) -> dict[str, Any]:
    """What :func:`clause` reads."""
    for kind, attribute in (("or", "or_"), ("and", "and_")):
        if (parts := getattr(one, attribute, None)) is not None:
            return {kind: [clause_value(part) for part in parts]}
    return dict(vars(one))


def _clause(value: Any, place: str, left: list[int], depth: int = 0) -> Any:
    """``left``: how many clauses this model may still have."""
    left[0] -= 1
    if type(value) is not dict or len(value) != 1 or depth > _MAX_DEPTH or left[0] < 0:
        raise Unacceptable(f"{place}: its match is not understood.")
    ((kind, rest),) = value.items()
    if kind in ("or", "and"):
        parts = [_clause(one, place, left, depth + 1) for one in items(rest, place, _MAX_CLAUSES)]
        if not parts:
            raise Unacceptable(f"{place}: its match is empty.")
        return library.ClauseOr(parts) if kind == "or" else library.ClauseAnd(parts)
    if kind not in _CLAUSES:
        raise Unacceptable(f"{place}: the match {kind[:80]!r} is not known.")
    pattern = text(rest, f"{place}: {kind}")
    if kind == "regex" and pattern not in _installed_patterns() and not _is_harmless(pattern):
        raise Unacceptable(f"{place}: the regular expression {pattern[:80]!r} may take too long, and is not accepted.")
    return _CLAUSES[kind](pattern)


_CLAUSES: dict[str, Callable[[str], Any]] = {
    "starts_with": library.ClauseStartsWith,
    "ends_with": library.ClauseEndsWith,
    "contains": library.ClauseContains,
    "equals": library.ClauseEquals,
    "regex": library.ClauseRegex,
}


def _is_harmless(pattern: str) -> bool:
    """Whether a pattern needs little time for any name: anchored, and almost nothing in it can match in two ways."""
    if not _REGEX.fullmatch(pattern) or len(_CHOICE.findall(pattern)) > _MAX_CHOICES or pattern.count("+") > 1:
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _installed_patterns() -> frozenset[str]:
    if not _PATTERNS:
        _PATTERNS.append(frozenset(_patterns(model.match for one in _installed for model in one.models)))
    return _PATTERNS[0]


_PATTERNS: list[frozenset[str]] = []


def _patterns(clauses: Iterable[Any]) -> Iterable[str]:
    for clause in clauses:
        if isinstance(clause, library.ClauseRegex):
            yield clause.regex
        yield from _patterns(getattr(clause, "or_", None) or getattr(clause, "and_", None) or ())
