"""What a call can use: every route says it, and nothing in a body makes it look smaller than it is."""
# ruff: noqa: E501 - one case a line

from __future__ import annotations

import base64
import io
import json
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects import audio
from proxy.dialects.base import Demand, FilePart, Form, Inbound, UpstreamCall
from proxy.dialects.peculiar import asked_by_model

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
JPEG = b"\xff\xd8\xff\xe0" + bytes(60)
WEBP = b"RIFF\x40\x00\x00\x00WEBPVP8 " + bytes(60)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64(data)}"


def wav(seconds: float = 2, rate: int = 16_000, channels: int = 1, bits: int = 16, **forged: Any) -> bytes:
    """A PCM recording; ``forged`` numbers replace those of its header."""
    block = channels * bits // 8
    data = bytes(int(seconds * rate) * block)
    header = {
        "tag": 1,
        "channels": channels,
        "said_rate": rate,
        "bytes_a_second": rate * block,
        "block": block,
        "bits": bits,
        "data_size": len(data),
        "riff_size": 36 + len(data),
        "before": b"",
        "after": b"",
    } | forged
    names = ("tag", "channels", "said_rate", "bytes_a_second", "block", "bits")
    fmt = b"fmt \x10\x00\x00\x00" + struct.pack("<HHIIHH", *(header[name] for name in names))
    start = b"RIFF" + struct.pack("<I", header["riff_size"]) + b"WAVE"
    return start + header["before"] + fmt + b"data" + struct.pack("<I", header["data_size"]) + data + header["after"]


def mp3(frames: int = 100, header: bytes = b"\xff\xfb\x90\x64", length: int = 417) -> bytes:
    """128 kbit/s at 44.1 kHz: 1152 samples in each frame of 417 bytes."""
    return (header + bytes(length - 4)) * frames


CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/m:generateContent"


def read(
    path: str, body: dict[str, Any], provider: str = "openai", extra: tuple[str, ...] = (), default: int | None = 4096
) -> UpstreamCall:
    inbound = Inbound("POST", path, content_type="application/json", body=json.dumps(body).encode())
    return dialects.read(inbound, PROVIDERS[provider], extra, default)


def form(
    path: str, *files: tuple[str, bytes], filename: str = "a.bin", kind: str = "audio/wav", **fields: str
) -> UpstreamCall:
    parts = tuple(FilePart(name, filename, kind, len(data), io.BytesIO(data)) for name, data in files)
    inbound = Inbound("POST", path, form=Form((("model", "m"), *fields.items()), parts))
    return dialects.read(inbound, PROVIDERS["openai"], (), 4096)


def chat(*parts: dict[str, Any], provider: str = "openai", **more: Any) -> Demand:
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts) or "hi"}], **more}
    return read(CHAT, body, provider).demand


def responses(*items: dict[str, Any], **more: Any) -> Demand:
    return read("/v1/responses", {"model": "m", "input": list(items) or "hi", **more}).demand


def anthropic(*blocks: dict[str, Any], **more: Any) -> Demand:
    body = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": list(blocks) or "hi"}], **more}
    return read(MESSAGES, body, "anthropic").demand


def gemini(*parts: dict[str, Any], model: str = "m", **more: Any) -> Demand:
    body = {"contents": [{"role": "user", "parts": list(parts) or [{"text": "hi"}]}], **more}
    return read(f"/v1beta/models/{model}:generateContent", body, "google").demand


# Every route


EVERY: dict[str, Any] = {
    "openai.chat": lambda: read(CHAT, {"model": "m", "messages": []}),
    "openai.completions": lambda: read("/v1/completions", {"model": "m", "prompt": "x"}),
    "openai.responses": lambda: read("/v1/responses", {"model": "m", "input": "x"}),
    "openai.input_tokens": lambda: read("/v1/responses/input_tokens", {"model": "m", "input": "x"}),
    "openai.embeddings": lambda: read("/v1/embeddings", {"model": "m", "input": "x"}),
    "openai.moderations": lambda: read("/v1/moderations", {"model": "m", "input": "x"}),
    "openai.images": lambda: read("/v1/images/generations", {"model": "m", "prompt": "x"}),
    "openai.speech": lambda: read("/v1/audio/speech", {"model": "m", "input": "x", "voice": "v"}),
    "openai.image_edits": lambda: form("/v1/images/edits", ("image", PNG), prompt="x"),
    "openai.image_variations": lambda: form("/v1/images/variations", ("image", PNG)),
    "openai.transcription": lambda: form("/v1/audio/transcriptions", ("file", wav())),
    "openai.translation": lambda: form("/v1/audio/translations", ("file", b"who knows")),
    "anthropic.messages": lambda: read(MESSAGES, {"model": "m", "max_tokens": 5, "messages": []}, "anthropic"),
    "anthropic.count_tokens": lambda: read(f"{MESSAGES}/count_tokens", {"model": "m", "messages": []}, "anthropic"),
    "google.generateContent": lambda: read(GEMINI, {"contents": []}, "google"),
    "google.streamGenerateContent": lambda: dialects.read(
        Inbound(
            "POST",
            "/v1beta/models/m:streamGenerateContent",
            (("alt", "sse"),),
            content_type="application/json",
            body=b'{"contents":[]}',
        ),
        PROVIDERS["google"],
        (),
        4096,
    ),
    "google.embedContent": lambda: read("/v1beta/models/m:embedContent", {"content": {"parts": []}}, "google"),
    "google.batchEmbedContents": lambda: read("/v1beta/models/m:batchEmbedContents", {"requests": []}, "google"),
    "google.countTokens": lambda: read("/v1beta/models/m:countTokens", {"contents": []}, "google"),
}
WRITES = {"openai.chat", "openai.completions", "openai.responses", "anthropic.messages"} | {
    "google.generateContent",
    "google.streamGenerateContent",
}


