"""The sandbox answers like the providers do: their SDKs understand it, and it can be cut like a real line."""

from __future__ import annotations

import base64
import json
import math
import struct
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anthropic
import openai
import pytest
import requests
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types
from openai.types import CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response as OpenAIResponse
from pydantic import BaseModel
from urllib3.exceptions import ProtocolError

from proxy.sandbox import SandboxAdapter
from proxy.sse import Decoder
from tests import fake_upstream

CHAT = "/v1/chat/completions"
HELLO = {"model": "sandbox-1", "messages": [{"role": "user", "content": "Hello there"}]}
CLAUDE = {**HELLO, "max_tokens": 100}
SAY = {"contents": [{"role": "user", "parts": [{"text": "Hello there"}]}]}
ECHO = 'You said: "Hello there". The sandbox hears you; no provider was asked and nothing is billed.'
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("sandbox://", SandboxAdapter())
        yield session


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The sandbox behind a real socket, for the SDKs."""
    with fake_upstream.running() as server:
        yield server.url


@pytest.fixture
def openai_sdk(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def anthropic_sdk(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


@pytest.fixture
def google_sdk(url: str) -> genai.Client:
    return genai.Client(api_key="none", http_options={"base_url": url})


def post(session: requests.Session, path: str, body: Any, **kwargs: Any) -> requests.Response:
    return session.post(f"sandbox://local{path}", json=body, timeout=5, **kwargs)


def events(response: requests.Response) -> list[Any]:
    """The data of all events; read like the relay reads."""
    decoder, found = Decoder(), []
    while chunk := response.raw.read1(65536, decode_content=True):
        found += decoder.feed(chunk)
    assert decoder.rest() in (b"", b"\n")
    return [event.data.decode() if event.data == b"[DONE]" else json.loads(event.data) for event in found]


def valid(model: type[BaseModel], data: Any) -> Any:
    """``data`` parsed strictly by an SDK's own type: the SDKs themselves never validate."""
    return model.model_validate(data)


# OpenAI


