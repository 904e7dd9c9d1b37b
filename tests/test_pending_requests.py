"""The list of pending requests while strangers fill it: they displace nobody but themselves."""

from __future__ import annotations

import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from grants.models import Actor, AuditEvent, Grant, ProviderKey
from grants.models import pending as bounds
from grants.networks import block_of, host_of, region_of
from tests.api import ask
from tests.conftest import terms

pytestmark = pytest.mark.django_db

APP = "192.0.2.1"
TOTAL, PER_NETWORK = 40, 10


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_PENDING_REQUESTS", TOTAL)
    monkeypatch.setattr(bounds, "MAX_PENDING_PER_NETWORK", PER_NETWORK)


def file(address: str, name: str = "Flood") -> tuple[Grant, str]:
    return Grant.request(provider="sandbox", terms=terms(), app_name=name, by=Actor("app", None, address))


def flood(addresses: Any) -> int:
    """File a request from each; returns how many were accepted."""
    accepted = 0
    for address in addresses:
        try:
            file(str(address))
        except ValidationError:
            continue
        accepted += 1
    return accepted


def addresses(first: str, number: int, apart: int) -> list[str]:
    return [str(ip_address(first) + n * apart) for n in range(number)]


def is_pending(grant: Grant) -> bool:
    return Grant.objects.pending().filter(pk=grant.pk).exists()


BLOCK6 = addresses("2001:db8::1", 60, 2**64)  # /64s of one /48
REGION6 = addresses("2001:db8::1", 60, 2**80)  # /48s of one /32
BLOCKS4 = addresses("198.51.0.1", 60, 256)  # /24s of one /16


