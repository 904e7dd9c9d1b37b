"""What the broker tells of itself: numbers (``metrics``), lines (``logs``) and spans (``traces``).

The relay says here what became of a call or why it was refused, in a few microseconds and without ever failing for it.
Nothing that was said in a call comes this way: no token, no key, no prompt, no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings

from . import logs
from .events import Ended, Refused, trace_id

__all__ = ["Ended", "Refused", "begin_span", "ended", "refused", "start", "trace_id"]

logger = logging.getLogger("aipassport.telemetry")

_on_end: list[Callable[[Ended], None]] = [logs.ended]
_on_refusal: list[Callable[[Refused], None]] = [logs.refused]
_traces: Any = None


def start() -> None:
    """Switch on what the settings ask for; what they do not ask for is not even imported. Once a process."""
    if settings.AIPASSPORT_METRICS:
        from . import metrics

        _add(_on_end, metrics.ended)
        _add(_on_refusal, metrics.refused)
    if settings.AIPASSPORT_TRACES:
        from . import traces

        trace_with(traces.Tracer(traces.exporting()))


def trace_with(tracer: Any) -> None:
    """Begin spans with ``tracer``, a :class:`.traces.Tracer`; with none of them for ``None``."""
    global _traces
    _traces = tracer


def begin_span(call: Any, policy: Any, upstream_call: Any) -> Any:
    """The span of an admitted call; ``None`` where there are no traces."""
    if _traces is None:
        return None
    try:
        return _traces.begin(call, policy, upstream_call)
    except Exception:
        logger.exception("a span could not begin")
        return None


def ended(event: Ended) -> None:
    """An admitted call is over, and settled."""
    _tell(_on_end, event)


def refused(event: Refused) -> None:
    """A call was not admitted."""
    _tell(_on_refusal, event)


def _tell(listeners: list[Callable[[Any], None]], event: Ended | Refused) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("telemetry failed")
    if event.span is not None:
        try:
            event.span.end(event)
        except Exception:
            logger.exception("a span could not end")


def _add(listeners: list[Callable[[Any], None]], listener: Callable[[Any], None]) -> None:
    if listener not in listeners:
        listeners.append(listener)
