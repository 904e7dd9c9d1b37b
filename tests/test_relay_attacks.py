"""What broke elsewhere: the relay under attack, over a real socket, with a provider that sees what arrives."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from grants.models import Allowance, Call, ProviderKey

from .conftest import CANARY
from .live import eventually
from .test_relay import chat, finished_call

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}


def post(server: Any, path: str, token: str | None, body: Any = None, **kwargs: Any) -> requests.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    headers |= kwargs.pop("headers", {})
    return requests.post(
        f"{server.url}{path}", json=BODY if body is None else body, headers=headers, timeout=20, **kwargs
    )


def raw(
    server: Any, method: str, path: str, token: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Any:
    """A request whose path and body go out as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_accept_encoding=True)
    defaults = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    for name, value in (defaults | (headers or {})).items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


# The key


def test_the_key_is_seen_nowhere_outside_the_upstream_request(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    seen: list[str] = []
    models = [
        "gpt-4o",
        "fake-echoes-the-key",
        "fake-refuses-the-key",
        "fake-html-error",
        "fake-account-error",
        "fake-redirects",
        "fake-dies",
        "fake-page",
        "sandbox-1",
        "sandbox-error",
    ]
    for model in models:
        for stream in (False, True):
            try:
                answer = chat(server, token, model, stream=stream)
                seen.append(f"{answer.status_code} {answer.headers} {answer.content!r}")
            except requests.RequestException as error:
                seen.append(repr(error))
    for path in ("/proxy/v1/models", "/proxy/v1/models/gpt-4o", "/proxy/nowhere", "/api/calls/", "/proxy/v1/files"):
        seen.append(requests.get(server.url + path, headers={"authorization": f"Bearer {token}"}, timeout=10).text)
    key = ProviderKey.objects.get()
    eventually(lambda: ProviderKey.objects.exclude(last_error="").first())
    key.refresh_from_db()
    seen.append(f"{key!r} {key.last_error} {list(Call.objects.values())}")
    seen.append(server.log.read_text())
    assert len(upstream.seen) > len(models)
    for text in seen:
        assert CANARY not in text
        assert CANARY[:12] not in text
        assert token not in text


def test_a_refused_key_is_told_to_the_owner_and_not_to_the_app(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    answer = chat(server, token, "fake-refuses-the-key")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_auth_failed"
    assert answer.headers["x-should-retry"] == "false"
    key = eventually(lambda: ProviderKey.objects.exclude(last_error="").first())
    assert "401" in key.last_error
    assert finished_call().outcome == "upstream_error"


def test_an_error_body_that_echoes_the_key_is_replaced_and_account_names_are_masked(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    echoed = chat(server, token, "fake-echoes-the-key")
    assert echoed.status_code == 400
    assert echoed.json()["error"]["code"] == "upstream_error"
    limited = chat(server, token, "fake-account-error")
    assert limited.status_code == 429
    assert limited.headers["retry-after"] == "7"
    assert "Rate limit reached in organization org-…" in limited.json()["error"]["message"]
    for header in ("set-cookie", "openai-organization", "x-ratelimit-limit-tokens"):
        assert header not in limited.headers


def test_an_upstream_page_is_never_served_as_a_page_of_ours(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    refused = chat(server, token, "fake-page")
    assert (refused.status_code, refused.headers["content-type"]) == (502, "application/json")
    assert b"<script" not in refused.content
    answer = chat(server, token, "fake-labelled-as-page")
    assert (answer.status_code, answer.json()["label"]) == (200, "wrong")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_redirect_is_not_followed(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    before = len(upstream.seen)
    answer = chat(server, token, "fake-redirects")
    assert answer.status_code == 502
    assert "location" not in answer.headers
    assert len(upstream.seen) == before + 1


def test_cookies_of_the_provider_go_to_nobody(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    answer = chat(server, token, "fake-sets-a-cookie")
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"] == "req_1"
    chat(server, token, "gpt-4o")
    assert "cookie" not in upstream.last.headers


def test_headers_of_the_caller_go_upstream_only_from_the_list(server: Any, issue: Any, upstream: Any) -> None:
    grant, token = issue("openai")
    sent = {
        "openai-organization": "org-theirs",
        "openai-project": "p",
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "x-evil": "1",
        "host": "evil.example",
        "idempotency-key": "once",
        "openai-beta": "assistants=v2",
        "accept-encoding": "gzip",
        "proxy-authorization": "x",
    }
    post(server, "/proxy/v1/chat/completions", token, headers=sent, body=BODY | {"model": "sandbox-1"})
    arrived = upstream.last.headers
    for name in ("openai-organization", "openai-project", "cookie", "x-forwarded-for", "x-evil", "proxy-authorization"):
        assert name not in arrived
    assert arrived["idempotency-key"] == f"{grant.pk}-once"  # two apps on one key must not meet in one name
    assert arrived["accept-encoding"] == "identity"
    assert arrived["host"] == upstream.url.removeprefix("http://")


# Credentials


def test_a_call_without_a_token_is_a_401_in_the_sdks_dialect(server: Any, transactional_db: Any) -> None:
    answer = post(server, "/proxy/v1/chat/completions", None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"] == "token_missing"
    anthropic = post(server, "/proxy/v1/messages", None)
    assert anthropic.json()["type"] == "error"
    assert anthropic.json()["error"]["type"] == "authentication_error"
    google = post(server, "/proxy/v1beta/models/gemini:generateContent", None)
    assert google.json()["error"]["status"] == "UNAUTHENTICATED"


def test_two_different_credentials_are_refused_and_the_same_one_twice_is_not(server: Any, issue: Any) -> None:
    _, token = issue("sandbox")
    body = BODY | {"model": "sandbox-1"}
    _, other = issue("sandbox")
    two = post(server, "/proxy/v1/chat/completions", token, body, headers={"x-api-key": other})
    assert (two.status_code, two.json()["error"]["code"]) == (400, "two_credentials")
    assert post(server, "/proxy/v1/chat/completions", token, body, headers={"x-api-key": token}).status_code == 200


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "token"])
def test_a_token_in_the_url_is_refused(server: Any, issue: Any, name: str) -> None:
    _, token = issue("sandbox")
    answer = post(server, f"/proxy/v1/chat/completions?{name}={token}", token)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "token_in_url"
    assert (
        requests.post(f"{server.url}/proxy/v1/chat/completions?{name}={token}", json=BODY, timeout=5).status_code == 400
    )


# Paths and bodies


@pytest.mark.parametrize(
    "path",
    [
        "/proxy/v1/../v1/chat/completions",
        "/proxy/v1/%2e%2e/admin",
        "/proxy//evil.example/v1/chat/completions",
        "/proxy/v1/chat/completions%3fx=1",
        "/proxy/v1/chat/completions%23",
        "/proxy/v1\\chat\\completions",
        "/proxy/@evil.example/v1/chat/completions",
        "/proxy/v1/chat/completions%0d%0aX:%201",
        "/proxy/v1/files",
        "/proxy/v1/batches",
        "/proxy/v1/fine_tuning/jobs",
        "/proxy/v1/assistants",
        "/proxy/",
        "/proxy/v1",
        "/proxy/v1beta/models/..%2f..:generateContent",
        "/proxy/v1beta/models/a%2fb:generateContent",
        "/proxy/v1beta/tunedModels/x:generateContent",
        "/proxy/openai/deployments/..%2f/chat/completions",
    ],
)
def test_a_path_that_is_not_in_the_table_goes_nowhere(server: Any, issue: Any, upstream: Any, path: str) -> None:
    _, token = issue("openai")
    before = len(upstream.seen)
    status, body, _ = raw(server, "POST", path, token, json.dumps(BODY).encode())
    assert 400 <= status < 500, body
    assert json.loads(body)["error"]
    assert len(upstream.seen) == before
    assert not Call.objects.exists()


DEEP = b'{"model":"gpt-4o","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b"null", {}),
        (b'"x"', {}),
        (b'{"model":"gpt-4o","model":"o1","messages":[]}', {}),
        (b'{"model":"gpt-4o","Model":"o1","messages":[]}', {}),
        (b'{"model":"gpt-4o","messages":[],"temperature":NaN}', {}),
        (b'{"model":"gpt-4o","messages":[],"temperature":1e400}', {}),
        (b'{"model":"gpt-4o","messages":[],"seed":' + b"9" * 5000 + b"}", {}),
        (b'\xef\xbb\xbf{"model":"gpt-4o","messages":[]}', {}),
        (b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xff"}]}', {}),
        (DEEP, {}),
        (b'{"model":["gpt-4o"],"messages":[]}', {}),
        (b'{"model":"gpt-4o\\nx","messages":[]}', {}),
        (b'{"model":"gpt-4o","messages":[],"surprise":1}', {}),
        (b'{"messages":[]}', {}),
        (json.dumps(BODY).encode(), {"content-type": "text/plain"}),
        (json.dumps(BODY).encode(), {"content-encoding": "gzip"}),
        (b"--x\r\n\r\n", {"content-type": "multipart/form-data; boundary=x"}),
        (b"junk", {"content-type": "multipart/form-data"}),
    ],
)
def test_a_malformed_body_is_a_clear_4xx_and_goes_nowhere(
    server: Any, issue: Any, upstream: Any, body: bytes, headers: dict[str, str]
) -> None:
    _, token = issue("openai")
    before = len(upstream.seen)
    status, answer, _ = raw(server, "POST", "/proxy/v1/chat/completions", token, body, headers)
    assert status in (400, 411, 413, 415), answer
    assert json.loads(answer)["error"]["message"]
    assert len(upstream.seen) == before
    assert not Call.objects.exists()


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    status, answer, _ = raw(
        server, "POST", "/proxy/v1/chat/completions", token, b"{}", {"content-length": str(100 * 1024 * 1024)}
    )
    assert status == 413
    assert json.loads(answer)["error"]["code"] == "body_too_large"


def test_a_chunked_body_is_read_whole_and_held_to_the_limit(server: Any, issue: Any) -> None:
    _, token = issue("sandbox")

    def pieces() -> Any:
        text = json.dumps(BODY | {"model": "sandbox-1"}).encode()
        yield text[:10]
        yield text[10:]

    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    url = f"{server.url}/proxy/v1/chat/completions"
    assert requests.post(url, data=pieces(), headers=headers, timeout=10).status_code == 200


# Grants


@pytest.mark.parametrize(
    ("grant_terms", "body", "code"),
    [
        ({"models": ("gpt-4o",)}, {"model": "gpt-4o-mini"}, "model_not_granted"),
        ({"models": ("gpt-4o-*",)}, {"model": "gpt-4o"}, "model_not_granted"),
        ({"capabilities": ("embeddings",)}, {"model": "gpt-4o"}, "capability_not_granted"),
        ({}, {"model": "gpt-4o", "web_search_options": {}}, "capability_not_granted"),
    ],
)
def test_what_was_not_granted_is_refused_with_a_sentence_that_says_so(
    server: Any, issue: Any, upstream: Any, grant_terms: Any, body: Any, code: str
) -> None:
    _, token = issue("openai", **grant_terms)
    before = len(upstream.seen)
    answer = post(server, "/proxy/v1/chat/completions", token, BODY | body)
    assert answer.status_code == (404 if code == "model_not_granted" else 403)
    assert answer.json()["error"]["code"] == code
    assert len(answer.json()["error"]["message"]) > 20
    assert len(upstream.seen) == before
    assert not Call.objects.exists()


def test_a_disabled_key_and_an_inactive_owner_are_refused_at_once(
    servers: Any, issue: Any, by: Any, alice: Any
) -> None:
    grant, token = issue("sandbox")
    assert chat(servers[0], token).status_code == 200
    grant.provider_key.disable(by)
    refused = chat(servers[1], token)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "key_disabled")
    grant.provider_key.enable(by)
    alice.is_active = False
    alice.save()
    refused = chat(servers[0], token)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "owner_disabled")


def test_sixty_four_callers_on_two_processes_get_exactly_what_is_left(servers: Any, issue: Any) -> None:
    grant, token = issue("sandbox", max_requests=10)
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: chat(servers[n % 2], token), range(64)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 10 + [429] * 54
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["limit"]["code"] == "request_limit_reached"
    assert refused.headers["x-should-retry"] == "false"
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.requests, allowance.in_flight) == (10, 0)
    assert Call.objects.count() == 10


def test_not_one_call_is_admitted_after_revoke_has_returned(servers: Any, issue: Any, by: Any) -> None:
    """32 callers on a hot grant: what was admitted stands in the ledger, and nothing is added after the button."""
    grant, token = issue("sandbox")
    stop = threading.Event()

    def call(number: int) -> None:
        while not stop.is_set():
            chat(servers[number % 2], token)

    with ThreadPoolExecutor(32) as pool:
        for number in range(32):
            pool.submit(call, number)
        eventually(lambda: Call.objects.count() > 50, within=20)
        grant.revoke(by)
        admitted = Call.objects.count()
        stop.wait(1)
        stop.set()
    assert Call.objects.count() == admitted


def test_concurrency_is_held_over_processes_and_says_when_to_try_again(servers: Any, issue: Any) -> None:
    grant, token = issue("openai", max_concurrency=1)
    stream = chat(servers[0], token, "fake-silent", stream=True)
    next(stream.iter_content(10))
    refused = chat(servers[1], token, "gpt-4o")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit_reached")
    assert refused.headers["retry-after"] == "1"
    stream.close()
    eventually(lambda: Allowance.objects.get(grant=grant).in_flight == 0)


def test_an_unreachable_provider_is_a_502_and_costs_nothing(server: Any, issue: Any) -> None:
    grant, token = issue("custom", base_url="http://127.0.0.1:9")
    answer = chat(server, token, "any-model")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert finished_call().outcome == "upstream_unreachable"
    assert Allowance.objects.get(grant=grant).requests == 0


# Browsers


def test_every_preflight_is_answered_and_the_real_request_decides(server: Any, issue: Any) -> None:
    _, token = issue("sandbox", allowed_origins=("https://app.example",))
    url = f"{server.url}/proxy/v1/chat/completions"
    asked = {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    preflight = requests.options(url, headers=asked, timeout=5)
    assert preflight.status_code == 204
    assert "x-stainless-lang" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    body = BODY | {"model": "sandbox-1"}
    refused = post(server, "/proxy/v1/chat/completions", token, body, headers={"origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_granted")
    assert refused.headers["access-control-allow-origin"] == "https://evil.example"
    allowed = post(server, "/proxy/v1/chat/completions", token, body, headers={"origin": "https://app.example"})
    assert allowed.status_code == 200
    assert "x-aipassport-call" in allowed.headers["access-control-expose-headers"]
    assert post(server, "/proxy/v1/chat/completions", token, body).status_code == 200