@pytest.mark.parametrize("name", [route.name for route in dialects.ROUTES if route.method == "POST"])
def test_every_route_bounds_what_it_uses_or_says_why_not(name: str) -> None:
    call = EVERY[name]()
    assert call.route == name
    demand = call.demand
    assert demand.text > 0, "whatever is sent has text"
    assert (demand.limit is not None) == (name in WRITES), "what writes text has a limit"
    if call.flavor == "images":
        assert demand.pictures == 1
    if call.flavor == "speech":
        assert demand.characters == 1
    if call.flavor == "transcription":
        assert demand.audio or demand.unbounded


def test_lists_of_models_use_nothing() -> None:
    call = dialects.read(Inbound("GET", "/v1/models"), PROVIDERS["openai"], (), 4096)
    assert call.demand == Demand()


# Text


@given(st.text(max_size=50))
def test_text_is_never_fewer_than_its_bytes(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    for demand in (
        chat({"type": "text", "text": text}),
        anthropic({"type": "text", "text": text}, system=text),
        gemini({"text": text}),
    ):
        assert demand.text >= size


def test_tools_and_schemas_are_text_too() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 1000}}
    assert chat(tools=[tool]).text > 1000 + chat().text
    assert gemini(tools=[{"functionDeclarations": [{"name": "f", "description": "d" * 1000}]}]).text > 1000


def test_a_list_of_tokens_has_a_byte_for_each() -> None:
    assert read("/v1/embeddings", {"model": "m", "input": [[1] * 500, [2] * 500]}).demand.text > 1000


def test_pictures_and_recordings_are_no_text() -> None:
    picture = data_url(PNG + bytes(90_000))
    assert chat({"type": "image_url", "image_url": {"url": picture}}).text < 200
    sound = {"type": "input_audio", "input_audio": {"data": b64(wav(3)), "format": "wav"}}
    assert chat(sound).text < 250
    assert gemini({"inlineData": {"mimeType": "image/png", "data": b64(PNG + bytes(90_000))}}).text < 200


# Pictures


@pytest.mark.parametrize("picture", [PNG, JPEG, WEBP, b"GIF89a" + bytes(40)])
def test_an_inline_picture_counts_as_one(picture: bytes) -> None:
    url = data_url(picture)
    assert chat({"type": "image_url", "image_url": {"url": url}}).images == 1
    assert chat({"type": "image_url", "image_url": url}, {"type": "image_url", "image_url": {"url": url}}).images == 2
    for part in ({"type": "input_image", "image_url": url}, {"type": "computer_screenshot", "image_url": url}):
        assert responses({"role": "user", "content": [part]}).images == 1
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(picture)}}
    assert anthropic(block, {"type": "tool_result", "tool_use_id": "t", "content": [block]}).images == 2
    blob = {"mimeType": "image/png", "data": b64(picture)}
    assert gemini({"inlineData": blob}).images == 1
    assert gemini({"functionResponse": {"name": "f", "parts": [{"inline_data": blob}]}}).images == 1
    urlsafe = base64.urlsafe_b64encode(picture).decode()  # as google-genai sends it
    assert gemini({"inline_data": {"mime_type": "image/png", "data": urlsafe}}).images == 1
    assert not chat({"type": "image_url", "image_url": {"url": url}}).hidden


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/a.png",
        "HTTPS://example.org/a.png",
        "file-abc",
        data_url(b"%PDF-1.7 many pages", "image/png"),
        data_url(PNG, "application/pdf"),
        data_url(PNG, "text/plain"),
        data_url(b"<svg/>", "image/svg+xml"),
        "data:image/png;base64,###",
        "data:image/png," + b64(PNG),
        "data:" + "x" * 300 + ";base64," + b64(PNG),
        "data:image/png;base64",
        "data:",
        "",
        "file:///etc/passwd",
    ],
)
def test_what_is_not_surely_a_picture_is_hidden(url: str) -> None:
    assert chat({"type": "image_url", "image_url": {"url": url}}).hidden
    assert responses({"role": "user", "content": [{"type": "input_image", "image_url": url}]}).hidden


