"""The signing-key ring and the tokens taken back."""

from __future__ import annotations

import datetime as dt
import json
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import models, transaction
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from jwt.algorithms import ECAlgorithm

from .. import crypto
from .allowance import Allowance
from .audit import Actor, AuditEvent


class SigningKeyQuerySet(models.QuerySet["SigningKey"]):
    def live(self) -> SigningKeyQuerySet:
        return self.filter(retired_at=None)


class SigningKey(models.Model):
    """One ES256 key of the ring. The newest live one signs, all live ones verify, retired ones verify nothing.

    ``kid``: 64 bits of the public key's RFC 7638 thumbprint, then 64 bits of a MAC over them under the secret key, so
    that a made-up ``kid`` is known for one without asking the database.
    """

    kid = models.CharField(max_length=32, primary_key=True, editable=False)
    private_key = models.TextField(editable=False)
    public_jwk = models.JSONField(editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    retired_at = models.DateTimeField(null=True, editable=False)

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.kid

    @property
    def context(self) -> str:
        """What the private half is bound to at rest."""
        return f"signingkey:{self.kid}"

    def private_pem(self) -> str:
        return crypto.decrypt(self.private_key, context=self.context)

    @staticmethod
    def is_genuine(kid: str) -> bool:
        """Whether this installation made ``kid`` (under its present secret key)."""
        return constant_time_compare(kid[16:], _mac(kid[:16]))

    @classmethod
    def generate(cls, by: Actor) -> SigningKey:
        """A new key, which signs from now on."""
        private = ec.generate_private_key(ec.SECP256R1())
        jwk = json.loads(ECAlgorithm.to_jwk(private.public_key()))
        thumbprint = _thumbprint(jwk)
        key = cls(kid=thumbprint + _mac(thumbprint))
        key.public_jwk = jwk | {"kid": key.kid, "use": "sig", "alg": "ES256"}
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key.private_key = crypto.encrypt(pem.decode(), context=key.context)
        with transaction.atomic():
            key.save(force_insert=True)
            AuditEvent.record(AuditEvent.Action.SIGNING_KEY_CREATED, by, kid=key.kid)
        return key

    def retire(self, by: Actor) -> bool:
        """Kill every token that this key signed, at once. Says whether this call did it."""
        with transaction.atomic():
            won = SigningKey.objects.live().filter(pk=self.pk).update(retired_at=timezone.now()) == 1
            if won:
                Allowance.objects.filter(expires_at__gt=0).bump()
                AuditEvent.record(AuditEvent.Action.SIGNING_KEY_RETIRED, by, kid=self.kid)
        self.refresh_from_db()
        return won


def _thumbprint(jwk: dict[str, str]) -> str:
    """The first 64 bits of the RFC 7638 thumbprint, as hex."""
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).hexdigest()[:16]


def _mac(thumbprint: str) -> str:
    return salted_hmac("aipassport.kid", thumbprint, algorithm="sha256").hexdigest()[:16]


class RevokedTokenQuerySet(models.QuerySet["RevokedToken"]):
    def expired(self, now: dt.datetime) -> RevokedTokenQuerySet:
        return self.filter(expires_at__lt=now)


class RevokedToken(models.Model):
    """A ``jti`` taken back before its time. The token itself is stored nowhere."""

    jti = models.CharField(max_length=64, primary_key=True)
    grant = models.ForeignKey("grants.Grant", models.CASCADE, related_name="revoked_tokens")
    revoked_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True, help_text="The token's own end; purged after it.")

    objects = RevokedTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return self.jti
