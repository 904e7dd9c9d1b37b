"""One line a call at INFO, logger ``aipassport.calls``: who, what, how long, how much. Never what was said.

A server writes them twice a second: together they cost a fraction. Each has the time at which its call ended.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import deque
from typing import Any

from .events import Ended, Refused, model_name, trace_id

logger = logging.getLogger("aipassport.calls")

_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII).fullmatch
_as_json = json.JSONEncoder().encode
_AT_MOST = 1000  # lines, should nobody write them

_waiting: deque[tuple[float, Line]] = deque()
_held = False


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


def hold() -> None:
    """From now on somebody calls :func:`write` again and again, and when the process ends."""
    global _held
    _held = True


def write() -> None:
    """Write the lines that wait."""
    while _waiting:
        at, line = _waiting.popleft()
        # Not logger.info, which would look for its caller on the stack: as much work as all the rest.
        record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, line, (), None)
        record.created, record.msecs = at, int(at % 1 * 1000)
        logger.handle(record)


def _write(event: str, fields: dict[str, Any]) -> None:
    _waiting.append((time.time(), Line(event, fields)))
    if not _held or len(_waiting) > _AT_MOST:
        write()
