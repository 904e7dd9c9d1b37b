"""The order in which requests begin in a busy worker."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

# In a process of its own, since gevent has to be there first.
_SCRIPT = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from proxy import fairness
from proxy.fairness import Admittance

def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass

begin, order, loop = Admittance(), [], gevent.get_hub().loop

def request(name, seconds=0.012):
    begin()
    order.append((name, loop.iteration))
    busy(seconds)

def client(name, count):
    for _ in range(count):
        request(name)
"""


def run(script: str) -> Any:
    done = subprocess.run([sys.executable, "-c", _SCRIPT + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


def test_many_requests_begin_in_their_order_and_as_many_in_a_turn_as_it_has_time_for() -> None:
    order = run("gevent.joinall([gevent.spawn(request, n) for n in range(20)]); print(order)")
    assert [name for name, _ in order] == list(range(20))
    turns = [turn for _, turn in order]
    assert max(turns.count(turn) for turn in turns) in (2, 3)  # 12 ms each, 20 ms a turn


def test_a_client_that_never_pauses_does_not_starve_another_one() -> None:
    order = run("gevent.joinall([gevent.spawn(client, 'a', 40), gevent.spawn(client, 'b', 5)]); print(order)")
    names = [name for name, _ in order]
    assert len(names) - names[::-1].index("b") <= 15, names  # the last of the five


@pytest.mark.parametrize("victim", [3, 7])
def test_a_request_that_is_killed_while_it_waits_stops_nobody(victim: int) -> None:
    order = run(f"""
all = [gevent.spawn(request, n) for n in range(10)]
gevent.spawn(all[{victim}].kill)
gevent.joinall(all, timeout=10)
print([name for name, _ in order])
""")
    assert order == [number for number in range(10) if number != victim]


def test_a_quiet_worker_does_not_wait() -> None:
    order = run("[(gevent.spawn(request, n, 0).join(), gevent.sleep(0.01)) for n in range(3)]; print(order)")
    assert [name for name, _ in order] == [0, 1, 2]
