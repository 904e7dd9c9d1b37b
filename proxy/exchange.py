"""Out to the provider and back: the key injected at the last moment, the answer made safe for the app."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

from grants.crypto import DecryptionError
from grants.policy import Policy

from . import dialects, provider_errors
from .accounting import OpenCall
from .dialects.base import UpstreamCall
from .endings import Ending
from .exceptions import KeyUnreadable, RelayError, UpstreamError, UpstreamFailed, WebPage
from .fairness import let_others_run, one_at_a_time
from .kinds import kind_of, refuse
from .observing import Observing
from .streaming import RelayedBody
from .upstream import Exchange
from .watch import watch

logger = logging.getLogger("aipassport.relay")

_ERROR_BYTES = 64 * 1024
_MODEL_LIST_BYTES = 4 * 1024 * 1024
_MODEL_LIST_VALUES = 200_000  # commas, brackets, quotes and escapes: 20 ms; the longest real list has 100,000

# Account names that providers put into their error messages.
_ACCOUNT = re.compile(rb"\b(org|proj|organization|project)[-_][A-Za-z0-9]{6,}")

# Azure bills prompts that its filter refused, and what was made of them by then; and ones that were too long.
_BILLED = re.compile(rb"content_filter|ResponsibleAIPolicyViolation|context_length_exceeded")

# No upstream may serve a page, or be taken for one, on the admin's origin.
_SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox",
    "cache-control": "no-store",
}


class Relayed(StreamingHttpResponse):
    """An answer whose pieces go from its body to the server as they are."""

    def __init__(self, body: RelayedBody, *, status: int, headers: dict[str, str]) -> None:
        self.body = body
        super().__init__(body, status=status, headers=headers)
        if "content-type" not in headers:
            del self.headers["content-type"]  # Django would say that it is HTML

    def __iter__(self) -> Iterator[bytes]:
        return self.body

    def close(self) -> None:
        """Without Django's signal, at which connections to the database are closed: none is held here."""
        self.body.close()
        self.closed = True


def relay(opened: OpenCall) -> HttpResponseBase:
    """Send an admitted call and answer with what comes back. Whatever happens, the call is settled once.

    Raises:
        RelayError: the provider failed, refused the key, or the call was cut while it was silent.
    """
    try:
        _send(opened)
        response = _answer(opened)
    except BaseException as error:
        if isinstance(error, UpstreamFailed) and error.code == "upstream_error":  # no proper answer: see the base URL
            watch.used(opened.policy.key, error.message)
        opened.finish(_ending_of(opened, error))
        opened.watched.exchange.close()
        raise
    for name, value in _SAFE_HEADERS.items():
        response.headers[name] = value
    response.headers["x-aipassport-call"] = str(opened.id)
    if opened.limit is not None:
        response.headers["x-aipassport-output-limit"] = str(opened.limit)
    return response


def _send(opened: OpenCall) -> None:
    policy, call = opened.policy, _apart(opened)
    auth = policy.provider.openai_auth if call.compatible else policy.provider.auth
    try:
        opened.watched.exchange.send(policy.base_url, auth.header(_secret(policy)), call)
    except UpstreamError as error:
        if opened.watched.cut is not None:
            raise opened.watched.cut from error
        if not opened.watched.aborted:
            watch.used(policy.key, error.message)
        raise
    watch.used(policy.key)


def _secret(policy: Policy) -> str:
    """The raw key. Where it cannot be read an operator has to mend it: see the log, and the owner's page of the key."""
    try:
        return policy.secret()
    except DecryptionError as error:
        logger.error("the secret of provider key %s cannot be read: %s", policy.key, error)
        message = "The broker cannot decrypt the provider key behind this grant. Its operator must fix this."
        raise KeyUnreadable(message, connected=False, final=True) from error


def _apart(opened: OpenCall) -> UpstreamCall:
    """The call as it goes out: with the output limit that it was admitted with, and an idempotency key of the grant's
    own, since all apps on a provider key share one name space there. A trace goes on from our span."""
    call = opened.call
    if opened.limit is not None and opened.limit != call.demand.limit:
        call = call.limited(opened.limit)
    if opened.span is not None:
        call = replace(call, headers={**call.headers, **opened.span.headers})
    if (given := call.headers.get("idempotency-key")) is None:
        return call
    return replace(call, headers={**call.headers, "idempotency-key": f"{opened.policy.grant}-{given}"})


def _ending_of(opened: OpenCall, error: BaseException) -> Ending:
    """How a call ended of which the app gets no answer but an error of ours."""
    exchange = opened.watched.exchange
    if isinstance(error, UpstreamError) and exchange.answered and exchange.status >= 300:
        read = error.code in ("upstream_auth_failed", "upstream_refused")
        return Ending("upstream_error", exchange.status, unread=not read)
    connected = getattr(error, "connected", True)
    outcome = opened.watched.outcome(error if isinstance(error, RelayError) else None)
    status = exchange.status if exchange.answered else None
    page = isinstance(error, WebPage) and not _may_be_spoken(opened.call, exchange)
    return Ending(outcome, status, connected=connected, unread=exchange.answered, page=page, ended=False)


