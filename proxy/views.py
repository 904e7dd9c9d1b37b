"""The relay: the order of the steps, and how an error of ours is said."""

from __future__ import annotations

import logging
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from rest_framework.views import APIView

from grants import ledger, limits
from grants import policy as policies
from grants.crypto import DecryptionError
from grants.limits import Standing
from grants.pace import release_connection
from grants.policy import Denied, Policy
from grants.tokens import Claims

from . import bodies, cors, dialects, early, inbound, ratelimit, telemetry
from .accounting import Clock, open_call
from .authentication import authenticate
from .dialects.base import Inbound, UpstreamCall
from .exceptions import BadRequest, LimitReached, NotGranted, RelayError, Unauthorized, Unavailable
from .exchange import relay
from .reservations import output_limit

logger = logging.getLogger("aipassport.relay")

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# RFC 6750 §3.1: a token that is expired or revoked is invalid_token (401); what it does not cover is a 403.
_TOKEN_IS_DEAD = {"grant_unknown", "grant_revoked", "grant_expired", "token_revoked", "signing_key_retired"}
_BASE = "This is AIPassport's relay: the base URL of SDKs, whose calls go to the paths below it."


class RelayView(APIView):
    """Every path under ``/proxy/``: token → policy → call → admission → provider → app."""

    schema = None
    _policy: Policy | None = None
    _standing: Standing | None = None
    _claims: Claims | None = None
    _call: UpstreamCall | None = None
    _admitted = False
    _head = False

    def setup(self, *args: Any, **kwargs: Any) -> None:
        self._clock = Clock()
        super().setup(*args, **kwargs)

    def dispatch(self, request: HttpRequest, path: str) -> HttpResponseBase:
        """REST framework's order of things, less what the relay has none of.

        The answer's format is the provider's to choose, the body is read within its limit, rights are the policy's.
        And REST framework's request refers to itself: only the garbage collector would end it, and all that it holds.
        """
        try:
            response = self.relay(request, path)
        except Exception as error:  # noqa: BLE001  there is an answer to every one
            response = self.handle_exception(error)
        response = self.finalize_response(request, response)
        return _without_body(response) if self._head else response

    def relay(self, request: HttpRequest, path: str) -> HttpResponseBase:
        """One call, in the order of the steps."""
        if request.method == "OPTIONS":  # carries no token
            return cors.preflight(request)
        if request.method == "HEAD":  # the head of what GET would answer
            request.method, self._head = "GET", True
        if request.method == "GET" and not path.strip("/"):
            return JsonResponse({"message": _BASE})
        if request.method not in _METHODS:
            raise BadRequest("This method is not relayed.", code="method_not_allowed", status=405)
        claims = self._claims = authenticate(request)
        policy = self._policy = policies.read(claims)
        release_connection()  # a slow body must not hold one of a few
        policy.check_origin(request.META.get("HTTP_ORIGIN"))
        early.refuse_final(request, f"/{path}", policy)
        with inbound.Intake(policy.grant) as intake:
            asked = self._clock.waiting(intake.read, request, f"/{path}")
            call = self._call = bodies.read(asked, policy, output_limit(policy), intake.spool)
            opened = open_call(claims, policy, call, request.META.get("gunicorn.socket"), self._clock)
            self._admitted, self._policy, self._standing = True, opened.policy, opened.standing
            return relay(opened)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        cors.expose(request, response)
        for name, value in self._limits().items():
            response.headers[name] = value
        # Django would call a provider's error one of ours; a line of ours tells of it.
        response._has_been_logged = True
        if isinstance(response, HttpResponse) and response.content:
            response.headers["content-length"] = str(len(response.content))
        return response

    def _limits(self) -> dict[str, str]:
        """How the grant's limits stand, for any answer to a caller whose grant is known."""
        policy = self._policy
        if policy is None or not any(policy.limits):
            return {}
        standing = self._standing
        if standing is None:
            try:
                standing = ledger.standing(policy)
            except (ledger.Stale, Denied, DatabaseError, InterfaceError):
                return {}
            finally:
                release_connection()
        return ratelimit.headers(limits.report(policy.limits, standing, policy.time_zone), standing.now)

    def handle_exception(self, exc: Exception) -> Any:
        """Any error as an answer in the dialect of the caller's SDK, so that it raises its own typed exception."""
        error = _relay_error(exc)
        http = self.request
        asked = Inbound(http.method or "", f"/{self.kwargs['path']}", headers=inbound.headers_of(http))
        dialect = dialects.of_request(asked)
        error.status = dialects.status(dialect, error)
        release_connection()
        if not self._admitted:
            self._tell_refusal(error, http)
        if isinstance(exc, DatabaseError | InterfaceError):
            self._policy = None  # nobody waits a second time for a database that does not answer, to be told of limits
        response = JsonResponse(dialects.error_body(dialect, error), status=error.status)
        response.headers["cache-control"] = "no-store"
        if error.status == 401:
            response.headers["www-authenticate"] = f'Bearer realm="AIPassport", error="{error.code}"'
        if error.retry_after is not None:
            response.headers["retry-after"] = str(error.retry_after)
        if error.final:
            response.headers["x-should-retry"] = "false"
        return response

    def _tell_refusal(self, error: RelayError, http: HttpRequest) -> None:
        telemetry.refused(
            telemetry.Refused(
                code=error.code,
                status=error.status,
                total_us=self._clock.total_us(),
                trace=telemetry.trace_id(http.META, "HTTP_TRACEPARENT"),
                grant=self._claims.grant if self._claims else None,
                policy=self._policy,
                call=self._call,
            )
        )


def _without_body(response: HttpResponseBase) -> HttpResponse:
    """``response`` with its status and headers alone; a server would send the body of an answer to HEAD as well.

    The body is read to its end first, so that its call is settled as the one of a client that stayed.
    """
    if isinstance(response, StreamingHttpResponse):
        try:
            for _ in response:
                pass
        finally:
            response.close()
    bare = HttpResponse(status=response.status_code, headers=response.headers)
    if "content-type" not in response.headers:
        del bare.headers["content-type"]
    bare._has_been_logged = True  # type: ignore[attr-defined]
    return bare


def _relay_error(exc: Exception) -> RelayError:
    if isinstance(exc, RelayError):
        return exc
    if isinstance(exc, ledger.Full):
        limit = ratelimit.details(exc.limit) if exc.limit else None
        return LimitReached(exc.message, code=exc.code, final=exc.final, retry_after=exc.retry_after, limit=limit)
    if isinstance(exc, Denied):
        kind = Unauthorized if exc.code in _TOKEN_IS_DEAD else NotGranted
        return kind(exc.message, code=exc.code, param=exc.param)
    if isinstance(exc, DatabaseError | InterfaceError):
        logger.error("the database refused a call: %s", type(exc).__name__)
        return Unavailable("The broker's database does not answer; please try again.", retry_after=2)
    if isinstance(exc, DecryptionError):
        logger.error("the provider key of a grant cannot be read: %s", exc)
        return RelayError(
            "The broker cannot decrypt the provider key behind this grant.", code="key_unreadable", final=True
        )
    logger.exception("internal error in the relay")
    return RelayError("Internal error of the broker.")
