"""Everything that the relay refuses or fails with.

    RelayError
    ├── BadRequest            400  the request cannot be understood, or asks for what is never relayed
    ├── Unauthorized          401  no token, or one that is not valid any more (RFC 6750 §3.1 invalid_token)
    ├── NotGranted            403  a valid token, but the grant does not cover this call (insufficient_scope);
    │                            a model that is not granted has another status, by dialect
    ├── EndpointNotRelayed    404
    ├── LimitReached          429  a limit of the grant; ``final`` tells whether waiting helps
    ├── UpstreamError              ``connected`` is false where nothing was sent
    │   ├── UpstreamFailed    502  unreachable, no proper answer, or it refused the owner's key
    │   │   └── WebPage       502  a web page instead of an answer: no model was reached
    │   ├── UpstreamTimeout   504
    │   └── KeyUnreadable     503  the owner's key cannot be decrypted here, so that nothing can be sent
    ├── Cut                   403  an open stream was ended from our side: revoked, expired, drained
    └── Unavailable           503  the broker itself cannot admit calls just now

Each carries its HTTP status, a machine-readable ``code`` and a sentence for the app's developer.
The sentence may name what was asked for (a model, a field), never a secret. A dialect's
``error_body`` turns it into the shape that the caller's SDK understands.
"""

from __future__ import annotations

from typing import Any

_MAY_PASS = (408, 429)  # the only statuses below 500 that a repeated call may mend


class RelayError(Exception):
    """An answer of the broker's own. ``param`` names the offending body field, where there is one.

    ``final``: the same call would fail again, so clients are told not to repeat it. Some (Claude Code) repeat a 401
    for minutes otherwise. Errors below 500 are final, except those that say when to come again, 408 and 429.
    ``limit``: the limit of the grant that was reached, as :func:`proxy.ratelimit.details` tells it.
    ``details``: what Anthropic's SDKs read in ``error.details``, to send the call again in another way.
    """

    status = 500
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        final: bool = False,
        limit: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status = status or self.status
        self.param = param
        self.retry_after = retry_after
        self.final = final or (self.status < 500 and retry_after is None and self.status not in _MAY_PASS)
        self.limit = limit
        self.details = details


class BadRequest(RelayError):
    status = 400
    code = "invalid_request"


class Unauthorized(RelayError):
    status = 401
    code = "invalid_token"


class NotGranted(RelayError):
    status = 403
    code = "not_granted"


class EndpointNotRelayed(RelayError):
    status = 404
    code = "endpoint_not_relayed"


class LimitReached(RelayError):
    status = 429
    code = "limit_reached"


class UpstreamError(RelayError):
    def __init__(self, message: str, *, connected: bool = True, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.connected = connected


class UpstreamFailed(UpstreamError):
    status = 502
    code = "upstream_unreachable"


class WebPage(UpstreamFailed):
    code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"


class KeyUnreadable(UpstreamError):
    status = 503
    code = "key_unreadable"


class Cut(RelayError):
    status = 403
    code = "revoked"


class Unavailable(RelayError):
    status = 503
    code = "unavailable"
