"""Paths, methods and queries as clients write them: understood, or refused with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from proxy import dialects
from proxy.dialects.base import Inbound

from .test_dialects_routes import ANTHROPIC, CHAT, GEMINI, read, refusal

GOOGLE = {"x-goog-api-key": ""}


@pytest.mark.parametrize(
    ("provider", "path", "body", "expected"),
    [
        ("openai", "/v1/chat/completions/", CHAT, "/v1/chat/completions"),
        ("openai", "//v1/chat/completions", CHAT, "/v1/chat/completions"),
        ("openai", "/v1//chat///completions//", CHAT, "/v1/chat/completions"),
        ("anthropic", "//v1/messages", ANTHROPIC, "/v1/messages"),
        ("google", "//v1beta/models/g:generateContent", GEMINI, "/v1beta/models/g:generateContent"),
        ("google", "/models/g:generateContent", GEMINI, "/v1beta/models/g:generateContent"),
        ("google", "/models/g:countTokens", GEMINI, "/v1beta/models/g:countTokens"),
    ],
)
def test_slashes_too_many_and_gemini_paths_without_a_version_lead_to_the_endpoint(
    provider: str, path: str, body: Any, expected: str
) -> None:
    assert read(provider, "POST", path, body).path == expected


def test_lists_of_models_are_found_with_slashes_and_without_a_version() -> None:
    assert read("openai", "GET", "/v1/models/").route == "openai.models"
    assert read("google", "GET", "/models", headers=GOOGLE).path == "/v1beta/models"
    assert read("google", "GET", "/models/g", headers=GOOGLE).path == "/v1beta/models/g"
    assert read("openai", "GET", "/models/g").route == "openai.model"


def test_an_error_on_such_a_path_is_told_in_the_dialect_of_the_endpoint() -> None:
    assert dialects.of_request(Inbound("POST", "//v1/messages/")) == "anthropic"
    assert dialects.of_request(Inbound("POST", "/models/g:generateContent")) == "google"
    assert dialects.of_request(Inbound("POST", "//v1beta/nowhere")) == "google"


def test_slashes_do_not_hide_what_is_refused() -> None:
    for path in ("//v1//files", "/v1/files/", "/v1/models//..//files", "/v1//../files", "//evil.example/v1/messages"):
        assert refusal("openai", "POST", path, CHAT).code == "endpoint_not_relayed"
    assert "Files are not relayed" in refusal("openai", "POST", "//v1//files/", CHAT).message


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/v1/v1/chat/completions", "/v1/chat/completions"), ("/proxy/v1/messages", "/v1/messages")],
)
def test_a_base_url_with_a_part_too_many_is_told_the_right_path(path: str, meant: str) -> None:
    error = refusal("openai", "POST", path, CHAT)
    assert (error.status, error.message) == (404, f"{path} is not relayed, {meant} is: see the base URL.")


@pytest.mark.parametrize(
    "headers", [{"upgrade": "websocket"}, {"upgrade": "WebSocket"}, {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}]
)
def test_a_websocket_is_refused_with_the_status_that_makes_clients_fall_back(headers: dict[str, str]) -> None:
    error = refusal("openai", "GET", "/v1/responses", headers=headers)
    assert (error.status, error.code) == (426, "websocket_not_relayed")
    assert "POST" in error.message
    body = dialects.error_body("openai", error)
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "websocket_not_relayed")


def test_without_a_websocket_it_stays_a_405_and_realtime_a_404() -> None:
    assert refusal("openai", "GET", "/v1/responses").status == 405
    assert refusal("openai", "GET", "/v1/responses", headers={"upgrade": "h2c"}).status == 405
    assert refusal("openai", "GET", "/v1/realtime", headers={"upgrade": "websocket"}).status == 404
