"""Everything that goes wrong, in one shape.

``{"error": {"code": "…", "message": "…", "fields": {"name": ["…"]}}}``, where ``fields`` is there for bodies and
queries that are not valid. The endpoints that apps reach with OAuth libraries (``tokens/`` and below) answer in the
shape of RFC 6749 §5.2 instead: ``{"error": "code", "error_description": "…"}``.

``grants`` raises nothing HTTP; what its methods do raise becomes an answer here and nowhere else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from django.core import exceptions as django
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as drf
from rest_framework.response import Response

logger = logging.getLogger(__name__)

BODY = "body"  # the field name of what is wrong with a body as a whole
_PENDING_RETRY_AFTER = 60
_READ_ONLY = "25006"  # PostgreSQL's code for a write where nothing can be written, as on a replica


class Conflict(drf.APIException):
    """The thing is not in the state that this needs; ``code`` says what is in the way."""

    status_code = 409
    default_code = "conflict"


class OAuthError(drf.APIException):
    """An answer of RFC 6749 §5.2 or RFC 8628 §3.5: ``code`` as there."""

    status_code = 400
    default_code = "invalid_request"


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    code: str
    message: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        return {"error": error | ({"fields": self.fields} if self.fields else {})}

    def as_oauth(self) -> dict[str, str]:
        """The shape of RFC 6749 §5.2, with its codes where it has one."""
        if self.status == 429:
            return {"error": "slow_down", "error_description": self.message}
        code = self.code
        if self.fields:
            code = "invalid_scope" if self.fields.keys() <= {"models", "capabilities"} else "invalid_request"
        detail = " ".join(f"{name}: {' '.join(texts)}" for name, texts in self.fields.items())
        return {"error": code, "error_description": detail or self.message}


def handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler; ``None`` (a server error) only for what is a defect of ours."""
    view = context.get("view")
    problem = _problem(error, getattr(view, "field_names", {}))
    if problem is None:
        return None
    body = problem.as_oauth() if getattr(view, "oauth", False) else problem.as_json()
    return Response(body, status=problem.status, headers=problem.headers)


def _problem(error: Exception, field_names: dict[str, str]) -> Problem | None:
    if isinstance(error, django.ValidationError):
        return _of_model(error, field_names)
    if isinstance(error, drf.ValidationError):
        return _invalid(_flat(error.detail))
    if isinstance(error, Http404):
        error = drf.NotFound()
    if isinstance(error, django.PermissionDenied):
        error = drf.PermissionDenied()
    if isinstance(error, drf.APIException):
        return _of_drf(error)
    if isinstance(error, django.RequestDataTooBig):
        return Problem(413, "body_too_large", "The body is too large.")
    if isinstance(error, django.SuspiciousOperation | MultiPartParserError | UnreadablePostError):
        return Problem(400, "bad_request", "The request cannot be read.")
    read_only = isinstance(error, InternalError) and getattr(error.__cause__, "sqlstate", "") == _READ_ONLY
    if read_only or isinstance(error, OperationalError | InterfaceError):
        logger.error("database: %s", error)
        return Problem(503, "database_unavailable", "The database does not answer.", headers={"Retry-After": "5"})
    return None


def _of_model(error: django.ValidationError, field_names: dict[str, str]) -> Problem:
    """What a model method would not do. ``field_names``: a model's name → the name in this view's body."""
    code = getattr(error, "code", None) or ""
    message = " ".join(error.messages)
    if code == "too_many":
        headers = {"Retry-After": str(_PENDING_RETRY_AFTER)}
        return Problem(429, "too_many_pending_requests", message, headers=headers)
    if code.startswith("grant_"):
        return Problem(409, code, message)
    fields = error.message_dict if hasattr(error, "error_dict") else {BODY: error.messages}
    return _invalid({field_names.get(name, name): texts for name, texts in fields.items()})


def _invalid(fields: dict[str, list[str]]) -> Problem:
    return Problem(400, "invalid", f"Not valid: {', '.join(fields)}.", fields)


def _of_drf(error: drf.APIException) -> Problem:
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    if isinstance(error, drf.Throttled):
        headers["Retry-After"] = str(getattr(error, "wait", None) or 1)
    detail: Any = error.detail
    if isinstance(detail, dict):  # simplejwt's
        return Problem(error.status_code, str(detail["code"]), str(detail["detail"]), headers=headers)
    return Problem(error.status_code, str(getattr(detail, "code", error.default_code)), str(detail), headers=headers)


def _flat(detail: Any, name: str = BODY) -> dict[str, list[str]]:
    """DRF's nested messages as field → sentences."""
    if not isinstance(detail, dict):
        return {name: _sentences(detail)}
    return {BODY if key == "non_field_errors" else str(key)[:100]: _sentences(value) for key, value in detail.items()}


def _sentences(detail: Any) -> list[str]:
    if isinstance(detail, dict):
        return [sentence for value in detail.values() for sentence in _sentences(value)]
    if isinstance(detail, list):
        return [sentence for value in detail for sentence in _sentences(value)]
    return [str(detail)]
