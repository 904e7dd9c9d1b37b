"""Delegated tokens: minting, verification, and the signing-key ring in memory.

JWTs per RFC 9068 (``typ: at+jwt``) and the JWT BCP (RFC 8725), signed ES256 through simplejwt's backend.

Claims: ``iss``, ``aud`` (the relay), ``sub`` and ``client_id`` (the grant), ``jti``, ``iat``, ``nbf``, ``exp``; and,
where the token is narrower than its grant, ``models`` (patterns) and ``scope`` (capabilities, space-delimited,
RFC 8693 §4.2).

A verified token is remembered by the whole token, so that a signature is checked once; ``exp`` and ``nbf`` are
checked at every use. Whether grant, key, owner, ``jti`` and signing key are still good is the policy's to say.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import jwt
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import timezone
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenBackendExpiredToken

from .models import Actor, AuditEvent, Grant, SigningKey

TYPE = "at+jwt"
ALGORITHM = "ES256"
LEEWAY = 90  # seconds, for nbf alone: one machine mints, another whose clock is a minute behind is shown the token
_REQUIRED = ["iss", "aud", "sub", "client_id", "jti", "iat", "nbf", "exp"]
_KID = re.compile(r"[0-9a-f]{32}")
_JTI = re.compile(r"[0-9a-f]{32}")
_MAX_TOKEN_CHARACTERS = 8192
_CACHE_SIZE = 4096


class InvalidToken(Exception):
    """Not a token of ours that is in force. ``code`` is ``invalid_token`` or ``token_expired``."""

    def __init__(self, message: str, code: str = "invalid_token") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times in seconds since the epoch; ``None`` in ``models``/``scope``: not narrowed."""

    grant: UUID
    jti: str
    kid: str
    issued_at: int
    not_before: int
    expires_at: int
    models: tuple[str, ...] | None = None
    scope: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Minted:
    """A fresh token, to be shown once: it is stored nowhere."""

    token: str = field(repr=False)
    jti: str
    expires_at: dt.datetime
    lifetime: int


