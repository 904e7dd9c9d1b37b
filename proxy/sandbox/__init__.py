"""A provider without network or cost, mounted as a ``requests`` transport at ``sandbox://``.

It speaks OpenAI's, Anthropic's and Google's wire formats well enough for their SDKs. Answers are a function of the
request alone: same request, same bytes (only the request id header differs). Models:

    sandbox-1        chat, at once                      sandbox-error    a provider's 500
    sandbox-slow     chat, a word every 200 ms          sandbox-limited  a provider's 429 with ``retry-after``
    sandbox-embed    embeddings, unit vectors

Chat models echo the last user message; "count to 50" makes them count. One word is one token. Any other model is
unknown and answered like a provider answers: 404 in the dialect.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.response import HTTPResponse

from . import anthropic, google, openai
from .answers import Refused, Reply
from .body import PacedBody

_GOOGLE = re.compile(r"/(?:v1|v1beta|v1alpha)/models/([^/:]+):(\w+)")
_MODELS = re.compile(r"/(v1|v1beta|v1alpha)/models(?:/([^/:]+))?")

# The sandbox parses in the worker itself, while every other stream of that worker waits: these take 40 ms at most.
_MOST_BYTES = 10_000_000
_MOST_VALUES = 20_000


class SandboxAdapter(BaseAdapter):
    """The sandbox as a transport. Thread-safe: it holds no state."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Answer ``request``. Never raises: what cannot be understood is a 4xx answer in the dialect of the route."""
        url = urlsplit(request.url or "")
        path = unquote(url.path)
        dialect = _dialect(path, request.headers or {})
        try:
            reply = _reply(dialect, request, path, events="alt=sse" in url.query.split("&"))
        except Refused as refused:
            reply = Reply(dialect.error(refused), status=refused.status, headers=refused.headers)
        except RecursionError:
            reply = Reply(dialect.error(Refused(400, "The body is nested too deeply.")), status=400)
        return _response(request, reply)

    def close(self) -> None:
        """Nothing is held open."""


def _dialect(path: str, headers: Mapping[str, str]) -> ModuleType:
    """Whose format the answer has: the route tells, and for model lists the headers that the SDKs send."""
    if path.startswith("/v1/messages"):
        return anthropic
    if path.startswith(("/v1beta/", "/v1alpha/")) or _GOOGLE.fullmatch(path):
        return google
    if _MODELS.fullmatch(path):
        return anthropic if "anthropic-version" in headers else google if "x-goog-api-key" in headers else openai
    return openai


def _reply(dialect: ModuleType, request: requests.PreparedRequest, path: str, *, events: bool) -> Reply:
    if request.method == "GET" and (models := _MODELS.fullmatch(path)):
        return dialect.models(models[2])
    if request.method != "POST":
        raise Refused(404, f"The sandbox has no {request.method} {path}.")
    if found := _GOOGLE.fullmatch(path):
        return google.answer(found[1], found[2], _json(request), events=events)
    handler = dialect.ROUTES.get(path)
    if handler is None:
        raise Refused(400 if path in openai.NOT_HERE else 404, f"The sandbox has no {path}.")
    return handler(_json(request))


def _integer(digits: str) -> int:
    """Python converts long numbers in quadratic time. The sandbox looks at no number so large."""
    return int(digits) if len(digits) < 20 else 0


def _json(request: requests.PreparedRequest) -> dict[str, Any]:
    given = request.body or b""
    data = given.encode() if isinstance(given, str) else given if isinstance(given, bytes) else b"".join(given)
    if len(data) > _MOST_BYTES or sum(map(data.count, (b",", b":", b"[", b"{"))) > _MOST_VALUES:
        raise Refused(400, f"The sandbox reads bodies of at most {_MOST_BYTES} bytes and {_MOST_VALUES} values.")
    try:
        body = json.loads(data, parse_int=_integer)
    except (ValueError, TypeError):
        raise Refused(400, "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body is not a JSON object.")
    return body


def _response(request: requests.PreparedRequest, reply: Reply) -> requests.Response:
    headers = {"x-request-id": f"req_{uuid.uuid4().hex}", **reply.headers}
    if reply.events is None:
        content = json.dumps(reply.json, ensure_ascii=False).encode("utf-8", "replace")
        headers |= {"content-type": "application/json", "content-length": str(len(content))}
        body = PacedBody(iter([content]))
    else:
        headers |= {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        body = PacedBody(reply.events, reply.pause)
    response = requests.Response()
    response.status_code, response.reason = reply.status, HTTPStatus(reply.status).phrase
    response.headers, response.encoding = CaseInsensitiveDict(headers), "utf-8"
    response.url, response.request = request.url or "", request
    response.raw = HTTPResponse(
        body,
        headers=headers,
        status=reply.status,
        reason=response.reason,
        version=11,
        preload_content=False,
        request_method=request.method,
        sock_shutdown=body.interrupt,
        connection=body,  # type: ignore[arg-type]  # shutdown() wants one; only close() is called on it
    )
    return response
