"""Raw provider keys: what the whole house protects."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from .. import crypto
from .. import prices as price_rows
from ..addresses import may_be_public_host
from ..providers import PROVIDERS, Provider, choices
from ..shown_text import name_problem
from .allowance import Allowance
from .audit import Actor, AuditEvent


class KeyUse(NamedTuple):
    """When a key was last used, and the error that its owner is shown; empty where there was none."""

    at: dt.datetime
    error: str = ""


class ProviderKeyQuerySet(models.QuerySet["ProviderKey"]):
    def owned_by(self, user: Any) -> ProviderKeyQuerySet:
        """What ``user`` may use and manage; a superuser may manage all."""
        return self if user.is_superuser else self.filter(owner=user)

    def held_by(self, user: Any) -> ProviderKeyQuerySet:
        """What ``user`` may grant with: their own and nobody else's, superuser or not. Consent is the key's owner's."""
        return self.filter(owner=user)

    def enabled(self) -> ProviderKeyQuerySet:
        return self.filter(disabled_at=None)

    def failing(self) -> ProviderKeyQuerySet:
        """Whose latest use ended in an error of the provider's."""
        return self.exclude(last_error="").filter(last_error_at__gte=models.F("last_used_at"))

    def note_use(self, used: Mapping[uuid.UUID, KeyUse]) -> None:
        """Write down the use of many keys in one transaction: one statement for all without an error.

        The rows are taken in id order, so that two workers cannot deadlock. A use from before an error that another
        worker has written is no news: the error stays the latest.
        """
        together: dict[str, list[uuid.UUID]] = {}
        with transaction.atomic():
            rows = self.filter(pk__in=list(used)).order_by("pk").select_for_update(no_key=True)
            for key, error_at in rows.values_list("pk", "last_error_at"):
                use = used[key]
                if use.error or error_at is None or error_at < use.at:
                    together.setdefault(use.error[:200], []).append(key)
            now = timezone.now()
            for error, keys in together.items():
                noted: dict[str, Any] = {"last_error": error, "last_error_at": now} if error else {}
                self.filter(pk__in=keys).update(last_used_at=now, **noted)