@pytest.mark.parametrize(
    ("mime", "data"),
    [
        ("application/pdf", PNG),
        ("text/plain", PNG + b"a long text"),
        ("video/mp4", PNG),
        ("image/png", b"%PDF-"),
        (None, PNG),
        (7, PNG),
        ("", PNG),
    ],
)
def test_a_file_is_taken_for_what_costs_more(mime: Any, data: bytes) -> None:
    demand = gemini({"inlineData": {"mimeType": mime, "data": b64(data)}})
    assert (demand.hidden, demand.images) == (True, 0)
    source = {"type": "base64", "media_type": mime, "data": b64(data)}
    assert anthropic({"type": "document", "source": source}).hidden


@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_a_picture_by_url_counts_as_an_inline_one(provider: str) -> None:
    url = "https://example.org/a.png"
    block = {"type": "image", "source": {"type": "url", "url": url}}
    seen = [
        chat({"type": "image_url", "image_url": {"url": url}}, provider=provider),
        responses({"role": "user", "content": [{"type": "input_image", "image_url": url}]}),
        anthropic(block),
        anthropic({"type": "tool_result", "tool_use_id": "t", "content": [block]}),
        read("/v1/moderations", {"model": "m", "input": [{"type": "image_url", "image_url": {"url": url}}]}).demand,
    ]
    assert [(one.hidden, one.images) for one in seen] == [(False, 1)] * 5


def test_what_is_hidden_is_told_by_its_first_field() -> None:
    file = {"type": "input_file", "file_url": "https://example.org/a.pdf"}
    assert (
        responses({"role": "user", "content": "x"}, {"role": "user", "content": [file, file]}).unseen
        == "input[1].content[0].file_url"
    )
    assert chat({"type": "text", "text": "x"}).unseen == ""


def test_a_picture_drawn_before_is_looked_at_again() -> None:
    assert responses({"type": "image_generation_call", "id": "ig", "result": b64(PNG)}).images == 1


# What the body does not show


