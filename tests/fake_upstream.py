"""A provider on a real socket: answers like the sandbox, misbehaves as the name of the model or ``user`` says."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import threading
import time
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import requests

from proxy.sandbox import SandboxAdapter

from .local_http import LocalHTTPServer, serving


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeUpstream(LocalHTTPServer):
    """``url`` is its base URL, ``seen`` what arrived, newest last."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.seen: list[Seen] = []
        self.disconnected = threading.Event()
        self.flooded = 0
        self.billed: list[tuple[int, int]] = []  # input and output tokens of answers by fake-goes-on

    @property
    def last(self) -> Seen:
        return self.seen[-1]


def running() -> AbstractContextManager[FakeUpstream]:
    return serving(FakeUpstream())


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def chat_chunk(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice], **more}
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeUpstream

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, body))
        model = ""
        if headers.get("content-type", "").startswith("application/json"):
            told = json.loads(body or b"{}")
            model = told["user"] if "fake-" in told.get("user", "") else told.get("model", "")
        behaviour = (
            getattr(self, "_" + model.removeprefix("fake-").replace("-", "_"), None) if "fake-" in model else None
        )
        if model.startswith("any-"):  # a model server that takes every name
            self._metered(json.loads(body))
        elif behaviour is None:
            self._like_the_sandbox(body)
        else:
            behaviour(json.loads(body))

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    # Well behaved

    def _like_the_sandbox(self, body: bytes) -> None:
        path = (
            self.path.replace("/v1beta/openai/", "/v1/")
            .replace("/openai/v1/", "/v1/")
            .replace("/compatibility/v1/", "/v1/")
        )
        request = requests.Request(
            self.command, f"sandbox://local{path}", headers=dict(self.headers), data=body or None
        )
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, request.url, body or None
        prepared.headers = requests.structures.CaseInsensitiveDict(self.headers.items())
        answer = SandboxAdapter().send(prepared, stream=True)
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in ("content-length", "transfer-encoding")}
        if "event-stream" in answer.headers.get("content-type", ""):
            self._head(answer.status_code, headers | {"transfer-encoding": "chunked"})
            while chunk := answer.raw.read1(65536):
                self._chunk(chunk)
            self._chunk(b"")
        else:
            self._whole(answer.status_code, answer.content, headers)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))})
        self.wfile.write(body)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _stream(self) -> None:
        self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    # What a model named fake-… does

    def _unchunked(self, _: Any) -> None:
        """Events without chunked encoding, the end of the connection ends the body."""
        self._head(200, {"content-type": "text/event-stream", "connection": "close"})
        for word in ("one ", "two ", "three"):
            self.wfile.write(chat_chunk(word))
            self.wfile.flush()
            time.sleep(0.15)
        self.wfile.write(event(b"[DONE]"))
        self.close_connection = True

    def _metered(self, body: Any) -> None:
        """Uses some of its output limit and tells how much; the share and the time it takes hang on the body."""
        drawn = zlib.crc32(json.dumps(body).encode())
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 1
        used = max(1, limit * (drawn % 256) // 255)
        prompt = sum(len(message["content"]) for message in body["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": used, "total_tokens": prompt + used}
        time.sleep(0.01 + drawn % 64 / 1000)
        if body.get("stream"):
            self._stream()
            self._chunk(chat_chunk("some words"))
            self._chunk(event({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": usage}))
            self._chunk(event(b"[DONE]"))
            self._chunk(b"")
        else:
            message = {"role": "assistant", "content": "some words"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"]}
            self._whole(200, json.dumps({**answer, "choices": [choice], "usage": usage}).encode())

    def _paced(self, _: Any) -> None:
        self._stream()
        for number in range(20):
            self._chunk(chat_chunk(f"{number} "))
            time.sleep(0.05)
        self._chunk(event(b"[DONE]"))
        self._chunk(b"")

    def _steady(self, body: Any) -> None:
        """As many chunks as ``max_tokens`` says, 20 a second; ``max_completion_tokens`` for who calls it so."""
        self._stream()
        for number in range(body.get("max_completion_tokens") or body["max_tokens"]):
            self._chunk(chat_chunk(f"{number} "))
            time.sleep(0.05)
        self._chunk(event(b"[DONE]"))
        self._chunk(b"")

    def _goes_on(self, body: Any) -> None:
        """Makes ``max_tokens`` tokens, 20 a second, and bills them, whether anybody is still there or not."""
        made = body.get("max_completion_tokens") or body["max_tokens"]
        usage = {"prompt_tokens": 5, "completion_tokens": made, "total_tokens": 5 + made}
        self.server.billed.append((5, made))
        self._stream()
        try:
            for number in range(made):
                self._chunk(chat_chunk(f"{number} "))
                time.sleep(0.05)
            self._chunk(event({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": usage}))
            self._chunk(event(b"[DONE]"))
            self._chunk(b"")
        except OSError:
            self.server.disconnected.set()
            raise

    def _hurries(self, body: Any) -> None:
        """Makes ``max_tokens`` tokens as fast as they are taken, each in an event of 64 KB, and bills them."""
        made = body.get("max_completion_tokens") or body["max_tokens"]
        usage = {"prompt_tokens": 5, "completion_tokens": made, "total_tokens": 5 + made}
        self._stream()
        for number in range(made):
            self._chunk(chat_chunk(f"{number} ", obfuscation="x" * 65536))
        self._chunk(event({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": usage}))
        self._chunk(event(b"[DONE]"))
        self._chunk(b"")

    def _slow(self, body: Any) -> None:
        """Thinks for ``max_tokens`` seconds before it says anything at all."""
        time.sleep(body.get("max_completion_tokens") or body["max_tokens"])
        self._metered(body)

    def _pauses(self, body: Any) -> None:
        """Thinks for ``max_tokens`` seconds in the middle, three if it does not say."""
        self._stream()
        self._chunk(chat_chunk("let me think "))
        time.sleep(body.get("max_completion_tokens") or body.get("max_tokens") or 3)
        self._chunk(chat_chunk("done"))
        self._chunk(event(b"[DONE]"))
        self._chunk(b"")

    def _resets(self, body: Any) -> None:
        """Its connection is reset in the middle: what was on its way is lost with it."""
        if body.get("stream"):
            self._stream()
            self._chunk(chat_chunk("half an "))
            time.sleep(0.2)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _half_a_head(self, _: Any) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _dies(self, body: Any) -> None:
        """Breaks off in the middle."""
        if body.get("stream"):
            self._stream()
            self._chunk(chat_chunk("half an "))
        else:
            self._head(200, {"content-type": "application/json", "content-length": "1000"})
            self.wfile.write(b'{"id": "half')
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _stops(self, _: Any) -> None:
        """Ends its stream cleanly, but in the middle of its answer."""
        self._stream()
        self._chunk(chat_chunk("half an "))
        self._chunk(b"")

    def _fails(self, _: Any) -> None:
        """Says in mid-stream that it failed."""
        self._stream()
        self._chunk(chat_chunk("half an "))
        self._chunk(event({"error": {"message": "overloaded", "type": "server_error"}}))
        self._chunk(b"")

    def _silent(self, _: Any) -> None:
        """One chunk, then nothing; notices when the relay breaks off."""
        self.server.disconnected.clear()
        self._stream()
        self._chunk(chat_chunk("wait"))
        self._wait_for_disconnect()

    def _mute(self, _: Any) -> None:
        """Not even a head."""
        self.server.disconnected.clear()
        self._wait_for_disconnect()

    def _wait_for_disconnect(self) -> None:
        self.connection.settimeout(120)
        try:
            if self.connection.recv(1) == b"":
                self.server.disconnected.set()
        except OSError:
            self.server.disconnected.set()
        self.close_connection = True

    def _echoes_the_key(self, _: Any) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        error = {"message": f"Bad request for key {key} in organization org-abcdef123456", "type": "x", "code": "bad"}
        self._whole(400, json.dumps({"error": error}).encode())

    def _html_error(self, _: Any) -> None:
        self._whole(503, b"<html>upstream</html>", {"content-type": "text/html"})

    def _account_error(self, _: Any) -> None:
        error = {
            "message": "Rate limit reached in organization org-abcdef123456",
            "type": "tokens",
            "code": "rate_limit",
        }
        headers = {
            "retry-after": "7",
            "x-ratelimit-limit-tokens": "1",
            "openai-organization": "acme",
            "set-cookie": "a=b",
        }
        self._whole(429, json.dumps({"error": error}).encode(), headers)

    def _refuses_the_key(self, _: Any) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        error = {"message": f"Incorrect API key provided: {key[:8]}*****{key[-4:]}", "code": "invalid_api_key"}
        self._whole(401, json.dumps({"error": error}).encode())

    def _redirects(self, _: Any) -> None:
        self._whole(302, b"", {"location": f"{self.server.url}/elsewhere"})

    def _sets_a_cookie(self, body: Any) -> None:
        self._whole(
            200,
            json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "fake", "choices": []}).encode(),
            {"set-cookie": "tenant=alice; Path=/", "x-request-id": "req_1", "openai-organization": "acme"},
        )

    def _page(self, _: Any) -> None:
        self._whole(200, b"<script>alert(1)</script>", {"content-type": "text/html"})

    def _labelled_as_page(self, _: Any) -> None:
        """JSON, whatever its label says."""
        self._whole(200, b'{"object": "chat.completion", "label": "wrong"}', {"content-type": "text/html"})

    def _garbage_events(self, _: Any) -> None:
        self._stream()
        self._chunk(b"data: {not json\n\ndata: \xff\xfe\n\n: comment\n\nevent: x\n\n")
        self._chunk(chat_chunk("fine"))
        self._chunk(event(b"[DONE]"))
        self._chunk(b"")

    def _noise(self, _: Any) -> None:
        """Calls itself a stream of events, and is nothing but random bytes, blank lines among them."""
        noise = random.Random(4)
        self._stream()
        for _number in range(20):
            self._chunk(noise.randbytes(2000) + b"\n\ndata: " + noise.randbytes(200) + b"\n\n")
        self._chunk(b"")

    def _other_charset(self, _: Any) -> None:
        """Proper events, but in another encoding than the one that events are in."""
        self._head(200, {"content-type": "text/event-stream; charset=utf-16", "transfer-encoding": "chunked"})
        for piece in (chat_chunk("größer"), event(b"[DONE]")):
            self._chunk(piece.decode().encode("utf-16"))
        self._chunk(b"")

    def _long_line(self, _: Any) -> None:
        """One event of five megabytes in the middle."""
        self._stream()
        line = chat_chunk("x" * 5_000_000)
        for begin in range(0, len(line), 50_000):
            self._chunk(line[begin : begin + 50_000])
        self._chunk(event(b"[DONE]"))
        self._chunk(b"")

    def _bad_chunks(self, _: Any) -> None:
        """Its second chunk's length is no number."""
        self._stream()
        self._chunk(chat_chunk("half an "))
        self.wfile.write(b"zz\r\nnonsense\r\n")
        self.close_connection = True

    def _bad_gzip(self, _: Any) -> None:
        """Says that it is compressed, and is not."""
        self._whole(200, b"not compressed at all", {"content-encoding": "gzip"})

    def _compressed(self, _: Any) -> None:
        """Compressed though nobody asked for it."""
        body = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "fake", "choices": []})
        self._whole(200, gzip.compress(body.encode()), {"content-encoding": "gzip"})

    def _floods(self, _: Any) -> None:
        """As many events as the other side takes, up to 64 MB; ``flooded`` counts the bytes."""
        self._stream()
        piece = chat_chunk("x" * 65536)
        self.server.flooded = 0
        for _number in range(1000):
            self._chunk(piece)
            self.server.flooded += len(piece)
