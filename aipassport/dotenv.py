"""The first ``.env``: fresh secrets, readable by nobody else."""

from __future__ import annotations

import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path

_REQUIRED = ("AIPASSPORT_SECRET_KEY", "AIPASSPORT_ENCRYPTION_KEYS")


def ensure(path: Path) -> bool:
    """Write ``path`` (mode 0600) unless it exists or the environment has the secrets. Says whether it did."""
    if path.exists() or all({name, f"{name}_FILE"} & os.environ.keys() for name in _REQUIRED):
        return False
    lines = (
        "# Written at the first start. Keep it secret, back it up: without it no stored provider key can be read.",
        f"AIPASSPORT_SECRET_KEY={secrets.token_urlsafe(48)}",
        f"AIPASSPORT_ENCRYPTION_KEYS={urlsafe_b64encode(secrets.token_bytes(32)).decode()}",
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
    return True