def part(kind: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": kind, **more}]}


@pytest.mark.parametrize(
    "demand",
    [
        lambda: chat({"type": "file", "file": {"file_data": data_url(b"%PDF-", "application/pdf")}}),
        lambda: chat({"type": "file", "file": {"file_url": "https://example.org/a.pdf"}}),
        lambda: chat({"type": "file", "file": {"file_id": "f"}}),
        lambda: chat({"type": "video_url", "video_url": {"url": "https://example.org/film"}}),
        lambda: chat({"type": "video_url", "video_url": {"url": data_url(b"film", "video/mp4")}}),
        lambda: chat({"type": "audio_url", "audio_url": {"url": "https://example.org/song"}}),
        lambda: chat({"type": "hologram", "x": 1}, provider="custom"),
        lambda: responses(part("input_file", file_url="https://example.org/a.pdf")),
        lambda: responses(part("input_file", file_data=data_url(b"%PDF-"))),
        lambda: responses(part("input_file", file_id="f")),
        lambda: responses({"type": "item_reference", "id": "i"}),
        lambda: responses({"type": "reasoning", "id": "r", "summary": []}),
        lambda: responses({"type": "compaction", "encrypted_content": "x"}),
        lambda: responses(previous_response_id="r"),
        lambda: responses(conversation="c"),
        lambda: anthropic({"type": "image", "source": {"type": "url", "url": "file:///a.png"}}),
        lambda: anthropic({"type": "image", "source": {"type": "url", "url": None}}),
        lambda: chat({"type": "image_url", "image_url": {"url": "https://example.org/a.pdf"}}, provider="google"),
        lambda: chat({"type": "image_url", "image_url": {"url": "https://example.org/a.pdf"}}, provider="anthropic"),
        lambda: anthropic({"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}),
        lambda: anthropic({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}),
        lambda: anthropic({"type": "image", "source": {"type": "file", "file_id": "f"}}),
        lambda: anthropic({"type": "container_upload", "file_id": "f"}),
        lambda: anthropic({"type": "web_fetch_tool_result", "tool_use_id": "t", "content": {}}),
        lambda: anthropic({"type": "compaction", "content": "x"}),
        lambda: anthropic(container="c"),
        lambda: gemini({"fileData": {"fileUri": "https://www.youtube.com/watch?v=x"}}),
        lambda: gemini({"fileData": {"fileUri": "gs://bucket/object"}}),
        lambda: gemini(cachedContent="cachedContents/x"),
        lambda: gemini(continuationToken="x"),
        lambda: gemini({"inlineData": {"mimeType": "video/mp4", "data": b64(b"film")}}),
        lambda: chat(extra_body={"google": {"cached_content": "x"}}, provider="google"),
    ],
)  # fmt: skip
def test_what_the_body_does_not_show_is_hidden(demand: Any) -> None:
    assert demand().hidden


def test_text_in_documents_and_tool_results_is_shown() -> None:
    block = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 900}}
    demand = anthropic(block, {"type": "tool_result", "tool_use_id": "t", "content": "y" * 900})
    assert (demand.hidden, demand.unbounded) == (False, "")
    assert demand.text > 1_800


# What no output limit bounds


@pytest.mark.parametrize(
    ("demand", "why"),
    [
        (lambda: responses(tools=[{"type": "web_search"}]), "hosted tools"),
        (lambda: responses(tools=[{"type": "file_search", "vector_store_ids": []}]), "hosted tools"),
        (lambda: responses(tools=[{"type": "code_interpreter", "container": {"type": "auto"}}]), "hosted tools"),
        (lambda: responses(tools=[{"type": "mcp", "server_label": "x", "server_url": "https://x"}]), "hosted tools"),
        (lambda: responses(tools=[{"type": "image_generation"}]), "hosted tools"),
        (lambda: responses(tools=[{"type": "tool_search"}]), "hosted tools"),
        (lambda: responses({"type": "additional_tools", "tools": [{"type": "web_search"}]}), "hosted tools"),
        (lambda: responses(prompt={"id": "p"}), "a stored prompt, which may bring tools"),
        (lambda: responses(background=True), "work in the background, whose usage is not seen"),
        (lambda: responses(context_management=[{"type": "compaction"}]), "compaction"),
        (lambda: responses({"type": "compaction_trigger"}), "compaction"),
        (lambda: responses(reasoning={"mode": "pro"}), "reasoning beyond the limit"),
        (lambda: responses(moderation={"model": "omni"}), "another model may run"),
        (lambda: chat(web_search_options={}), "hosted tools"),
        (lambda: chat(prediction={"type": "content", "content": "x"}), "a predicted answer"),
        (lambda: chat(modalities=["text", "audio"], audio={"voice": "v", "format": "mp3"}), "spoken or drawn answers"),
        (lambda: chat(modalities=["image"], provider="openrouter"), "spoken or drawn answers"),
        (lambda: chat(model="gpt-4o-search-preview"), "search"),
        (lambda: chat(model="o3-deep-research"), "search"),
        (lambda: chat(provider="perplexity"), "search"),
        (lambda: chat(provider="xai"), "reasoning beyond the limit"),
        (lambda: chat(model="command-a-reasoning", provider="cohere"), "reasoning that may be beyond the limit"),
        (lambda: chat(provider="openrouter"), "other providers that it may be routed to"),
        (lambda: chat(models=["a", "b"], provider="openrouter"), "another model may run"),
        (lambda: chat(plugins=[{"id": "web"}], provider="openrouter"), "hosted tools"),
        (lambda: chat(safety_model="g", provider="together"), "another model may run"),
        (lambda: chat(model="groq/compound", provider="groq"), "search"),
        (lambda: chat(model="gemini-2.5-flash-image", provider="google"), "spoken or drawn answers"),
        (lambda: chat({"type": "document_url", "document_url": "https://x"}, provider="mistral"), "documents that are read for the model"),
        (lambda: chat(guardrails=[{}], provider="mistral"), "guardrails"),
        (lambda: anthropic(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "hosted tools"),
        (lambda: anthropic(tools=[{"type": "code_execution_20250825", "name": "c"}]), "hosted tools"),
        (lambda: anthropic(tools=[{"type": "tool_search_tool_bm25_20251119", "name": "t"}]), "hosted tools"),
        (lambda: anthropic(mcp_servers=[{"type": "url", "url": "https://x"}]), "hosted tools"),
        (lambda: anthropic(fallbacks=[{"model": "m", "max_tokens": 10**6}]), "another model may run"),
        (lambda: anthropic(tools=[{"type": "advisor_20260301", "model": "m", "max_tokens": 10**6}]), "another model may run"),
        (lambda: anthropic(compaction={"type": "summarize"}), "compaction"),
        (lambda: anthropic(context_management={"edits": [{"type": "compact_20260112"}]}), "compaction"),
        (lambda: anthropic(context_management={"edits": [{}]}), "compaction"),
        (lambda: gemini(tools=[{"googleSearch": {}}]), "hosted tools"),
        (lambda: gemini(tools={"code_execution": {}}), "hosted tools"),
        (lambda: gemini(tools=[{"fileSearch": {"fileSearchStoreNames": ["x"]}}]), "hosted tools"),
        (lambda: gemini(generationConfig={"responseModalities": ["AUDIO"]}), "spoken or drawn answers"),
        (lambda: gemini(generation_config={"response_modalities": ["TEXT", "IMAGE"]}), "spoken or drawn answers"),
        (lambda: gemini(generationConfig={"speechConfig": {}}), "spoken or drawn answers"),
        (lambda: gemini(model="gemini-3-pro-image-preview"), "spoken or drawn answers"),
        (lambda: gemini(model="gemini-2.5-flash-preview-tts"), "spoken or drawn answers"),
    ],
)  # fmt: skip
def test_what_costs_more_than_the_limit_tells_has_no_bound_by_it(demand: Any, why: str) -> None:
    assert demand().unbounded == why


@pytest.mark.parametrize(
    "demand",
    [
        lambda: chat(tools=[{"type": "function", "function": {"name": "f"}}], reasoning_effort="high"),
        lambda: chat(modalities=["text"], web_search_options=None, store=True),
        lambda: chat(model="gpt-4o-mini", n=3, response_format={"type": "json_object"}),
        lambda: chat(provider="groq", model="llama-3.3-70b"),
        lambda: chat(provider="custom", guided_json={}, chat_template_kwargs={"a": 1}),
        lambda: responses(reasoning={"effort": "high", "mode": "standard"}, tools=[{"type": "function", "name": "f"}]),
        lambda: responses({"type": "reasoning", "id": "r", "encrypted_content": "x"}, background=False),
        lambda: anthropic(thinking={"type": "adaptive"}, tools=[{"name": "f", "input_schema": {}}], fallbacks=[]),
        lambda: anthropic(tools=[{"type": "bash_20250124", "name": "bash"}], mcp_servers=[]),
        lambda: anthropic(context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}),
        lambda: gemini(tools=[{"functionDeclarations": [{"name": "f"}]}], generationConfig={"thinkingConfig": {}}),
        lambda: gemini(generationConfig={"responseModalities": ["TEXT"]}, model="gemini-2.5-pro"),
    ],
)
def test_ordinary_calls_are_bounded(demand: Any) -> None:
    found = demand()
    assert (found.unbounded, found.hidden, found.images, found.audio) == ("", False, 0, ())
    assert found.limit


def test_a_field_that_the_owner_lets_through_may_cost_anything() -> None:
    body = {"model": "m", "messages": [], "brand_new": 1}
    assert "brand_new" in read(CHAT, body, extra=("brand_new",)).demand.unbounded
    body = {"model": "m", "input": "x", "access_programs": {}}
    assert "access_programs" in read("/v1/responses", body, extra=("access_programs",)).demand.unbounded


@pytest.mark.parametrize(
    "name", ["n_predict", "num_predict", "max_new_tokens", "maxNewTokens", "options", "n_cmpl", "url"]
)
def test_another_name_of_the_limit_on_the_owners_own_server_proves_nothing(name: str) -> None:
    assert name in chat(provider="custom", **{name: 10**6}).unbounded


@pytest.mark.parametrize("name", ["brand_new", "maxOutputTokensPlease", "effort"])
def test_an_unknown_field_of_the_owners_own_server_proves_nothing(name: str) -> None:
    assert name in chat(provider="custom", **{name: 1}).unbounded


OBEYS = "openai azure google anthropic mistral groq deepseek together fireworks cerebras bedrock custom sandbox".split()  # noqa: SIM905


@pytest.mark.parametrize("provider", [row for row in PROVIDERS if row not in OBEYS])
def test_a_provider_that_is_not_known_to_obey_an_output_limit_bounds_nothing(provider: str) -> None:
    """What counts against the limit is written down in ``limits.py``; a new provider is not in that list."""
    assert chat(provider=provider).unbounded
    assert asked_by_model("a provider of tomorrow", "m")[1]


@pytest.mark.parametrize(
    ("model", "bounded"),
    [
        ("command-r-plus-08-2024", True),
        ("command-a-03-2025", True),
        ("command-a-reasoning-08-2025", False),
        ("command-b", False),
        ("command-a-plus", False),
    ],
)
def test_coheres_models_are_bounded_where_they_are_known_not_to_reason(model: str, bounded: bool) -> None:
    assert (chat(provider="cohere", model=model).unbounded == "") is bounded


# Caches


def test_what_may_be_written_into_a_cache_is_said() -> None:
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert anthropic(block).cached
    assert anthropic(system=[block]).cached
    assert anthropic(cache_control={"type": "ephemeral"}).cached
    assert chat({**block}, provider="openrouter").cached
    assert not anthropic({"type": "text", "text": 'they call it "cache_control"'}).cached
    assert chat().cached, "OpenAI writes caches unasked, from gpt-5.6 on for a price"
    assert not gemini().cached
    assert chat(provider="bedrock").cached, "nothing says that it does not"
    assert not chat(provider="anthropic").cached, "its caches are written on request only"


# Pictures to be made


def image(**more: Any) -> Demand:
    return read("/v1/images/generations", {"model": "m", "prompt": "x", **more}).demand


def test_pictures_to_be_made_are_counted_with_size_and_quality() -> None:
    demand = image(n=3, size="1024x1536", quality="high")
    assert (demand.pictures, demand.size, demand.quality, demand.unbounded) == (3, "1024x1536", "high", "")
    demand = form("/v1/images/edits", ("image[]", PNG), ("image[]", PNG), ("mask", PNG), n="2", size="auto").demand
    assert (demand.images, demand.pictures, demand.size) == (3, 2, "auto")
    assert form("/v1/images/variations", ("image", PNG), n="4", size="256x256").demand.pictures == 4


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"partial_images": 2}, "partial pictures"),
        ({"partial_images": 0}, ""),
        ({"output_format": "gif"}, "animated pictures"),
        ({"output_format": "png"}, ""),
        ({"frame_count": 9}, "animated pictures"),
        ({"complexity": "high"}, "planned pictures"),
        ({"svg": {"model": "gpt-x"}}, "another model may run"),
    ],
)
def test_what_makes_pictures_dearer_is_said(more: dict[str, Any], why: str) -> None:
    assert image(**more).unbounded == why


