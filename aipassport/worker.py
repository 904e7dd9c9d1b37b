"""The gunicorn worker: gevent's, whose restart loses no call and waits for no connection that nobody uses."""

from __future__ import annotations

import contextlib
import socket
import time
from functools import partial
from typing import Any

import gevent.socket
from gevent.monkey import get_original
from gevent.server import StreamServer
from gunicorn.http.body import ChunkedReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.ggevent import GeventWorker

from grants.sockets import has_something_to_say
from proxy.fairness import Pause, begin_request, let_others_run

_Socket = get_original("socket", "socket")  # the system's own
_IDLE = 1.0  # seconds; whoever asks more often gets an answer that closes the connection

_LINGER = 10.0  # seconds that a client has to see the refusal of a body that it still sends
_DRAINED = 64 * 1024  # bytes of an unread body that gunicorn may read to keep a connection
_DISCARDED = 256 * 1024
_HEAD = 64 * 1024  # bytes of a request's head; gunicorn would take 800 KB, and look through all of it with each 8 KB


class _Listener:
    """What gunicorn asks a listener for with each connection: its name, which it has after it was closed, too."""

    def __init__(self, sock: Any) -> None:
        self._name = sock.getsockname()

    def getsockname(self) -> Any:
        return self._name


class _Server(StreamServer):
    """Takes the connections that wait, before it closes: the system would reset them, and calls be lost."""

    def __init__(self, listener: Any, *, handler_class: Any, spawn: Any, environ: dict[str, Any], **more: Any) -> None:
        tls = {name: value for name, value in more.items() if name == "ssl_context"}
        super().__init__(listener, handle=partial(handler_class, _Listener(listener)), spawn=spawn, **tls)
        if environ["wsgi.multiprocess"]:
            self.max_accept = 1  # as gunicorn has it: leave some to the other workers

    def close(self) -> None:
        if not self.closed:
            self.stop_accepting()
            self._take_waiting(_Socket(fileno=self.socket.detach()))
        super().close()

    def _take_waiting(self, listener: Any) -> None:
        """Close as soon as nobody waits: gevent's own ``close`` takes effect only after others have run."""
        listener.setblocking(False)
        with listener, contextlib.suppress(BlockingIOError):
            while not self.full():
                connection, address = listener.accept()
                self.do_handle(gevent.socket.socket(fileno=connection.detach()), address)


def _unread(body: Any) -> bool:
    """Whether much of a request's body has not been read, so that its connection is not worth being used again.

    gunicorn would read it to its end, a kilobyte at a time: 32 MB take seconds, without another greenlet running.
    """
    reader = body.reader
    if isinstance(reader, ChunkedReader):
        return reader.parser is not None
    return body.failed or getattr(reader, "length", 0) > _DRAINED


class _Request(Request):
    """A request whose head is bounded, and whose reading lets others run where the client sends without a pause."""

    def __init__(self, cfg: Any, unreader: Any, *args: Any) -> None:
        self._pause = Pause()
        super().__init__(cfg, unreader, *args)

    def parse(self, unreader: Any) -> Any:
        self.max_buffer_headers = _HEAD
        return super().parse(unreader)

    def read_into(self, unreader: Any, buf: Any, stop: bool = False) -> None:
        self._pause()
        super().read_into(unreader, buf, stop)


RequestParser.mesg_class = _Request


def _read_slowly(unreader: Any) -> None:
    """Let others run between pieces of a chunked body: 8 KB of chunks of one byte take 4 ms to parse, 2 KB take 1 ms.

    A chunk that is larger is read at once as before.
    """
    receive = SocketUnreader.chunk

    def chunk(size_hint: int | None = None) -> bytes:
        let_others_run()
        data: bytes = receive(unreader, size_hint)
        return data

    unreader.mxchunk, unreader.chunk = 2048, chunk


class Worker(GeventWorker):
    """Once told to go, gevent's waits for every connection to end, up to the graceful timeout. This one ends those that
    have nothing under way, kept alive or never used; what has begun is waited for as before.
    """

    server_class = _Server

    @property
    def wsgi_handler(self) -> Any:
        """What gunicorn gives a server class to handle connections with: what it would use without one."""
        return self.handle

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: dict[Any, float] = {}  # connections without a request, and since when

    def notify(self) -> None:
        """The heartbeat, once a second until the end."""
        super().notify()
        if not self.alive:
            self._close_idle()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self._idle[client] = time.monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            del self._idle[client]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        del self._idle[sock]
        begin_request()
        asked = req.should_close
        req.should_close = lambda: asked() or _unread(req.body)
        if isinstance(req.body.reader, ChunkedReader):
            _read_slowly(req.unreader)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            if _unread(req.body):
                self._linger(sock)
            self._idle[sock] = time.monotonic()

    def _linger(self, sock: Any) -> None:
        """Discard what the client still sends, until it has seen the answer and closes.

        A connection that is closed with bytes unread is reset, and the client loses the answer that it was sent.
        """
        until = time.monotonic() + _LINGER
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while self.alive and (left := until - time.monotonic()) > 0:
                sock.settimeout(min(left, 1.0))
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(_DISCARDED):
                        break
                let_others_run()

    def _close_idle(self) -> None:
        """End them, but not one on which a request has just arrived.

        At once, by shutting them down: gevent's ``close`` takes effect only after others have run, and a proxy that
        does not know of it yet would send its next call into the void.
        """
        long_ago = time.monotonic() - _IDLE
        for client, since in list(self._idle.items()):
            if since < long_ago and not has_something_to_say(client.fileno()):
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
