"""Log records as JSON, a line each: ``AIPASSPORT_LOG_FORMAT=json``."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any

from gunicorn import glogging

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode  # ASCII only: no line ends but ours


class JSONFormatter(logging.Formatter):
    """``time`` (UTC), ``level``, ``logger`` and ``message``; of a call, ``event`` and fields for the last."""

    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        said: Any = record.msg
        if hasattr(said, "fields"):
            line |= {"event": said.event, **said.fields}
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class JSONLogger(glogging.Logger):
    """gunicorn's own lines in the same format."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JSONFormatter())