def test_openai_chat_is_answered_whole(session: requests.Session) -> None:
    response = post(session, CHAT, HELLO)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["x-request-id"].startswith("req_")
    answer = valid(ChatCompletion, response.json())
    assert answer.choices[0].message.content == ECHO
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 2 + 3
    assert answer.usage.completion_tokens == len(ECHO.split())
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("asked", [True, False])
def test_openai_chat_streams_and_tells_usage_only_when_asked(session: requests.Session, asked: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    response = post(session, CHAT, {**HELLO, "stream": True, **options}, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in response.headers
    *chunks, done = events(response)
    assert done == "[DONE]"
    parsed = [valid(ChatCompletionChunk, chunk) for chunk in chunks]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in parsed if chunk.choices) == ECHO
    with_usage = [chunk for chunk in parsed if chunk.usage]
    assert len(with_usage) == asked
    if asked:
        assert with_usage == parsed[-1:]
        assert parsed[-1].choices == []
        assert parsed[-1].usage.completion_tokens == len(ECHO.split())
    assert [chunk.choices[0].finish_reason for chunk in parsed if chunk.choices][-1] == "stop"


def test_openai_sdk_chats_and_streams(openai_sdk: openai.OpenAI) -> None:
    assert openai_sdk.chat.completions.create(**HELLO).choices[0].message.content == ECHO
    with openai_sdk.chat.completions.stream(**HELLO, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ECHO
    assert final.usage.completion_tokens == len(ECHO.split())


def test_openai_sdk_asks_and_streams_responses(openai_sdk: openai.OpenAI) -> None:
    whole = openai_sdk.responses.create(model="sandbox-1", input="Hello there", instructions="Be nice")
    assert whole.output_text == ECHO
    assert whole.usage.input_tokens == 2 + 2 + 3
    with openai_sdk.responses.stream(model="sandbox-1", input="Hello there", instructions="Be nice") as stream:
        seen = list(stream)
        assert stream.get_final_response().output_text == ECHO
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert openai_sdk.responses.input_tokens.count(model="sandbox-1", input="Hello there").input_tokens == 5


@pytest.mark.parametrize(
    ("limit", "last", "status"),
    [
        (None, "response.completed", "completed"),
        (3, "response.incomplete", "incomplete"),
    ],
)
def test_openai_responses_events_come_in_their_order(
    session: requests.Session, limit: int | None, last: str, status: str
) -> None:
    body = {"model": "sandbox-1", "input": "Hello there", "stream": True, "max_output_tokens": limit}
    seen = events(post(session, "/v1/responses", body, stream=True))
    words = 3 if limit else len(ECHO.split())
    assert [event["type"] for event in seen] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * words,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        last,
    ]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    answer = valid(OpenAIResponse, seen[-1]["response"])
    assert answer.status == status
    assert answer.usage.output_tokens == words
    assert valid(OpenAIResponse, seen[0]["response"]).usage is None


def test_openai_sdk_gets_the_same_embedding_as_floats_and_as_base64(openai_sdk: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "sandbox-embed", "input": ["one", "two"], "dimensions": 64}
    packed = openai_sdk.embeddings.create(**ask)  # the SDK asks for base64 by itself
    floats = openai_sdk.embeddings.create(**ask, encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-7)
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(packed.data[0].embedding) == 64
    assert packed.usage.prompt_tokens == 2


def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(session: requests.Session) -> None:
    answer = valid(
        CreateEmbeddingResponse,
        post(session, "/v1/embeddings", {"model": "sandbox-embed", "input": "hello"}).json(),
    )
    values = answer.data[0].embedding
    assert len(values) == 256
    assert math.sqrt(sum(value * value for value in values)) == pytest.approx(1.0, abs=1e-6)
    body = {"model": "sandbox-embed", "input": ["x", "hello"], "encoding_format": "base64"}
    packed = post(session, "/v1/embeddings", body).json()["data"][1]["embedding"]
    assert list(struct.unpack("<256f", base64.b64decode(packed))) == values
    tokens = post(session, "/v1/embeddings", {"model": "sandbox-embed", "input": [1, 2, 3]}).json()
    assert tokens["usage"]["prompt_tokens"] == 3


def test_openai_sdk_moderates_and_lists_models(openai_sdk: openai.OpenAI, session: requests.Session) -> None:
    assert [result.flagged for result in openai_sdk.moderations.create(input=["a", "b"]).results] == [False, False]
    valid(ModerationCreateResponse, post(session, "/v1/moderations", {"input": "a"}).json())
    assert [model.id for model in openai_sdk.models.list()][:2] == ["sandbox-1", "sandbox-slow"]
    assert openai_sdk.models.retrieve("sandbox-embed").owned_by == "sandbox"
    with pytest.raises(openai.NotFoundError):
        openai_sdk.models.retrieve("gpt-9")


def test_several_choices_are_billed_each(session: requests.Session) -> None:
    answer = valid(ChatCompletion, post(session, CHAT, {**HELLO, "n": 3}).json())
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 3 * len(ECHO.split())


# Anthropic


def test_anthropic_sdk_asks_streams_and_counts(anthropic_sdk: anthropic.Anthropic) -> None:
    whole = anthropic_sdk.messages.create(**CLAUDE, system="Be nice")
    assert whole.content[0].text == ECHO
    assert (whole.stop_reason, whole.usage.input_tokens) == ("end_turn", 2 + 2 + 3)
    with anthropic_sdk.messages.stream(**CLAUDE, system="Be nice") as stream:
        final = stream.get_final_message()
    assert final.model_dump(exclude={"container"}) == whole.model_dump(exclude={"container"})
    assert anthropic_sdk.messages.count_tokens(**HELLO).input_tokens == 5
    assert next(iter(anthropic_sdk.models.list())).id == "sandbox-1"
    assert anthropic_sdk.models.retrieve("sandbox-slow").type == "model"


def test_anthropic_events_come_in_their_order_and_are_named_like_their_type(session: requests.Session) -> None:
    response = post(session, "/v1/messages", {**CLAUDE, "stream": True}, stream=True)
    decoder = Decoder()
    seen = [event for chunk in response.raw.stream(7) for event in decoder.feed(chunk)]
    types = [json.loads(event.data)["type"] for event in seen]
    assert types == [event.name for event in seen]
    assert types == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * len(ECHO.split()),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    valid(anthropic.types.Message, json.loads(seen[0].data)["message"])
    valid(anthropic.types.RawMessageDeltaEvent, json.loads(seen[-2].data))


def test_anthropic_wants_max_tokens(session: requests.Session) -> None:
    response = post(session, "/v1/messages", HELLO)
    assert response.status_code == 400
    assert response.json() == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "max_tokens: Field required"},
    }


