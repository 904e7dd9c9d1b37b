"""When a key was last used, and with what error: written out of the relay's way, for all keys at once."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from grants.models import Actor, KeyUse, ProviderKey
from proxy.watch import INTERVAL, Watch

REFUSED = "The provider refused this key (HTTP 401)."


@pytest.fixture
def keys(alice: Any, by: Actor) -> list[ProviderKey]:
    return [
        ProviderKey.add(owner=alice, provider="sandbox", label=f"Sandbox {number}", secret="", by=by)
        for number in range(20)
    ]


def statements(act: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        act()
    return [
        query["sql"] for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT"))
    ]


def used() -> int:
    return ProviderKey.objects.filter(last_used_at__isnull=False).count()


@pytest.mark.django_db
def test_all_keys_are_written_with_one_update(keys: list[ProviderKey]) -> None:
    watch = Watch()
    for key in keys:
        watch.used(key.pk)
    took = statements(lambda: watch._write_key_use(100.0))
    assert [sql.split()[0] for sql in took] == ["SELECT", "UPDATE"]
    assert used() == len(keys)
    assert not ProviderKey.objects.failing().exists()


@pytest.mark.django_db(transaction=True)
def test_whatever_there_is_to_write_is_one_transaction(keys: list[ProviderKey]) -> None:
    watch = Watch()
    for number, key in enumerate(keys):
        watch.used(key.pk, f"Error {number}." if number % 4 == 0 else "")
    with CaptureQueriesContext(connection) as captured:
        watch._write_key_use(100.0)
    assert sum(query["sql"].startswith("BEGIN") for query in captured) == 1
    assert ProviderKey.objects.failing().count() == 5
    assert {key.last_error for key in ProviderKey.objects.failing()} == {
        f"Error {number}." for number in range(0, 20, 4)
    }


@pytest.mark.django_db
def test_a_use_is_written_every_few_seconds_and_an_error_at_once(keys: list[ProviderKey]) -> None:
    watch, now = Watch(), 100.0
    watch.used(keys[0].pk)
    watch._write_key_use(now)
    assert used() == 1  # the first one after a while waits for nothing
    watch.used(keys[1].pk)
    watch._write_key_use(now + INTERVAL)
    assert used() == 1
    watch.used(keys[2].pk, REFUSED)
    watch._write_key_use(now + 2 * INTERVAL)
    assert list(ProviderKey.objects.failing()) == [keys[2]]
    assert used() == 2
    watch._write_key_use(now + 5.1)
    assert used() == 3
    assert statements(lambda: watch._write_key_use(now + 11)) == []


@pytest.mark.django_db
def test_what_the_database_refuses_is_kept_for_the_next_time(keys: list[ProviderKey]) -> None:
    watch = Watch()
    watch.used(keys[0].pk)
    watch.used(keys[1].pk, REFUSED)

    def away(*args: Any) -> Any:
        watch.used(keys[1].pk)  # meanwhile
        raise OperationalError("away")

    with connection.execute_wrapper(away), pytest.raises(OperationalError):
        watch._write_key_use(100.0)
    watch._write_key_use(100.5)
    assert used() == 2
    assert [key.last_error for key in ProviderKey.objects.failing()] == [REFUSED]


@pytest.mark.django_db
def test_a_use_from_before_another_workers_error_does_not_hide_it(keys: list[ProviderKey]) -> None:
    early = timezone.now() - dt.timedelta(seconds=3)
    ProviderKey.objects.note_use({keys[0].pk: KeyUse(timezone.now(), REFUSED)})
    ProviderKey.objects.note_use({keys[0].pk: KeyUse(early), keys[1].pk: KeyUse(early)})
    assert list(ProviderKey.objects.failing()) == [keys[0]]
    assert used() == 2
    ProviderKey.objects.note_use({keys[0].pk: KeyUse(timezone.now())})
    assert not ProviderKey.objects.failing().exists()


@pytest.mark.django_db(transaction=True)
def test_workers_that_write_the_same_keys_in_any_order_do_not_block_each_other_for_ever(
    keys: list[ProviderKey],
) -> None:
    failed: list[Exception] = []

    def write(order: list[ProviderKey]) -> None:
        try:
            for _ in range(10):
                ProviderKey.objects.note_use(
                    {key.pk: KeyUse(timezone.now(), f"{number % 3}") for number, key in enumerate(order)}
                )
        except DatabaseError as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(order,)) for order in (keys, keys[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
