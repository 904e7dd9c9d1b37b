"""Unmodified SDKs through the broker, sync and async, streaming and not: a base URL and a token are all they get.

Against a provider on a real socket that answers like the sandbox: keys, paths and headers are seen as they arrive.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from grants.models import Call

from .conftest import CANARY
from .live import eventually

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

HELLO: Any = [{"role": "user", "content": "Hello there"}]


def openai_of(server: Any, token: str) -> dict[str, Any]:
    return {"base_url": f"{server.url}/proxy/v1", "api_key": token, "max_retries": 0}


def anthropic_of(server: Any, token: str) -> dict[str, Any]:
    return {"base_url": f"{server.url}/proxy", "api_key": token, "max_retries": 0}


def google_of(server: Any, token: str) -> genai.Client:
    return genai.Client(api_key=token, http_options={"base_url": f"{server.url}/proxy"})


def last_call() -> Call:
    return eventually(lambda: Call.objects.exclude(finished_at=None).first())


# OpenAI


def test_openai_chat(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    with openai.OpenAI(**openai_of(server, token)) as client:
        answer = client.chat.completions.create(model="sandbox-1", messages=HELLO)
    assert "Hello there" in (answer.choices[0].message.content or "")
    assert upstream.last.path == "/v1/chat/completions"
    assert upstream.last.headers["authorization"] == f"Bearer {CANARY}"
    assert last_call().output_tokens == answer.usage.completion_tokens  # type: ignore[union-attr]


def test_openai_chat_streams(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    with openai.OpenAI(**openai_of(server, token)) as client:
        stream = client.chat.completions.create(model="sandbox-1", messages=HELLO, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "Hello there" in text
    assert last_call().stream
    assert not last_call().estimated


def test_openai_async_streams_side_by_side(server: Any, issue: Any) -> None:
    _, token = issue("openai")

    async def one(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="sandbox-1", messages=HELLO, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(**openai_of(server, token)) as client:
            return await asyncio.gather(*(one(client) for _ in range(10)))

    texts = asyncio.run(many())
    assert len(texts) == 10
    assert all("Hello there" in text for text in texts)


def test_openai_responses(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    with openai.OpenAI(**openai_of(server, token)) as client:
        answer = client.responses.create(model="sandbox-1", input="Hello there")
        assert "Hello there" in answer.output_text
        assert upstream.last.json["store"] is False
        with client.responses.stream(model="sandbox-1", input="Hello there") as stream:
            kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"
    assert last_call().route == "openai.responses"
    assert last_call().output_tokens


def test_openai_embeddings_moderations_and_models(server: Any, issue: Any) -> None:
    _, token = issue("openai", models=("sandbox-embed", "sandbox-1", "omni-*"))
    with openai.OpenAI(**openai_of(server, token)) as client:
        vectors = client.embeddings.create(model="sandbox-embed", input=["one", "two"]).data
        assert len(vectors) == 2
        assert sum(x * x for x in vectors[0].embedding) == pytest.approx(1, abs=1e-3)
        assert {model.id for model in client.models.list()} <= {"sandbox-1", "sandbox-embed"}
        assert client.models.retrieve("sandbox-1").id == "sandbox-1"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("sandbox-slow")


def test_openai_errors_are_typed(server: Any, issue: Any, by: Any) -> None:
    grant, token = issue("openai", models=("sandbox-1",), max_requests=1)
    with openai.OpenAI(**openai_of(server, token)) as client:
        with pytest.raises(openai.NotFoundError) as denied:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert denied.value.code == "model_not_granted"
        assert "gpt-4o" in denied.value.message
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="sandbox-1", messages=HELLO, extra_body={"surprise": 1})
        with pytest.raises(openai.NotFoundError):
            client.files.list()
        client.chat.completions.create(model="sandbox-1", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as used_up:
            client.chat.completions.create(model="sandbox-1", messages=HELLO)
        assert used_up.value.code == "insufficient_quota"
        grant.revoke(by)
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="sandbox-1", messages=HELLO)
    with openai.OpenAI(**openai_of(server, "sk-not-a-token")) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="sandbox-1", messages=HELLO)


def test_openai_audio_goes_through_as_multipart(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    audio = bytes(range(256)) * 20_000  # 5 MB: spooled to disk on its way
    with openai.OpenAI(**openai_of(server, token)) as client, pytest.raises(openai.APIStatusError):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", audio, "audio/wav"), language="en")
    arrived = upstream.last
    assert arrived.path == "/v1/audio/transcriptions"
    assert audio in arrived.body
    assert b'name="model"\r\n\r\nwhisper-1\r\n' in arrived.body
    assert int(arrived.headers["content-length"]) == len(arrived.body)


# Azure, custom, and OpenAI-shaped chat of the others


def test_azure_openai(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("azure")
    with (
        openai.AzureOpenAI(
            azure_endpoint=f"{server.url}/proxy", api_key=token, api_version="2024-10-21", max_retries=0
        ) as client,
        pytest.raises(openai.APIStatusError),
    ):
        client.chat.completions.create(model="sandbox-1", messages=HELLO)
    assert upstream.last.path == "/openai/deployments/sandbox-1/chat/completions?api-version=2024-10-21"
    assert upstream.last.headers["api-key"] == CANARY
    assert "authorization" not in upstream.last.headers
    with openai.OpenAI(base_url=f"{server.url}/proxy/openai/v1", api_key=token, max_retries=0) as client:
        assert client.chat.completions.create(model="sandbox-1", messages=HELLO).choices
    assert upstream.last.path == "/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("custom", "/v1/chat/completions"),
        ("anthropic", "/v1/chat/completions"),
        ("google", "/v1beta/openai/chat/completions"),
        ("mistral", "/v1/chat/completions"),
        ("cohere", "/compatibility/v1/chat/completions"),
    ],
)
@pytest.mark.parametrize("called", ["/proxy/v1", "/proxy/chat"])
def test_openai_shaped_chat_works_with_every_provider(
    server: Any, issue: Any, upstream: Any, provider: str, path: str, called: str
) -> None:
    _, token = issue(provider)
    if called == "/proxy/chat":
        import requests

        answer = requests.post(
            server.url + called,
            json={"model": "sandbox-1", "messages": HELLO},
            timeout=10,
            headers={"authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text
    else:
        with openai.OpenAI(**openai_of(server, token)) as client:
            assert client.chat.completions.create(model="sandbox-1", messages=HELLO).choices
    assert upstream.last.path == path
    assert upstream.last.headers["authorization"] == f"Bearer {CANARY}"


# Anthropic


def test_anthropic_messages(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("anthropic")
    with anthropic.Anthropic(**anthropic_of(server, token)) as client:
        answer = client.messages.create(model="sandbox-1", max_tokens=100, messages=HELLO)
        assert "Hello there" in answer.content[0].text  # type: ignore[union-attr]
        with client.messages.stream(model="sandbox-1", max_tokens=100, messages=HELLO) as stream:
            assert "Hello there" in stream.get_final_text()
        assert client.messages.count_tokens(model="sandbox-1", messages=HELLO).input_tokens > 0
        assert all(model.id for model in client.models.list())
    assert upstream.last.headers["x-api-key"] == CANARY
    assert "authorization" not in upstream.last.headers
    assert {call.route for call in Call.objects.all()} >= {"anthropic.messages"}


def test_anthropic_async_and_typed_errors(server: Any, issue: Any, by: Any) -> None:
    grant, token = issue("anthropic", models=("sandbox-1",))

    async def run() -> None:
        async with anthropic.AsyncAnthropic(**anthropic_of(server, token)) as client:
            async with client.messages.stream(model="sandbox-1", max_tokens=50, messages=HELLO) as stream:
                assert await stream.get_final_text()
            with pytest.raises(anthropic.BadRequestError, match="does not include the model"):
                await client.messages.create(model="claude-x", max_tokens=5, messages=HELLO)
            grant.revoke(by)
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(model="sandbox-1", max_tokens=5, messages=HELLO)

    import os

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # the test itself presses Revoke from a coroutine
    try:
        asyncio.run(run())
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


# Gemini


def test_gemini_generates_streams_counts_and_embeds(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("google")
    client = google_of(server, token)
    assert "Hello there" in (client.models.generate_content(model="sandbox-1", contents="Hello there").text or "")
    assert upstream.last.headers["x-goog-api-key"] == CANARY
    chunks = list(client.models.generate_content_stream(model="sandbox-1", contents="Hello there"))
    assert "Hello there" in "".join(chunk.text or "" for chunk in chunks)
    call = last_call()
    assert call.route.startswith("google.")
    assert call.output_tokens
    assert not call.estimated
    assert client.models.count_tokens(model="sandbox-1", contents="Hello there").total_tokens
    assert client.models.embed_content(model="sandbox-embed", contents="Hello").embeddings
    assert list(client.models.list())


def test_gemini_async_options_and_typed_errors(server: Any, issue: Any) -> None:
    _, token = issue("google", models=("sandbox-1",))
    client = google_of(server, token)
    config = genai_types.GenerateContentConfig(
        system_instruction="Be kind", temperature=0.5, max_output_tokens=50, safety_settings=[], stop_sequences=["x"]
    )

    async def run() -> str:
        answer = await client.aio.models.generate_content(model="sandbox-1", contents="Hello there", config=config)
        return answer.text or ""

    assert asyncio.run(run())
    with pytest.raises(genai_errors.ClientError) as denied:
        client.models.generate_content(model="gemini-2.5-pro", contents="x")
    assert denied.value.code == 404
    assert denied.value.status == "NOT_FOUND"
