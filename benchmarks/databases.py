"""The databases of a measurement: made for it, looked at, dropped after it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from servers import usage

_OPEN = "SELECT count(*) FROM grants_call WHERE finished_at IS NULL"
_LEDGER = "SELECT (SELECT count(*) FROM grants_call), (SELECT count(*) FROM grants_call WHERE finished_at IS NULL)"


class SQLite:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "bench.sqlite3"
        self.url = f"sqlite:///{self._path}"

    def cpu(self) -> float:
        """It works inside the relay's own processes."""
        return 0.0

    def ledger(self) -> tuple[int, int]:
        """Rows of calls, and how many of them are still open."""
        return _two(self.query(_LEDGER)[0])

    def query(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            return connection.execute(statement).fetchall()

    port = 0

    def is_file(self, path: str) -> bool:
        """Whether it is the database's, or a companion's of it."""
        return path.startswith(str(self._path))

    def open_calls(self) -> int:
        return int(self.query(_OPEN)[0][0])

    def connections(self) -> int:
        """A file has none that a server would count."""
        return 0

    def wal(self) -> int:
        """Bytes of the write-ahead log."""
        with suppress(FileNotFoundError):
            return os.path.getsize(f"{self._path}-wal")
        return 0

    def drop(self) -> None:
        """Its folder goes with the measurement's."""


class PostgreSQL:
    """A database of its own on the server of ``url``, which must be on this machine: its CPU is counted too."""

    def __init__(self, url: str, name: str = "") -> None:
        """``name``: where a measurement has several."""
        self._server = url
        self._name = f"aipassport_bench_{os.getpid()}{name}"
        self.url = urlunsplit(urlsplit(url)._replace(path=f"/{self._name}"))
        self._ended: dict[int, float] = {}
        self._execute(f"CREATE DATABASE {self._name}")

    def cpu(self) -> float:
        """CPU seconds of the backends of this database. One that ends keeps what it was last seen to have used."""
        rows = self._execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", self._name)
        for (pid,) in rows:
            with suppress(ProcessLookupError):
                self._ended[pid] = usage(pid).cpu
        return sum(self._ended.values())

    def ledger(self) -> tuple[int, int]:
        return _two(self.query(_LEDGER)[0])

    def query(self, statement: Any) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement).fetchall()

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5432

    def is_file(self, path: str) -> bool:
        return False

    def open_calls(self) -> int:
        return int(self.query(_OPEN)[0][0])

    def connections(self) -> int:
        """Open ones to this database."""
        return len(self._execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", self._name))

    def wal(self) -> int:
        """The server's own, shared with other databases: not looked at."""
        return 0

    def drop(self) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    def _execute(self, statement: Any, *values: Any) -> list[Any]:
        with psycopg.connect(self._server, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


def _two(row: Any) -> tuple[int, int]:
    return int(row[0]), int(row[1])
