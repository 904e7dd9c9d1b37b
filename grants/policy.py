"""What one grant allows, read fresh for every call in one SELECT; pure checks on it.

Nothing here is cached, so nothing can be stale: a revocation is seen by the next call on every machine. What happens
between this SELECT and the admission is caught there, by ``revision``.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings

from . import crypto
from .limits import Limits
from .providers import PROVIDERS, Capability, Provider
from .terms import LIMITS, any_covers
from .tokens import Claims

POSTGRESQL = settings.DATABASES["default"]["ENGINE"] == "aipassport.postgresql"
if POSTGRESQL:
    from .postgresql import HotPath
else:
    from .sqlite import HotPath  # type: ignore[assignment]

hot_path: Any = HotPath()


class Denied(Exception):
    """The grant does not allow it. ``code`` is machine-readable, the message is for the app's developer."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Policy:
    """What the bearer of one token may do just now: the grant's terms, narrowed by the token's own."""

    grant: UUID
    revision: int
    key: UUID
    provider: Provider
    base_url: str
    models: tuple[tuple[str, ...], ...]  # every tuple of patterns must cover a model: the grant's, then the token's
    capabilities: frozenset[str]
    origins: frozenset[str]
    extra_fields: tuple[str, ...]
    limits: Limits
    time_zone: str
    default_output_tokens: int
    prices: str  # the key's own, as its row keeps them
    margin: int  # percent
    shows_everything: bool  # the streams of a custom server, as its owner says
    app: str  # its name, as the grant has it
    price_list: str  # the digest of the list in force; empty: the installed prices
    sealed_secret: str = field(repr=False)

    def secret(self) -> str:
        """The raw provider key. Called in one place, right before it goes upstream."""
        return crypto.decrypt(self.sealed_secret, context=f"providerkey:{self.key}")

    def allows_model(self, model: str) -> bool:
        return all(any_covers(patterns, model) for patterns in self.models)

    def missing(self, capabilities: frozenset[Capability]) -> Capability | None:
        """The first of these capabilities, by name, that is not granted."""
        return min((item for item in capabilities if item not in self.capabilities), default=None)

    def check_models(self, models: tuple[str, ...]) -> None:
        """Raise :class:`Denied` unless every model is granted."""
        for model in models:
            if not self.allows_model(model):
                raise Denied("model_not_granted", f"This grant does not include the model '{model}'.", param="model")

    def check_origin(self, origin: str | None) -> None:
        """Raise :class:`Denied` when a page of a web origin that the grant does not name makes the call."""
        if origin is not None and origin not in self.origins:
            raise Denied("origin_not_granted", "This grant does not allow calls from pages of this web origin.")


class _Row(NamedTuple):
    """What the SELECT brings, in its order."""

    revision: int
    expires_at: int
    revoked_at: Any
    models: str
    capabilities: str
    origins: str
    key: Any
    provider: str
    base_url: str
    extra_fields: str
    secret: str
    disabled_at: Any
    owner_active: Any
    kid: str | None
    retired_at: Any
    revoked_jti: str | None
    time_zone: str
    default_output_tokens: int
    prices: Any
    margin: int
    shows_everything: Any
    app: str
    price_list: str
    limits: Limits


_TERMS = len(_Row._fields) - 1  # columns before the limits

_SELECT = f"""
SELECT a.revision, a.expires_at, g.revoked_at, g.models, g.capabilities, g.allowed_origins,
       k.id, k.provider, k.base_url, k.extra_fields, k.secret, k.disabled_at, u.is_active,
       s.kid, s.retired_at, r.jti, a.time_zone, g.default_output_tokens, k.prices, k.margin,
       k.shows_everything, g.app_name,
       COALESCE((SELECT digest FROM grants_pricelist ORDER BY number DESC LIMIT 1), ''),
       {", ".join(f"a.{name}" for name in LIMITS)}
FROM grants_allowance a
JOIN grants_grant g ON g.id = a.grant_id
JOIN grants_providerkey k ON k.id = g.provider_key_id
JOIN auth_user u ON u.id = k.owner_id
LEFT JOIN grants_signingkey s ON s.kid = %(kid)s
LEFT JOIN grants_revokedtoken r ON r.jti = %(jti)s
WHERE a.grant_id = %(grant)s
"""


def db_uuid(value: UUID) -> Any:
    """A UUID as this database keeps it."""
    return value if POSTGRESQL else value.hex


def read(claims: Claims) -> Policy:
    """The policy of the token's grant as it stands now.

    Raises:
        Denied: the grant, the token, its signing key, the provider key or the owner is not in force.
    """
    values = {"kid": claims.kid, "jti": claims.jti, "grant": db_uuid(claims.grant)}
    row = hot_path.row(_SELECT, values)
    if row is None:
        raise Denied("grant_unknown", "The grant of this token does not exist.")
    found = _Row._make((*row[:_TERMS], Limits._make(row[_TERMS:])))
    _check_in_force(found)
    return _policy(claims, found)


@lru_cache(maxsize=256)  # 2.4 kB each
def _policy(claims: Claims, found: _Row) -> Policy:
    """What a row and a token say together. Remembered by all that they say: another row is another policy."""
    patterns = (tuple(json.loads(found.models)),)
    granted = frozenset(json.loads(found.capabilities))
    provider = PROVIDERS[found.provider]
    return Policy(
        grant=claims.grant,
        revision=found.revision,
        key=found.key if isinstance(found.key, UUID) else UUID(found.key),
        provider=provider,
        base_url=found.base_url or provider.base_url or "",
        models=patterns if claims.models is None else (*patterns, claims.models),
        capabilities=granted if claims.scope is None else granted & claims.scope,
        origins=frozenset(json.loads(found.origins)),
        extra_fields=tuple(json.loads(found.extra_fields)),
        limits=found.limits,
        time_zone=found.time_zone,
        default_output_tokens=found.default_output_tokens,
        prices=found.prices,
        margin=found.margin,
        shows_everything=bool(found.shows_everything),
        app=found.app,
        price_list=found.price_list,
        sealed_secret=found.secret,
    )


def _check_in_force(found: _Row) -> None:
    if found.revoked_at:
        raise Denied("grant_revoked", "The owner has revoked this grant.")
    if found.expires_at <= time.time() * 1_000_000:
        raise Denied("grant_expired", "This grant has expired.")
    if found.revoked_jti:
        raise Denied("token_revoked", "This token has been revoked.")
    if found.kid is None or found.retired_at:
        raise Denied("signing_key_retired", "The key that signed this token has been retired; ask for a new token.")
    if found.disabled_at:
        raise Denied("key_disabled", "The owner has disabled the provider key behind this grant.")
    if not found.owner_active:
        raise Denied("owner_disabled", "The owner of this grant is not active.")
