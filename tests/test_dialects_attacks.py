"""Ways around the field tables, and bodies that are made to cost time: found by attack, each with its test."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects import strict_json
from proxy.dialects.base import Inbound, UpstreamCall
from proxy.exceptions import BadRequest


def chat(content_type: str = "application/json", **more: Any) -> UpstreamCall:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}
    inbound = Inbound("POST", "/v1/chat/completions", content_type=content_type, body=json.dumps(body).encode())
    return dialects.read(inbound, PROVIDERS["openai"])


def gemini(**body: Any) -> UpstreamCall:
    inbound = Inbound(
        "POST", "/v1beta/models/m:generateContent", content_type="application/json", body=json.dumps(body).encode()
    )
    return dialects.read(inbound, PROVIDERS["google"])


@pytest.mark.parametrize(
    "body",
    [
        ("{" + ",".join(f'"a{number}":1' for number in range(60_000)) + ',"z":1,"z":2}').encode(),
        b'{"x":[' + b"{}," * 2_000_000 + b"{}]}",
    ],
)
def test_a_body_made_to_cost_time_is_refused_at_once(body: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(BadRequest):
        strict_json.loads(body)
    assert time.process_time() - begun < 1


def test_a_content_type_made_to_cost_time_is_refused_at_once() -> None:
    begun = time.process_time()
    with pytest.raises(BadRequest):
        chat(content_type="application/json;" + " " * 20_000 + "x")
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize(
    ("modalities", "asked"),
    [(["text"], set()), (["text", "audio"], {"audio"}), (["image"], {"images"}), (["TEXT", "IMAGE"], {"images"})],
)
def test_a_spoken_or_drawn_answer_is_more_than_chat(modalities: list[str], asked: set[str]) -> None:
    assert set(chat(modalities=modalities).capabilities) == {"chat"} | asked
    call = gemini(contents=[{"parts": [{"text": "x"}]}], generation_config={"response_modalities": modalities})
    assert set(call.capabilities) == {"chat"} | asked


@pytest.mark.parametrize("modalities", [[3], "video", [None], [["audio"]], {"audio": 1}])
def test_a_modality_in_another_spelling_is_refused(modalities: Any) -> None:
    with pytest.raises(BadRequest):
        gemini(contents=[{"parts": [{"text": "x"}]}], generationConfig={"responseModalities": modalities})


@pytest.mark.parametrize(
    "uri",
    ["https://generativelanguage.googleapis.com./v1/files/x", "https://generativelanguage.googleapis.com/v1/files/x"],
)
def test_a_file_of_the_account_is_state_however_its_host_is_spelled(uri: str) -> None:
    assert "state" in gemini(contents=[{"parts": [{"fileData": {"fileUri": uri}}]}]).capabilities


@pytest.mark.parametrize("uri", ["https://storage.googleapis.com\\@x.example/x", "https://a@b.example/x"])
def test_a_uri_that_readers_take_differently_is_refused(uri: str) -> None:
    with pytest.raises(BadRequest):
        gemini(contents=[{"parts": [{"fileData": {"fileUri": uri}}]}])


def test_a_field_that_could_be_taken_for_a_checked_one_is_refused_deep_inside_too() -> None:
    with pytest.raises(BadRequest):
        chat(messages=[{"role": "user", "Content": [{"type": "file", "file": {"file_id": "f"}}], "content": "x"}])
