"""LiteLLM's ``custom_auth`` for the benchmark: one key with models and a budget, in memory.

Its own virtual keys need a database engine that does not come from a package registry. LiteLLM imports this file from
beside its configuration, in its own environment.
"""

from __future__ import annotations

import hmac
import os
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth  # type: ignore[import-not-found]

_KEY = os.environ["BENCH_KEY"]


async def check(request: Any, api_key: str) -> UserAPIKeyAuth:
    """The key's rights.

    Raises:
        PermissionError: it is another key.
    """
    if not hmac.compare_digest(api_key.encode(), _KEY.encode()):
        raise PermissionError("unknown key")
    return UserAPIKeyAuth(api_key=api_key, user_id="bench", models=["small", "paced", "held"], max_budget=1_000_000.0)