# Google


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
def test_google_answers_in_every_version(session: requests.Session, version: str) -> None:
    whole = post(session, f"/{version}/models/sandbox-1:generateContent", SAY).json()
    answer = valid(google_types.GenerateContentResponse, whole)
    assert answer.text == ECHO
    assert answer.candidates[0].finish_reason == "STOP"
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count) == (5, len(ECHO.split()))
    streamed = post(session, f"/{version}/models/sandbox-1:streamGenerateContent?alt=sse", SAY, stream=True)
    chunks = [valid(google_types.GenerateContentResponse, chunk) for chunk in events(streamed)]
    assert "".join(chunk.text for chunk in chunks) == ECHO
    assert chunks[-1].usage_metadata == usage
    assert [bool(chunk.candidates[0].finish_reason) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_google_sdk_asks_streams_embeds_counts_and_lists(google_sdk: genai.Client) -> None:
    assert google_sdk.models.generate_content(model="sandbox-1", contents="Hello there").text == ECHO
    stream = google_sdk.models.generate_content_stream(model="sandbox-1", contents="Hello there")
    assert "".join(chunk.text for chunk in stream) == ECHO
    config = google_types.EmbedContentConfig(output_dimensionality=16)
    embedded = google_sdk.models.embed_content(model="sandbox-embed", contents=["one", "two"], config=config)
    assert [len(row.values) for row in embedded.embeddings] == [16, 16]
    assert google_sdk.models.count_tokens(model="sandbox-1", contents="Hello there").total_tokens == 5
    assert "models/sandbox-1" in [model.name for model in google_sdk.models.list()]
    assert google_sdk.models.get(model="sandbox-1").input_token_limit > 0


def test_google_embeds_one_text_and_streams_an_array_without_sse(session: requests.Session) -> None:
    one = {"content": {"parts": [{"text": "one"}]}}
    embedded = post(session, "/v1beta/models/sandbox-embed:embedContent", one).json()
    same = post(session, "/v1/embeddings", {"model": "sandbox-embed", "input": "one"}).json()
    assert embedded["embedding"]["values"] == same["data"][0]["embedding"]
    chunks = post(session, "/v1beta/models/sandbox-1:streamGenerateContent", SAY).json()
    assert len(chunks) == len(ECHO.split())


# In every dialect


@pytest.mark.parametrize(
    ("path", "headers", "key"),
    [
        ("/v1/models", {}, "data"),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, "first_id"),
        ("/v1/models", {"x-goog-api-key": "x"}, "models"),
        ("/v1beta/models", {}, "models"),
    ],
)
def test_the_model_list_has_the_shape_that_the_caller_speaks(
    session: requests.Session, path: str, headers: dict[str, str], key: str
) -> None:
    assert key in session.get(f"sandbox://local{path}", headers=headers, timeout=5).json()


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("gpt-9", 404),
        ("sandbox-error", 500),
        ("sandbox-limited", 429),
        ("sandbox-embed", 404),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_have_the_providers_shape(session: requests.Session, model: str, status: int, stream: bool) -> None:
    openai_error = post(session, CHAT, {**HELLO, "model": model, "stream": stream})
    claude_error = post(session, "/v1/messages", {**CLAUDE, "model": model, "stream": stream})
    google_error = post(session, f"/v1beta/models/{model}:generateContent", SAY)
    for response in (openai_error, claude_error, google_error):
        assert response.status_code == status
        assert ("retry-after" in response.headers) is (status == 429)
    assert set(openai_error.json()["error"]) == {"message", "type", "param", "code"}
    assert claude_error.json()["type"] == "error"
    assert google_error.json()["error"]["code"] == status


