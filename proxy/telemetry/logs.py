"""One line a call at INFO, logger ``aipassport.calls``: who, what, how long, how much. Never what was said."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from .events import Ended, Refused, model_name, trace_id

logger = logging.getLogger("aipassport.calls")

_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII).fullmatch
_as_json = json.JSONEncoder().encode


class Line:
    """What a formatter of JSON takes as ``fields``, and any other as text: ``event name=value …``."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: dict[str, Any]) -> None:
        self.event = event
        self.fields = fields

    def __str__(self) -> str:
        told = [self.event]
        for name, value in self.fields.items():
            if value is not None and value != "":
                plain = type(value) is not str or _PLAIN(value)
                told.append(f"{name}={value if plain else _as_json(value)}")
        return " ".join(told)


def ended(event: Ended) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    policy, call, settlement = event.policy, event.call, event.settlement
    _write(
        "call",
        {
            "call": str(event.id),
            "trace": event.span.trace_id if event.span is not None else trace_id(call.headers),
            "grant": str(policy.grant),
            "app": policy.app,
            "provider": policy.provider.id,
            "model": model_name(call),
            "route": call.route,
            "stream": call.stream,
            "outcome": settlement.outcome,
            "status": settlement.status,
            "added_us": event.added_us,
            "first_byte_us": settlement.first_byte_us,
            "total_us": event.total_us,
            "input_tokens": settlement.input_tokens,
            "output_tokens": settlement.output_tokens,
            "cached_tokens": settlement.cached_tokens,
            "cost_usd": None if settlement.cost is None else settlement.cost / 1_000_000_000,
            "estimated": settlement.estimated,
        },
    )


def refused(event: Refused) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    policy, call = event.policy, event.call
    _write(
        "refusal",
        {
            "code": event.code,
            "status": event.status,
            "trace": event.trace,
            "grant": "" if event.grant is None else str(event.grant),
            "app": "" if policy is None else policy.app,
            "provider": "" if policy is None else policy.provider.id,
            "model": "" if call is None else model_name(call),
            "route": "" if call is None else call.route,
            "total_us": event.total_us,
        },
    )


def _write(event: str, fields: dict[str, Any]) -> None:
    """Like ``logger.info``, which would look for its caller on the stack: as much work as all the rest."""
    logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, Line(event, fields), (), None))
