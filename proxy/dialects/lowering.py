"""A lower output limit in a body that is already checked, and thinking budgets that stay consistent with it."""

from __future__ import annotations

import re
from typing import Any

from ..exceptions import NotGranted

LEAST_BUDGET = 1024  # tokens, the least that Anthropic takes
_LEAST_GEMINI_BUDGET = 512  # the highest minimum among Gemini's models (2.5 Flash-Lite)
_THINKING = ("thinkingConfig", "thinking_config")
_BUDGET = ("thinkingBudget", "thinking_budget")
_NUMBER = re.compile(rb'"(\w+)":(-?\d+)')
_Body = dict[str, Any]


def put_last(body: _Body, paths: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Move everything that :func:`lower` may change to the end of ``body``, and give its names in that order.

    So it stands behind all text of the caller's, and its place is found from the end of the bytes.
    """
    names: list[str] = []
    if paths and all(len(path) == 1 for path in paths) and budget_of(body) is not None:
        names.append(_to_end(body["thinking"], "budget_tokens"))
        _to_end(body, "thinking")
    for path in paths:
        holder = body
        for name in path[:-1]:
            _to_end(holder, name)
            holder = holder[name]
        names += _gemini_budget_last(holder) if len(path) > 1 else ()
        names.append(_to_end(holder, path[-1]))
    return tuple(names)


def _to_end(holder: _Body, name: str) -> str:
    holder[name] = holder.pop(name)
    return name


def _gemini_budget_last(config: _Body) -> tuple[str, ...]:
    place = spelled(config, _THINKING)
    thinking = config.get(place)
    name = spelled(thinking, _BUDGET) if type(thinking) is dict else ""
    if not name or type(thinking) is not dict or type(thinking.get(name)) is not int:
        return ()
    _to_end(config, place)
    return (_to_end(thinking, name),)


def tail_of(data: bytes, names: tuple[str, ...]) -> int:
    """The index in ``data`` from which the fields ``names`` of :func:`put_last` stand.

    Behind each of them are only numbers and the names that follow, so the last occurrence is the field itself.
    """
    at = len(data)
    for name in reversed(names):
        at = data.rindex(b'"%s":' % name.encode(), 0, at)
    return at


def lower(tail: bytes, paths: tuple[tuple[str, ...], ...], asked: int, limit: int) -> bytes:
    """The end of a body with ``limit`` wherever a higher one stood, and thinking budgets that go with it."""
    limits = {path[-1].encode() for path in paths}

    def lowered(field: re.Match[bytes]) -> bytes:
        name, old = field[1], int(field[2])
        if name in limits:
            new = limit
        elif name == b"budget_tokens":
            new = _budget(old, asked, limit)
        else:
            new = _gemini_budget(old, limit)
        return b'"%s":%d' % (name, new)

    return _NUMBER.sub(lowered, tail)


def refuse_too_low(limit: int, least: int) -> None:
    """Raise :class:`NotGranted` for a limit that the body cannot carry."""
    if limit < least:
        raise NotGranted(
            f"The money left in this grant pays for {max(limit, 0)} output tokens. This call needs at least {least}.",
            code="output_limit_too_low",
            final=True,
        )


def spelled(holder: _Body, names: tuple[str, ...]) -> str:
    """The name under which a field stands in ``holder``, the first where it is absent."""
    return next((name for name in names if name in holder), names[0])


def budget_of(body: _Body) -> int | None:
    """Anthropic's ``thinking.budget_tokens`` (Fireworks has taken it over)."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if type(thinking) is dict else None
    return budget if type(budget) is int else None


def has_budget(body: _Body) -> bool:
    """Whether a thinking budget is named, of whatever type."""
    thinking = body.get("thinking")
    return type(thinking) is dict and thinking.get("budget_tokens") is not None


def fit_budget(body: _Body, asked: int | None, limit: int) -> None:
    """A budget in the same proportion to the lower limit as to the one that was ``asked`` for; half of a default.

    It must stay below the limit, unless it was not before either (interleaved thinking), and at or above 1,024.
    """
    budget = budget_of(body)
    if budget is not None and (asked is not None or budget >= limit):
        body["thinking"]["budget_tokens"] = _budget(budget, asked, limit)


def _budget(budget: int, asked: int | None, limit: int) -> int:
    share = budget * limit // asked if asked else limit // 2
    return min(budget, max(LEAST_BUDGET, share))


def fit_gemini_budget(config: _Body, limit: int) -> None:
    """``thinkingBudget`` no higher than the limit that it is part of, as far as models take one that low."""
    thinking = config.get(spelled(config, _THINKING))
    if type(thinking) is dict:
        name = spelled(thinking, _BUDGET)
        budget = thinking.get(name)
        if type(budget) is int:
            thinking[name] = _gemini_budget(budget, limit)


def _gemini_budget(budget: int, limit: int) -> int:
    return min(budget, max(limit, _LEAST_GEMINI_BUDGET)) if budget > limit else budget