@pytest.mark.parametrize(
    ("address", "host", "block", "region"),
    [
        ("198.51.100.7", "198.51.100.7", "198.51.100.0/24", "198.51.0.0/16"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8::/32"),
        (None, "", "", ""),
    ],
)
def test_the_networks_of_an_address(address: str | None, host: str, block: str, region: str) -> None:
    assert (host_of(address), block_of(address), region_of(block_of(address))) == (host, block, region)


@pytest.mark.usefixtures("small")
def test_one_block_files_its_share_and_real_apps_ask_from_elsewhere() -> None:
    assert flood(BLOCK6) == PER_NETWORK
    for n in range(5):
        assert is_pending(file(f"192.0.2.{n}", "Notebook")[0])


@pytest.mark.usefixtures("small")
def test_the_api_tells_a_flooding_network_to_wait_and_serves_another(settings: Any) -> None:
    def post(address: str) -> Any:
        return Client(REMOTE_ADDR=address).post("/api/grant-requests/", ask(), content_type="application/json")

    statuses = [post(address).status_code for address in BLOCK6[:30]]
    assert statuses == [201] * PER_NETWORK + [429] * (30 - PER_NETWORK)
    refused = post(BLOCK6[0])
    assert refused.json()["error"]["code"] == "too_many_pending_requests"
    assert "your network" in refused.json()["error"]["message"]
    assert int(refused.headers["Retry-After"]) > 0
    assert post(APP).status_code == 201


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("flooding", [REGION6, BLOCKS4])
def test_a_region_that_filled_the_list_with_many_blocks_makes_room_for_others(flooding: list[str]) -> None:
    assert flood(flooding) == TOTAL
    grants = [file(f"192.0.2.{n}", "Notebook")[0] for n in range(5)]
    assert all(map(is_pending, grants))
    assert Grant.objects.pending().count() == TOTAL
    assert flood(flooding) == 0
    assert all(map(is_pending, grants))


@pytest.mark.usefixtures("small")
def test_the_busiest_network_gives_way_and_quiet_ones_keep_their_requests() -> None:
    quiet = [file(f"10.{n}.0.1")[0] for n in range(5)]
    busy = [file("198.51.100.1")[0] for _ in range(10)]
    flood(f"172.{n // 5}.0.1" for n in range(25))
    for n in range(4):
        file(f"192.{n}.2.1", "Notebook")
    assert [is_pending(grant) for grant in busy] == [False] * 4 + [True] * 6  # the oldest go first
    assert all(map(is_pending, quiet))


@pytest.mark.usefixtures("small")
def test_a_network_never_displaces_another_that_is_less_busy() -> None:
    before = [file(f"10.{n}.{m}.1")[0] for n in range(10) for m in range(3)]
    flood([APP] * 9)
    file("192.0.3.1")
    assert Grant.objects.pending().count() == TOTAL
    assert flood([APP] * 5) == 0
    assert flood(["192.0.4.1", "192.0.3.1"]) == 2  # these take the places of two from 192.0.2.0/24
    assert all(map(is_pending, before))


@pytest.mark.usefixtures("small")
def test_where_all_networks_are_equally_busy_none_gives_way() -> None:
    grants = [file(f"{n}.0.0.1")[0] for n in range(10, 10 + TOTAL)]
    with pytest.raises(ValidationError):
        file(APP)
    assert all(map(is_pending, grants))


@pytest.mark.usefixtures("small")
def test_a_request_that_an_owner_has_opened_is_not_displaced(client: Client, alice: Any) -> None:
    opened, _ = file(REGION6[0])
    client.force_login(alice)
    assert client.get(f"/consent/{opened.pk}/").status_code == 200
    flood(REGION6[1:])
    for n in range(TOTAL // 2):
        file(f"{n + 10}.0.0.1")
    assert is_pending(opened)
    first = Grant.objects.get(pk=opened.pk).opened_at
    client.get(f"/consent/{opened.pk}/")
    assert Grant.objects.get(pk=opened.pk).opened_at == first


@pytest.mark.usefixtures("small")
def test_a_displaced_request_has_expired_for_its_app_and_is_in_the_trail(sandbox_key: ProviderKey, by: Actor) -> None:
    oldest, secret = file(REGION6[0])
    flood(REGION6[1:])
    file(APP)
    body = {"grant": str(oldest.pk), "request_secret": secret}
    answer = Client().post("/api/tokens/", body, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]) == (400, "expired_token")
    assert not oldest.approve(key=sandbox_key, terms=oldest.terms, by=by)
    event = AuditEvent.objects.get(action="grant.displaced")
    assert (event.grant, event.via, event.detail) == (oldest, "system", {"app": "Flood"})


@pytest.mark.usefixtures("small")
def test_requests_that_have_ended_take_no_place() -> None:
    flood(REGION6)
    Grant.objects.update(request_expires_at=timezone.now() - timedelta(seconds=1))
    assert flood(BLOCK6) == PER_NETWORK
    assert not AuditEvent.objects.filter(action="grant.displaced").exists()


@pytest.mark.usefixtures("small")
def test_requests_without_an_address_are_a_network_of_their_own() -> None:
    by = Actor("app", None, None)
    for _ in range(PER_NETWORK):
        Grant.request(provider="sandbox", terms=terms(), app_name="Local", by=by)
    with pytest.raises(ValidationError):
        Grant.request(provider="sandbox", terms=terms(), app_name="Local", by=by)
    assert flood(REGION6) > 0


def test_displacing_makes_shares_more_even_so_that_floods_end_by_themselves() -> None:
    """Whatever order strangers choose: with 200 blocks in 8 regions, they fill the list and displace few."""
    chance = random.Random(5)
    blocks = [f"10.{region}.{block}.0/24" for region in range(8) for block in range(25)]
    counts: Counter[str] = Counter(dict.fromkeys(blocks[:25], 1000 // 25))
    displaced = 0
    for _ in range(8_000):
        own = chance.choice(blocks)
        victim = bounds.yields_to(own, counts)
        if victim is None:
            continue
        regions: Counter[str] = Counter()
        counts[own] += 1
        counts[victim] -= 1
        counts += Counter()
        for block, count in counts.items():
            regions[region_of(block)] += count
        if region_of(own) == region_of(victim):
            assert counts[victim] >= counts[own]
        else:
            assert regions[region_of(victim)] >= regions[region_of(own)]
        displaced += 1
    assert 875 <= displaced < 5000
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("small")
def test_many_requests_at_once_pass_the_bound_by_no_more_than_the_connections() -> None:
    flood(REGION6[:TOTAL])
    largest = 0

    def attempt(n: int) -> bool:
        nonlocal largest
        try:
            file(f"{n % 60 + 10}.{n}.0.1")
        except ValidationError:
            return False
        else:
            return True
        finally:
            largest = max(largest, Grant.objects.pending().count())
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(attempt, range(120)))
    assert accepted >= TOTAL // 2
    assert largest <= TOTAL + 8
    assert AuditEvent.objects.filter(action="grant.displaced").count() >= accepted - 8


def test_asking_costs_the_same_however_many_have_ever_asked() -> None:
    with CaptureQueriesContext(connection) as few:
        file(APP)
    now = timezone.now()
    ended = now - timedelta(days=1)
    past = [Grant(provider="sandbox", app_name="Old", request_expires_at=ended, created_at=ended) for _ in range(3000)]
    Grant.objects.bulk_create(past, batch_size=500)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE grants_grant")
    with CaptureQueriesContext(connection) as many:
        file(APP)
    assert len(many) == len(few)
    count = next(query["sql"] for query in many if "COUNT" in query["sql"] and "request_network" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + count)
        plan = str(cursor.fetchall())
    assert re.search(r"\bgrant_pending\b", plan)
