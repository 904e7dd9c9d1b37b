"""A provider on a local port, in the dialects of OpenAI, Anthropic and Gemini, for clients that nobody here wrote.

It answers as :mod:`.plan` says, and refuses what the real services refuse. ``seen`` has every request that came. Its
paths may begin with ``/proxy``, so that a client can be recorded without a broker.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from ..local_http import LocalHTTPServer, serving
from . import chat, gemini, messages, responses
from .plan import Refusal, answer

KEY = "sk-local-provider-0123456789abcdef"  # the one key that it accepts

_GEMINI = re.compile(r"/v1(?:beta|alpha)?/models/([\w.-]+):(generateContent|streamGenerateContent)")
_COUNT = re.compile(r"/v1(?:beta)?/models/[\w.-]+:countTokens|/v1/messages/count_tokens")


class Seen(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class LocalProvider(LocalHTTPServer):
    def __init__(self) -> None:
        super().__init__(_Handler)
        self.seen: list[Seen] = []
        self.refused: list[str] = []


def running() -> AbstractContextManager[LocalProvider]:
    return serving(LocalProvider())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalProvider

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append(Seen("GET", self.path, dict(self.headers), None))
        names = ("gpt-5", "gpt-5-mini", "gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "gemini-3-pro-preview")
        if "x-goog-api-key" in self.headers:
            rows = [{"name": f"models/{name}", "displayName": name, "inputTokenLimit": 1_000_000} for name in names]
            return self._json(200, {"models": rows})
        rows = [{"id": name, "object": "model", "type": "model", "created": 1, "owned_by": "local"} for name in names]
        return self._json(200, {"object": "list", "data": rows, "has_more": False})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = self.path.partition("?")[0].removeprefix("/proxy")
        self.server.seen.append(Seen("POST", self.path, dict(self.headers), body))
        try:
            if KEY not in (self.headers.get("authorization", "") + " ".join(map(str, self.headers.values()))):
                raise Refusal(401, "Incorrect API key provided.", None, "invalid_api_key")
            self._serve(path, body)
        except Refusal as refusal:
            self.server.refused.append(f"{path}: {refusal.message}")
            self._json(refusal.status, _error(path, refusal))

    def _serve(self, path: str, body: Any) -> None:
        if _COUNT.fullmatch(path):
            return self._json(200, {"input_tokens": 50, "totalTokens": 50})
        if found := _GEMINI.fullmatch(path):
            turn = answer(gemini.read(body, found[1]))
            if found[2] == "streamGenerateContent":
                return self._events(gemini.events(found[1], turn), typed=False)
            return self._json(200, gemini.whole(found[1], turn))
        module = {"/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages}.get(path)
        if module is None:
            raise Refusal(404, f"Unknown request URL: POST {path}.", None, "unknown_url")
        asked = module.read(body)
        turn = answer(asked)
        if not asked.stream:
            return self._json(200, module.whole(body, turn))
        self._events(module.events(body, turn), typed=module is not chat)
        return None

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, events: Iterable[tuple[str, dict[str, Any], float]], *, typed: bool) -> None:
        """``typed``: each event has a name, and its data the same in ``type``."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            for number, (name, data, pause) in enumerate(events):
                time.sleep(pause)
                named = {"type": name, "sequence_number": number} if name.startswith("response.") else {"type": name}
                head = f"event: {name}\n" if typed else ""
                self._chunk(f"{head}data: {json.dumps({**named, **data} if typed else data)}\n\n".encode())
            if not typed and self.path.endswith("/chat/completions"):
                self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def _error(path: str, refusal: Refusal) -> dict[str, Any]:
    if path == "/v1/messages":
        return {"type": "error", "error": {"type": "invalid_request_error", "message": refusal.message}}
    if "/models/" in path:
        return {"error": {"code": refusal.status, "message": refusal.message, "status": "INVALID_ARGUMENT"}}
    error = {"message": refusal.message, "type": "invalid_request_error", "param": refusal.param, "code": refusal.code}
    return {"error": error}
