"""The only HTTP client code: one configured session, a request prepared by hand, foreign errors translated once.

The request is built from nothing: what is not listed here or in the call does not go upstream.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import requests
import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection

from . import multipart
from .dialects.base import Spooled, UpstreamCall
from .exceptions import RelayError, UpstreamFailed, UpstreamTimeout
from .fairness import Pause, let_others_run
from .guarded import GuardedAdapter, PrivateAddress, local
from .sandbox import SandboxAdapter

USER_AGENT = "AIPassport"
_CHUNK = 65536

# What the app may see of the provider's headers: nothing that tells of the account, no cookies.
_ANSWER_HEADERS = (
    "content-type",
    "x-request-id",
    "request-id",
    "apim-request-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
)


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no ~/.netrc, no *_PROXY: either would change where a key goes
    session.mount("https://", GuardedAdapter())
    session.mount("http://", GuardedAdapter())
    session.mount("sandbox://", SandboxAdapter())
    return session


_session = _new_session()


class Exchange:
    """One request to a provider and its answer, which another greenlet may abort at any time.

    ``sent``: a connection was made and the request begun, so that the provider may work on it. ``began_ns``: when
    :meth:`send` was called (``time.monotonic_ns()``), 0 before.
    """

    def __init__(self) -> None:
        self.sent = False
        self.began_ns = 0
        self._pause = Pause()
        self._connection: HTTPConnection | None = None
        self._response: requests.Response | None = None

    def send(self, base_url: str, auth: Mapping[str, str], call: UpstreamCall) -> None:
        """Make the call with the owner's key; returns as soon as the head of the answer is there.

        ``auth``: the one header that carries the raw key.

        Raises:
            UpstreamFailed, UpstreamTimeout: with ``connected`` false where nothing was sent.
        """
        request = _prepare(base_url, auth, call)
        proxy = settings.AIPASSPORT_UPSTREAM_PROXY
        local.exchange = self
        self.began_ns = time.monotonic_ns()
        try:
            self._response = _session.get_adapter(base_url).send(
                request,
                stream=True,
                timeout=(settings.AIPASSPORT_CONNECT_TIMEOUT, settings.AIPASSPORT_READ_TIMEOUT),
                verify=settings.AIPASSPORT_UPSTREAM_CA_BUNDLE or True,
                proxies={"http": proxy, "https": proxy} if proxy else None,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _translated(error, sent=self._connection is not None) from error
        finally:
            self._connection = local.exchange = None

    @property
    def _answer(self) -> requests.Response:
        assert self._response is not None, "nothing was sent yet"  # noqa: S101
        return self._response

    @property
    def answered(self) -> bool:
        return self._response is not None

    @property
    def status(self) -> int:
        return self._answer.status_code

    @property
    def unreadable(self) -> bool:
        """Whether the body is in a content coding that cannot be decoded here. (Calls ask for none.)"""
        given = self._answer.headers.get("content-encoding", "").lower()
        known = ("", "identity", *urllib3.HTTPResponse.CONTENT_DECODERS)
        return bool(given) and any(coding.strip() not in known for coding in given.split(","))

    @property
    def content_type(self) -> str:
        return self._answer.headers.get("content-type", "")

    @property
    def length(self) -> int | None:
        """The body's length in bytes, where the provider gave it and it still holds after decoding."""
        value = self._answer.headers.get("content-length", "")
        encoded = self._answer.headers.get("content-encoding", "identity").lower() != "identity"
        return int(value) if value.isdecimal() and not encoded else None

    def headers(self) -> dict[str, str]:
        """What of the provider's headers goes to the app."""
        given = self._answer.headers
        return {name: value for name in _ANSWER_HEADERS if (value := given.get(name)) and value.isprintable()}

    def read(self) -> bytes:
        """The next bytes as soon as there are any, ``b""`` at the end.

        Raises:
            RelayError: the provider broke off, or was silent for longer than the read timeout.
        """
        self._pause()
        try:
            return self._answer.raw.read1(_CHUNK, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            raise _translated(error) from error

    def read_all(self, limit: int) -> bytes:
        """The body up to ``limit`` bytes; what is beyond is cut off. Empty where the body is unreadable."""
        parts, size = [], 0
        if self.unreadable:
            return b""
        while size < limit and (chunk := self.read()):
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts)[:limit]

    def abort(self) -> None:
        """End it from another greenlet: a ``send`` or ``read`` that waits there returns or raises at once."""
        try:
            if self._response is not None:
                self._response.raw.shutdown()
            elif self._connection is not None and self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        except (ValueError, RuntimeError, OSError):
            pass  # already over, or its connection is back in the pool

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


def _prepare(base_url: str, auth: Mapping[str, str], call: UpstreamCall) -> requests.PreparedRequest:
    """Prepared by hand: requests' own preparation would look at cookies, netrc, hooks and the body's type again."""
    headers = {**call.headers, "user-agent": USER_AGENT, "accept-encoding": "identity"}
    # requests looks for "Content-Length" in this spelling. Without it the body would go out in chunks.
    body = _fairly(call.json) if isinstance(call.json, Spooled) else call.json
    if call.form is not None:
        headers["content-type"], length, body = multipart.encode(call.form)
        headers["Content-Length"] = str(length)
    elif call.json is not None:
        headers["content-type"] = "application/json"
        headers["Content-Length"] = str(len(call.json))
    request = requests.PreparedRequest()
    request.method = call.method
    request.url = base_url + call.path + (f"?{urlencode(call.query)}" if call.query else "")
    request.headers = {**headers, **auth}  # type: ignore[assignment]  # no two names differ in case alone
    request.body = body  # type: ignore[assignment]
    return request


def _fairly(body: Spooled) -> Iterator[bytes]:
    """A large body, without keeping others waiting where the provider takes it as fast as it comes."""
    for block in body.blocks():
        yield block
        let_others_run()


def _translated(error: Exception, *, sent: bool = True) -> RelayError:
    """A foreign error as ours. The message never holds the foreign one: it may name hosts, or parts of a request.

    ``sent``: a TLS error came after the handshake, when the provider may have had the request.
    """
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, PrivateAddress):
        return UpstreamFailed(
            "The provider's host name has no public IP address, and this broker connects to public addresses only.",
            code="upstream_address_refused",
            connected=False,
        )
    if isinstance(error, requests.ConnectTimeout):
        return UpstreamTimeout("The provider could not be reached in time.", connected=False)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return UpstreamTimeout("The provider did not answer in time.")
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return UpstreamFailed("No trusted TLS connection to the provider could be made.", connected=sent)
    if isinstance(error, requests.exceptions.ProxyError) or isinstance(reason, urllib3.exceptions.NewConnectionError):
        return UpstreamFailed("The provider could not be reached.", connected=False)
    return UpstreamFailed("The provider broke the connection.")