def test_an_edit_of_high_fidelity_is_dearer() -> None:
    assert form("/v1/images/edits", ("image", PNG), input_fidelity="high").demand.unbounded == "high input fidelity"


# Speech


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))
def test_speech_counts_its_characters_exactly(text: str) -> None:
    demand = read("/v1/audio/speech", {"model": "m", "input": text, "voice": "v", "instructions": "softly"}).demand
    assert demand.characters == len(text)
    assert demand.text > len(text.encode())


# Recordings


def sound(data: bytes, kind: Any, **more: Any) -> Demand:
    return chat({"type": "input_audio", "input_audio": {"data": b64(data), "format": kind, **more}})


def blob(data: bytes, kind: str) -> Demand:
    return gemini({"inlineData": {"mimeType": kind, "data": b64(data)}})


def seconds(data: bytes) -> int | None:
    file = io.BytesIO(data)
    found = audio.of_file(file, len(data))
    assert file.tell() == 0
    assert audio.of_base64(b64(data)) == found
    return found


@pytest.mark.parametrize("length", [0.1, 1, 7.3, 61])
@pytest.mark.parametrize(
    ("rate", "channels", "bits"), [(8_000, 1, 8), (16_000, 1, 16), (44_100, 2, 16), (48_000, 2, 24)]
)
def test_a_wav_file_is_as_long_as_its_bytes_play(length: float, rate: int, channels: int, bits: int) -> None:
    found = seconds(wav(length, rate, channels, bits))
    assert found is not None
    assert length <= found < length + 1


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0, 2, 100])
def test_a_wav_file_that_claims_to_be_shorter_is_measured_all_the_same(size: int) -> None:
    assert seconds(wav(10, data_size=size)) == 10
    assert seconds(wav(10, riff_size=size)) == 10


