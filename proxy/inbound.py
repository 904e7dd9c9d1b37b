"""From Django's request to an :class:`Inbound`: the credential taken out, the body read within its limit."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.http import HttpRequest

from . import multipart
from .dialects.base import CREDENTIAL_PARAMETERS, Form, Inbound
from .exceptions import BadRequest, Unauthorized

# Where an SDK puts its key. The value is the token; only the names travel on.
CREDENTIAL_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


def headers_of(request: HttpRequest) -> dict[str, str]:
    """The request's headers, names in lower case, credentials blanked: what is there is known, what it is, is not."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in request.META.items() if name[:5] == "HTTP_"}
    return headers | {name: "" for name in CREDENTIAL_HEADERS if name in headers}


def token_of(request: HttpRequest) -> str:
    """The one credential of the request.

    Raises:
        Unauthorized: there is none.
        BadRequest: two different ones, one of another scheme, or one in the URL (URLs end up in logs).
    """
    for name, _ in parse_qsl(request.META.get("QUERY_STRING", ""), keep_blank_values=True):
        if name.lower() in CREDENTIAL_PARAMETERS:
            raise BadRequest("A token belongs into a header: URLs end up in logs.", code="token_in_url")
    tokens = set()
    for name in CREDENTIAL_HEADERS:
        value = request.META.get(f"HTTP_{name.upper().replace('-', '_')}", "").strip()
        if value and name == "authorization":
            scheme, _, value = value.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("The Authorization header must be 'Bearer' and a token.")
        if value.strip():
            tokens.add(value.strip())
    if not tokens:
        raise Unauthorized(
            "No token: send the one that AIPassport issued where your SDK puts its API key.", code="token_missing"
        )
    if len(tokens) > 1:
        raise BadRequest("Two different credentials in one request.", code="two_credentials")
    return tokens.pop()


def read(request: HttpRequest, path: str) -> Inbound:
    """The request as the dialects want it. ``path`` is decoded, below ``/proxy``.

    Raises:
        BadRequest: the body is larger than the limit (413), or ends early, or is a malformed form.
    """
    content_type = request.META.get("CONTENT_TYPE", "")
    form: Form | None = None
    body = b""
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        if _declared_length(request) is None:
            raise BadRequest("A multipart body needs a Content-Length.", code="length_required", status=411)
        form = multipart.parse(request.META, request)
    else:
        body = _body(request)
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


def _declared_length(request: HttpRequest) -> int | None:
    value = request.META.get("CONTENT_LENGTH") or ""
    length = int(value) if value.isascii() and value.isdecimal() and len(value) < 16 else None
    limit = settings.AIPASSPORT_MAX_BODY_BYTES
    if length is not None and length > limit:
        raise BadRequest(f"The body is larger than {limit} bytes.", code="body_too_large", status=413)
    return length


def _body(request: HttpRequest) -> bytes:
    length = _declared_length(request)
    limit = settings.AIPASSPORT_MAX_BODY_BYTES
    chunked = "HTTP_TRANSFER_ENCODING" in request.META  # no length: Django would read nothing, the server knows the end
    stream: Any = request.META["wsgi.input"] if chunked else request
    try:
        body = stream.read(limit + 1 if chunked else length or 0)
    except Exception as error:  # the client's, told by errors of the server's own: broken chunks, a connection gone
        raise BadRequest("The body could not be read to its end.") from error
    if len(body) > limit:
        raise BadRequest(f"The body is larger than {limit} bytes.", code="body_too_large", status=413)
    if not chunked and len(body) != (length or 0):
        raise BadRequest("The body is shorter than its Content-Length.")
    return body
