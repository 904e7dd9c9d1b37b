"""Connections that leave for public addresses only, below requests: what is checked is what is connected to."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from grants.addresses import is_public

from .provider_answer import ProviderAnswer

_CHUNK = 65536
_POOLS = 64  # of connections, one for each provider's origin

local = threading.local()  # .exchange: the exchange that this greenlet is sending


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
        if (exchange := getattr(local, "exchange", None)) is not None:
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
    response_class = ProviderAnswer


class _GuardedHTTPS(_Guarded, HTTPSConnection):
    response_class = ProviderAnswer


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
        response.headers = resp.headers  # urllib3's mapping ignores case as requests' does
        response.url, response.request = req.url or "", req
        response.raw = resp
        return response
