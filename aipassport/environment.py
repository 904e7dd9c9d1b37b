"""Reads environment variables strictly: a value that cannot be understood stops the start and names its variable."""

from __future__ import annotations

import math
import re
import ssl
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

_FALSE = ("false", "off", "no", "n", "0")
_COMMENT = re.compile(r"\s#(\s|$)")


class Env(environ.FileAwareEnv):
    """django-environ with four differences. Any variable may be given as ``NAME_FILE``, the path of its value.

    - A file that cannot be read is told by the name of its variable.
    - A blank value counts as absent: compose files and templates of ``.env`` leave variables blank.
    - ``$`` has no meaning: django-environ would read ``$ecret`` as the name of another variable, and return "".
    - What is no boolean, number or database URL is refused. django-environ takes ``enabled`` for false.
    """

    def get_value(
        self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, parse_default: bool = False
    ) -> Any:
        """The value of ``var`` as ``cast``; ``default`` where it is absent or blank.

        Raises:
            ImproperlyConfigured: the value does not have the type of ``cast``, or a comment follows it.
        """
        try:
            text = self.ENVIRON.get(var, "").strip()
        except (OSError, UnicodeError) as error:
            path = self.ENVIRON[f"{var}_FILE"]
            raise ImproperlyConfigured(f"{var}_FILE: {path} cannot be read as text.") from error
        if not text:
            return default
        if _COMMENT.search(text):
            raise ImproperlyConfigured(f"{var}: remove the comment behind the value. It is read as part of the value.")
        if cast is bool:
            return _boolean(var, text)
        if cast is int or cast is float:
            return _number(var, text, cast)
        if cast is list:
            return [item for part in re.split(r"[,\n]", text) if (item := part.strip())]
        return text

    def db_url(self, var: str = "DATABASE_URL", default: Any = environ.Env.NOTSET, engine: str | None = None) -> Any:
        """The database that a URL names, as an entry of Django's ``DATABASES``.

        Raises:
            ImproperlyConfigured: it is no URL of a database.
        """
        try:
            found = super().db_url(var, default=default, engine=engine)
        except (ValueError, KeyError, ImproperlyConfigured):
            found = {}
        if "ENGINE" not in found:  # nothing of the value is repeated: it may hold a password
            raise ImproperlyConfigured(
                f"{var} must have the form postgres://user:password@host:5432/name or sqlite:////path/of/the/database.sqlite3."
            )
        return found


def _boolean(var: str, text: str) -> bool:
    word = text.lower()
    if word in Env.BOOLEAN_TRUE_STRINGS:
        return True
    if word in _FALSE:
        return False
    raise ImproperlyConfigured(f"{var} must be true or false, not {text[:40]!r}.")


def _number(var: str, text: str, cast: Any) -> Any:
    try:
        number = cast(text)
    except ValueError:
        number = -1
    if not math.isfinite(number) or number < 0:
        kind = "a whole number" if cast is int else "a number"
        raise ImproperlyConfigured(f"{var} must be {kind}, zero or more, not {text[:40]!r}.")
    return number


def in_url(host: str) -> str:
    """``host`` as a URL has it: an IPv6 address stands in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


def ca_bundle_problem(path: str) -> str:
    """Why ``path`` cannot be used as a bundle of CA certificates; empty where it can, or where none is named."""
    if not path:
        return ""
    place = Path(path)
    if not place.exists():
        return f"{path} does not exist"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(**({"capath": path} if place.is_dir() else {"cafile": path}))
    except (OSError, ssl.SSLError):
        return f"{path} cannot be read as certificates in PEM"
    return ""
