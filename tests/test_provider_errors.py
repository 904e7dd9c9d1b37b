"""Why a provider refused a call: the key's owner and the log are told, masked. Only a refusal of the key marks it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grants.models import Notice, Preferences, ProviderKey
from proxy.provider_errors import is_safe, masked, refusal

from .callers import Caller
from .conftest import CANARY
from .live import eventually
from .test_attacks_more import provider, says
from .test_relay import finished_call

KEY = "sk-proj-Zx81mQ0aTr5LwPe93kHc"


def error(**fields: Any) -> bytes:
    return json.dumps({"error": fields}).encode()


THE_KEY = {
    "openai": (401, error(message="Incorrect API key provided: sk-proj-*****93kHc.", code="invalid_api_key")),
    "no words": (401, b""),
    "a page": (401, b"<html>401</html>"),
    "anthropic": (401, error(type="authentication_error", message="invalid x-api-key")),
    "gemini": (
        400,
        error(
            code=400, status="INVALID_ARGUMENT", message="API key not valid.", details=[{"reason": "API_KEY_INVALID"}]
        ),
    ),
    "gemini, in a list": (400, b"[" + error(status="INVALID_ARGUMENT", details=[{"reason": "API_KEY_INVALID"}]) + b"]"),
    "gemini, leaked": (403, error(status="PERMISSION_DENIED", message="Your API key was reported as leaked.")),
    "xai": (400, json.dumps({"code": "Client error", "error": "Incorrect API key provided: xa***12."}).encode()),
    "bedrock": (403, json.dumps({"message": "The security token included in the request is invalid."}).encode()),
    "bedrock, expired": (403, json.dumps({"Message": "Bearer Token has expired"}).encode()),
    "azure": (401, error(code="401", message="Access denied due to invalid subscription key or wrong API endpoint.")),
}
THE_CALL = {
    "region": (403, error(code="unsupported_country_region_territory", message="Country not supported")),
    "anthropic": (403, error(type="permission_error", message="Your API key does not have permission to use this.")),
    "model": (403, error(message="Project has no access to model `invalid api key`", code="model_not_found")),
    "scope": (401, error(message="You have insufficient permissions. Missing scopes: model.request")),
    "address": (401, error(message="Your IP is not authorized.", code="ip_not_authorized")),
    "bedrock": (403, json.dumps({"message": "You don't have access to the model with the specified ID."}).encode()),
    "no words": (403, b""),
    "a page": (403, b"<!doctype html><title>Attention Required</title>"),
}
NEITHER = {
    "bad request": (400, error(message="Invalid token at position 3: expected ','", code="invalid_json")),
    "rate": (429, error(message="Rate limit reached", code="rate_limit_exceeded")),
    "model": (404, error(message="invalid api key is not a model")),
    "server": (500, error(message="invalid token")),
}


@pytest.mark.parametrize("name", THE_KEY)
def test_a_refusal_of_the_key_is_told_from_others(name: str) -> None:
    found = refusal(*THE_KEY[name], KEY)
    assert found is not None
    assert found.of_key


@pytest.mark.parametrize("name", THE_CALL)
def test_a_refusal_of_a_call_does_not_mark_the_key(name: str) -> None:
    found = refusal(*THE_CALL[name], KEY)
    assert found is not None
    assert not found.of_key


@pytest.mark.parametrize("name", NEITHER)
def test_other_errors_are_no_refusal(name: str) -> None:
    assert refusal(*NEITHER[name], KEY) is None


def test_the_reason_has_the_provider_s_code_and_words() -> None:
    found = refusal(*THE_CALL["region"], KEY)
    assert found is not None
    wanted = "(HTTP 403): unsupported_country_region_territory: Country not supported"
    assert found.told(403) == f"The provider refused a call with this key {wanted}"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"bad key {KEY}", "bad key …"),
        (f"bad key {KEY[:8]}*****{KEY[-4:]}.", "bad key …"),
        (f"bad key ...{KEY[-4:]}", "bad key …"),
        (f"header Bearer:{KEY}!", "header Bearer:…!"),
        ("request 9f86d081884c7d659a2feaa0c55ad015 failed", "request … failed"),
        ("organization org-AbCdEf123456 is over", "organization org-… is over"),
        ("arn:aws:bedrock:us-east-1:123456789012:model", "arn:aws:bedrock:us-east-1:…:model"),
        ("write to jane.doe@example.org now", "write to … now"),
        ("one\r\ntwo\x00\x1b[31m three\u202e four", "one two [31m three four"),
        (
            "no access to gpt-4o-2024-08-06 or claude-sonnet-4-20250514",
            "no access to gpt-4o-2024-08-06 or claude-sonnet-4-20250514",
        ),
        ("AccessDeniedException for model_not_found", "AccessDeniedException for model_not_found"),
    ],
)
def test_secrets_accounts_and_control_characters_are_masked(said: str, kept: str) -> None:
    assert masked(said, KEY) == kept


def test_a_short_key_is_masked_too() -> None:
    assert masked("key hunter2 is bad", "hunter2") == "key … is bad"


def test_the_reason_is_short_and_made_in_no_time() -> None:
    for text in ("a" * 10**6, "1a" * 10**6, "*" * 10**6, "user_" * 10**5, "api key " * 10**5, "' " * 10**5):
        for status in (401, 403):
            found = refusal(status, error(message=text, code=text), KEY)
            assert found is not None
            assert len(found.told(status)) <= 200
    assert len(masked("word " * 100, KEY)) <= 145


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"3", b'"x"', b'{"error": 3}', b'{"error": {"message": {}}}', b"[[", b"\xff"]
)
def test_no_body_makes_it_fail(body: bytes) -> None:
    assert refusal(403, body, KEY) is not None
    assert refusal(500, body, KEY) is None


def test_an_error_with_the_ends_of_a_key_is_not_safe() -> None:
    assert not is_safe(error(message=f"Incorrect: {KEY[:5]}***{KEY[-4:]}"), KEY)
    assert is_safe(error(message="Incorrect: ***"), KEY)


# Seen from outside


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("of_key", [True, False])
def test_the_owner_and_the_log_learn_why_and_the_app_does_not(
    server: Any, issue: Any, alice: Any, of_key: bool
) -> None:
    Preferences.objects.update_or_create(
        user=alice, defaults={"webhook_url": "https://example.org/hook", "webhook_secret": "x"}
    )
    code = "invalid_api_key" if of_key else "unsupported_country_region_territory"
    body = error(code=code, message=f"Not here: {CANARY[:8]}***{CANARY[-4:]} of org-AbCdEf123456")
    with provider(says("403 No\r\ncontent-type: application/json", body)) as url:
        _, token = issue("openai", base_url=url)
        said = Caller(server, token).ask("gpt-4o")
    assert (said.status, said.final) == (502, True)
    assert said.code == ("upstream_auth_failed" if of_key else "upstream_refused")
    assert "Not here" not in str(said.json)
    key = eventually(lambda: ProviderKey.objects.exclude(last_error="").first())
    what = "this key" if of_key else "a call with this key"
    assert key.last_error == f"The provider refused {what} (HTTP 403): {code}: Not here: … of org-…"
    assert f"provider key {key.pk}: {key.last_error}" in server.log.read_text()
    call = finished_call()
    assert (call.outcome, call.status, call.cost) == ("upstream_error", 403, 0)
    if of_key:
        eventually(lambda: Notice.objects.filter(event="key.rejected").exists())
        assert Notice.objects.get(event="key.rejected").payload["error"] == key.last_error
    else:
        assert not Notice.objects.filter(event="key.rejected").exists()
