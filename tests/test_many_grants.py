"""What owners and superusers look at, where there are many grants: led by an index, not by a look at each of them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from grants.models import Actor, Grant, ProviderKey

pytestmark = pytest.mark.django_db

MANY = 4000


@pytest.fixture
def many(alice: Any, bob: Any, by: Actor) -> None:
    """A quarter are Alice's; of all, one in 40 waits to be decided."""
    keys = [
        ProviderKey.add(owner=user, provider="sandbox", label=user.username, secret="", by=by) for user in (alice, bob)
    ]
    now, grants = timezone.now(), []
    for number in range(MANY):
        grant = Grant(provider="sandbox", app_name=f"App {number}", created_at=now - dt.timedelta(minutes=number))
        if number % 40 == 0:
            grant.request_expires_at = now + dt.timedelta(minutes=number % 7 - 3)
        else:
            grant.provider_key = keys[number % 4 > 0]
            grant.owner, grant.approved_at = grant.provider_key.owner, grant.created_at
            grant.expires_at = now + dt.timedelta(minutes=number % 97 - 90)
        grants.append(grant)
    Grant.objects.bulk_create(grants, batch_size=500)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE grants_grant")


LED = {
    "grant_owner_walk": lambda user, root: Grant.objects.owned_by(user).order_by("pk").values_list("pk")[:50],
    "grant_newest": lambda user, root: Grant.objects.owned_by(root).order_by("-created_at", "-pk")[:50],
    "grant_pending": lambda user, root: Grant.objects.pending().order_by().values("pk"),  # as count() does
    "grant_live": lambda user, root: Grant.objects.owned_by(user).live().order_by("expires_at")[:8],
}


@pytest.mark.parametrize("index", LED)
def test_every_list_of_grants_is_led_by_its_index(index: str, many: None, alice: Any, root: Any) -> None:
    plan = LED[index](alice, root).explain()
    assert re.search(rf"\b{index}\b", plan)
    assert "TEMP B-TREE FOR ORDER BY" not in plan


def test_the_indexes_change_nothing_of_what_is_found(many: None, alice: Any) -> None:
    now, grants = timezone.now(), list(Grant.objects.all())
    assert Grant.objects.pending().count() == sum(grant.status == "pending" for grant in grants) > 0
    live = sum(
        grant.owner_id == alice.pk and grant.approved_at is not None and grant.expires_at > now for grant in grants
    )
    assert Grant.objects.owned_by(alice).live().count() == live > 0
