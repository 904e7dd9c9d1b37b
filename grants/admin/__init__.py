"""The owner's desk: one module a model."""

from . import audit, calls, grants, keys, signing_keys, users  # noqa: F401  registers them
