"""The tests' settings on a machine whose own clock is wrong, by ``TEST_SHIFT`` seconds; the database's is right.

Every clock that the product reads on its machine is shifted, before anything else reads it.
"""

import datetime as dt
import os
import time

import jwt.api_jwt
from django.utils import timezone

_SHIFT = float(os.environ["TEST_SHIFT"])
_time, _time_ns, _now = time.time, time.time_ns, timezone.now

time.time = lambda: _time() + _SHIFT
time.time_ns = lambda: _time_ns() + int(_SHIFT * 1e9)
timezone.now = lambda: _now() + dt.timedelta(seconds=_SHIFT)


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
        return dt.datetime.now(tz) + dt.timedelta(seconds=_SHIFT)


jwt.api_jwt.datetime = _Datetime  # type: ignore[misc, attr-defined]

from tests.settings import *  # noqa: E402, F403