def _may_be_spoken(call: UpstreamCall, exchange: Exchange) -> bool:
    """Whether what begins like a web page may be a transcript as plain text, whose words are the app's choice."""
    return call.flavor == "transcription" and "html" not in exchange.content_type.lower()


def _answer(opened: OpenCall) -> HttpResponseBase:
    exchange, call = opened.watched.exchange, opened.call
    if not 200 <= exchange.status < 600:  # after an interim answer another one comes: its connection is not used again
        raise UpstreamFailed(f"The provider answered with the status {exchange.status}.", code="upstream_error")
    if 300 <= exchange.status < 400:
        raise UpstreamFailed(
            "The provider answered with a redirect, which is not followed.", code="upstream_redirected", final=True
        )
    if exchange.status >= 400:
        return _error(opened)
    if exchange.unreadable:
        raise UpstreamFailed("The provider's answer is in an unknown content coding.", code="upstream_error")
    if call.method == "GET" and not call.models:
        return _model_list(opened)
    observer = Observing(dialects.observer(call), opened.policy.grant, call.flavor)
    body = RelayedBody(
        exchange,
        observer,
        opened.watched,
        finish=lambda ending: opened.finish(ending._replace(unread=True) if observer.unread else ending),
        error_event=lambda error: dialects.error_event(call.dialect, error),
        hides=call.hides_usage,
        flavor=call.flavor,
        stream=call.stream,
    )
    body.read_ahead()
    response = Relayed(body, status=exchange.status, headers=exchange.headers())
    if exchange.length is not None and not (call.hides_usage or body.events):
        response.headers["content-length"] = str(exchange.length)
    return response


def _error_body(exchange: Exchange) -> bytes:
    """What a refusal is for is told where it can be read; the status alone refuses as well."""
    try:
        return exchange.read_all(_ERROR_BYTES)
    except RelayError:
        if exchange.status in (401, 403):
            return b""
        raise


def _refused(opened: OpenCall, body: bytes, secret: str) -> UpstreamFailed | None:
    """The error for the app where the provider refused the key, or this call with it; the owner is told why."""
    status, key = opened.watched.exchange.status, opened.policy.key
    found = provider_errors.refusal(status, body, secret)
    if found is None:
        return None
    message = found.told(status)
    logger.warning("provider key %s: %s", key, message)
    if found.of_key:
        watch.rejected(key, message)
        return UpstreamFailed(
            "The provider did not accept the key behind this grant; its owner has been told.",
            code="upstream_auth_failed",
            final=True,
        )
    watch.used(key, message)
    return UpstreamFailed(
        "The provider does not allow this call with the key behind this grant; the key's owner can see why.",
        code="upstream_refused",
        final=True,
    )


def _error(opened: OpenCall) -> HttpResponse:
    """The provider's own error, where it is safe to pass on: JSON, and without a piece of the key in it."""
    exchange = opened.watched.exchange
    body, secret = _error_body(exchange), opened.policy.secret()
    if refused := _refused(opened, body, secret):
        raise refused
    cut = len(body) >= _ERROR_BYTES
    observer = dialects.observer(opened.call)
    observer.body(body, refused=True)
    if not provider_errors.is_safe(body, secret):
        error = UpstreamFailed(f"The provider answered with an error (HTTP {exchange.status}).", code="upstream_error")
        body = json.dumps(dialects.error_body(opened.call.dialect, error)).encode()
    billed = opened.policy.provider.id == "azure" and bool(_BILLED.search(body))
    opened.finish(Ending("upstream_error", exchange.status, observer=observer, unread=cut, billed=billed))
    exchange.close()
    headers = exchange.headers() | {"content-type": "application/json"}
    return HttpResponse(_ACCOUNT.sub("\\1-…".encode(), body), status=exchange.status, headers=headers)


def _model_list(opened: OpenCall) -> HttpResponse:
    """The provider's list, less what the grant does not allow."""
    exchange = opened.watched.exchange
    body = exchange.read_all(_MODEL_LIST_BYTES)
    refuse(kind_of(body, exchange.content_type, flavor="none", stream=False), "none")
    if sum(map(body.count, (b",", b"[", b"{", b'"', b"\\"))) > _MODEL_LIST_VALUES:
        raise UpstreamFailed("The provider's list of models is too long.", code="upstream_error")
    with one_at_a_time:
        body = dialects.filter_models(opened.call, body, opened.policy.allows_model)
        let_others_run()
    opened.finish(Ending("ok", exchange.status))
    exchange.close()
    return HttpResponse(body, status=exchange.status, headers=exchange.headers() | {"content-type": "application/json"})
