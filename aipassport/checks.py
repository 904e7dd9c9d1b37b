"""What ``manage.py check --deploy`` says of our own settings; Django's own checks see to DEBUG, cookies and HSTS.

Missing secrets are no warning: nothing starts without them (``settings.py``).
"""

from __future__ import annotations

import math
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Info, Tags, Warning, register

from aipassport.environment import ca_bundle_problem
from grants.crypto import parse_key

_MADE_UP = re.compile(r"change.?me|example|insecure|password|secret|replace", re.IGNORECASE)
_ENOUGH_BITS = 70  # by the count below, which 32 random hexadecimal digits pass
_DISTINCT_BYTES = 20  # of 32; random ones have about 30, and fewer than 20 once in billions
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs|cifs|smb|9p|afs|ceph|gluster|lustre|gfs2|ocfs2|fuse\.(sshfs|s3fs|rclone|gcsfuse)"
)
_MOUNTS = Path("/proc/self/mounts")

FRESH_SECRET = "python -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105  how to make one
FRESH_KEY = "python -c 'import base64, secrets; print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())'"


def deployment(number: str, tag: str) -> Any:
    """Registers a check that yields warnings; each carries the id ``aipassport.<number>``."""

    def wrap(check: Any) -> Any:
        def run(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
            kind = Info if number.startswith("I") else Warning
            return [kind(message, hint=hint, id=f"aipassport.{number}") for message, hint in check()]

        run.__name__ = check.__name__
        return register(run, tag, deploy=True)

    return wrap


Found = Iterable[tuple[str, str]]


def bits(text: str) -> float:
    """How much chance ``text`` seems to hold: the entropy of its characters, for each piece of three that is new."""
    shares = [count / len(text) for count in Counter(text).values()]
    new = {text[place : place + 3] for place in range(len(text) - 2)}
    return len(new) * -sum(share * math.log2(share) for share in shares)


@deployment("W001", Tags.security)
def secret_key_is_random() -> Found:
    key = settings.SECRET_KEY
    if _MADE_UP.search(key) or bits(key) < _ENOUGH_BITS:
        yield (
            "AIPASSPORT_SECRET_KEY looks made up.",
            f"It signs sessions and owner tokens. A random value: {FRESH_SECRET}",
        )


@deployment("W002", Tags.security)
def encryption_keys_are_random() -> Found:
    for place, text in enumerate(settings.AIPASSPORT_ENCRYPTION_KEYS, start=1):
        key = parse_key(text)
        if len(set(key)) < _DISTINCT_BYTES or all(32 <= byte < 127 for byte in key):
            yield (
                f"Key {place} of AIPASSPORT_ENCRYPTION_KEYS looks made up.",
                f"Put a random one in front ({FRESH_KEY}) and run manage.py rotate_encryption_key.",
            )


@deployment("W003", Tags.security)
def public_url_is_https() -> Found:
    if urlsplit(settings.AIPASSPORT_URL).scheme != "https":
        yield (
            "AIPASSPORT_URL is plain HTTP: passwords, tokens and prompts travel unencrypted.",
            "Put a TLS reverse proxy in front (deploy/nginx.conf) and set AIPASSPORT_URL to https://…",
        )


@deployment("W004", Tags.security)
def the_proxy_that_speaks_tls_is_trusted() -> Found:
    if urlsplit(settings.AIPASSPORT_URL).scheme == "https" and not settings.TRUST_PROXY:
        yield (
            "AIPASSPORT_URL is https, but no proxy is trusted, and gunicorn itself serves plain HTTP.",
            "Set AIPASSPORT_TRUST_PROXY=true behind a proxy that overwrites X-Forwarded-Proto and X-Forwarded-For; "
            "without the setting every page redirects to itself, and all callers share the proxy's address.",
        )


@deployment("W005", Tags.database)
def sqlite_lies_on_a_disk_of_this_machine() -> Found:
    path = _sqlite()
    kind = path and file_system(path)
    if kind and _NETWORK_FILE_SYSTEMS.match(kind):
        yield (
            f"The SQLite database lies on a network file system ({kind}).",
            "SQLite's write-ahead log works between processes of one machine only. Move the file to a local disk, or "
            "use PostgreSQL (DATABASE_URL), which many machines can share.",
        )


@deployment("W006", Tags.security)
def files_with_secrets_are_private() -> Found:
    database = _sqlite()
    companions = [Path(f"{database}{suffix}") for suffix in ("", "-wal", "-shm")] if database else []
    for path in (settings.BASE_DIR / ".env", *companions):
        if path.is_file() and path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield f"Everybody on this machine can read or write {path.name}.", f"chmod o-rwx {path}"


@deployment("W007", Tags.security)
def private_addresses_are_out_of_reach() -> Found:
    if settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS:
        yield (
            "AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS is on: whoever may add a provider key can make this server call "
            "hosts of its own network, over plain HTTP too.",
            "Turn it off, unless you run a model server in that network and trust every owner with that network.",
        )


@deployment("W008", Tags.security)
def logs_are_not_at_debug() -> Found:
    logging: dict[str, Any] = settings.LOGGING
    if logging["root"]["level"].upper() == "DEBUG":
        yield (
            "LOG_LEVEL is DEBUG: libraries log every query and connection. This is slow and fills the log.",
            "Set LOG_LEVEL=INFO.",
        )


@deployment("W009", Tags.security)
def the_ca_bundle_can_be_read() -> Found:
    if problem := ca_bundle_problem(settings.AIPASSPORT_UPSTREAM_CA_BUNDLE):
        yield (
            f"AIPASSPORT_UPSTREAM_CA_BUNDLE: {problem}. Every call to a provider fails.",
            "Name a file of certificates in PEM, or remove the variable to trust the usual authorities.",
        )


@deployment("I001", Tags.security)
def only_the_proxy_reaches_the_port() -> Found:
    if settings.TRUST_PROXY and settings.HOST not in _LOOPBACK:
        yield (
            f"The headers of a proxy are trusted, and gunicorn listens on {settings.HOST}.",
            "Make sure that only the proxy can reach that port: any other client could claim any address.",
        )


@deployment("I002", Tags.compatibility)
def owners_can_be_told() -> Found:
    if not settings.AIPASSPORT_SENDS_EMAIL:
        yield "No e-mail is sent: owners get notices by webhook and in the admin only.", "Set AIPASSPORT_EMAIL_URL."


def _sqlite() -> Path | None:
    database = settings.DATABASES["default"]
    return Path(database["NAME"]).resolve() if database["ENGINE"] == "aipassport.sqlite" else None


def file_system(path: Path) -> str | None:
    """What kind of file system ``path`` lies on, such as ``ext4``; None where the machine does not tell."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return None
    kind, depth = None, 0
    for line in lines:
        _, mount, of, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) >= depth:  # the last of two on one place lies on top
            kind, depth = of, len(mount)
    return kind
