"""Which of several credentials counts, what a final refusal says, and HEAD: over a real socket."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
import requests
from django.test import RequestFactory

from grants import tokens
from grants.models import Call
from proxy import inbound
from proxy.exceptions import (
    BadRequest,
    Cut,
    EndpointNotRelayed,
    LimitReached,
    NotGranted,
    RelayError,
    Unauthorized,
    Unavailable,
)

from .live import eventually
from .test_relay_attacks import BODY, post, raw

KEY = "sk-ant-api03-left-over-in-the-environment"
SANDBOX = BODY | {"model": "sandbox-1"}
CHAT = "/proxy/v1/chat/completions"
live = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def made(typ: str = "at+jwt", kid: str = "a" * 32, **more: Any) -> str:
    """A token in the form of ours, signed by nobody whom we know."""
    return jwt.encode({"sub": "x", **more}, "0" * 32, algorithm="HS256", headers={"typ": typ, "kid": kid})


def es256(number: int = 0, **header: str) -> str:
    text = made(n=number).split(".")
    head = {"alg": "ES256", "typ": "at+jwt", "kid": "a" * 32} | header
    text[0] = jwt.utils.base64url_encode(repr(head).replace("'", '"').encode()).decode()
    return ".".join(text)


OURS = es256(1)
ALSO_OURS = es256(2)
FOREIGN = [
    "",
    "sk-proj-1",
    "AIzaSyA",
    KEY,
    "a.b.c",
    "ey.ey.ey",
    made(),
    es256(typ="JWT"),
    es256(kid="k"),
    "ü",
    "x" * 9000,
]


def chosen(**headers: str) -> str:
    request = RequestFactory().get("/", headers={name.replace("_", "-"): value for name, value in headers.items()})
    return inbound.token_of(request)


# Two credentials


@pytest.mark.parametrize("other", FOREIGN)
def test_the_only_credential_with_the_form_of_ours_is_used(other: str) -> None:
    assert tokens.has_form(OURS)
    assert not tokens.has_form(other)
    assert chosen(authorization=f"Bearer {OURS}", x_api_key=other) == OURS
    assert chosen(authorization=f"Bearer {other}", x_api_key=OURS) == OURS
    assert chosen(x_goog_api_key=other, api_key=OURS, x_api_key="sk-third") == OURS
    assert chosen(authorization=f"Basic {other}", api_key=OURS) == OURS


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"authorization": f"Bearer {OURS}", "x-api-key": ALSO_OURS}, "'authorization' and 'x-api-key'"),
        ({"authorization": "Bearer sk-1", "x-api-key": KEY}, "'authorization' and 'x-api-key'"),
        ({"x-goog-api-key": "AIza", "api-key": KEY}, "'x-goog-api-key' and 'api-key'"),
        ({"authorization": "Basic eA==", "x-api-key": KEY}, "'authorization' and 'x-api-key'"),
    ],
)
def test_otherwise_the_refusal_names_the_headers_and_no_value(headers: dict[str, str], named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        inbound.token_of(RequestFactory().get("/", headers=headers))
    assert (caught.value.status, caught.value.code) == (400, "two_credentials")
    assert named in caught.value.message
    for value in headers.values():
        assert value.removeprefix("Bearer ") not in caught.value.message


def test_one_credential_is_taken_whatever_its_form() -> None:
    assert chosen(authorization="Bearer sk-1", x_api_key="sk-1") == "sk-1"
    for headers in ({}, {"authorization": "Basic eA=="}, {"authorization": "Bearer "}):
        with pytest.raises(Unauthorized):
            chosen(**headers)


class TestOverASocket:
    pytestmark = live

    @pytest.mark.parametrize("header", ["x-api-key", "x-goog-api-key", "api-key"])
    def test_a_key_left_over_beside_the_token_is_seen_by_nobody(
        self, server: Any, issue: Any, upstream: Any, header: str
    ) -> None:
        _, token = issue("openai")
        answer = post(server, CHAT, token, SANDBOX, headers={header: KEY})
        assert answer.status_code == 200, answer.text
        arrived = upstream.last
        assert KEY not in f"{arrived.headers} {arrived.body!r} {answer.headers} {answer.text}"
        eventually(lambda: Call.objects.exclude(finished_at=None).first())
        assert KEY not in server.log.read_text()

    def test_a_dead_token_beside_a_key_is_a_401_and_not_the_keys_turn(self, server: Any, issue: Any, by: Any) -> None:
        grant, token = issue("sandbox")
        grant.revoke(by)
        answer = post(server, CHAT, token, SANDBOX, headers={"x-api-key": KEY})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "grant_revoked")
        assert answer.headers["x-should-retry"] == "false"

    # Final refusals

    def test_every_final_refusal_says_so(self, server: Any, issue: Any) -> None:
        _, token = issue("sandbox", models=("sandbox-1",))
        refusals = [
            (401, post(server, CHAT, None)),
            (401, post(server, CHAT, "sk-1")),
            (401, post(server, "/proxy/v1/messages", OURS)),
            (400, post(server, CHAT, token, SANDBOX | {"new_field": 1})),
            (400, post(server, CHAT, OURS, headers={"x-api-key": ALSO_OURS})),
            (404, post(server, "/proxy/v1/files", token)),
            (405, requests.get(server.url + CHAT, headers={"authorization": f"Bearer {token}"}, timeout=9)),
            (415, post(server, CHAT, token, headers={"content-type": "text/plain"})),
        ]
        for status, answer in refusals:
            assert (answer.status_code, answer.headers.get("x-should-retry")) == (status, "false"), answer.text

    def test_a_model_that_is_not_granted_has_the_status_of_each_dialect(self, server: Any, issue: Any) -> None:
        _, token = issue("sandbox", models=("sandbox-1",))
        said = "This grant does not include the model 'm'."
        openai = post(server, CHAT, token, BODY | {"model": "m"})
        anthropic = post(server, "/proxy/v1/messages", token, BODY | {"model": "m", "max_tokens": 5})
        google = post(server, "/proxy/v1beta/models/m:generateContent", token, {"contents": [{"parts": []}]})
        assert [answer.status_code for answer in (openai, anthropic, google)] == [404, 400, 404]
        errors = [answer.json()["error"] for answer in (openai, anthropic, google)]
        assert [error["message"] for error in errors] == [said] * 3
        assert [error.get("code") for error in errors] == ["model_not_granted", "model_not_granted", 404]
        assert [error.get("type") for error in errors] == ["not_found_error", "invalid_request_error", None]
        assert errors[2]["details"][0]["reason"] == "MODEL_NOT_GRANTED"
        for answer in (openai, anthropic, google):
            assert answer.headers["x-should-retry"] == "false"
        unheard = post(
            server, "/proxy/v1/embeddings", token, {"model": "sandbox-1", "input": "x"}, headers={"origin": "x"}
        )
        assert unheard.status_code == 403

    def test_a_websocket_falls_back(self, server: Any, issue: Any) -> None:
        _, token = issue("sandbox")
        headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
        status, body, told = raw(server, "GET", "/proxy/v1/responses", token, b"", headers)
        assert (status, told["x-should-retry"]) == (426, "false")
        assert b'"websocket_not_relayed"' in body

    # HEAD

    @pytest.mark.parametrize("path", ["/proxy", "/proxy/"])
    def test_the_base_url_answers(self, server: Any, path: str) -> None:
        answer = requests.get(server.url + path, timeout=9)
        assert (answer.status_code, "AIPassport" in answer.json()["message"]) == (200, True)
        head = requests.head(server.url + path, timeout=9)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(answer.content)))
        assert post(server, path, None).status_code == 401

    @pytest.mark.parametrize("provider", ["sandbox", "openai"])
    @pytest.mark.parametrize("path", ["/proxy/v1/models", "/proxy/v1/models/gpt-4o", "/proxy/v1/files", CHAT])
    def test_head_is_get_without_the_body(self, server: Any, issue: Any, provider: str, path: str) -> None:
        _, token = issue(provider)
        before = len(server.log.read_text())  # other tests of this server have their own lines in the log
        with requests.Session() as session:
            session.headers["authorization"] = f"Bearer {token}"
            for _ in range(2):  # on one connection: a body would be taken for the next answer
                got, head = session.get(server.url + path, timeout=9), session.head(server.url + path, timeout=9)
                assert (head.status_code, head.content) == (got.status_code, b"")
                assert head.headers.get("content-type") == got.headers.get("content-type")
                assert head.headers.get("content-length") == got.headers.get("content-length")
        eventually(lambda: not Call.objects.filter(finished_at=None).exists())
        assert not Call.objects.exclude(outcome__in=("ok", "upstream_error")).exists()
        assert "Not Found" not in server.log.read_text()[before:]


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (Unauthorized("x"), True),
        (NotGranted("x"), True),
        (BadRequest("x"), True),
        (BadRequest("x", status=413), True),
        (EndpointNotRelayed("x"), True),
        (Cut("x"), True),
        (BadRequest("x", status=408), False),
        (LimitReached("x", retry_after=2), False),
        (LimitReached("x"), False),
        (LimitReached("x", final=True), True),
        (NotGranted("x", retry_after=2), False),
        (Unavailable("x"), False),
        (RelayError("x"), False),
        (RelayError("x", final=True), True),
    ],
)
def test_which_errors_are_final(error: RelayError, final: bool) -> None:
    assert error.final is final
