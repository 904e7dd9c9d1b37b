"""Whatever is sent: a 4xx as JSON with a code, never a 500, nothing half written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import OperationalError

from grants.models import Grant
from grants.models.grants import GrantQuerySet
from tests.api import anyone, ask, owner

pytestmark = pytest.mark.django_db

PATHS = ["/api/grant-requests/", "/api/grants/", "/api/tokens/", "/api/auth/token/", "/api/tokens/introspect/"]

BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "a key twice": b'{"app_name": "a", "app_name": "b", "token": "x", "token": "y"}',
    "NaN": b'{"max_requests": NaN, "token": NaN}',
    "Infinity": b'{"max_requests": -Infinity, "token": Infinity}',
    "a number without end": b'{"max_requests": ' + b"9" * 5000 + b"}",
    "an exponent without end": b'{"max_requests": 1e400, "token": 1e400}',
    "deep nesting": b"[" * 100_000,
    "deep objects": b'{"a":' * 20_000,
    "Latin-1": '{"app_name": "ä", "token": "ä"}'.encode("latin-1"),
    "UTF-16": '{"app_name": "a", "token": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"token": "a"}',
    "half a surrogate pair": b'{"app_name": "\\ud800", "token": "\\udc00"}',
    "half a pair in a key": b'{"\\ud800": 1}',
    "NUL in a string": b'{"app_name": "a\\u0000b", "token": "a\\u0000b", "username": "\\u0000", "password": "x"}',
    "NUL in the text": b'{"app_name": "\0", "token": "\0"}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_none_is_a_400_as_json(alice: Any, path: str, body: bytes) -> None:
    caller = owner(alice) if path == "/api/grants/" else anyone()
    answer = caller.raw(path, body)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body["error"]
    assert not Grant.objects.exists()


@pytest.mark.parametrize("values", [b"[],", b"{},", b"1.5,", b'"",'])
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(values: bytes) -> None:
    """Parsing a megabyte of lists held up every stream of the worker for a second, and needed no credential."""
    answer = anyone().raw("/api/grant-requests/", b'{"app_name": [' + values * 11_000 + b"1]}")
    assert answer.status == 400
    assert answer.body["error"]["message"] == "The body has too many values."


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_too_large_or_of_another_type_is_refused(alice: Any, path: str) -> None:
    caller = owner(alice) if path == "/api/grants/" else anyone()
    assert caller.raw(path, b'{"a": "' + b"x" * 1_100_000 + b'"}').status == 413
    types = [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "nonsense",
        "",
    ]
    for content_type in types:
        assert caller.raw(path, b"{}", content_type).status == 415
    assert caller.raw(path, b"\x1f\x8b\x08", **{"Content-Encoding": "gzip"}).status == 415


def test_a_charset_that_is_none_changes_nothing() -> None:
    for charset in ("utf-8", "no-such-charset", "utf-7", '"', "\u00e4"):
        body = json.dumps(ask()).encode()
        assert anyone().raw("/api/grant-requests/", body, f"application/json; charset={charset}").status == 201


def test_an_unknown_field_is_refused_by_name_everywhere(alice: Any, grant: Grant) -> None:
    for path in (
        "grants/",
        f"grants/{grant.pk}/approve/",
        f"grants/{grant.pk}/deny/",
        f"grants/{grant.pk}/revoke/",
        f"grants/{grant.pk}/rotate-secret/",
        f"grants/{grant.pk}/tokens/",
    ):
        answer = owner(alice).post(f"/api/{path}", {"surprise": 1})
        if "approve" in path or "deny" in path:
            assert answer.status in (400, 409)
        else:
            assert answer.body["error"]["fields"]["surprise"] == ["Unknown field."]
    for path in ("grant-requests/", "auth/token/", "auth/token/refresh/"):
        assert anyone().post(f"/api/{path}", {"surprise": 1}).body["error"]["fields"]["surprise"] == ["Unknown field."]
    assert anyone().post("/api/tokens/", {"surprise": 1}).body["error_description"].startswith("surprise: ")
    grant.refresh_from_db()
    assert grant.status == "approved"


@pytest.mark.parametrize(
    "path",
    [
        "/api/",
        "/api/x",
        "/api/grants",
        "/api/grants/x/",
        "/api/grants/%00/",
        "/api/grants//",
        "/api/../admin/",
        "/api/grants/00000000-0000-0000-0000-000000000000/x/",
        "/api/tokens",
        "/api/%ff/",
        "/api/grants/?/../x",
        "/api/grants/00000000-0000-0000-0000-000000000000/tokens/%00/revoke/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_path_that_is_none_is_a_json_404(method: str, path: str) -> None:
    answer = anyone()(method, path)
    assert answer.status in (404, 401, 405)
    assert answer.status == 404 or path == "/api/grants/?/../x"
    assert answer.body["error"]["code"] in ("not_found", "not_authenticated", "method_not_allowed")


def test_an_accept_header_that_names_something_else_changes_nothing(alice: Any, grant: Grant) -> None:
    for accept in ("text/event-stream", "text/html", "x", "application/json;q=0"):
        answer = owner(alice)("GET", f"/api/grants/{grant.pk}/?format=xml", Accept=accept)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")


def test_a_database_that_does_not_answer_is_a_503_as_json(monkeypatch: pytest.MonkeyPatch, alice: Any) -> None:
    caller = owner(alice)

    def gone(*args: Any) -> None:
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(GrantQuerySet, "owned_by", gone)
    answer = caller.get("/api/grants/")
    assert (answer.status, answer.body["error"]["code"]) == (503, "database_unavailable")
    assert answer.headers["Retry-After"]


def test_answers_are_not_kept_by_caches(alice: Any, grant: Grant) -> None:
    for path in ("/api/grants/", f"/api/grants/{grant.pk}/", "/api/events/", "/api/nowhere/"):
        assert owner(alice).get(path).headers["Cache-Control"] == "no-store"