@pytest.mark.parametrize(
    "forged",
    [
        {"bytes_a_second": 0},
        {"bytes_a_second": 0xFFFFFFFF},
        {"said_rate": 0, "bytes_a_second": 0},
        {"said_rate": 192_000},
        {"said_rate": 2_000_000_000, "bytes_a_second": 4_000_000_000},
        {"channels": 0, "block": 0, "bytes_a_second": 0},
        {"channels": 60},
        {"bits": 0},
        {"bits": 4, "block": 1},
        {"block": 64},
        {"tag": 0x11},
        {"tag": 0x55},
        {"tag": 0xFFFE},
        {"data_size": 10**7},
        {"riff_size": 10**7},
        {"before": wav()[12:36]},
        {"before": b"JUNK\xff\xff\xff\x00"},
        {"before": b"JUNK\x00\x00\x00\x00" * 40},
    ],
    ids=str,
)
def test_a_forged_wav_header_does_not_understate(forged: dict[str, Any]) -> None:
    assert seconds(wav(10, **forged)) is None


def test_chunks_before_and_after_the_sound_only_make_it_longer() -> None:
    junk = b"LIST" + struct.pack("<I", 5) + b"INFO\x00\x00"
    assert seconds(wav(10, before=junk, riff_size=0xFFFFFFFF)) == 10
    assert seconds(wav(10, after=bytes(320_000), riff_size=0xFFFFFFFF)) == 20


