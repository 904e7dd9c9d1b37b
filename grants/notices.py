"""What owners are told, and when: each event once, written into the outbox. Sending it is ``proxy/courier.py``'s.

Nothing here is on the way of a call: the relay notes which grants were used, and a thread of its own hands them to
:func:`consider` a moment later. What a worker that died had noted, the next call or refusal of that grant brings up.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Set
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Exists, F, OuterRef, Q
from django.urls import reverse
from django.utils import timezone

from .clock import day_number, moment, uuid7
from .limits import Limit
from .models import Allowance, Grant, Notice, Preferences, ProviderKey
from .money import dollars
from .usage import limits_in_force

Event = Notice.Event

THRESHOLDS = (100, 80, 50)  # percent; none is lower than what _half_used() lets through
REQUESTS_EVERY = dt.timedelta(hours=1)
_MOST_OWNERS = 500  # told of one request
_BATCH = 200

# The limits that can be used up, and what the relay answers where one is.
REFUSALS = {
    "request_limit_reached": "max_requests",
    "cost_limit_reached": "max_cost",
    "daily_cost_limit_reached": "max_cost_per_day",
    "monthly_cost_limit_reached": "max_cost_per_month",
}
_FOR_GOOD = ("max_requests", "max_cost")

# Of money a little is always left that pays for no call: refused calls on a limit used so far mean that it is used up.
_AS_GOOD_AS_USED = 80  # percent


def consider(touched: Mapping[UUID, Set[str]]) -> None:
    """Put into the outbox what is due for these grants: thresholds, exhaustion, closure.

    ``touched``: grant → codes of refusals that waiting does not help (see :data:`REFUSALS`), since it was last here.
    """
    grants = list(touched)
    for start in range(0, len(grants), _BATCH):
        rows = _limited().filter(grant__in=grants[start : start + _BATCH])
        Notice.objects.add(notice for allowance in rows for notice in _of_grant(allowance, touched[allowance.grant_id]))


def _limited() -> Any:
    """The counted rows of grants in force that may have something to tell: few, of all that are busy."""
    in_force = Q(grant__approved_at__isnull=False, grant__revoked_at=None, grant__owner__is_active=True)
    rows = Allowance.objects.filter(in_force, Q(closed_at__isnull=False) | _half_used())
    return rows.select_related("grant__owner__preferences")


def _half_used() -> Q:
    """Half of a limit, or more: no threshold is lower, and a refusal says nothing of a grant that has used less.

    What is left is compared with what is used: twice of either may not fit into 64 bits. Whether the day and the month
    are still today's is looked at later.
    """
    settled = F("requests") - F("in_flight")
    found = Q(requests__gte=F("in_flight") + F("max_requests") - settled)
    for column, limit in (
        ("spent", "max_cost"),
        ("day_spent", "max_cost_per_day"),
        ("month_spent", "max_cost_per_month"),
    ):
        found |= Q(**{f"{column}__gte": F(limit) - F(column)})
    return found


def _of_grant(allowance: Allowance, refused: Set[str]) -> Iterator[Notice]:
    grant = allowance.grant
    owner = preferences_of(grant.owner)
    about = {"grant": str(grant.pk), "app_name": grant.app_name, "url": _desk("grants_grant_change", grant.pk)}
    if allowance.closed_at is not None:
        closed = {"closed_at": moment(allowance.closed_at).isoformat()}
        yield from _to(owner, Event.CLOSED, f"{grant.pk}:closed:{allowance.closed_at}", about | closed)
    out_of = {REFUSALS[code] for code in refused if code in REFUSALS}
    for name, limit in limits_in_force(allowance).items():
        if name not in REFUSALS.values():
            continue
        used = limit.used - allowance.in_flight if name == "max_requests" else limit.used  # some may be given back
        percent = _percent(used, limit.allowed, refused=name in out_of)
        if not percent:
            continue
        event = Event.EXHAUSTED if percent == 100 and name in _FOR_GOOD else Event.THRESHOLD
        once = f"{grant.pk}:{name}:{limit.allowed}:{_period(limit, allowance.time_zone)}:{percent}"
        yield from _to(owner, event, once, about | _of_limit(name, limit, used, percent))


def _percent(used: int, allowed: int, *, refused: bool) -> int:
    """The highest threshold that is reached; 0 for none."""
    if refused and used * 100 >= allowed * _AS_GOOD_AS_USED:
        return 100
    return next((percent for percent in THRESHOLDS if used * 100 >= allowed * percent), 0)


def _period(limit: Limit, zone: str) -> int:
    """The last day that a limit's use counts for, as yyyymmdd; 0 where it counts for good."""
    return day_number(moment(limit.resets_at - 1), zone) if limit.resets_at else 0


