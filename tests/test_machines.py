"""Several machines on one PostgreSQL, behind nginx as the documents recommend it: as exact as one, though their clocks
disagree."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Any

import pytest

from .callers import Caller, Said, busiest, crowd
from .clusters import Cluster
from .front import Front, front, nginx
from .instances import Instance
from .live import eventually, server

pytestmark = pytest.mark.live

SHIFTS = (0, 30, -30)  # seconds: the clocks of two machines are a minute apart


def clock(shift: float) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": "tests.settings_wrong_clock", "TEST_SHIFT": str(shift)}


@pytest.fixture(scope="module")
def machines(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Three, with two workers each, and patient: a stream that is silent until it is cut may have to wait for that."""
    logs = tmp_path_factory.mktemp("machines")
    nginx()
    with ExitStack() as stack:
        env = instance.env | {"WEB_CONCURRENCY": "2", "AIPASSPORT_LOST_AFTER": "10", "AIPASSPORT_TRUST_PROXY": "true"}
        env["AIPASSPORT_READ_TIMEOUT"] = "120"
        yield [stack.enter_context(server(logs / f"{shift}", **env | clock(shift))) for shift in SHIFTS]


@pytest.fixture(scope="module")
def site(machines: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("nginx"), *machines) as running:
        yield running


class Ledger:
    """The calls of one grant."""

    def __init__(self, postgresql: Cluster, grant: str) -> None:
        self._postgresql, self._where = postgresql, f"FROM grants_call WHERE grant_id = '{grant}'"

    def outcomes(self) -> Counter[str]:
        return Counter(dict(self._postgresql.query(f"SELECT outcome, count(*) {self._where} GROUP BY 1")))

    def workers(self) -> int:
        return int(self._postgresql.query(f"SELECT count(DISTINCT worker) {self._where}")[0][0])


def test_a_stream_comes_through_piece_by_piece(site: Front, instance: Instance) -> None:
    _, token = instance.grant()
    stream = Caller(site, token).stream("fake-steady", max_tokens=20)
    times = [time.monotonic() for chunk in stream.chunks if chunk]
    assert len(times) > 15
    assert times[-1] - times[0] > 0.7


def test_a_crowd_on_all_machines_gets_exactly_what_is_left(
    site: Front, instance: Instance, postgresql: Cluster, upstream: Any
) -> None:
    grant, token = instance.grant("--max-requests=100", "--max-concurrency=20")
    before = len(upstream.seen)

    def work(number: int) -> list[Said]:
        caller = Caller(site, token)
        return list(caller.obey(time.monotonic() + 60, lambda: caller.ask(stream=number % 2 == 0, max_tokens=50)))

    answers = Counter(said.status for said in chain(*crowd(48, work)))
    assert answers.pop(200) == 100 == len(upstream.seen) - before
    assert set(answers) == {429}
    ledger = Ledger(postgresql, grant)
    assert ledger.outcomes() == {"ok": 100}
    assert ledger.workers() >= 4
    instance.assert_books_balance()


def test_a_budget_is_spent_by_all_machines_together_and_never_beyond(
    site: Front, instance: Instance, postgresql: Cluster, upstream: Any
) -> None:
    cap = 200_000_000  # nano-dollars
    grant, token = instance.grant("--max-cost=0.20")
    before = len(upstream.seen)
    beyond: list[int] = []

    def look() -> None:
        sql = f"SELECT spent + reserved FROM grants_allowance WHERE grant_id = '{grant}'"
        beyond.append(int(postgresql.query(sql)[0][0]) - cap)
        time.sleep(0.02)

    def work(number: int) -> list[Said]:
        caller = Caller(site, token)
        return list(caller.obey(time.monotonic() + 60, lambda: caller.ask(max_tokens=900)))

    said = list(chain(*crowd(32, work, look)))
    passed = [one for one in said if one.status == 200]
    assert max(beyond) <= 0
    used = sum(
        1_000 * one.json["usage"]["prompt_tokens"] + 10_000 * one.json["usage"]["completion_tokens"] for one in passed
    )
    assert cap * 8 // 10 < used <= cap
    spent = postgresql.query(f"SELECT spent, reserved FROM grants_allowance WHERE grant_id = '{grant}'")[0]
    assert tuple(map(int, spent)) == (used, 0)
    assert Ledger(postgresql, grant).outcomes() == {"ok": len(passed)}
    assert len(upstream.seen) - before == len(passed)
    instance.assert_books_balance()


def test_a_rate_is_one_rate_for_all_machines_whatever_their_clocks_say(
    site: Front, instance: Instance, postgresql: Cluster
) -> None:
    grant, token = instance.grant("--requests-per-minute=300")

    def work(number: int) -> list[Said]:
        return list(Caller(site, token).obey(time.monotonic() + 6))

    said = list(chain(*crowd(24, work)))
    spans = [(one.sent, one.received, 1) for one in said if one.status == 200]
    assert busiest(spans, 300 / 60) <= 50
    assert len(spans) >= 50 + 5 * 4
    assert Ledger(postgresql, grant).outcomes() == {"ok": len(spans)}


