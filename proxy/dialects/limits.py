"""The output limit that a call goes out with, how it is lowered, and the service tier that is pinned with it.

Where the grant limits money or tokens (the tally has a default limit), a text call never goes out without a limit, and
the limit stands under a name that the server surely obeys: some ignore the one that they do not know. Elsewhere nothing
in the body is changed.

What counts against the limit, as far as it is known:

- OpenAI: reasoning is part of ``max_completion_tokens`` and ``max_output_tokens`` (API reference, chat and Responses).
- Anthropic: thinking is part of ``max_tokens``, a strict limit (docs, "Extended thinking"). But where thinking is
  interleaved with tools, the budget may be above the limit, and is then what holds: such a call is not bounded.
- Gemini: thoughts count against ``maxOutputTokens``; seen for 2.5 and 3 (googleapis/python-genai, issues 811 and 2062),
  although the reference does not say so. A ``thinkingBudget`` is no bound: it is exceeded.
- DeepSeek, Groq, Cerebras, Mistral, Together, Fireworks: reasoning is generated, and cut, like any other output.
- xAI: reasoning comes on top. OpenRouter passes calls on to all of these. Neither is bounded (``peculiar.py``).
"""

from __future__ import annotations

from typing import Any

from ..exceptions import BadRequest
from .fields import Reading
from .lowering import LEAST_BUDGET, budget_of, fit_budget, fit_gemini_budget, has_budget, spelled
from .rules import NO_LIMIT

_CONFIG = ("generationConfig", "generation_config")
_LIMIT = ("maxOutputTokens", "max_output_tokens")
_CANDIDATES = ("candidateCount", "candidate_count")


def settle(reading: Reading, names: tuple[str, ...], own: str = "", *, exchangeable: bool = True) -> None:
    """Note the limit in the body, and write the default where there is none and one is needed.

    ``names``: the fields that name it. ``own``: the one that the server surely obeys (the first, if not said).
    ``exchangeable``: it obeys the others just as surely; else they give way to ``own``.
    -1 (no limit, at servers of the owner's own) counts as absent where a limit is needed.

    Raises:
        BadRequest: two limits that differ, or none at all (0), where a limit is needed.
    """
    body, own = reading.body, own or names[0]
    open_ended = [name for name in names if body.get(name) == NO_LIMIT]
    if not reading.tally.limited:
        given = [body[name] for name in names if body.get(name) is not None]
        reading.tally.limit = None if open_ended else max(given, default=None)
        return
    for name in open_ended:
        del body[name]
    named = [name for name in names if body.get(name) is not None]
    asked = body[named[0]] if named else None
    if len(named) > 1 and body[named[1]] != asked:
        raise BadRequest("The request has different output limits. Send one.", param=named[1])
    if named and not exchangeable and named != [own]:
        for name in named:
            del body[name]
        body[own], named = asked, [own]
    _go_out(reading, body, tuple(named) or (own,), (), asked)


def settle_gemini(reading: Reading) -> None:
    """As :func:`settle`, for Gemini's ``generationConfig`` in either spelling."""
    body = reading.body
    place = spelled(body, _CONFIG)
    config = body.get(place) or {}
    reading.tally.candidates = config.get(spelled(config, _CANDIDATES)) or 1
    name = spelled(config, _LIMIT)
    if not reading.tally.limited:
        reading.tally.limit = config.get(name)
        return
    body[place] = config
    _go_out(reading, config, (name,), (place,), config.get(name))


def pin_tier(reading: Reading, standard: str, name: str = "service_tier") -> None:
    """Pin the account's choice of a service tier to the standard one. ``standard``: its name, ``""``: none to pin."""
    asked = reading.body.get(name)
    if standard and reading.tally.limited and (asked is None or asked.lower() in ("", "auto")):
        reading.body[name] = standard
    elif asked is not None and asked.lower() not in (standard, "default", "standard", "unspecified"):
        reading.tally.tiers(asked)


def _go_out(
    reading: Reading, holder: dict[str, Any], names: tuple[str, ...], path: tuple[str, ...], asked: int | None
) -> None:
    """Note the limit that goes out in ``holder`` under ``names``, after writing the default if none was ``asked``."""
    tally, budget = reading.tally, budget_of(reading.body)
    if budget is None and has_budget(reading.body):  # some servers read 64000.0 and "64000" as a number
        raise BadRequest("'thinking.budget_tokens' must be a whole number.", param="thinking.budget_tokens")
    tally.least = 1 if budget is None else LEAST_BUDGET + 1
    if asked == 0 and reading.provider.dialects[0] != "anthropic":  # there it only fills the prompt cache
        raise BadRequest(f"'{names[0]}' must be at least 1 under this grant.", param=names[0])
    if asked is None:
        asked = tally.default_limit or 1
        if asked < tally.least:
            raise BadRequest(f"A thinking budget needs a larger output limit. Set '{names[0]}'.", param=names[0])
        for name in names:
            holder[name] = asked
        fit_budget(reading.body, None, asked)
        fit_gemini_budget(holder, asked)
    elif budget is not None and budget >= asked:
        tally.beyond("thinking beyond the limit")
    tally.limit, tally.limit_paths = asked, tuple((*path, name) for name in names)