def _of_limit(name: str, limit: Limit, used: int, percent: int) -> dict[str, Any]:
    """A limit as it stands: money in dollars, as everywhere outside."""
    money = name != "max_requests"
    return {
        "limit": name,
        "unit": "dollars" if money else "requests",
        "percent": percent,
        "used": dollars(used) if money else used,
        "allowed": dollars(limit.allowed) if money else limit.allowed,
        "resets_at": moment(limit.resets_at).isoformat() if limit.resets_at else None,
    }


def keys_rejected(errors: Mapping[UUID, str]) -> None:
    """The providers refused these keys: their owners are told, once a day while it goes on. ``errors``: of ours."""
    keys = ProviderKey.objects.filter(pk__in=list(errors), disabled_at=None, owner__is_active=True)
    Notice.objects.add(
        notice for key in keys.select_related("owner__preferences") for notice in _of_key(key, errors[key.pk])
    )


def _of_key(key: ProviderKey, error: str) -> Iterator[Notice]:
    owner = preferences_of(key.owner)
    today = day_number(timezone.now(), owner.time_zone)
    payload = {
        "provider_key": str(key.pk),
        "label": key.label,
        "provider": key.provider,
        "error": error[:200],
        "url": _desk("grants_providerkey_change", key.pk),
    }
    return _to(owner, Event.KEY_REJECTED, f"{key.pk}:rejected:{today}", payload)


def request_waiting(grant: Grant) -> None:
    """An app asks for a grant: whoever could give it is told, at most once an hour, and how many wait by then.

    Nobody owns a request, so all active owners with an enabled key of that provider are told. Strangers file
    requests: without the hour, anybody could fill owners' mailboxes.
    """
    now = timezone.now()
    holders = Exists(ProviderKey.objects.enabled().filter(owner=OuterRef("pk"), provider=grant.provider))
    lately = Notice.objects.filter(
        user=OuterRef("pk"), event=Event.REQUEST_WAITING, created_at__gt=now - REQUESTS_EVERY
    )
    owners = get_user_model().objects.filter(holders, ~Exists(lately), is_active=True, is_staff=True)
    owners = owners.select_related("preferences").order_by("pk")[:_MOST_OWNERS]
    payload = {
        "grant": str(grant.pk),
        "app_name": grant.app_name,
        "provider": grant.provider,
        "waiting": Grant.objects.pending().filter(provider=grant.provider).count(),
        "url": grant.consent_url,
    }
    once = f"requests:{now:%Y%m%d%H}"
    Notice.objects.add(
        notice for owner in owners for notice in _to(preferences_of(owner), Event.REQUEST_WAITING, once, payload)
    )


def send_test(user: Any) -> list[str]:
    """Put a test into the outbox for every channel of an owner's. Returns those; none where this minute had one."""
    notices = list(_to(Preferences.of(user), Event.TEST, f"test:{timezone.now():%Y%m%d%H%M}", {"url": _desk("index")}))
    Notice.objects.add(notices)
    stored = Notice.objects.filter(pk__in=[notice.pk for notice in notices])
    return sorted(stored.values_list("channel", flat=True))


def channels_of(owner: Preferences) -> list[str]:
    """How an owner can be told anything at the moment."""
    email = settings.AIPASSPORT_SENDS_EMAIL and owner.by_email and owner.email
    open_to = {Notice.Channel.EMAIL: bool(email), Notice.Channel.WEBHOOK: bool(owner.webhook_url)}
    return [str(channel) for channel, is_open in open_to.items() if is_open]


def _to(owner: Preferences, event: str, once: str, payload: dict[str, Any]) -> Iterator[Notice]:
    for channel in channels_of(owner):
        yield Notice(id=uuid7(), user=owner.user, event=event, channel=channel, once=once, payload=payload)


def preferences_of(user: Any) -> Preferences:
    """Like :meth:`Preferences.of`, for a user that was just read together with them."""
    return getattr(user, "preferences", None) or Preferences(user=user)


def _desk(name: str, *args: Any) -> str:
    return f"{settings.AIPASSPORT_URL}{reverse(f'admin:{name}', args=args)}"