def test_after_a_revocation_has_returned_no_machine_admits_a_call_and_all_cut_their_streams(
    site: Front, instance: Instance, postgresql: Cluster
) -> None:
    grant, token = instance.grant()
    streams = [Caller(site, token).stream("fake-silent") for _ in range(12)]
    returned: list[float] = []

    def revoke() -> None:
        time.sleep(1)
        instance.manage("revoke", grant)
        returned.append(time.monotonic())

    revoking = threading.Thread(target=revoke)
    revoking.start()

    def work(number: int) -> list[Said]:
        caller, said = Caller(site, token), []
        while not returned or time.monotonic() < returned[0] + 0.5:
            said.append(caller.ask(max_tokens=10))
        return said

    said = list(chain(*crowd(16, work)))
    revoking.join()
    late = [one for one in said if one.sent > returned[0] and one.status]  # 0: nginx closed as the call set out
    assert {(one.status, one.code) for one in late} == {(401, "grant_revoked")}
    assert any(one.status == 200 for one in said)
    assert not any(stream.ends() for stream in streams)
    assert time.monotonic() - returned[0] < 8
    outcomes = eventually(lambda: not (found := Ledger(postgresql, grant).outcomes())["open"] and found)
    assert outcomes["revoked"] >= 12
    broken = {"client_gone"} if any(not one.status for one in said) else set()
    assert {outcome for outcome, count in outcomes.items() if count} <= {"ok", "revoked"} | broken
    instance.assert_books_balance()


def test_a_machine_that_is_restarted_costs_refusals_and_no_call(
    machines: list[Any], instance: Instance, postgresql: Cluster, upstream: Any, tmp_path: Any
) -> None:
    """nginx goes on with the other one; what it had passed on is answered, or refused with a time to come again."""
    grant, token = instance.grant("--max-requests=100000", "--max-concurrency=100")
    before = len(upstream.seen)
    with server(tmp_path / "log", **instance.env, AIPASSPORT_TRUST_PROXY="true") as leaving:
        with front(tmp_path, machines[0], leaving) as site:
            streams = [Caller(site, token).stream("fake-steady", max_tokens=60) for _ in range(4)]
            over = threading.Event()

            def work(number: int) -> list[Said]:
                caller, said = Caller(site, token), []
                while not over.is_set():
                    said.append(caller.ask(max_tokens=50))
                    if said[-1].status != 200:
                        time.sleep(0.1)
                return said

            def restart() -> None:
                if not over.is_set():
                    time.sleep(0.5)
                    leaving.stop()
                    time.sleep(1)
                    over.set()

            said = list(chain(*crowd(8, work, restart)))
            assert all(stream.ends() for stream in streams)
        assert leaving.process.returncode == 0
    answers = Counter(one.status for one in said)
    assert set(answers) <= {200, 503}
    assert all(one.code == "unavailable" and one.retry_after for one in said if one.status == 503)
    assert said[-1].status == 200
    assert Ledger(postgresql, grant).outcomes() == {"ok": answers[200] + len(streams)}
    assert len(upstream.seen) - before == answers[200] + len(streams)
    instance.assert_books_balance()


def test_a_token_of_a_machine_whose_clock_is_ahead_is_good_on_one_whose_clock_is_behind(
    machines: list[Any], instance: Instance
) -> None:
    _, ahead, behind = machines
    grant, _ = instance.grant()
    minted = instance.manage("issue_token", grant, "--json", **clock(30))
    token = json.loads(minted)["token"]
    assert [Caller(machine, token).ask(max_tokens=10).status for machine in (behind, ahead)] == [200, 200]


def test_a_machine_whose_clock_is_ahead_takes_no_living_ones_calls_for_lost(
    machines: list[Any], instance: Instance, postgresql: Cluster, tmp_path: Any
) -> None:
    """Heartbeats are written and read on the database's clock."""
    _, _, behind = machines
    grant, token = instance.grant()
    stream = Caller(behind, token).stream("fake-steady", max_tokens=2000)  # as long as a slow machine may need
    with server(tmp_path / "log", **instance.env | clock(60), AIPASSPORT_LOST_AFTER="10") as hasty:
        assert Caller(hasty, token).ask(max_tokens=10).status == 200
        time.sleep(1.5)  # a new worker reaps at once
        instance.manage("reap", **clock(60))
        assert Ledger(postgresql, grant).outcomes() == {"open": 1, "ok": 1}
    stream.leave()
    eventually(lambda: Ledger(postgresql, grant).outcomes() == {"client_gone": 1, "ok": 1})