class SigningBackend(TokenBackend):
    """simplejwt's backend for one key of the ring: ``typ`` and ``kid`` in the header, every claim required."""

    def __init__(self, kid: str, *, signing_key: str | None = None, verifying_key: Any = "") -> None:
        super().__init__(
            ALGORITHM,
            signing_key,
            verifying_key,
            audience=settings.AIPASSPORT_AUDIENCE,
            issuer=settings.AIPASSPORT_URL,
        )
        self.kid = kid

    def encode(self, payload: dict[str, Any]) -> str:
        claims = payload | {"iss": self.issuer, "aud": self.audience}
        headers = {"typ": TYPE, "kid": self.kid}
        return jwt.encode(claims, self.prepared_signing_key, algorithm=ALGORITHM, headers=headers)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """The claims. ``verify`` must be true: nothing in this house reads an unverified token.

        Raises:
            TokenBackendError: anything wrong with it.
        """
        if not verify:
            raise TokenBackendError("tokens are verified")
        try:
            return jwt.decode(
                token,
                self.prepared_verifying_key,
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=self.issuer,
                leeway=0,
                options={
                    "require": _REQUIRED,
                    "verify_signature": True,
                    "verify_exp": True,
                    "verify_aud": True,
                    "verify_iss": True,
                    "verify_iat": False,
                    "verify_nbf": False,  # nbf and iat: see _in_time
                },
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenBackendExpiredToken("The token has expired.") from error
        except jwt.PyJWTError as error:
            raise TokenBackendError("The token is not valid.") from error


class Ring:
    """The public halves of the live keys, in memory.

    A forged ``kid`` never reaches the database: only this installation can write one (see :class:`SigningKey`).
    A genuine one that is not in memory reloads the ring; one that is not live is asked for once a second at most.
    """

    def __init__(self) -> None:
        self._backends: dict[str, SigningBackend] = {}
        self._missing: dict[str, float] = {}

    def backend(self, kid: str) -> SigningBackend | None:
        """The verifier of ``kid``, ``None`` where no live key has that id."""
        backend = self._backends.get(kid)
        if backend is None and SigningKey.is_genuine(kid) and time.monotonic() - self._missing.get(kid, 0.0) > 1.0:
            self._load()
            backend = self._backends.get(kid)
            if backend is None:
                self._missing[kid] = time.monotonic()
        return backend

    def _load(self) -> None:
        keys = SigningKey.objects.live().values_list("kid", "public_jwk")
        self._backends = {kid: SigningBackend(kid, verifying_key=jwt.PyJWK(jwk, ALGORITHM).key) for kid, jwk in keys}


ring = Ring()
_verified: OrderedDict[bytes, Claims] = OrderedDict()  # by the token's hash: half as large, and nobody's to use


def mint(
    grant: Grant,
    *,
    by: Actor,
    lifetime: int | None = None,
    models: tuple[str, ...] | None = None,
    capabilities: tuple[str, ...] | None = None,
) -> Minted:
    """A token for a live grant, never longer-lived or wider than it.

    ``lifetime`` in seconds, at most the grant's token lifetime. The issue is recorded in the audit trail by ``jti``.

    Raises:
        ValidationError: the grant is not live, or the token would be wider than the grant.
    """
    if grant.status != Grant.Status.APPROVED or grant.expires_at is None or grant.provider_key is None:
        raise ValidationError(f"The grant is {grant.status}: no tokens can be issued.", code=f"grant_{grant.status}")
    grant.provider_key.check_enabled()
    wanted = grant.terms.with_(
        models=grant.models if models is None else models,
        capabilities=grant.capabilities if capabilities is None else capabilities,
        token_lifetime=grant.token_lifetime if lifetime is None else lifetime,
    )
    wanted.check(grant.row)
    wanted.check_narrows(grant.terms)
    narrowed: dict[str, Any] = {} if models is None else {"models": list(models)}
    if capabilities is not None:
        narrowed["scope"] = " ".join(capabilities)
    now = int(timezone.now().timestamp())
    end = min(now + wanted.token_lifetime, int(grant.expires_at.timestamp()))
    subject, jti = str(grant.pk), uuid.uuid4().hex
    times = {"iat": now, "nbf": now, "exp": end}
    token = _signer().encode({"sub": subject, "client_id": subject, "jti": jti, **times, **narrowed})
    expires_at = dt.datetime.fromtimestamp(end, dt.UTC)
    detail = {"expires_at": expires_at.isoformat(), **narrowed}
    AuditEvent.record(AuditEvent.Action.TOKEN_ISSUED, by, grant=grant, jti=jti, **detail)
    return Minted(token, jti, expires_at, end - now)


def _signer() -> SigningBackend:
    """The newest live key; the first token of a new installation (or under a new secret key) makes its key."""
    live = (key for key in SigningKey.objects.live() if SigningKey.is_genuine(key.kid))
    key = next(live, None) or SigningKey.generate(Actor("system"))
    return SigningBackend(key.kid, signing_key=key.private_pem())


def verify(token: str) -> Claims:
    """The claims of a token whose signature, type, issuer, audience and times are good.

    Forgeries die here before any SQL.

    Raises:
        InvalidToken: with a sentence and a code for the app's developer.
    """
    digest = hashlib.sha256(token.encode(errors="replace")).digest()  # what is replaced is in no good token
    claims = _verified.get(digest)
    if claims is None:
        claims = _checked(token)
        _verified[digest] = claims
        if len(_verified) > _CACHE_SIZE:
            _verified.popitem(last=False)
    return _in_time(claims)


def has_form(token: str) -> bool:
    """Whether a text has the form of our tokens. Says nothing of its being one: only :func:`verify` does."""
    return _kid_of(token) is not None


def _kid_of(token: str) -> str | None:
    """The signing key that a token names; ``None`` if the text does not have the form of ours."""
    if len(token) > _MAX_TOKEN_CHARACTERS or not token.isascii():
        return None
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        return None
    kid = header.get("kid")
    if header != {"alg": ALGORITHM, "typ": TYPE, "kid": kid} or not isinstance(kid, str) or not _KID.fullmatch(kid):
        return None
    return kid


def _checked(token: str) -> Claims:
    kid = _kid_of(token)
    if kid is None:
        raise InvalidToken("This is not an AIPassport token.")
    backend = ring.backend(kid)
    if backend is None:
        raise InvalidToken("The key that signed this token is not in force.")
    try:
        return _read(backend.decode(token), kid)
    except TokenBackendExpiredToken as error:
        raise InvalidToken("The token has expired; ask for a new one.", "token_expired") from error
    except (TokenBackendError, ValueError, TypeError, AttributeError) as error:
        raise InvalidToken("The token is not valid.") from error


def _read(payload: dict[str, Any], kid: str) -> Claims:
    """Signed claims as values; a ``ValueError`` where they are not what :func:`mint` writes."""
    if payload["client_id"] != payload["sub"] or not _JTI.fullmatch(payload["jti"]):
        raise ValueError("unexpected claims")
    times = [payload[name] for name in ("iat", "nbf", "exp")]
    if not all(type(value) is int for value in times):
        raise ValueError("times must be integers")
    models, scope = payload.get("models"), payload.get("scope")
    if models is not None and not (isinstance(models, list) and all(isinstance(item, str) for item in models)):
        raise ValueError("models must be a list of strings")
    issued_at, not_before, expires_at = times
    return Claims(
        UUID(payload["sub"]),
        payload["jti"],
        kid,
        issued_at,
        not_before,
        expires_at,
        models=None if models is None else tuple(models),
        scope=None if scope is None else frozenset(scope.split()),
    )


def _in_time(claims: Claims) -> Claims:
    now = time.time()
    if now >= claims.expires_at:
        raise InvalidToken("The token has expired; ask for a new one.", "token_expired")
    if now < claims.not_before - LEEWAY:
        raise InvalidToken("The token is not valid yet.")
    return claims


def jwks() -> dict[str, list[dict[str, str]]]:
    """The public halves of the live keys (RFC 7517)."""
    return {"keys": list(SigningKey.objects.live().values_list("public_jwk", flat=True))}
