"""A lower output limit in a body that is already checked, and thinking budgets that stay consistent with it."""

from __future__ import annotations

from typing import Any

from ..exceptions import NotGranted

LEAST_BUDGET = 1024  # tokens, the least that Anthropic takes
_LEAST_GEMINI_BUDGET = 512  # the highest minimum among Gemini's models (2.5 Flash-Lite)
_THINKING = ("thinkingConfig", "thinking_config")
_BUDGET = ("thinkingBudget", "thinking_budget")
_Body = dict[str, Any]


def lower(body: _Body, paths: tuple[tuple[str, ...], ...], limit: int) -> None:
    """Write ``limit`` wherever a higher one stands, and lower the thinking budgets that go with it."""
    asked = limit
    for path in paths:
        holder = body
        for name in path[:-1]:
            holder = holder[name]
        asked, holder[path[-1]] = holder[path[-1]], limit
        fit_gemini_budget(holder, limit)
    fit_budget(body, asked, limit)


def refuse_too_low(limit: int, least: int) -> None:
    """Raise :class:`NotGranted` for a limit that the body cannot carry."""
    if limit < least:
        raise NotGranted(
            f"What is left of this grant pays for {max(limit, 0)} tokens of output; this call needs {least} or more.",
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


def fit_budget(body: _Body, asked: int | None, limit: int) -> None:
    """A budget in the same proportion to the lower limit as to the one that was ``asked`` for; half of a default.

    It must stay below the limit, unless it was not before either (interleaved thinking), and at or above 1,024.
    """
    budget = budget_of(body)
    if budget is not None and (asked is not None or budget >= limit):
        share = budget * limit // asked if asked else limit // 2
        body["thinking"]["budget_tokens"] = min(budget, max(LEAST_BUDGET, share))


def fit_gemini_budget(config: _Body, limit: int) -> None:
    """``thinkingBudget`` no higher than the limit that it is part of, as far as models take one that low."""
    thinking = config.get(spelled(config, _THINKING))
    if type(thinking) is dict:
        name = spelled(thinking, _BUDGET)
        budget = thinking.get(name)
        if type(budget) is int and budget > limit:
            thinking[name] = min(budget, max(limit, _LEAST_GEMINI_BUDGET))
