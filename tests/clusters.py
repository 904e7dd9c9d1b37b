"""A PostgreSQL server of a test's own: one that may be stopped, killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .live import free_port


def program(name: str) -> str:
    """Where a program of PostgreSQL's server is; a test that cannot have it is skipped, but not where all must run."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = str(places[0]) if places else shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            raise RuntimeError(f"{name} is missing: apt-get install postgresql")
        pytest.skip(f"{name} is not installed")
    return found


class Cluster:
    """In a folder of its own, durable as PostgreSQL comes; it refuses to run as root, so then it is ``postgres``'s.

    With ``primary`` it is a hot standby that follows that one.
    """

    def __init__(self, folder: Path, primary: Cluster | None = None) -> None:
        self._folder, self.port = folder, free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        if primary is None:
            self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        else:
            self._run("pg_basebackup", f"--dbname={primary.url}", "--checkpoint=fast", "--write-recovery-conf")
        with (folder / "postgresql.conf").open("a") as file:
            file.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "--wait", f"--log={self._folder}/log", "start")

    def stop(self, mode: str = "fast") -> None:
        """``immediate``: as in a crash; what was not flushed is gone."""
        self._run("pg_ctl", "--wait", f"--mode={mode}", "stop")

    def promote(self) -> None:
        """A standby becomes a primary of its own."""
        self._run("pg_ctl", "--wait", "promote")

    def follows(self, primary: Cluster) -> None:
        """Wait until this standby shows all that the primary has committed so far."""
        written = primary.query("SELECT pg_current_wal_lsn()")[0][0]
        self.until(f"SELECT pg_last_wal_replay_lsn() >= '{written}'")

    def query(self, statement: str) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def until(self, statement: str, *, within: float = 10.0) -> None:
        """Wait until the one value that it selects is true."""
        deadline = time.monotonic() + within
        while not self.query(statement)[0][0]:
            assert time.monotonic() < deadline, statement
            time.sleep(0.05)

    def _run(self, name: str, *arguments: str) -> None:
        command = [program(name), f"--pgdata={self._folder}", *arguments]
        who = "postgres" if os.getuid() == 0 else None
        done = subprocess.run(command, cwd="/", user=who, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr


@contextmanager
def cluster(primary: Cluster | None = None) -> Iterator[Cluster]:
    """It runs until the end of the block; with ``primary``, as a standby of that one."""
    program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="aipassport-cluster-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    running = Cluster(folder, primary)
    try:
        yield running
    finally:
        with suppress(AssertionError):  # a test may have left it stopped
            running.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