class ProviderKey(models.Model):
    """One raw upstream key. ``secret`` is encrypted, bound to this row and write-only everywhere."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="provider_keys")
    label = models.CharField(max_length=100)
    provider = models.CharField(max_length=32, choices=choices)
    base_url = models.CharField(
        "base URL",
        max_length=300,
        blank=True,
        help_text="Empty: the provider's own. Needed for Azure OpenAI, Amazon Bedrock and custom servers.",
    )
    extra_fields = models.JSONField(
        default=list,
        blank=True,
        help_text="Names of further body fields that calls on this key may carry, beyond those that AIPassport knows.",
    )
    prices = models.JSONField(default=list, blank=True, help_text="Prices of its own, by model; first match wins.")
    margin = models.PositiveSmallIntegerField(default=0, help_text="Percent on top of every price, in bound and cost.")
    shows_everything = models.BooleanField(
        default=False,
        help_text="For custom servers: their streams show all output as it is made, thinking and tool calls included.",
    )
    secret = models.TextField(editable=False)
    hint = models.CharField(max_length=4, editable=False, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    disabled_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=200, blank=True, editable=False)
    last_error_at = models.DateTimeField(null=True, editable=False)

    objects = ProviderKeyQuerySet.as_manager()

    CHANGEABLE = ("label", "extra_fields", "prices", "margin", "shows_everything")  # by :meth:`change`

    class Meta:
        ordering = ["label"]
        constraints = [models.UniqueConstraint(fields=["owner", "label"], name="key_label_unique_per_owner")]

    def __str__(self) -> str:
        return f"{self.label} ({self.get_provider_display()})"

    @property
    def row(self) -> Provider:
        """The provider's row of the catalogue."""
        return PROVIDERS[self.provider]

    @property
    def context(self) -> str:
        """What the secret is bound to at rest."""
        return f"providerkey:{self.pk}"

    @property
    def masked(self) -> str:
        return f"…{self.hint}" if self.hint else "—"

    @property
    def failing(self) -> bool:
        """Whether its latest use ended in an error of the provider's."""
        return bool(self.last_error_at and self.last_used_at and self.last_error_at >= self.last_used_at)

    def set_secret(self, secret: str) -> None:
        """Encrypt ``secret`` into this row; the caller saves. Only the last four characters stay readable."""
        secret = secret.strip()
        if not secret and self.row.secret_required:
            raise ValidationError({"secret": f"{self.row.label} needs a key."})
        if not secret.isascii() or not secret.isprintable() or " " in secret or len(secret) > 4096:
            raise ValidationError({"secret": "A key is one line of printable ASCII without spaces."})
        self.secret = crypto.encrypt(secret, context=self.context)
        self.hint = secret[-4:] if len(secret) >= 12 else ""

    def clean(self) -> None:
        super().clean()
        if self.provider not in PROVIDERS:
            return
        self.base_url = normal_base_url(self.base_url, self.row)
        if self.label and (problem := name_problem(self.label)):
            raise ValidationError({"label": problem})
        if not isinstance(self.extra_fields, list) or not all(isinstance(name, str) for name in self.extra_fields):
            raise ValidationError({"extra_fields": "A list of field names."})
        for name, check in (("prices", price_rows.validate), ("margin", price_rows.validate_margin)):
            try:
                check(getattr(self, name))
            except ValidationError as error:
                raise ValidationError({name: error.messages}) from error
        if self.shows_everything and self.provider != "custom":
            raise ValidationError({"shows_everything": "Only for servers of your own."})

    @classmethod
    def add(
        cls,
        *,
        owner: Any,
        provider: str,
        label: str,
        secret: str,
        by: Actor,
        base_url: str = "",
        extra_fields: Sequence[str] = (),
        prices: Sequence[Mapping[str, Any]] = (),
        margin: int = 0,
        shows_everything: bool = False,
    ) -> ProviderKey:
        """Validate, encrypt and store a new key. ``prices``, ``margin``, ``shows_everything``: see :meth:`change`.

        Raises:
            ValidationError: keyed by field; nothing is stored then.
        """
        key = cls(owner=owner, provider=provider, label=label, base_url=base_url, margin=margin)
        key.extra_fields, key.prices, key.shows_everything = list(extra_fields), list(prices), shows_everything
        if provider not in PROVIDERS:
            raise ValidationError({"provider": f"Unknown provider. Known: {', '.join(PROVIDERS)}."})
        key.set_secret(secret)
        key.full_clean()
        with transaction.atomic():
            key.save(force_insert=True)
            AuditEvent.record(AuditEvent.Action.KEY_ADDED, by, key=key, label=label, provider=provider)
        return key

    def change(
        self,
        *,
        label: str,
        extra_fields: Sequence[str],
        prices: Sequence[Mapping[str, Any]],
        margin: int,
        by: Actor,
        shows_everything: bool | None = None,
    ) -> None:
        """A new label, other extra fields, prices (rows of :mod:`grants.prices`) or margin (percent on every price).

        ``shows_everything`` (``None``: as it is): streams of this server show all output as it is made, so an answer
        that is left early is charged for what it showed and not for its whole output limit.

        Takes effect with the next call. Provider and base URL stay for good: the secret would go to another host.

        Raises:
            ValidationError: keyed by field; nothing is changed then.
        """
        self.label, self.extra_fields, self.prices, self.margin = label, list(extra_fields), list(prices), margin
        if shows_everything is not None:
            self.shows_everything = shows_everything
        self.full_clean()
        changed = {name: getattr(self, name) for name in self.CHANGEABLE}
        with transaction.atomic():
            self.save(update_fields=list(changed))
            Allowance.objects.filter(grant__provider_key=self).bump()
            AuditEvent.record(AuditEvent.Action.KEY_CHANGED, by, key=self, **changed)

    def set_prices(self, rows: Sequence[Mapping[str, Any]], by: Actor) -> None:
        """Put price rows before the others. A row for the same models is replaced. Takes effect with the next call.

        Raises:
            ValidationError: keyed by field; nothing is changed then.
        """
        named = {row["models"] for row in rows}
        with transaction.atomic():
            key = ProviderKey.objects.select_for_update().get(pk=self.pk)
            kept = [row for row in key.prices if row["models"] not in named]
            key.change(label=key.label, extra_fields=key.extra_fields, prices=[*rows, *kept], margin=key.margin, by=by)
        self.refresh_from_db()

    def replace_secret(self, secret: str, by: Actor) -> None:
        """Another secret for the same account: the next call goes out with it, grants and tokens stay in force.

        Raises:
            ValidationError: keyed by field; nothing is changed then.
        """
        self.set_secret(secret)
        self.last_error, self.last_error_at = "", None
        with transaction.atomic():
            self.save(update_fields=["secret", "hint", "last_error", "last_error_at"])
            AuditEvent.record(AuditEvent.Action.KEY_CHANGED, by, key=self, changed="secret")

    def check_enabled(self) -> None:
        """Raise a :class:`ValidationError` when nothing can be granted on this key."""
        if self.disabled_at:
            raise ValidationError({"provider_key": "This key is disabled."})

    def disable(self, by: Actor) -> bool:
        """The kill switch: no grant on this key is served any more, from now on. Says whether this call did it."""
        return self._switch(timezone.now(), AuditEvent.Action.KEY_DISABLED, by)

    def enable(self, by: Actor) -> bool:
        return self._switch(None, AuditEvent.Action.KEY_ENABLED, by)

    def _switch(self, disabled_at: Any, action: str, by: Actor) -> bool:
        with transaction.atomic():
            rows = ProviderKey.objects.filter(pk=self.pk, disabled_at__isnull=disabled_at is not None)
            won = rows.update(disabled_at=disabled_at) == 1
            if won:
                Allowance.objects.filter(grant__provider_key=self).bump()
                AuditEvent.record(action, by, key=self)
        self.refresh_from_db()
        return won


