"""The only HTTP client code: one configured session, a request prepared by hand, foreign errors translated once.

The request is built from nothing: what is not listed here or in the call does not go upstream.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from email.errors import MissingHeaderBodySeparatorDefect
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from grants.addresses import is_public

from . import multipart
from .dialects.base import Spooled, UpstreamCall
from .exceptions import RelayError, UpstreamFailed, UpstreamTimeout
from .fairness import Pause, let_others_run
from .pausing import PausingAnswer
from .sandbox import SandboxAdapter

USER_AGENT = "AIPassport"
_CHUNK = 65536
_POOLS = 64  # of connections, one for each provider's origin

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


_local = threading.local()  # .exchange: the one that this greenlet is sending


class PrivateAddress(urllib3.exceptions.HTTPError):
    """The provider's name leads to no address on the public internet."""


class _Guarded:
    """Connects to public addresses only. A private one is not even tried: the error must not tell whether its port is
    open. The name is resolved once, so that what was checked is what is connected to.

    Head and body of a request go out together where the body is small: one packet instead of two.
    """

    _dns_host: str  # urllib3's: where it connects to
    _head: bytes | None = None  # held back until the body comes

    def _new_conn(self) -> Any:
        if settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS:
            return super()._new_conn()  # type: ignore[misc]
        name = self._dns_host
        failed: urllib3.exceptions.HTTPError = PrivateAddress()
        try:
            for address in self._public_addresses():
                self._dns_host = address
                try:
                    return self._checked(super()._new_conn())  # type: ignore[misc]
                except urllib3.exceptions.HTTPError as error:
                    failed = error
        finally:
            self._dns_host = name  # also what TLS expects in the certificate
        raise failed

    def _public_addresses(self) -> list[str]:
        """The addresses of the host that are on the public internet.

        A name that does not exist is treated as a private one: an error must not tell which internal names exist.
        """
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)  # type: ignore[attr-defined]
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "name resolution timed out") from error
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                return []
            raise NewConnectionError(self, "name resolution failed") from error  # type: ignore[arg-type]
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return [text for text in addresses if is_public(ipaddress.ip_address(text.partition("%")[0]))]

    @staticmethod
    def _checked(sock: Any) -> Any:
        """The peer decides in the end, before a byte is sent."""
        peer = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
        if not is_public(peer):
            sock.close()
            raise PrivateAddress
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Tell the exchange which connection carries it, so that it can be aborted while the provider is silent."""
        if (exchange := getattr(_local, "exchange", None)) is not None:
            exchange._connection = self
            exchange.sent = True
        self._head = b""
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            if self._head:  # no body came
                super().send(self._head)  # type: ignore[misc]
        finally:
            self._head = None

    def send(self, data: Any) -> None:
        if self._head == b"":
            self._head = data
            return
        if self._head and isinstance(data, bytes) and len(data) < _CHUNK:
            data = self._head + data
        elif self._head:
            super().send(self._head)  # type: ignore[misc]
        self._head = None
        super().send(data)  # type: ignore[misc]


class _GuardedHTTP(_Guarded, HTTPConnection):
    response_class = PausingAnswer


class _GuardedHTTPS(_Guarded, HTTPSConnection):
    response_class = PausingAnswer


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class GuardedAdapter(HTTPAdapter):
    """requests' transport over guarded connections. Never retries: a repeated POST may cost twice."""

    def __init__(self) -> None:
        super().__init__(pool_connections=_POOLS, pool_maxsize=256, max_retries=0)
        self._pools: dict[tuple[Any, ...], Any] = {}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """The pool of the request's origin. What names a pool is worked out once, and again when it was closed."""
        url = urlsplit(request.url)
        key = (url.scheme, url.netloc, verify, *(proxies or {}).values())
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._pools[key] = pool
            if len(self._pools) > _POOLS:
                del self._pools[next(iter(self._pools))]
        return pool

    def request_url(self, request: Any, proxies: Any) -> str:
        url: str = super().request_url(request, proxies) if proxies else request.path_url
        return url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Without cookies: nobody here reads one, or sends one back."""
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason
        response.headers = CaseInsensitiveDict(resp.headers)
        response.url, response.request = req.url or "", req
        response.raw = resp
        return response


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
        _local.exchange = self
        self.began_ns = time.monotonic_ns()
        try:
            self._response = _session.get_adapter(base_url).send(
                request,
                stream=True,
                timeout=(settings.AIPASSPORT_CONNECT_TIMEOUT, settings.AIPASSPORT_READ_TIMEOUT),
                verify=settings.AIPASSPORT_UPSTREAM_CA_BUNDLE or True,
                proxies={"http": proxy, "https": proxy} if proxy else None,
            )
            _check_head(self._response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _translated(error, sent=self._connection is not None) from error
        finally:
            self._connection = _local.exchange = None

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
        """The body up to ``limit`` bytes; what is beyond is cut off."""
        parts, size = [], 0
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


def _check_head(response: requests.Response) -> None:
    """Raises where the head of the answer is not whole: cut in two, it would pass for an empty answer.

    The standard library takes what it got; ``requests`` reads cookies at the same place.
    """
    message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
    if any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in getattr(message, "defects", ())):
        raise urllib3.exceptions.ProtocolError("half a head")


def _prepare(base_url: str, auth: Mapping[str, str], call: UpstreamCall) -> requests.PreparedRequest:
    """Prepared by hand: requests' own preparation would look at cookies, netrc, hooks and the body's type again."""
    headers = {**call.headers, "user-agent": USER_AGENT, "accept-encoding": "identity"}
    body = _fairly(call.json) if isinstance(call.json, Spooled) else call.json
    if call.form is not None:
        headers["content-type"], length, body = multipart.encode(call.form)
        headers["content-length"] = str(length)
    elif call.json is not None:
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(call.json))
    request = requests.PreparedRequest()
    request.method = call.method
    request.url = base_url + call.path + (f"?{urlencode(call.query)}" if call.query else "")
    request.headers = CaseInsensitiveDict({**headers, **auth})
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
            "The provider's name leads to no address on the public internet, and this broker allows no other.",
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
