"""From Django's request to an :class:`Inbound`: the credential taken out, the body received within its limits."""

from __future__ import annotations

import time
from tempfile import TemporaryFile
from typing import Any, Self
from urllib.parse import parse_qsl
from uuid import UUID

import gevent
from django.conf import settings
from django.http import HttpRequest

from grants import tokens

from . import multipart
from .dialects.base import CREDENTIAL_PARAMETERS, Form, Inbound
from .exceptions import BadRequest, LimitReached, Unauthorized, Unavailable
from .fairness import let_others_run

SPOOLED_FROM = 256 * 1024  # a larger body goes into a temporary file while it comes
_STEP = 64 * 1024  # bytes that are read at once
_CHUNKED_STEP = 8 * 1024  # a chunk may be a single byte, which costs as much to read as a kilobyte
_MIN_RATE = 64 * 1024  # bytes a second

# Where an SDK puts its key. The value is the token; only the names travel on.
CREDENTIAL_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


def headers_of(request: HttpRequest) -> dict[str, str]:
    """The request's headers, names in lower case, credentials blanked: what is there is known, what it is, is not."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in request.META.items() if name[:5] == "HTTP_"}
    return headers | {name: "" for name in CREDENTIAL_HEADERS if name in headers}


def token_of(request: HttpRequest) -> str:
    """The one credential of the request.

    Of several, the only one that has the form of our tokens: a provider key that an SDK found in its environment is
    left out, and seen by nobody. Judged by form alone, so that a dead token does not make the other one count.

    Raises:
        Unauthorized: there is none.
        BadRequest: two different ones that may both be meant, or one in the URL (URLs end up in logs).
    """
    for name, _ in parse_qsl(request.META.get("QUERY_STRING", ""), keep_blank_values=True):
        if name.lower() in CREDENTIAL_PARAMETERS:
            raise BadRequest("Send the token in a header, not in the URL: URLs end up in logs.", code="token_in_url")
    found: dict[str, str] = {}  # the first header of each token
    other_scheme = False
    for name in CREDENTIAL_HEADERS:
        value = request.META.get(f"HTTP_{name.upper().replace('-', '_')}", "").strip()
        if value and name == "authorization":
            scheme, _, value = value.partition(" ")
            if scheme.lower() != "bearer":
                other_scheme, value = True, ""
        if value.strip():
            found.setdefault(value.strip(), name)
    return _chosen(found, other_scheme)


def _chosen(found: dict[str, str], other_scheme: bool) -> str:
    """The token among the credentials ``found``, each with its header. ``other_scheme``: one more is no Bearer token.

    Raises:
        Unauthorized: there is none.
        BadRequest: there are several, and not exactly one has the form of ours.
    """
    if len(found) == 1 and not other_scheme:
        return next(iter(found))
    ours = [value for value in found if tokens.has_form(value)]
    if len(ours) == 1:
        return ours[0]
    if not found and other_scheme:
        raise Unauthorized("The Authorization header must have the form 'Bearer TOKEN'.")
    if not found:
        raise Unauthorized(
            "The request has no token. Put the token that AIPassport issued where your SDK takes its API key.",
            code="token_missing",
        )
    names = sorted({*found.values(), *(["authorization"] if other_scheme else [])}, key=CREDENTIAL_HEADERS.index)
    shown = " and ".join(f"'{name}'" for name in names)
    raise BadRequest(
        f"The headers {shown} hold different credentials. Send only the token that AIPassport issued.",
        code="two_credentials",
    )


class Budget:
    """Bytes of request bodies in flight in this worker: of all grants, and of each."""

    def __init__(self) -> None:
        self.taken = 0
        self._by_grant: dict[UUID, int] = {}

    def take(self, grant: UUID, size: int) -> None:
        """Count ``size`` more bytes.

        Raises:
            LimitReached: the grant has too many.
            Unavailable: all grants together have.
        """
        largest = settings.AIPASSPORT_MAX_BODY_BYTES
        most = max(settings.AIPASSPORT_MAX_BODY_BYTES_IN_FLIGHT, largest)
        of_grant = self._by_grant.get(grant, 0) + size
        if of_grant > max(most // 4, largest):
            raise LimitReached(
                "Too many bytes of this grant's request bodies are in flight. Wait until one of its calls ends.",
                code="too_many_body_bytes",
                retry_after=2,
            )
        if self.taken + size > most:
            raise Unavailable("The broker is receiving too many large bodies. Please try again.", retry_after=2)
        self.taken += size
        self._by_grant[grant] = of_grant

    def give_back(self, grant: UUID, size: int) -> None:
        self.taken -= size
        left = self._by_grant[grant] - size
        if left:
            self._by_grant[grant] = left
        else:
            del self._by_grant[grant]


budget = Budget()


class Intake:
    """Receives the body of one request, within the budget and in time. Closed once the body was sent on.

    ``spool``: the open file that holds a large body instead of ``Inbound.body``.
    """

    def __init__(self, grant: UUID) -> None:
        self.spool: Any = None
        self._grant = grant
        self._taken = 0
        self._form: Form | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken:
            budget.give_back(self._grant, self._taken)
            self._taken = 0
        if self.spool is not None:
            self.spool.close()

    def read(self, request: HttpRequest, path: str) -> Inbound:
        """The request as the dialects want it. ``path`` is decoded, below ``/proxy``.

        Raises:
            BadRequest: the body is larger than the limit (413), ends early, is too slow (408), or is a malformed form.
            LimitReached, Unavailable: too many bytes of bodies are in flight.
        """
        content_type = request.META.get("CONTENT_TYPE", "")
        form: Form | None = None
        body = b""
        if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
            form = self._read_form(request)
        else:
            body = self._read_body(request)
        query = request.META.get("QUERY_STRING", "")
        return Inbound(
            method=request.method or "",
            path=path,
            query=tuple(parse_qsl(query, keep_blank_values=True)) if query else (),
            headers=headers_of(request),
            content_type=content_type,
            body=body,
            form=form,
        )

    def _take(self, size: int) -> None:
        budget.take(self._grant, size)
        self._taken += size

    def _read_form(self, request: HttpRequest) -> Form:
        length = declared_length(request)
        if length is None:
            raise BadRequest("A multipart body needs a Content-Length.", code="length_required", status=411)
        self._take(length)
        return multipart.parse(request.META, _Timed(request, request))

    def _read_body(self, request: HttpRequest) -> bytes:
        length = declared_length(request)
        # Without a length Django would read nothing; the server knows the end of a chunked body.
        chunked = "HTTP_TRANSFER_ENCODING" in request.META
        if not chunked and not length:
            return b""
        if not chunked:
            self._take(length or 0)
        stream = _Timed(request, request.META["wsgi.input"] if chunked else request)
        return self._receive(stream, None if chunked else length or 0)

    def _receive(self, stream: _Timed, length: int | None) -> bytes:
        """The whole body, or ``b""`` where it went into the spool. ``length``: ``None`` where it is not declared."""
        parts, size = list[bytes](), 0
        while length is None or size < length:
            part = stream.read(_CHUNKED_STEP if length is None else min(_STEP, length - size))
            if not part:
                break
            size += len(part)
            if length is None:
                _check_length(size)
                self._take(len(part))
            self._keep(part, parts, size)
        if length is not None and size != length:
            raise BadRequest("The body is shorter than its Content-Length.")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _keep(self, part: bytes, parts: list[bytes], size: int) -> None:
        if self.spool is None and size <= SPOOLED_FROM:
            parts.append(part)
            return
        if self.spool is None:
            self.spool = TemporaryFile()  # noqa: SIM115  closed by __exit__
            self.spool.writelines(parts)
            parts.clear()
        self.spool.write(part)


class _Timed:
    """A body as it comes: with a deadline, and letting other calls run between its pieces.

    The deadline moves on by a second for each ``_MIN_RATE`` bytes that came.
    """

    def __init__(self, request: HttpRequest, stream: Any) -> None:
        self._stream = stream
        self._timed = "gunicorn.socket" in request.META  # other servers wait without a deadline
        self._deadline = time.monotonic() + settings.AIPASSPORT_BODY_TIMEOUT
        self._began = False

    def read(self, size: int) -> bytes:
        if self._began:
            let_others_run()
        self._began = True
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            data = self._read_within(left, size)
        except Exception as error:  # the server's own errors for broken chunks and lost connections
            if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):  # Django's has a cause
                raise BadRequest("The body arrived too slowly.", code="body_timeout", status=408) from error
            raise BadRequest("The body could not be read to its end.") from error
        self._deadline += len(data) / _MIN_RATE
        return data

    def _read_within(self, seconds: float, size: int) -> bytes:
        """One read of the server is many of its socket, so that a timeout of the socket would bound nothing."""
        if not self._timed:
            return bytes(self._stream.read(size))
        with gevent.Timeout(seconds, TimeoutError):
            return bytes(self._stream.read(size))


def declared_length(request: HttpRequest) -> int | None:
    """The body's length as its header gives it.

    Raises:
        BadRequest: it is more than the limit.
    """
    value = request.META.get("CONTENT_LENGTH") or ""
    length = int(value) if value.isascii() and value.isdecimal() and len(value) < 16 else None
    if length is not None:
        _check_length(length)
    return length


def _check_length(length: int) -> None:
    limit = settings.AIPASSPORT_MAX_BODY_BYTES
    if length > limit:
        raise BadRequest(f"The body is larger than {limit} bytes.", code="body_too_large", status=413)