def normal_base_url(url: str, provider: Provider) -> str:
    """``url`` without what the relay appends itself (a trailing slash, the OpenAI-shaped prefix).

    Raises:
        ValidationError: no URL where one is needed; anything but scheme, host, port and path in it; plain HTTP, or a
            private address, without the operator's setting. (The address that a name resolves to is checked
            again at every connection, see ``proxy/upstream.py``.)
    """
    if provider.id == "sandbox":
        return ""
    url = url.strip().rstrip("/")
    if not url:
        if provider.base_url is None:
            raise ValidationError({"base_url": f"{provider.label} needs a base URL."})
        return ""
    problem = url_problem(url)
    if problem:
        raise ValidationError({"base_url": problem})
    return url.removesuffix(provider.openai_prefix) if provider.openai_prefix else url


def url_problem(url: str) -> str | None:
    """What is wrong with a URL that the broker is to call for an owner; ``None``: nothing."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises when it is no number
    except ValueError:
        return "Not a URL."
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "Must begin with https:// and name a host."
    if parts.username or parts.password or parts.query or parts.fragment or "\\" in url or not _plain(url):
        return "Only scheme, host, port and path, in ASCII."
    if any(part in (".", "..") or "%" in part for part in parts.path.split("/")):
        return "No dot segments and no percent-encoding in the path."
    if settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS:
        return None
    if parts.scheme != "https":
        return "Plain HTTP only where AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS is set."
    if not may_be_public_host(parts.hostname):
        return "A private address only where AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS is set."
    return None


def _plain(url: str) -> bool:
    """Printable ASCII without spaces; ``urlsplit`` looks past line breaks and tabs."""
    return url.isascii() and url.isprintable() and " " not in url
