"""Reading large bodies: in a process of their own, in turns, with the same result as in place."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.providers import PROVIDERS
from proxy import bodies, dialects
from proxy.bodies import Process, Turns
from proxy.body_process import Job
from proxy.dialects import lowering, strict_json
from proxy.dialects.base import Inbound, Spooled
from proxy.exceptions import BadRequest, LimitReached, Unavailable
from proxy.inbound import Budget

from .hostile import HOSTILE, hostile
from .live import eventually

GRANT = uuid4()


def inbound(body: bytes, path: str = "/v1/chat/completions") -> Inbound:
    return Inbound("POST", path, content_type="application/json", body=body)


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Grüße"}], **more}).encode()


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.stop()


def read(process: Process, asked: Inbound, provider: str = "openai", *, spooled: bool = False) -> Any:
    job = Job(asked, provider, (), 1000, 40_000_000, spooled)
    if not spooled:
        return process.read(GRANT, job, None)
    spool = TemporaryFile()  # noqa: SIM115  the call reads it
    spool.write(asked.body)
    return process.read(GRANT, job._replace(inbound=replace(asked, body=b"")), spool)


# The process


@pytest.mark.parametrize("more", [{}, {"tools": [{"type": "function"}]}, {"max_tokens": 50, "stream": True}])
def test_a_body_means_the_same_wherever_it_is_read(process: Process, more: dict[str, Any]) -> None:
    asked = inbound(chat(**more))
    here = dialects.read(asked, PROVIDERS["openai"], (), 1000)
    assert read(process, asked) == here
    there = read(process, asked, spooled=True)
    assert isinstance(there.json, Spooled)
    assert b"".join(there.json.blocks()) == here.json
    assert len(there.json) == len(here.json or b"")
    assert replace(there, json=None) == replace(here, json=None)
    lowered = there.limited(20)
    assert b"".join(lowered.json.blocks()) == here.limited(20).json
    there.json.file.close()


@pytest.mark.parametrize("spooled", [False, True])
def test_a_refusal_is_the_same_wherever_the_body_is_read(process: Process, spooled: bool) -> None:
    asked = inbound(chat(surprise=1))
    with pytest.raises(BadRequest) as here:
        dialects.read(asked, PROVIDERS["openai"], (), 1000)
    with pytest.raises(BadRequest) as there:
        read(process, asked, spooled=spooled)
    assert vars(there.value) == vars(here.value)


def test_a_body_that_takes_too_long_is_refused_and_the_next_one_is_read(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "CPU_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(BadRequest) as refused:
        read(process, inbound(hostile("floats", 16_000_000)), spooled=True)
    assert (refused.value.status, refused.value.code) == (413, "body_too_complex")
    assert time.monotonic() - began < 15
    assert read(process, inbound(chat())).model == "gpt-4o"


def test_a_body_that_grows_when_it_is_written_anew_is_held_to_the_limit(process: Process) -> None:
    body = b'{"model":"gpt-4o","messages":[],"metadata":[' + b"1E15," * 10_000 + b"1]}"
    job = Job(inbound(b""), "openai", (), None, len(body), True)
    with TemporaryFile() as spool, pytest.raises(BadRequest) as refused:
        spool.write(body)
        process.read(GRANT, job, spool)
    assert refused.value.code == "body_too_large"


def test_a_process_that_ended_is_replaced(process: Process) -> None:
    read(process, inbound(chat()))
    first = process.pid
    os.kill(first, signal.SIGKILL)
    time.sleep(0.1)
    assert read(process, inbound(chat())).model == "gpt-4o"
    assert process.pid != first


def test_a_process_that_is_ended_at_work_is_told_as_passing(process: Process) -> None:
    body = hostile("integers", 32_000_000)
    read(process, inbound(chat()))
    killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(Unavailable) as refused:
        read(process, inbound(body), spooled=True)
    assert (refused.value.status, refused.value.retry_after) == (503, 2)
    assert read(process, inbound(chat())).model == "gpt-4o"


def test_the_process_has_no_secrets(process: Process) -> None:
    read(process, inbound(chat()))
    given = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert [name.partition(b"=")[0] for name in given.split(b"\0") if name] == [b"PYTHONPATH"]


def test_the_process_ends_with_the_socket_of_its_worker(process: Process) -> None:
    read(process, inbound(chat()))
    pid, process.pid = process.pid, 0
    assert process._sock is not None
    process._sock.close()
    eventually(lambda: os.waitpid(pid, os.WNOHANG)[0])


@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_read_in_place_is_quickly_read(what: str) -> None:
    """A body of the largest size that counts as cheap. Three tries: the machine may be busy."""
    size = max(size for size in (16_000, 127_000) if strict_json.is_cheap(hostile(what, size)))
    asked, took = inbound(hostile(what, size)), []
    for _ in range(3):
        began = time.thread_time()
        dialects.read(asked, PROVIDERS["openai"], (), 1000)
        took.append(time.thread_time() - began)
    assert min(took) < 0.04


# Turns and budgets


def test_bodies_of_one_grant_do_not_hold_up_those_of_another() -> None:
    turns, order = Turns(), []
    one, other = uuid4(), uuid4()
    turns.take(one)

    def wait(grant: Any, name: str) -> None:
        turns.take(grant)
        order.append(name)
        turns.give()

    threads = []
    for grant, name in [(one, "a1"), (one, "a2"), (one, "a3"), (other, "b1")]:
        threads.append(threading.Thread(target=wait, args=(grant, name)))
        threads[-1].start()
        eventually(lambda: turns.waiting == len(threads))
    turns.give()
    for thread in threads:
        thread.join(5)
    assert order == ["a1", "b1", "a2", "a3"]
    assert not turns._busy
    assert not turns._queues


def test_too_many_waiting_bodies_are_refused_by_grant_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_WAITING_GRANT", 1)
    monkeypatch.setattr(bodies, "_WAITING", 2)
    monkeypatch.setattr(bodies, "_TURN_SECONDS", 0.5)
    turns, ends = Turns(), []
    turns.take(GRANT)

    def wait() -> None:
        try:
            turns.take(GRANT)
        except Unavailable as error:
            ends.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: turns.waiting == 1)
    with pytest.raises(LimitReached) as of_grant:
        turns.take(GRANT)
    assert (of_grant.value.status, of_grant.value.retry_after) == (429, 2)
    turns.waiting = 2
    with pytest.raises(Unavailable) as of_all:
        turns.take(uuid4())
    assert (of_all.value.status, of_all.value.retry_after) == (503, 2)
    turns.waiting = 1
    waiting.join(5)
    assert len(ends) == 1
    assert not turns._queues, "who waited too long is gone"
    turns.give()
    turns.take(GRANT)


def test_bytes_in_flight_are_bounded_by_grant_and_in_all(settings: Any) -> None:
    settings.AIPASSPORT_MAX_BODY_BYTES, settings.AIPASSPORT_MAX_BODY_BYTES_IN_FLIGHT = 10, 100
    budget, grants = Budget(), [uuid4() for _ in range(5)]
    budget.take(grants[0], 25)
    with pytest.raises(LimitReached) as of_grant:
        budget.take(grants[0], 1)
    assert (of_grant.value.status, of_grant.value.code, of_grant.value.retry_after) == (429, "too_many_body_bytes", 2)
    for grant in grants[1:4]:
        budget.take(grant, 25)
    with pytest.raises(Unavailable):
        budget.take(grants[4], 1)
    budget.give_back(grants[0], 25)
    budget.take(grants[4], 25)
    for grant in grants[1:]:
        budget.give_back(grant, 25)
    assert budget.taken == 0
    assert not budget._by_grant


def test_one_body_of_the_largest_size_is_always_let_in(settings: Any) -> None:
    settings.AIPASSPORT_MAX_BODY_BYTES, settings.AIPASSPORT_MAX_BODY_BYTES_IN_FLIGHT = 10, 5
    Budget().take(GRANT, 10)


# A lower output limit


NAMES = st.sampled_from(["max_tokens", "budget_tokens", "thinking", "metadata", '"max_tokens":1', "x"])
VALUES = st.recursive(
    st.integers(0, 9999) | st.text(max_size=8) | NAMES, lambda inner: st.dictionaries(NAMES, inner, max_size=3)
)


@given(
    st.dictionaries(st.sampled_from(["metadata", "messages", "x", 'budget_tokens":7,"']), VALUES, max_size=3),
    st.integers(1, 100_000),
    st.none() | st.dictionaries(NAMES, VALUES, max_size=3),
    st.integers(1, 100_000),
)
def test_only_the_limit_and_its_budget_change_whatever_else_is_in_the_body(
    rest: dict[str, Any], asked: int, thinking: dict[str, Any] | None, limit: int
) -> None:
    body: dict[str, Any] = {"max_tokens": asked, **rest} | ({} if thinking is None else {"thinking": thinking})
    paths = (("max_tokens",),)
    names = lowering.put_last(body, paths)
    data = strict_json.dumps(body)
    at = lowering.tail_of(data, names)
    lowered = strict_json.loads(data[:at] + lowering.lower(data[at:], paths, asked, limit))
    budget = lowering.budget_of(body)
    assert lowered.pop("max_tokens") == limit
    if budget is not None:
        assert lowered["thinking"]["budget_tokens"] == min(budget, max(1024, budget * limit // asked))
        lowered["thinking"]["budget_tokens"] = budget
    assert lowered == {name: value for name, value in body.items() if name != "max_tokens"}


@pytest.mark.slow
def test_a_lower_limit_costs_nothing_in_a_large_body() -> None:
    call = dialects.read(inbound(hostile("keys", 2_000_000)), PROVIDERS["openai"], (), 1000)
    began = time.thread_time()
    assert call.limited(10).demand.limit == 10
    assert time.thread_time() - began < 0.02
