"""What a grant allows, as one value: asked for by an app, narrowed by an owner, read by the policy.

``Terms`` is the only place that knows what *valid* and *narrower* mean; the admin, the API, the commands
and the consent page all hand it on to the models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from . import money
from .providers import Provider

HOUR = 3600
DAY = 24 * HOUR
MAX_VALID_FOR = 5 * 365 * DAY
MAX_TOKEN_LIFETIME = 30 * DAY
MIN_TOKEN_LIFETIME = 60
DEFAULT_VALID_FOR = 30 * DAY
MAX_COUNT = 2**53  # exact in every JSON reader
MAX_RATE = 60_000_000  # a minute: one a microsecond, the finest that the ledger's clock tells apart
MAX_MONEY = 10**18  # nano-dollars: a billion dollars
DEFAULT_OUTPUT_TOKENS = 4096
MAX_OUTPUT_TOKENS = 2**31 - 1

# What "narrower" compares as numbers; None is no limit.
MONEY_LIMITS = ("max_cost", "max_cost_per_day", "max_cost_per_month", "max_cost_per_call")
RATE_LIMITS = ("requests_per_minute", "tokens_per_minute")
COUNT_LIMITS = ("max_requests", "max_concurrency")
LIMITS = COUNT_LIMITS + MONEY_LIMITS + RATE_LIMITS

PATTERN = re.compile(r"[A-Za-z0-9._:/@+-]{1,200}\*?|\*")
_ORIGIN_HOST = re.compile(r"[a-z0-9.-]+|\[[0-9a-f:]+\]")


def covers(pattern: str, model: str) -> bool:
    """Whether ``pattern`` (a name, or a prefix with one ``*`` at its end) covers a model, or another pattern.

    Only a trailing star, so that "narrower" can be decided exactly.
    """
    if pattern.endswith("*"):
        return model.startswith(pattern[:-1])
    return pattern == model


def any_covers(patterns: Iterable[str], model: str) -> bool:
    return any(covers(pattern, model) for pattern in patterns)


def narrowest(these: Iterable[str], those: Iterable[str]) -> tuple[str, ...]:
    """The patterns that cover exactly what both sets of patterns cover."""
    those = tuple(those)
    both = [
        mine if covers(other, mine) else other
        for mine in these
        for other in those
        if covers(other, mine) or covers(mine, other)
    ]
    return tuple(dict.fromkeys(both))


def is_origin(value: str) -> bool:
    """Whether ``value`` is a serialised web origin (RFC 6454 §6.1): ``scheme://host[:port]``, nothing after it."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not _ORIGIN_HOST.fullmatch(parts.hostname or ""):
        return False
    return value == f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a grant allows.

    ``models``: patterns such as ``gpt-4o`` or ``claude-*``. ``capabilities``: names of
    :class:`~grants.providers.Capability`. ``allowed_origins``: web origins whose pages may use the grant (clients
    that send no ``Origin`` are not affected). ``valid_for`` and ``token_lifetime`` in seconds.

    Limits, ``None`` is none: ``max_requests`` in total and ``max_concurrency`` at a time; ``max_cost`` in total, per
    calendar day and month in the owner's time zone, and per call, in nano-dollars; ``requests_per_minute`` and
    ``tokens_per_minute``. ``default_output_tokens``: the output limit of a call that names none, where money or tokens
    are limited.
    """

    models: tuple[str, ...]
    capabilities: tuple[str, ...]
    allowed_origins: tuple[str, ...] = ()
    valid_for: int | None = None
    token_lifetime: int = HOUR
    max_requests: int | None = None
    max_concurrency: int | None = None
    max_cost: int | None = None
    max_cost_per_day: int | None = None
    max_cost_per_month: int | None = None
    max_cost_per_call: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    default_output_tokens: int = DEFAULT_OUTPUT_TOKENS

    @classmethod
    def of(cls, source: Any) -> Self:
        """The terms that an object with fields of the same names carries."""
        values: dict[str, Any] = {field.name: getattr(source, field.name) for field in fields(cls)}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**values)

    def with_(self, **changes: Any) -> Self:
        """A copy with ``changes``; lists become tuples."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()}
        return replace(self, **values)

    def check(self, provider: Provider) -> None:
        """Raise a :class:`ValidationError` keyed by field when the terms make no sense for ``provider``."""
        errors = {name: problem for name, problem in self._problems(provider) if problem}
        if errors:
            raise ValidationError(errors)

    def _problems(self, provider: Provider) -> Iterable[tuple[str, str | None]]:
        yield "models", _patterns_problem(self.models)
        offered = {str(item) for item in provider.capabilities}
        unknown = sorted(set(self.capabilities) - offered)
        yield (
            "capabilities",
            f"{provider.label} does not offer: {', '.join(unknown)}."
            if unknown
            else (None if self.capabilities else "Name at least one capability."),
        )
        bad = [origin for origin in self.allowed_origins if not is_origin(origin)]
        yield (
            "allowed_origins",
            f"Not a web origin such as https://app.example: {', '.join(bad)[:200]}" if bad else None,
        )
        yield "valid_for", _range_problem(self.valid_for, 1, MAX_VALID_FOR, "seconds")
        yield "token_lifetime", _range_problem(self.token_lifetime, MIN_TOKEN_LIFETIME, MAX_TOKEN_LIFETIME, "seconds")
        yield "max_requests", _range_problem(self.max_requests, 1, MAX_COUNT, "requests")
        yield "max_concurrency", _range_problem(self.max_concurrency, 1, MAX_COUNT, "calls")
        for name in MONEY_LIMITS:
            yield name, _range_problem(getattr(self, name), 1, MAX_MONEY, "nano-dollars")
        yield "requests_per_minute", _range_problem(self.requests_per_minute, 1, MAX_RATE, "requests")
        yield "tokens_per_minute", _range_problem(self.tokens_per_minute, 1, MAX_RATE, "tokens")
        yield "default_output_tokens", _range_problem(self.default_output_tokens, 1, MAX_OUTPUT_TOKENS, "tokens")

    def check_narrows(self, asked: Self) -> None:
        """Raise a :class:`ValidationError` for every field in which these terms give more than was ``asked``."""
        errors: dict[str, str] = {}
        wider = [pattern for pattern in self.models if not any_covers(asked.models, pattern)]
        if wider:
            errors["models"] = f"Wider than what was asked for: {', '.join(wider)}."
        for name in ("capabilities", "allowed_origins"):
            extra = sorted(set(getattr(self, name)) - set(getattr(asked, name)))
            if extra:
                errors[name] = f"Not asked for: {', '.join(extra)}."
        for name in ("valid_for", "token_lifetime", *LIMITS):
            given, limit = getattr(self, name), getattr(asked, name)
            if limit is not None and (given is None or given > limit):
                shown = money.exactly(limit) if name in MONEY_LIMITS else limit
                errors[name] = f"More than was asked for ({shown})."
        if errors:
            raise ValidationError(errors)


def _patterns_problem(patterns: tuple[str, ...]) -> str | None:
    if not patterns:
        return "Name at least one model, or * for all."
    if len(patterns) > 100:
        return "At most 100 patterns."
    bad = [pattern for pattern in patterns if not PATTERN.fullmatch(pattern)]
    return f"Not a model pattern (a name, with one * at its end at most): {', '.join(bad)[:200]}" if bad else None


def _range_problem(value: int | None, low: int, high: int, unit: str) -> str | None:
    if value is None or low <= value <= high:
        return None
    return f"Must be between {low} and {high} {unit}."