@pytest.mark.parametrize("other", [b"RF64", b"RIFX", b"OggS", b"fLaC", b"\x1aE\xdf\xa3", b"\x00\x00\x00\x20ftypM4A "])
def test_other_formats_have_no_sure_length(other: bytes) -> None:
    assert seconds(other + wav()[len(other) :]) is None


@pytest.mark.parametrize(
    "data", [b"", b"R", b"RIFF", wav()[:20], wav()[:30], wav()[:40], b"ID3", b"\xff\xfb", bytes(500)]
)
def test_a_broken_file_has_no_sure_length(data: bytes) -> None:
    assert seconds(data) is None


def test_an_mp3_file_is_as_long_as_its_frames() -> None:
    assert seconds(mp3(1_000)) == 27  # 26.12 s
    assert seconds(mp3(1_000) + b"TAG" + bytes(125)) == 27
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
    assert seconds(tag + mp3(1_000)) == 27
    assert seconds(mp3(1_000) + mp3(1_000, b"\xff\xe3\x18\xc4", 72)) == 99  # 26.12 s, and 72 s at 8 kHz


def test_every_kind_of_mp3_frame_is_known_by_its_header() -> None:
    slow = b"\xff\xe3\x18\xc4"  # MPEG 2.5, 8 kbit/s, 8 kHz: 576 samples in 72 bytes
    assert seconds(mp3(1_000, slow, 72)) == 72
    assert seconds(mp3(1_000, b"\xff\xf3\x14\xc4", 24)) == 24  # MPEG 2, 8 kbit/s, 24 kHz