def test_the_sdks_raise_their_own_errors(
    openai_sdk: openai.OpenAI, anthropic_sdk: anthropic.Anthropic, google_sdk: genai.Client
) -> None:
    with pytest.raises(openai.RateLimitError):
        openai_sdk.chat.completions.create(**{**HELLO, "model": "sandbox-limited"})
    with pytest.raises(anthropic.InternalServerError):
        anthropic_sdk.messages.create(**{**CLAUDE, "model": "sandbox-error"})
    with pytest.raises(google_errors.ClientError) as caught:
        google_sdk.models.generate_content(model="gpt-9", contents="x")
    assert caught.value.status == "NOT_FOUND"


def test_the_output_limit_cuts_the_answer_and_says_so(session: requests.Session) -> None:
    first = 'You said: "Hello'
    chat = post(session, CHAT, {**HELLO, "max_completion_tokens": 3}).json()
    assert (chat["choices"][0]["message"]["content"], chat["choices"][0]["finish_reason"]) == (first, "length")
    assert chat["usage"]["completion_tokens"] == 3
    assert post(session, CHAT, {**HELLO, "max_tokens": 3}).json()["choices"] == chat["choices"]
    claude = post(session, "/v1/messages", {**CLAUDE, "max_tokens": 3}).json()
    assert (claude["content"][0]["text"], claude["stop_reason"]) == (first, "max_tokens")
    for config in ({"generationConfig": {"maxOutputTokens": 3}}, {"generation_config": {"max_output_tokens": 3}}):
        answer = post(session, "/v1beta/models/sandbox-1:generateContent", {**SAY, **config}).json()["candidates"][0]
        assert (answer["content"]["parts"][0]["text"], answer["finishReason"]) == (first, "MAX_TOKENS")


def test_a_forced_tool_is_called(
    openai_sdk: openai.OpenAI, anthropic_sdk: anthropic.Anthropic, google_sdk: genai.Client
) -> None:
    function: Any = {"name": "weather", "parameters": WEATHER}
    tools: Any = [{"type": "function", "function": function}]
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    with openai_sdk.chat.completions.stream(**HELLO, tools=tools, tool_choice=choice) as chat:
        call = chat.get_final_completion().choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "sandbox"})
    flat: Any = [{"type": "function", "strict": False, **function}]
    with openai_sdk.responses.stream(model="sandbox-1", input="x", tools=flat, tool_choice="required") as responses:
        assert json.loads(responses.get_final_response().output[0].arguments) == {"city": "sandbox"}
    claude_tools: Any = [{"name": "weather", "input_schema": WEATHER}]
    with anthropic_sdk.messages.stream(**CLAUDE, tools=claude_tools, tool_choice={"type": "any"}) as claude:
        message = claude.get_final_message()
    assert (message.stop_reason, message.content[0].input) == ("tool_use", {"city": "sandbox"})
    config: Any = {
        "tools": [{"function_declarations": [function]}],
        "tool_config": {"function_calling_config": {"mode": "ANY"}},
    }
    answer = google_sdk.models.generate_content(model="sandbox-1", contents="x", config=config)
    assert answer.function_calls[0].args == {"city": "sandbox"}


def test_the_same_request_has_the_same_answer(session: requests.Session) -> None:
    asked = {"model": "sandbox-1", "input": "x"}
    for path, body in ((CHAT, {**HELLO, "stream": True}), ("/v1/messages", CLAUDE), ("/v1/responses", asked)):
        assert post(session, path, body).content == post(session, path, body).content
    other = {**HELLO, "messages": [{"role": "user", "content": "Something else"}]}
    assert post(session, CHAT, other).json()["id"] != post(session, CHAT, HELLO).json()["id"]


