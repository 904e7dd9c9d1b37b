"""The owner's desk: one module a model."""

from . import audit, calls, grants, keys, notices, preferences, signing_keys, totals, users  # noqa: F401  registers them
