"""Which requests are relayed, where they go, and what the rest is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.providers import PROVIDERS, Capability
from proxy import dialects
from proxy.dialects.base import Form, Inbound, UpstreamCall
from proxy.dialects.observers import FLAVORS
from proxy.exceptions import BadRequest, EndpointNotRelayed, RelayError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANTHROPIC = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def request(
    method: str,
    path: str,
    body: Any = None,
    *,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Inbound:
    return Inbound(
        method,
        path,
        query=tuple((query or {}).items()),
        headers=headers or {},
        content_type="application/json" if body is not None else "",
        body=b"" if body is None else json.dumps(body).encode(),
    )


def read(provider: str, method: str, path: str, body: Any = None, **more: Any) -> UpstreamCall:
    return dialects.read(request(method, path, body, **more), PROVIDERS[provider])


def refusal(provider: str, method: str, path: str, body: Any = None, **more: Any) -> RelayError:
    with pytest.raises(RelayError) as caught:
        read(provider, method, path, body, **more)
    return caught.value


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("openai", "/v1/chat/completions"),
        ("anthropic", "/v1/chat/completions"),
        ("google", "/v1beta/openai/chat/completions"),
        ("azure", "/openai/v1/chat/completions"),
        ("cohere", "/compatibility/v1/chat/completions"),
        ("bedrock", "/openai/v1/chat/completions"),
        ("perplexity", "/chat/completions"),
        ("sandbox", "/v1/chat/completions"),
        ("custom", "/v1/chat/completions"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/chat/completions", "/chat", "/v1beta/openai/chat/completions"]
)
def test_one_chat_path_reaches_every_provider_through_its_openai_shaped_endpoint(
    provider: str, expected: str, path: str
) -> None:
    call = read(provider, "POST", path, CHAT)
    assert (call.route, call.method, call.path) == ("openai.chat", "POST", expected)
    assert call.compatible
    assert call.models == ("m",)
    assert Capability.CHAT in call.capabilities


@pytest.mark.parametrize(
    ("path", "body", "route", "flavor", "capability", "counted"),
    [
        ("/v1/completions", {"model": "m", "prompt": "x"}, "openai.completions", "chat", "chat", True),
        ("/v1/responses", {"model": "m", "input": "x"}, "openai.responses", "responses", "chat", True),
        ("/v1/responses/input_tokens", {"model": "m", "input": "x"}, "openai.input_tokens", "none", "chat", False),
        ("/v1/embeddings", {"model": "m", "input": "x"}, "openai.embeddings", "embeddings", "embeddings", True),
        ("/v1/moderations", {"model": "m", "input": "x"}, "openai.moderations", "moderations", "moderation", True),
        ("/v1/images/generations", {"model": "m", "prompt": "x"}, "openai.images", "images", "images", True),
        ("/v1/audio/speech", {"model": "m", "input": "x", "voice": "v"}, "openai.speech", "speech", "audio", True),
    ],
)
def test_openai_routes(path: str, body: Any, route: str, flavor: str, capability: str, counted: bool) -> None:
    call = read("openai", "POST", path, body)
    assert (call.route, call.path, call.flavor, call.counted) == (route, path, flavor, counted)
    assert call.capabilities == {capability}
    assert call.dialect == "openai"


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
@pytest.mark.parametrize(
    ("verb", "body", "query"),
    [
        ("generateContent", GEMINI, {}),
        ("streamGenerateContent", GEMINI, {"alt": "sse"}),
        ("embedContent", {"content": {"parts": [{"text": "x"}]}}, {}),
        ("batchEmbedContents", {"requests": [{"model": "models/gemini-x", "content": {"parts": [{"text": "x"}]}}]}, {}),
        ("countTokens", GEMINI, {}),
    ],
)
def test_gemini_routes_keep_their_version(version: str, verb: str, body: Any, query: dict[str, str]) -> None:
    call = read("google", "POST", f"/{version}/models/gemini-x:{verb}", body, query=query)
    assert call.path == f"/{version}/models/gemini-x:{verb}"
    assert call.models == ("gemini-x",)
    assert call.route == f"google.{verb}"
    assert call.stream == (verb == "streamGenerateContent")
    assert not call.compatible
    assert call.query == tuple(query.items())


def test_anthropic_routes() -> None:
    call = read("anthropic", "POST", "/v1/messages", ANTHROPIC, query={"beta": "true"})
    assert (call.route, call.path, call.query) == ("anthropic.messages", "/v1/messages", (("beta", "true"),))
    assert call.headers["anthropic-version"] == "2023-06-01"
    call = read("anthropic", "POST", "/v1/messages/count_tokens", {"model": "m", "messages": []})
    assert (call.route, call.counted, call.flavor) == ("anthropic.count_tokens", False, "none")


@pytest.mark.parametrize(
    ("provider", "path", "headers", "route", "upstream"),
    [
        ("openai", "/v1/models", {}, "openai.models", "/v1/models"),
        ("openai", "/models", {}, "openai.models", "/v1/models"),
        ("anthropic", "/v1/models", {"anthropic-version": "2023-06-01"}, "anthropic.models", "/v1/models"),
        ("google", "/v1/models", {"x-goog-api-key": ""}, "google.models", "/v1/models"),
        ("google", "/v1/models", {"x-goog-api-client": "genai"}, "google.models", "/v1/models"),
        ("google", "/v1beta/models", {}, "google.models", "/v1beta/models"),
        ("google", "/v1/models", {}, "openai.models", "/v1beta/openai/models"),
        ("google", "/v1beta/openai/models", {}, "openai.models", "/v1beta/openai/models"),
        ("azure", "/openai/v1/models", {}, "openai.models", "/openai/v1/models"),
        ("anthropic", "/v1/models", {}, "openai.models", "/v1/models"),
    ],
)
def test_a_model_list_is_one_of_three_apis(
    provider: str, path: str, headers: dict[str, str], route: str, upstream: str
) -> None:
    call = read(provider, "GET", path, headers=headers)
    assert (call.route, call.path, call.models, call.counted) == (route, upstream, (), False)


def test_an_openai_list_of_anthropic_models_goes_through_the_native_authentication() -> None:
    call = read("anthropic", "GET", "/v1/models")
    assert not call.compatible
    assert call.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    ("provider", "path", "headers", "model", "upstream"),
    [
        ("openai", "/v1/models/ft:gpt-4o:org::id", {}, "ft:gpt-4o:org::id", "/v1/models/ft:gpt-4o:org::id"),
        ("openrouter", "/v1/models/openai/gpt-4o", {}, "openai/gpt-4o", "/v1/models/openai%2Fgpt-4o"),
        ("google", "/v1beta/models/gemini-x", {}, "gemini-x", "/v1beta/models/gemini-x"),
        ("anthropic", "/v1/models/claude-x", {"anthropic-version": "2023-06-01"}, "claude-x", "/v1/models/claude-x"),
    ],
)
def test_one_model_is_checked_like_any_other(
    provider: str, path: str, headers: dict[str, str], model: str, upstream: str
) -> None:
    call = read(provider, "GET", path, headers=headers)
    assert (call.models, call.path, call.counted) == ((model,), upstream, False)


AZURE = {"api-version": "2024-10-21"}
PREVIEW = {"api-version": "preview"}


@pytest.mark.parametrize(
    ("path", "query", "body", "upstream", "sent"),
    [
        ("/openai/deployments/dep/chat/completions", AZURE, CHAT | {"model": "dep"}, None, AZURE),
        ("/openai/deployments/dep/embeddings", AZURE, {"input": "x"}, None, AZURE),
        ("/openai/responses", AZURE, {"model": "dep", "input": "x"}, None, AZURE),
        ("/openai/v1/responses", {}, {"model": "dep", "input": "x"}, None, {}),
        ("/openai/v1/responses", PREVIEW, {"model": "dep", "input": "x"}, None, PREVIEW),
        ("/v1/responses", {}, {"model": "dep", "input": "x"}, "/openai/v1/responses", {}),
    ],
)
def test_azure_keeps_the_shape_that_it_was_called_in(
    path: str, query: dict[str, str], body: Any, upstream: str | None, sent: dict[str, str]
) -> None:
    call = read("azure", "POST", path, body, query=query)
    assert call.path == (upstream or path)
    assert dict(call.query) == sent
    assert call.models == ("dep",)


def test_an_azure_deployment_in_path_and_body_must_agree() -> None:
    path = "/openai/deployments/dep/chat/completions"
    assert refusal("azure", "POST", path, CHAT | {"model": "other"}, query=AZURE).param == "model"
    assert refusal("azure", "POST", path, CHAT | {"model": "dep"}).param == "api-version"


def test_an_azure_client_works_with_another_provider() -> None:
    body = {"messages": CHAT["messages"]}
    call = read("openai", "POST", "/openai/deployments/gpt-4o/chat/completions", body, query=AZURE)
    assert (call.path, call.query, call.models) == ("/v1/chat/completions", (), ("gpt-4o",))
    assert json.loads(call.json or b"")["model"] == "gpt-4o"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files",
        "/v1/files/file-1/content",
        "/upload/v1beta/files",
        "/v1/uploads",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/assistants",
        "/v1/threads/t/runs",
        "/v1/vector_stores",
        "/v1/containers/c/files",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel",
        "/v1/chat/completions/chatcmpl-1",
        "/v1/conversations",
        "/v1/messages/batches",
        "/v1beta/interactions",
        "/v1/tunedModels/x:generateContent",
        "/v1beta/cachedContents",
        "/v1/organization/costs",
        "/v1/organizations/api_keys",
        "/v1/realtime/sessions",
        "/v1/evals",
        "/v1/videos",
        "/openai/files",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_not_relayed_is_refused_by_name(path: str, method: str) -> None:
    error = refusal("openai", method, path, {} if method == "POST" else None)
    assert isinstance(error, EndpointNotRelayed)
    assert (error.status, error.code) == (404, "endpoint_not_relayed")
    assert " not relayed: " in error.message


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v2/chat/completions",
        "/v1/./chat/completions",
        "/v1/models/../files",
        "/v1/models/..",
        "/v1/models/a/../b",
        "/v1/models/a\\b",
        "/v1/models/a?b",
        "/v1/models/a#b",
        "/v1/models/a@evil.example",
        "/v1/models/a%2e%2e",
        "/v1/models/a\r\nHost: x",
        "/v1/models/a\x00",
        "/v1/models/ü",
        "/v1beta/models/a/b:generateContent",
        "/v1beta/models/gemini:predict",
        "/v1beta/models/gemini:batchGenerateContent",
        "/openai/deployments/../chat/completions",
        "/openai/deployments/a/b/chat/completions",
        "/openai/deployments/a/models",
        "/proxy/v1/chat/completions",
        "/V1/CHAT/COMPLETIONS",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_that_are_not_in_the_table_lead_nowhere(path: str, method: str) -> None:
    for provider in ("openai", "google", "azure"):
        error = refusal(provider, method, path, CHAT if method == "POST" else None)
        assert error.code in ("endpoint_not_relayed", "method_not_allowed")
        assert error.message.isprintable()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/v1/models/m"), ("PUT", "/v1/messages")],
)
def test_a_known_path_with_another_method_is_a_405(method: str, path: str) -> None:
    error = refusal("openai", method, path)
    assert (error.status, error.code) == (405, "method_not_allowed")


def test_a_dialect_that_the_provider_does_not_speak_is_refused_in_a_sentence() -> None:
    error = refusal("openai", "POST", "/v1/messages", ANTHROPIC)
    assert error.message == (
        "This grant is for OpenAI, which does not support Anthropic's format. Use OpenAI's format."
    )
    assert refusal("anthropic", "POST", "/v1/models/g:generateContent", GEMINI).code == "endpoint_not_relayed"
    assert refusal("mistral", "GET", "/v1/models", headers={"anthropic-version": "1"}).code == "endpoint_not_relayed"


def test_what_a_provider_is_not_relayed_for_is_refused_in_a_sentence() -> None:
    assert refusal("deepseek", "POST", "/v1/embeddings", {"model": "m", "input": "x"}).message == (
        "The broker does not relay 'embeddings' to DeepSeek."
    )
    assert "OpenAI's format" in refusal("anthropic", "POST", "/v1/responses", {"model": "m", "input": "x"}).message


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "Key"])
def test_a_token_in_the_query_is_refused(name: str) -> None:
    assert refusal("google", "GET", "/v1beta/models", query={name: "secret"}).code == "token_in_url"


def test_query_parameters_are_listed_per_route() -> None:
    call = read("anthropic", "GET", "/v1/models", query={"limit": "3"}, headers={"anthropic-version": "2023-06-01"})
    assert call.query == (("limit", "3"),)
    error = refusal("openai", "POST", "/v1/chat/completions", CHAT, query={"debug": "1"})
    assert (error.code, error.param) == ("unknown_parameter", "debug")
    assert refusal("google", "GET", "/v1beta/models", query={"pageToken": "a&b"}).param == "pageToken"
    twice = Inbound("GET", "/v1beta/models", query=(("pageSize", "1"), ("pageSize", "2")))
    with pytest.raises(BadRequest, match="twice"):
        dialects.read(twice, PROVIDERS["google"])


def test_a_gemini_stream_must_be_one_of_events() -> None:
    path = "/v1beta/models/g:streamGenerateContent"
    assert "alt=sse" in refusal("google", "POST", path, GEMINI).message
    assert refusal("google", "POST", path, GEMINI, query={"alt": "json"}).param == "alt"
    assert refusal("google", "POST", "/v1beta/models/g:generateContent", GEMINI, query={"alt": "sse"}).param == "alt"


def test_headers_are_built_from_a_list() -> None:
    given = {
        "accept": "text/event-stream",
        "authorization": "",
        "cookie": "a=b",
        "openai-organization": "org",
        "openai-project": "p",
        "host": "h",
        "x-forwarded-for": "1.2.3.4",
        "user-agent": "ua",
        "traceparent": "00-abc",
        "idempotency-key": "k",
        "openai-beta": "assistants=v2",
        "anthropic-beta": "files-api-2025-04-14",
    }
    call = read("openai", "POST", "/v1/chat/completions", CHAT, headers=given)
    assert set(call.headers) == {"accept", "traceparent", "idempotency-key", "openai-beta"}
    call = read("anthropic", "POST", "/v1/messages", ANTHROPIC, headers=given | {"anthropic-version": "2026-10-21"})
    assert call.headers["anthropic-version"] == "2026-10-21"
    assert call.headers["anthropic-beta"] == "files-api-2025-04-14"
    assert "openai-beta" not in call.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accept", "a\r\nx: y"),
        ("accept", "x" * 1001),
        ("traceparent", "ü"),
        ("anthropic-beta", "a b"),
        ("anthropic-version", "now"),
        ("anthropic-beta", ",".join(["a"] * 100)),
    ],
)
def test_malformed_headers_are_refused(name: str, value: str) -> None:
    error = refusal("anthropic", "POST", "/v1/messages", ANTHROPIC, headers={name: value})
    assert (error.status, error.param) == (400, name)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('Application/JSON; charset="UTF-8"', 200),
        ("application/json;", 200),
        ("application/json; charset=utf-16", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("", 415),
    ],
)
def test_a_json_body_must_say_that_it_is_one(content_type: str, status: int) -> None:
    inbound = Inbound("POST", "/v1/chat/completions", content_type=content_type, body=json.dumps(CHAT).encode())
    if status == 200:
        assert dialects.read(inbound, PROVIDERS["openai"]).models == ("m",)
        return
    with pytest.raises(BadRequest) as caught:
        dialects.read(inbound, PROVIDERS["openai"])
    assert caught.value.status == status


def test_a_compressed_body_a_form_for_json_and_a_body_for_a_list_are_refused() -> None:
    assert refusal("openai", "POST", "/v1/chat/completions", CHAT, headers={"content-encoding": "gzip"}).status == 415
    with pytest.raises(BadRequest) as caught:
        dialects.read(Inbound("POST", "/v1/chat/completions", form=Form((), ())), PROVIDERS["openai"])
    assert caught.value.status == 415
    assert refusal("openai", "GET", "/v1/models", {}).status == 400
    assert refusal("openai", "POST", "/v1/audio/transcriptions", {"model": "m"}).status == 415


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        ("/v1/chat/completions", {"anthropic-version": "x"}, "openai"),
        ("/v1/messages", {"authorization": ""}, "anthropic"),
        ("/v1/messages/batches", {}, "anthropic"),
        ("/v1/models/g:generateContent", {}, "google"),
        ("/v1beta/cachedContents", {}, "google"),
        ("/v1/models", {"x-goog-api-key": "token"}, "google"),
        ("/v1/models", {"anthropic-version": "x"}, "anthropic"),
        ("/v1/models", {}, "openai"),
        ("/v1/files", {"anthropic-version": "x"}, "anthropic"),
        ("/nowhere", {"x-goog-api-client": "x"}, "google"),
        ("/../\x00", {}, "openai"),
    ],
)
def test_an_error_is_said_in_the_dialect_of_the_route_then_of_the_headers(
    path: str, headers: dict[str, str], dialect: str
) -> None:
    method = "GET" if path.endswith("models") else "POST"
    assert dialects.of_request(Inbound(method, path, headers=headers)) == dialect


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "PUT", ""]), st.binary(max_size=40))
def test_no_path_and_no_body_raises_anything_but_a_relay_error(path: str, method: str, body: bytes) -> None:
    for prefix in ("", "/v1/models/", "/v1/", "/openai/deployments/"):
        inbound = Inbound(method, prefix + path, content_type="application/json", body=body)
        dialects.of_request(inbound)
        for provider in ("openai", "google", "azure"):
            with pytest.raises(RelayError):
                dialects.read(inbound, PROVIDERS[provider])
                raise BadRequest("it was understood")


@given(st.text(max_size=30))
def test_no_model_in_a_path_leaves_its_segment(model: str) -> None:
    try:
        call = read("openai", "GET", f"/v1/models/{model}")
    except RelayError:
        return
    if call.models:
        assert call.path.removeprefix("/v1/models/").replace("%2F", "").replace(":", "").isprintable()
        assert call.path.count("/") == 3
        assert ".." not in call.path


def test_every_route_is_listed_once_and_has_a_table_an_observer_and_a_dialect() -> None:
    names = [route.name for route in dialects.ROUTES]
    assert len(names) == len(set(names))
    for route in dialects.ROUTES:
        assert route.dialect in dialects.DIALECTS
        assert route.flavor in FLAVORS
        assert (route.method == "POST") == (route.body is not None or route.form is not None)
        assert (route.capability is None) == (route.method == "GET")
        assert route.counted == (route.flavor != "none")
