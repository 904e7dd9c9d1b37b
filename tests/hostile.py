"""Request bodies that are slow to read, and what measures how late the events of a stream are meanwhile."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import requests

_RAW = {
    "nothing": b" ",
    "small": b'{"model":"not-granted","messages":[],"metadata":"words words"}',
    "single bytes": b"1\r\n \r\n",  # chunks
    "form": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n',
}
_END = {"nothing": b"", "small": b"", "single bytes": b"0\r\n\r\n", "form": b"--x--"}


def hostile(what: str, size: int) -> bytes:
    """A chat body of about ``size`` bytes with the model ``not-granted``."""
    letters = "".join(map(chr, (*range(0x80, 0xD800), *range(0xE000, 0x110000))))
    if what in _RAW:
        return (_RAW[what] * (size // len(_RAW[what]))) + _END[what]
    values = {
        "code points": lambda: '"' + (letters * (size // 4_000_000 + 1))[: size // 4] + '"',
        "floats": lambda: "[" + "1.5," * (size // 4) + "1]",
        "keys": lambda: "{" + ",".join([f'"{n:x}":1' for n in range(size // 10)]) + "}",
        "integers": lambda: "[" + ("9" * 4300 + ",") * (size // 4301) + "1]",
        "strings": lambda: "[" + '"\\n",' * (size // 5) + "1]",
        "lists": lambda: "[" + "[]," * min(499_000, size // 3) + "1]",
        "one string": lambda: '"' + "a" * size + '"',
        "messages": lambda: "[" + '{"role":"user","content":"hi"},' * (size // 32) + "1]",
    }
    return f'{{"model":"not-granted","messages":[],"metadata":{values[what]()}}}'.encode()


HOSTILE = ("code points", "floats", "keys", "integers", "strings", "lists", "one string", "messages")


def head(server: Any, token: str, path: str = "/proxy/v1/chat/completions", **headers: Any) -> bytes:
    """The head of a POST request; names of ``headers`` with underscores."""
    given = {"host": urlsplit(server.url).netloc, "authorization": f"Bearer {token}"}
    given |= {"content_type": "application/json"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return ("\r\n".join([f"POST {path} HTTP/1.1", *lines]) + "\r\n\r\n").encode()


def connected(server: Any) -> socket.socket:
    url = urlsplit(server.url)
    return socket.create_connection((url.hostname, url.port), timeout=60)


def answer(sock: socket.socket) -> bytes:
    """All that comes until the server closes the connection or has sent an error with its body."""
    received = b""
    while piece := sock.recv(65536):
        received += piece
        if b"\r\n\r\n" in received and received.rstrip().endswith(b"}"):
            break
    return received


# How long the machine itself stood still: the worst lateness of a process that only sleeps, until its input ends.
_ASLEEP = """
import select, time
worst, last = 0.0, time.monotonic()
while not select.select([0], [], [], 0.01)[0]:
    now = time.monotonic()
    worst, last = max(worst, now - last - 0.01), now
print(worst)
"""


class Lateness:
    """How late the events of a paced stream were (one each 50 ms), in seconds, the worst of them."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.events = 0


@contextmanager
def paced_stream(server: Any, token: str, events: int = 2000) -> Iterator[Lateness]:
    """A stream of another app that goes on meanwhile. Its lateness is without what the machine itself stood still."""
    body = {"model": "fake-steady", "messages": [], "max_tokens": events, "stream": True}
    headers = {"authorization": f"Bearer {token}"}
    url = f"{server.url}/proxy/v1/chat/completions"
    stream = requests.post(url, json=body, headers=headers, stream=True, timeout=30)
    assert stream.status_code == 200, stream.text
    lateness, over = Lateness(), threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not over.is_set() and stream.raw.read1(65536):
            now = time.monotonic()
            lateness.worst = max(lateness.worst, now - last - 0.05)
            lateness.events += 1
            last = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    time.sleep(0.3)
    lateness.worst = 0.0
    machine = subprocess.Popen([sys.executable, "-c", _ASLEEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield lateness
        time.sleep(0.2)
    finally:
        over.set()
        lateness.worst -= float(machine.communicate()[0])
        watcher.join(5)
        stream.close()


def at_once(server: Any, token: str, what: str, size: int, count: int = 1, **headers: str) -> list[dict[str, Any]]:
    """Send so many of these bodies at the same time, from another process; the answers' status and error code."""
    order = json.dumps({"url": server.url, "token": token, "what": what, "size": size, "count": count} | headers)
    command = [sys.executable, "-m", "tests.hostile", order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return list(json.loads(done.stdout))


def _attack(url: str, token: str, what: str, size: int, count: int, **headers: str) -> list[dict[str, Any]]:
    server, body, answers = SimpleNamespace(url=url), hostile(what, size), list[dict[str, Any]]()

    def send() -> None:
        with connected(server) as sock:
            length = {} if "transfer_encoding" in headers else {"content_length": len(body)}
            sock.sendall(head(server, token, **length, **headers))
            with suppress(OSError):
                sock.sendall(body)
            received = answer(sock)
        told = json.loads(received.partition(b"\r\n\r\n")[2] or b"{}").get("error", {})
        answers.append({"status": int(received.split()[1]), "code": told.get("code")})

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers


if __name__ == "__main__":
    print(json.dumps(_attack(**json.loads(sys.argv[1]))))
