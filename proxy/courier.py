"""Takes what stands in the outbox to its owners: by e-mail, or as a signed webhook. At least once, never in the way.

Webhooks are those of the Standard Webhooks specification 1.0: headers ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature``. They go out over the guarded connections of ``upstream.py``, under the rules of base URLs.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import smtplib
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import BadHeaderError, EmailMessage
from django.utils import timezone

from grants import crypto, letters, notices
from grants.models import Notice, Preferences
from grants.pace import release_connection

from .dialects.base import UpstreamCall
from .exceptions import UpstreamError, UpstreamTimeout
from .upstream import Exchange

logger = logging.getLogger("aipassport.courier")

_DEADLINE = 20.0  # seconds for a webhook's whole answer; well within Notice's lease
_ROUND = 100
_GONE = 410


class Undelivered(Exception):
    """It did not arrive. The message is for the owner; ``final``: another attempt is of no use."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def deliver() -> int:
    """Send what is due until nothing is. Returns how many attempts were made."""
    attempts = 0
    while due := _due():
        for notice in due:
            if notice.claim(timezone.now()):
                attempts += 1
                _attempt(notice)
    return attempts


def _due() -> list[Notice]:
    """One for each owner and channel: who has many waiting, or a webhook that hangs, does not keep the others back."""
    first: dict[tuple[int, str], Notice] = {}
    for notice in Notice.objects.due(timezone.now()).select_related("user__preferences")[:_ROUND]:
        first.setdefault((notice.user_id, notice.channel), notice)
    return list(first.values())


def _attempt(notice: Notice) -> None:
    release_connection()
    try:
        if not notice.user.is_active or notice.channel not in notices.channels_of(notices.preferences_of(notice.user)):
            raise Undelivered("This owner is not told anything this way any more.", final=True)
        _CHANNELS[Notice.Channel(notice.channel)](notice)
    except Undelivered as error:
        notice.failed(timezone.now(), str(error), final=error.final)
    except Exception:
        logger.exception("notice %s could not be sent", notice.pk)
        notice.failed(timezone.now(), "The broker could not send it; its log says why.")
    else:
        notice.delivered(timezone.now())


# E-mail


def _by_email(notice: Notice) -> None:
    zone = notices.preferences_of(notice.user).time_zone
    subject = letters.SUBJECT_PREFIX + letters.letter(notice, time_zone=zone).subject
    host = urlsplit(settings.AIPASSPORT_URL).hostname
    # the same id with every attempt, and no answers from machines (RFC 3834)
    headers = {"Message-ID": f"<{notice.pk}@{host}>", "Auto-Submitted": "auto-generated"}
    text = letters.mail_text(notice, time_zone=zone)
    message = EmailMessage(subject, text, to=[notice.user.email], headers=headers)
    try:
        message.send()
    except BadHeaderError as error:
        raise Undelivered("The address or the subject is not one line.", final=True) from error
    except (smtplib.SMTPException, OSError) as error:
        logger.warning("notice %s: the mail server did not take it: %s", notice.pk, type(error).__name__)
        raise Undelivered("The mail server did not take it.") from error


# Webhooks


def _by_webhook(notice: Notice) -> None:
    preferences = notice.user.preferences
    body = webhook_body(notice)
    headers = signed(preferences, str(notice.pk), int(time.time()), body)
    call = UpstreamCall(route="webhook", method="POST", path="", headers=headers, json=body)
    status = _status_of(preferences.webhook_url, call)
    if status == _GONE:
        raise Undelivered("The webhook says that it is gone (HTTP 410).", final=True)
    if 300 <= status < 400:
        raise Undelivered(f"The webhook answered with a redirect (HTTP {status}), which is not followed.")
    if not 200 <= status < 300:
        raise Undelivered(f"The webhook answered with HTTP {status}.")


def webhook_body(notice: Notice) -> bytes:
    """The same bytes with every attempt."""
    body = {
        "id": str(notice.pk),
        "type": notice.event,
        "timestamp": notice.created_at.isoformat(),
        "data": notice.payload,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def signed(preferences: Preferences, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a webhook: HMAC-SHA256 over ``id.timestamp.body``. ``timestamp`` in seconds since the epoch.

    Raises:
        Undelivered: there is no secret to sign with.
    """
    try:
        key = preferences.signing_key()
    except crypto.DecryptionError as error:
        raise Undelivered("The webhook’s secret cannot be read; make a new one.", final=True) from error
    if len(key) < 24:
        raise Undelivered("The webhook has no secret; make a new one.", final=True)
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _status_of(url: str, call: UpstreamCall) -> int:
    """The HTTP status of the webhook's answer; not a byte of its body is read.

    Raises:
        Undelivered: none came. Why, is said without telling a closed port from a private address.
    """
    exchange = Exchange()
    deadline = threading.Timer(_DEADLINE, exchange.abort)
    deadline.daemon = True
    deadline.start()
    try:
        exchange.send(url, {}, call)
        return exchange.status
    except UpstreamTimeout as error:
        raise Undelivered("The webhook did not answer in time.") from error
    except UpstreamError as error:
        if error.connected:
            raise Undelivered("The webhook broke the connection, or took too long.") from error
        raise Undelivered("No trusted connection to a public address of the webhook could be made.") from error
    finally:
        deadline.cancel()
        exchange.close()


_CHANNELS: dict[Notice.Channel, Callable[[Notice], None]] = {
    Notice.Channel.EMAIL: _by_email,
    Notice.Channel.WEBHOOK: _by_webhook,
}
