"""Real server processes on the tests' database, as the product is deployed: gunicorn, gevent workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.db import connection

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def database_url() -> str:
    """The test database, as another process names it."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{values['NAME']}"
    password = f":{values['PASSWORD']}" if values["PASSWORD"] else ""
    return f"postgres://{values['USER']}{password}@{values['HOST']}:{values['PORT'] or 5432}/{values['NAME']}"


def environment(**changes: str) -> dict[str, str]:
    keep = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_CONFIG")
        if name in os.environ
    }
    return (
        keep
        | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "AIPASSPORT_URL": settings.AIPASSPORT_URL,
            "AIPASSPORT_ALLOWED_HOSTS": ",".join(settings.ALLOWED_HOSTS),
            "AIPASSPORT_SECRET_KEY": settings.SECRET_KEY,
            "AIPASSPORT_ENCRYPTION_KEYS": ",".join(settings.AIPASSPORT_ENCRYPTION_KEYS),
            "AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS": "true",
            "AIPASSPORT_CONNECT_TIMEOUT": "2",
            "AIPASSPORT_READ_TIMEOUT": "10",
            "DATABASE_URL": database_url(),
            "LOG_LEVEL": "DEBUG",
        }
        | changes
    )


class Server:
    """One gunicorn. ``url`` is where it listens, ``log`` the file with everything that it prints.

    ``inside``: a command that runs it.
    """

    def __init__(self, log: Path, inside: Sequence[str] = (), **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-m", "gunicorn", "-c", "python:aipassport.gunicorn", "--log-level", "debug"],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment(HOST="127.0.0.1", PORT=str(self.port), **{"WEB_CONCURRENCY": "1"} | env),
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except requests.RequestException:
                pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 40) -> None:
        """End it; every process of it, whatever happens."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            self.process.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL for master and workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def server(log: Path, inside: Sequence[str] = (), **env: str) -> Iterator[Server]:
    running = Server(log, inside, **env)
    try:
        running.wait()
        yield running
    finally:
        running.kill()


def eventually(condition: Callable[[], Any], *, within: float = 5.0) -> Any:
    """The first true value of ``condition()``; fails where there is none in ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.02)