def test_a_long_message_is_echoed_shortened_and_parts_are_read(session: requests.Session) -> None:
    parts = [{"type": "text", "text": "word " * 500}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    answer = post(session, CHAT, {"model": "sandbox-1", "messages": [{"role": "user", "content": parts}]}).json()
    assert "word word" in answer["choices"][0]["message"]["content"]
    assert len(answer["choices"][0]["message"]["content"]) < 320
    assert answer["usage"]["prompt_tokens"] == 500 + 3


def test_it_counts_when_asked_to(session: requests.Session) -> None:
    body = {"model": "sandbox-1", "messages": [{"role": "user", "content": "Please count to 50."}]}
    answer = post(session, CHAT, body).json()
    assert answer["choices"][0]["message"]["content"].split() == [str(number) for number in range(1, 51)]
    assert answer["usage"]["completion_tokens"] == 50


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"model": "sandbox-1"}',
        b'{"model": "sandbox-1", "messages": 7}',
        b"[" * 100_000,
        b'{"model": "sandbox-1", "messages": [7, null, {"role": "user", "content": [[]]}], "n": "x"}',
        b'{"model": {}, "messages": [{}]}',
        b'{"model": "sandbox-1", "messages": ["x"], "max_tokens": -1}',
        b'{"model": "sandbox-1", "messages": ["x"], "tools": [1, {"function": 2}], "tool_choice": "required", "n": 99}',
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1beta/models/sandbox-1:generateContent",
    ],
)
def test_nonsense_is_refused_and_never_an_exception(session: requests.Session, path: str, body: bytes) -> None:
    response = session.post(f"sandbox://local{path}", data=body, timeout=5)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["message"]


def test_half_of_a_surrogate_pair_is_no_trouble(session: requests.Session) -> None:
    body = b'{"model": "sandbox-1", "messages": [{"role": "user", "content": "\\ud800"}]}'
    for stream in (b"false", b"true"):
        data = body[:-1] + b', "stream": ' + stream + b"}"
        assert session.post(f"sandbox://local{CHAT}", data=data, timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/audio/speech", 400),
        ("POST", "/v1/images/generations", 400),
        ("POST", "/v1/files", 404),
        ("DELETE", "/v1/models/sandbox-1", 404),
        ("POST", "/v1beta/models/sandbox-1:predict", 404),
        ("GET", "/", 404),
    ],
)
def test_what_the_sandbox_cannot_do_is_said_clearly(
    session: requests.Session, method: str, path: str, status: int
) -> None:
    response = session.request(method, f"sandbox://local{path}", data=b"{}", timeout=5)
    assert response.status_code == status
    assert "sandbox has no" in response.json()["error"]["message"]


# The line


def test_the_slow_model_streams_a_word_every_200_milliseconds(session: requests.Session) -> None:
    body = {"model": "sandbox-slow", "messages": [{"role": "user", "content": "count to 3"}], "stream": True}
    started = time.monotonic()
    response = post(session, CHAT, body, stream=True)
    times = []
    while response.raw.read1(65536):
        times.append(time.monotonic() - started)
    assert times[0] < 0.15
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 4  # three words, then the end
    assert all(0.18 < gap < 0.35 for gap in gaps)


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_a_stream_that_waits_is_cut_at_once_and_never_looks_complete(session: requests.Session, end: str) -> None:
    body = {"model": "sandbox-slow", "messages": [{"role": "user", "content": "count to 50"}], "stream": True}
    response = post(session, CHAT, body, stream=True)
    assert response.raw.read1(65536)
    called: list[float] = []

    def cut() -> None:
        called.append(time.monotonic())
        getattr(response.raw, end)()

    threading.Timer(0.05, cut).start()
    with pytest.raises(ProtocolError):
        response.raw.read1(65536)
    assert time.monotonic() - called[0] < 0.05
    response.close()


def test_a_small_read_loses_nothing(session: requests.Session) -> None:
    response = post(session, CHAT, {**HELLO, "stream": True}, stream=True)
    pieces = []
    while piece := response.raw.read1(10):
        pieces.append(piece)
    assert max(map(len, pieces)) == 10
    assert b"".join(pieces) == post(session, CHAT, {**HELLO, "stream": True}).content


def test_the_sandbox_reads_the_first_request_of_a_coding_agent_and_refuses_what_takes_long_to_parse(
    session: requests.Session,
) -> None:
    """A body of 280 kB with tools is read. A body of 30,000 values is refused."""
    tool = {"type": "function", "function": {"name": "read_file", "description": "x" * 7000, "parameters": {}}}
    body = {"model": "sandbox-1", "messages": [{"role": "user", "content": "Hello"}], "tools": [tool] * 40}
    assert post(session, "/v1/chat/completions", body).status_code == 200
    many = body | {"tools": [], "metadata": dict.fromkeys(map(str, range(15_000)), 1)}
    assert post(session, "/v1/chat/completions", many).status_code == 400
