"""SQLite's own troubles: somebody else holds its lock, or there is no more room on its disk."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .callers import Caller, Said
from .instances import Instance
from .live import eventually, server

pytestmark = pytest.mark.live


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def instance(path: Path, upstream: Any) -> Instance:
    return Instance(f"sqlite:///{path}", upstream)


def calls(path: Path) -> Counter[str]:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return Counter(outcome for (outcome,) in connection.execute("SELECT outcome FROM grants_call"))


def test_a_foreign_lock_of_three_seconds_stops_no_stream(
    path: Path, instance: Instance, upstream: Any, tmp_path: Path
) -> None:
    """Streams that run go on without a stall; calls that come wait, and then pass."""
    _, token = instance.grant("--max-cost=10")
    with server(tmp_path / "log", **instance.env) as process, closing(sqlite3.connect(path)) as foreign:
        stream = Caller(process, token).stream("fake-steady", max_tokens=80)
        said: list[Said] = []
        callers = [
            threading.Thread(target=lambda: said.append(Caller(process, token).ask(max_tokens=10))) for _ in range(8)
        ]
        foreign.execute("BEGIN IMMEDIATE")
        begun = last = time.monotonic()
        for thread in callers:
            thread.start()
        gaps = []
        while last - begun < 3:
            next(stream.chunks)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        assert not said
        foreign.execute("ROLLBACK")
        for thread in callers:
            thread.join(10)
        assert stream.ends()
    assert len(gaps) > 40
    assert max(gaps) < 0.3
    assert {one.status for one in said} == {200}
    assert calls(path) == {"ok": 9}
    instance.assert_books_balance()


@contextmanager
def full(process: Any, path: Path) -> Iterator[None]:
    """No file of the server's workers grows any more: as on a disk that is full."""
    master = process.process.pid
    workers = [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    room = max(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in workers:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_calls_relays_none_unaccounted_and_mends_when_there_is_room(
    path: Path, instance: Instance, upstream: Any, tmp_path: Path
) -> None:
    _, token = instance.grant("--max-cost=10")
    log = tmp_path / "elsewhere"
    log.mkdir()
    with server(log / "log", **instance.env | {"LOG_LEVEL": "WARNING"}) as process:
        caller = Caller(process, token)
        while caller.ask(max_tokens=10).status == 200 and calls(path)["ok"] < 5:
            pass
        stream = caller.stream("fake-steady", max_tokens=60)
        before, made = len(upstream.seen), calls(path)
        with full(process, path):
            begun, said = time.monotonic(), []
            while time.monotonic() - begun < 4:
                said.append(caller.ask(max_tokens=10))
            assert stream.ends()  # its settlement finds no room
            refused = [one for one in said if one.status != 200]
            assert {(one.status, one.code, one.retry_after > 0) for one in refused} == {(503, "unavailable", True)}
            assert said[-1].status == 503
            assert len(upstream.seen) - before == len(said) - len(refused)
            assert calls(path)["open"] in (1, 2)  # the stream, and perhaps a call for whose settlement no room was left
        eventually(lambda: not calls(path)["open"], within=5)
        again = caller.ask(max_tokens=10)
        assert again.status == 200
    ended = calls(path)
    assert ended["ok"] == made["ok"] + 1 + len(said) - len(refused) + 1
    assert set(ended) <= {"ok", "lost"}
    instance.assert_books_balance()


_KILLED = """
from gevent import monkey; monkey.patch_all()
import sqlite3, sys, gevent
from django.conf import settings
path, held, *names = sys.argv[1:]
settings.configure(DATABASES={"default": {"ENGINE": "aipassport.sqlite", "NAME": path, "OPTIONS": {}}})
import django; django.setup()
from django.db import DatabaseError
from grants.sqlite import HotPath

foreign = sqlite3.connect(path, isolation_level=None)
foreign.execute("CREATE TABLE written (name TEXT UNIQUE)")
hot_path, said = HotPath(), dict.fromkeys(names, "killed")

def ask(name):
    def job(cursor):
        for _ in range(2 if name == "fails" else 1):
            cursor.execute("INSERT INTO written VALUES (%(name)s)", {"name": name})
        gevent.sleep(60 if name == "hangs" else 0)
        return "written"
    try:
        said[name] = hot_path.commit(job)
    except DatabaseError as error:
        said[name] = type(error).__name__

if held == "held":
    foreign.execute("BEGIN IMMEDIATE")
asking = {name: gevent.spawn(ask, name) for name in names}
gevent.sleep(0.3)
gevent.killall([asking[name] for name in ("leads", "leaves") if name in names])
if held == "held":
    foreign.execute("ROLLBACK")
gevent.joinall(list(asking.values()), timeout=5)
for name in names:
    wrote = foreign.execute("SELECT count(*) FROM written WHERE name = ?", (name,)).fetchone()[0]
    print(name, said[name], wrote)
"""


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("free", ["leads killed 0", "hangs OperationalError 0", "late OperationalError 0"]),
        ("free", ["leads killed 1", "fails IntegrityError 0", "hangs OperationalError 0", "late OperationalError 0"]),
        ("held", ["leads killed 0", "leaves killed 0", "late written 1"]),
    ],
    ids=["in a commit for all", "in those one by one", "before it began"],
)
def test_who_is_killed_while_it_commits_for_others_tells_none_of_a_thing_that_is_not_written(
    path: Path, held: str, said: list[str]
) -> None:
    """The first greenlet commits for all. One that fails has the batch rolled back, and each is run alone."""
    names = [line.split()[0] for line in said]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), held, *names], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == said, done.stderr


_CROWD = """
from gevent import monkey; monkey.patch_all()
import sqlite3, sys, gevent
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "aipassport.sqlite", "NAME": sys.argv[1], "OPTIONS": {}}})
import django; django.setup()
from grants.sqlite import HotPath

foreign = sqlite3.connect(sys.argv[1], isolation_level=None)
foreign.execute("CREATE TABLE written (name INTEGER)")
hot_path = HotPath()

def ask(number):
    for _ in range(40):
        hot_path.commit(lambda cursor: cursor.execute("INSERT INTO written VALUES (%(name)s)", {"name": number}))

gevent.joinall([gevent.spawn(ask, number) for number in range(48)], timeout=60, raise_error=True)
print(foreign.execute("SELECT count(*) FROM written").fetchone()[0], hot_path.jobs, hot_path.commits)
"""


def test_a_crowd_shares_its_commits_and_nobody_who_is_done_waits_for_who_comes_again(path: Path) -> None:
    """Whoever had just committed could take the lead again, past all others: each commit was for one or two."""
    done = subprocess.run([sys.executable, "-c", _CROWD, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    written, jobs, commits = map(int, done.stdout.split())
    assert written == jobs == 48 * 40
    assert jobs / commits > 10
