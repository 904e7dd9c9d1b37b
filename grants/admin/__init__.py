"""The owner's desk: one module a model."""

from . import (  # noqa: F401  registers them
    audit,
    calls,
    grants,
    keys,
    login,
    notices,
    preferences,
    price_lists,
    signing_keys,
    totals,
    users,
)
