"""The processes of a measurement: upstreams and relays, what they cost, and how an AIPassport comes to be."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

CHAT = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "gpt-4o-mini",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello there, how are you?"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16},
}


def need(*programs: str) -> None:
    """Exit with a clear message where a program is missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        sys.exit(f"Not found: {', '.join(missing)}. On Debian: apt-get install nginx-light wrk")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system) of one process, and its resident bytes."""

    cpu: float
    rss: int


def usage(pid: int) -> Usage:
    """What a process has used; its reaped children count as its own.

    Raises:
        ProcessLookupError: it is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(pid) from error
    return Usage(sum(int(value) for value in fields[11:15]) / _TICK, int(fields[21]) * _PAGE)


class Process:
    """One server with all its children, in a process group of its own, on one port."""

    def __init__(self, command: list[str], *, port: int, log: Path, env: dict[str, str] | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._wait(log)

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        self.stop()
        sys.exit(f"{self.process.args!r} did not start:\n{log.read_text(errors='replace')[-4000:]}")

    def workers(self) -> list[int]:
        """The children of the first process."""
        task = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(task).read_text().split()]

    def cpu(self) -> float:
        """CPU seconds of master and workers so far."""
        return sum(usage(pid).cpu for pid in (self.process.pid, *self.workers()))

    def rss(self) -> int:
        """Resident bytes of the workers."""
        return sum(usage(pid).rss for pid in self.workers())

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Nginx(Process):
    """The upstream of the small calls: one fixed answer to everything, and a count of the requests."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        folder.mkdir()
        config = folder / "nginx.conf"
        config.write_text(_NGINX % {"folder": folder, "port": port, "answer": json.dumps(CHAT)})
        command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
        super().__init__(command, port=port, log=folder / "log")
        self._asked = 0

    def count(self) -> int:
        """Requests so far, those of this method left out."""
        self._asked += 1
        return int(get(f"{self.url}/status").splitlines()[2].split()[2]) - self._asked


_NGINX = """
daemon off; master_process off; pid %(folder)s/pid; error_log %(folder)s/error.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; default_type application/json;
  client_body_temp_path %(folder)s; proxy_temp_path %(folder)s; fastcgi_temp_path %(folder)s;
  uwsgi_temp_path %(folder)s; scgi_temp_path %(folder)s;
  server {
    listen 127.0.0.1:%(port)s backlog=2048;
    location = /status { stub_status; }
    location / { return 200 '%(answer)s'; }
  }
}
"""


class Paced(Process):
    """The upstream of the streams."""

    def __init__(self, folder: Path, pause: float, script: str = "paced_sse.py") -> None:
        port = free_port()
        command = [sys.executable, str(HERE / script), "--port", str(port), "--pause", str(pause)]
        super().__init__(command, port=port, log=folder / "paced.log")

    def count(self) -> int:
        return int(get(f"{self.url}/count"))


def _clean_environment() -> dict[str, str]:
    """Nothing of the caller's settings: they would change what is measured."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def bare(folder: Path, nginx: Nginx, paced: Paced) -> Process:
    """The floor, on two workers."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-k", "gevent", "-b", f"127.0.0.1:{port}"]
    command += ["--pythonpath", str(HERE), "--worker-connections", "4000", "bare:app"]
    env = _clean_environment() | {"SMALL_UPSTREAM": f"{nginx.url}/v1", "PACED_UPSTREAM": f"{paced.url}/v1"}
    return Process(command, port=port, log=folder / "bare.log", env=env)


class AIPassport:
    """An instance with one owner and a token for each upstream. ``start`` may be called again after ``stop``."""

    def __init__(
        self, folder: Path, database_url: str, small: Process, paced: Process, *, workers: int = 2, price: str = ""
    ) -> None:
        """``small`` and ``paced``: the upstreams. ``price``: an owner's own, for all keys, as ``add_key`` takes it."""
        folder.mkdir(exist_ok=True)
        self.log = folder / "aipassport.log"
        self._port = free_port()
        self.env = _clean_environment() | {
            "DJANGO_SETTINGS_MODULE": "aipassport.settings",
            "AIPASSPORT_SECRET_KEY": secrets.token_urlsafe(48),
            "AIPASSPORT_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIPASSPORT_URL": f"http://127.0.0.1:{self._port}",
            "AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS": "true",
            "HOST": "127.0.0.1",
            "PORT": str(self._port),
            "WEB_CONCURRENCY": str(workers),
            "DATABASE_URL": database_url,
        }
        self.manage("migrate", "--verbosity", "0")
        self.env["DJANGO_SUPERUSER_PASSWORD"] = secrets.token_urlsafe(16)
        self.manage("createsuperuser", "--noinput", "--username", "bench", "--email", "bench@example.org")
        self._keys: dict[str, str] = {}
        self._prices = (f"--price={price}",) if price else ()
        self.small_token = self.token(f"{small.url}/v1")
        self.paced_token = self.token(f"{paced.url}/v1")

    def start(self) -> Process:
        command = [sys.executable, "-m", "gunicorn", "-c", "python:aipassport.gunicorn"]
        return Process(command, port=self._port, log=self.log, env=self.env)

    def token(self, upstream: str, *limits: str) -> str:
        """A token of a grant of its own, on the one key for that upstream. ``limits``: options of ``issue_grant``."""
        key = self.key(upstream)
        terms = ("--models", "*", "--capabilities", "chat", "--expires", "1h", "--app", "bench")
        grant = self._json("issue_grant", "--key", key, *terms, *limits)["id"]
        return str(self._json("issue_token", grant)["token"])

    def key(self, upstream: str) -> str:
        """The id of the one key for that upstream."""
        if upstream not in self._keys:
            options = ("--owner", "bench", "--provider", "openai", "--label", f"bench {upstream}")
            options += ("--base-url", upstream, *self._prices)
            key = self._json("add_key", *options, secret=f"sk-{secrets.token_urlsafe(24)}")
            self._keys[upstream] = str(key["id"])
        return self._keys[upstream]

    def _json(self, *arguments: str, secret: str = "") -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.manage(*arguments, "--json", secret=secret))
        return data

    def manage(self, *arguments: str, secret: str = "") -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.env, input=secret, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout
