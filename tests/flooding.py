"""A provider that answers with floods: what follows, as fast as it is taken, for a few seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SECONDS = 3.0

_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}'

# How an answer begins, and what is repeated.
FLOODS = {
    "blank lines": (_EVENTS + b"connection: close\r\n\r\n", b"\n"),
    "small events": (_EVENTS + b"connection: close\r\n\r\n", b'data:{"error":1}\n\n'),
    "lines": (_EVENTS + b"connection: close\r\n\r\n", b"a\n" * 2_000_000 + b"\n"),
    "single bytes": (_EVENTS + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": (_JSON + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    "heads": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
# Answers that are whole, and what is in them.
WHOLE = {
    "floats": b'{"id":"x","choices":[],' + _USAGE + b',"x":[' + b"1.5," * 5_000_000 + b"1]}",
    "lists": b'{"id":"x","choices":[],' + _USAGE + b',"x":[' + b"[]," * 6_000_000 + b"1]}",
    "texts": b'{"id":"x","choices":[],' + _USAGE + b',"x":[' + b'"text","",' * 2_000_000 + b"1]}",
}


def _answer(sock: socket.socket, what: str) -> None:
    if what in WHOLE:
        sock.sendall(_JSON + b"content-length: %d\r\n\r\n" % len(WHOLE[what]) + WHOLE[what])
        return
    head, piece = FLOODS[what]
    sock.sendall(head)
    block, until = piece * (200_000 // len(piece) + 1), time.monotonic() + SECONDS
    while time.monotonic() < until:
        sock.sendall(block)


def _serve(sock: socket.socket, what: str) -> None:
    with sock, suppress(OSError):
        while b"\r\n\r\n" not in sock.recv(65536):
            pass
        _answer(sock, what)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(5)
        sock.recv(1)


@contextmanager
def flooding(what: str) -> Iterator[str]:
    """Its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=_serve, args=(listener.accept()[0], what), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