@pytest.mark.parametrize(
    "data",
    [
        mp3(10) + b"garbage!" + mp3(1_000),
        b"garbage!" + mp3(1_000),
        mp3(10) + bytes(3_000),
        mp3(10, b"\xff\xfb\x00\x64"),  # free format
        mp3(10, b"\xff\xfb\xf0\x64"),  # no such bit rate
        mp3(10, b"\xff\xfb\x9c\x64"),  # no such sample rate
        mp3(10, b"\xff\xfd\x90\x64"),  # layer II
        b"\xff\xfb\x90\x64ftyp" + mp3(10)[8:],
        b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + mp3(1_000),
        b"ID3\x04\x00\x00\x00\x00\x80\x00" + mp3(1_000),
        b"ID3\xff\x00\x00\x00\x00\x00\x00" + mp3(1_000),
        mp3(10) + b"TAG" + bytes(125) + mp3(1_000),
        mp3(1)[:36] + b"Xing\x00\x00\x00\x01\x00\x00\xff\xff" + mp3(1)[48:] + mp3(100),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_forged_mp3_file_has_no_sure_length(data: bytes) -> None:
    assert seconds(data) is None


def test_a_truthful_xing_header_is_believed() -> None:
    assert seconds(mp3(1)[:36] + b"Xing\x00\x00\x00\x01\x00\x00\x00\x64" + mp3(1)[48:] + mp3(100)) == 3


def test_the_longest_files_are_measured_quickly_and_in_blocks() -> None:
    class Watched(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.largest = max(self.largest, len(data))
            return data

    for data in (mp3(60_000), mp3(1_000_000, b"\xff\xf3\x14\xc4", 24)):
        file, begun = Watched(data), time.process_time()
        audio.of_file(file, len(data))
        assert time.process_time() - begun < 0.5
        assert file.largest <= 65_536


@given(st.binary(max_size=200), st.sampled_from([b"", b"RIFF", wav(0.01), mp3(2), b"ID3\x04\x00\x00\x00\x00\x00\x05"]))
def test_no_bytes_break_the_measuring(data: bytes, start: bytes) -> None:
    seconds(start + data)


def test_recordings_are_counted_by_the_second_wherever_they_stand() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": b64(wav(2)), "format": "wav"}}
    song = {"type": "input_audio", "input_audio": {"data": b64(mp3(1_000)), "format": "mp3"}}
    assert chat(sound, song).audio == (2, 27)
    assert responses({"role": "user", "content": [sound]}).audio == (2,)
    demand = gemini({"inlineData": {"mimeType": "audio/wav", "data": b64(wav(2))}})
    assert (demand.audio, demand.hidden, demand.unbounded) == ((2,), False, "")
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        call = form(path, ("file", wav(2)), prompt="names")
        assert (call.demand.audio, call.demand.unbounded) == ((2,), "")
        assert call.form is not None
        assert call.form.files[0].file.read() == wav(2), "it is sent from its beginning"


@pytest.mark.parametrize(
    "demand",
    [
        lambda: chat({"type": "input_audio", "input_audio": {"data": b64(b"OggS" + bytes(99)), "format": "wav"}}),
        lambda: chat({"type": "input_audio", "input_audio": {"data": b64(wav()) + "!", "format": "wav"}}),
        lambda: gemini({"inlineData": {"mimeType": "audio/ogg", "data": b64(b"OggS" + bytes(99))}}),
        lambda: gemini({"inlineData": {"mimeType": "AUDIO/wav", "data": "no base64"}}),
        lambda: form("/v1/audio/transcriptions", ("file", b"OggS" + bytes(99))).demand,
        lambda: form("/v1/audio/transcriptions", ("file", b"")).demand,
        lambda: form("/v1/audio/transcriptions", ("file", wav()), **{"known_speaker_references[]": "data:"}).demand,
    ],
)
def test_a_recording_of_unsure_length_leaves_the_call_without_a_bound(demand: Any) -> None:
    assert demand().unbounded == "unparsed audio"


def transcribed(data: bytes, filename: str, kind: str) -> Demand:
    return form("/v1/audio/transcriptions", ("file", data), filename=filename, kind=kind).demand


@pytest.mark.parametrize(
    ("demand", "agrees"),
    [
        (lambda: sound(wav(), "wav"), True),
        (lambda: sound(wav(), "WAV"), True),
        (lambda: sound(wav(), None), True),
        (lambda: sound(mp3(), "mp3"), True),
        (lambda: sound(wav(), "mp3"), False),
        (lambda: sound(mp3(), "wav"), False),
        (lambda: sound(wav(), "pcm16"), False),
        (lambda: sound(wav(), "g711_ulaw"), False),
        (lambda: sound(wav(), 8), False),
        (lambda: sound(wav(), "wav", sample_rate=8), False),
        (lambda: blob(wav(), "audio/wav"), True),
        (lambda: blob(mp3(), "audio/mpeg"), True),
        (lambda: blob(wav(), "audio/l16;rate=8"), False),
        (lambda: blob(wav(), "audio/wav;rate=8"), False),
        (lambda: blob(wav(), "audio/pcm"), False),
        (lambda: blob(wav(), "audio/mpeg"), False),
        (lambda: chat({"type": "image_url", "image_url": data_url(wav(), "audio/x-wav")}), True),
        (lambda: chat({"type": "image_url", "image_url": data_url(wav(), "audio/basic")}), False),
        (lambda: transcribed(wav(), "a.wav", "audio/x-wav"), True),
        (lambda: transcribed(mp3(), "A.MP3", "audio/mpeg"), True),
        (lambda: transcribed(mp3(), "a", "application/octet-stream"), True),
        (lambda: transcribed(wav(), "a.mp3", "audio/wav"), False),
        (lambda: transcribed(wav(), "a.wav", "audio/mpeg"), False),
        (lambda: transcribed(wav(), "a.raw", "application/octet-stream"), False),
        (lambda: transcribed(wav(), "a.wav", "audio/l16; rate=8"), False),
        (lambda: transcribed(mp3(), "a.m4a", "audio/mpeg"), False),
        (lambda: transcribed(mp3(), "a.mpeg", "video/mpeg"), False),
    ],
)
def test_a_recording_has_a_length_only_where_its_declared_format_is_that_of_its_bytes(
    demand: Any, agrees: bool
) -> None:
    """A decoder that believes the declaration may play one second of WAV for an hour."""
    found = demand()
    assert (len(found.audio), found.unbounded) == ((1, "") if agrees else (0, "unparsed audio"))


def test_a_transcription_without_a_file_has_no_bound() -> None:
    assert form("/v1/audio/transcriptions").demand.unbounded == "no recording in the form"


def test_without_a_limit_on_the_grant_no_recording_is_measured() -> None:
    body = {
        "model": "m",
        "messages": [{"content": [{"type": "input_audio", "input_audio": {"data": b64(wav()), "format": "wav"}}]}],
    }
    demand = read(CHAT, body, default=None).demand
    assert (demand.audio, demand.unbounded) == ((), "unparsed audio")
