"""Ways to make the owner of a $5 grant pay more than $5, each tried by the app that holds its token."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import time
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import Client

from grants.models import Actor, Call, ProviderKey
from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects import audio
from proxy.dialects.base import FilePart, Form, Inbound, UpstreamCall, Usage
from proxy.exceptions import NotGranted
from proxy.pricing.bounds import Bound, bound, tokens_bound
from proxy.pricing.metering import meter
from proxy.sse import Decoder

from .ledgers import Account, settle

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
HELLO = [{"role": "user", "content": "hello"}]


def read(path: str, body: dict[str, Any], provider: str = "openai", **headers: str) -> UpstreamCall:
    data = json.dumps(body, ensure_ascii=False).encode()
    query = (("alt", "sse"),) if ":stream" in path else ()
    inbound = Inbound("POST", path, query, headers, content_type="application/json", body=data)
    return dialects.read(inbound, PROVIDERS[provider], (), 4096)


def claude(provider: str = "anthropic", *, beta: str, **body: Any) -> UpstreamCall:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": beta}
    return read(MESSAGES, {"max_tokens": 1025, "messages": HELLO, **body}, provider, **headers)


def bounded(call: UpstreamCall, provider: str = "openai", prices: str = "[]") -> Bound:
    return bound(PROVIDERS[provider], call, prices, 0, max_cost_per_call=None)


def refused(call: UpstreamCall, provider: str = "openai", prices: str = "[]") -> str:
    with pytest.raises(NotGranted) as info:
        bounded(call, provider, prices)
    return info.value.code


# Inputs that are more than one context window, or than the window that the table has


def test_a_batch_of_embeddings_is_bound_by_all_of_its_texts() -> None:
    """The window of an embedding model is that of each text: forty of 8,000 bytes may be 320,000 tokens."""
    call = read("/v1/embeddings", {"model": "text-embedding-3-large", "input": ["a" * 8000] * 40})
    assert bounded(call).input_tokens >= 320_000
    assert bounded(call).cost(None) >= 320_000 * 130


def test_several_prompts_are_bound_by_all_of_them() -> None:
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": ["a" * 4000] * 40, "max_tokens": 1}
    assert bounded(read("/v1/completions", body)).input_tokens >= 160_000


def test_a_round_number_in_the_price_table_is_no_context_window() -> None:
    """The table says 1,000,000; gpt-4.1 reads 1,047,576 (platform.openai.com/docs/models/gpt-4.1)."""
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x" * 1_100_000}]}
    assert bounded(read(CHAT, body)).input_tokens >= 1_047_576


def test_a_beta_for_a_longer_context_is_paid_at_its_own_length_and_rate() -> None:
    messages = [{"role": "user", "content": "x" * 1_100_000}]
    call = claude(model="claude-sonnet-4-5", messages=messages, beta="context-1m-2025-08-07")
    usage = {"input_tokens": 900_000, "output_tokens": 1025}
    paid = meter(PROVIDERS["anthropic"], call, {"model": call.model, "usage": usage}, output_characters=9)
    assert paid.cost is not None
    assert paid.cost <= bounded(call, "anthropic").cost(1025)


def test_a_beta_for_a_longer_context_is_refused_where_its_rate_is_not_known() -> None:
    """Sonnet 4 costs twice as much beyond 200,000 tokens, which the table does not know."""
    call = claude(model="claude-sonnet-4-0", beta="context-1m-2025-08-07,other-2025-01-01")
    assert refused(call, "anthropic") == "price_unknown"


def test_a_beta_for_a_longer_context_changes_nothing_where_the_context_is_as_long_anyway() -> None:
    plain = claude(model="claude-opus-4-7", beta="other-2025-01-01")
    assert bounded(claude(model="claude-opus-4-7", beta="context-1m-2025-08-07"), "anthropic") == bounded(
        plain, "anthropic"
    )


@pytest.mark.parametrize("letter", ["\ufdfa", "\u0f79", "\U0001d1c0"])
def test_letters_that_a_tokenizer_spells_out_count_as_what_they_become(letter: str) -> None:
    """The tokenizer that Anthropic has published normalises to NFKC: U+FDFA, of 3 bytes, is 15 tokens."""
    tokens = len(unicodedata.normalize("NFKC", letter).encode())
    call = claude(model="claude-sonnet-4-5", messages=[{"role": "user", "content": letter * 1000}], beta="a")
    assert bounded(call, "anthropic").input_tokens >= 1000 * tokens
    file = FilePart("file", "a.wav", "audio/wav", 1, io.BytesIO(b"a"))
    form = Form((("model", "gpt-4o-transcribe"), ("prompt", letter * 1000)), (file,))
    inbound = Inbound("POST", "/v1/audio/transcriptions", content_type="multipart/form-data", form=form)
    assert dialects.read(inbound, PROVIDERS["openai"], (), 4096).demand.text >= 1000 * tokens


def test_a_body_of_letters_of_every_kind_is_counted_quickly() -> None:
    letters = "".join(chr(code) for code in range(0x80, 0x30000) if not 0xD800 <= code < 0xE000)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": letters * 40}]}
    began = time.process_time()
    call = read(CHAT, body)
    assert time.process_time() - began < 5
    assert call.demand.text >= len(unicodedata.normalize("NFKC", letters).encode()) * 40


def test_a_template_of_the_apps_own_is_no_text_that_is_counted() -> None:
    """vLLM renders a request's own ``chat_template``: a loop of a few bytes fills the whole window."""
    prices = json.dumps([{"models": "*", "input": "1", "output": "1"}])
    body = {"model": "llama", "messages": HELLO, "chat_template": "{% for i in range(99999) %}aaaa {% endfor %}"}
    assert refused(read(CHAT, body, "custom"), "custom", prices) == "cost_unbounded"


# Output beyond its limit


def test_a_thinking_budget_beyond_the_limit_leaves_a_call_without_a_bound() -> None:
    """Interleaved with tools, thinking may be more than ``max_tokens``: up to its budget, even the whole window."""
    thinking = {"type": "enabled", "budget_tokens": 100_000}
    call = claude(model="claude-sonnet-4-5", thinking=thinking, beta="interleaved-thinking-2025-05-14")
    assert refused(call, "anthropic") == "cost_unbounded"


@pytest.mark.parametrize("named", ["AUTO", "Auto", ""])
def test_no_spelling_of_auto_leaves_the_service_tier_to_the_account(named: str) -> None:
    call = read(CHAT, {"model": "gpt-4o", "messages": HELLO, "service_tier": named})
    assert json.loads(call.json or b"")["service_tier"] == "default"


# Recordings that play longer than they look


def extensible(valid_bits: int, bits: int = 64, channels: int = 8, rate: int = 384_000) -> bytes:
    """A WAV file with an extensible header, whose samples have so many valid bits."""
    block, data = channels * bits // 8, bytes(2_000_000)
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    header = struct.pack("<HHIIHHHHI", 0xFFFE, channels, rate, rate * block, block, bits, 22, valid_bits, 0) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_a_recording_whose_valid_bits_are_not_its_bits_has_no_length() -> None:
    """ffmpeg reads such samples at the size of their valid bits: this one plays eight times as long."""
    assert audio.of_file(io.BytesIO(extensible(8)), len(extensible(8))) is None
    assert audio.of_file(io.BytesIO(extensible(64)), len(extensible(64))) == 1


@pytest.mark.parametrize("inner", [b"G" + bytes(187), b"\0\0\1\xba" + bytes(184), b"NSVs" + bytes(184)])
def test_a_recording_with_another_container_between_its_headers_has_no_length(inner: bytes) -> None:
    """ffmpeg takes these frames for a transport stream, whatever the file's name: it plays what is in there."""
    frame = b"\xff\xe2\xd0\xc4" + (inner * 5)[:936]
    assert audio.of_file(io.BytesIO(frame * 50), 50 * 940) is None
    assert audio.of_file(io.BytesIO((b"\xff\xe2\xd0\xc4" + bytes(936)) * 50), 50 * 940) is not None
    encoded = base64.b64encode(frame * 50).decode()
    assert audio.of_base64(encoded) is None


def test_a_recording_that_cannot_be_parsed_is_many_tokens_a_minute() -> None:
    """Its base64 is no text, and its length is not known: it may fill the window."""
    ogg = {"mimeType": "audio/ogg", "data": base64.b64encode(b"OggS" + bytes(90_000)).decode()}
    call = read(
        "/v1beta/models/gemini-2.5-flash:generateContent", {"contents": [{"parts": [{"inlineData": ogg}]}]}, "google"
    )
    assert tokens_bound(PROVIDERS["google"], call).tokens(1) > 1_000_000


def test_a_body_full_of_recordings_is_read_as_quickly_as_any_other() -> None:
    """150,000 of them held a worker, and every stream on it, for half a minute."""
    recording = base64.b64encode(extensible(64)[:68]).decode()
    part = {"type": "input_audio", "input_audio": {"data": recording, "format": "wav"}}
    body = {"model": "gpt-4o-audio-preview", "messages": [{"role": "user", "content": [part] * 100_000}]}
    began = time.process_time()
    call = read(CHAT, body)
    assert time.process_time() - began < 5
    assert call.demand.unbounded == "unparsed audio"


# Streams that are left before their end


def left(provider: str, call: UpstreamCall, *events: bytes, strict: bool = True) -> Usage:
    """What a stream costs that its client left after these events."""
    observer = dialects.observer(call)
    for event in Decoder().feed(b"".join(b"data: " + data + b"\n\n" for data in events)):
        observer.event(event)
    characters = observer.output_characters
    return meter(PROVIDERS[provider], call, observer.result(), output_characters=characters, strict=strict)


def test_a_gemini_that_is_left_while_it_thinks_is_charged_its_limit() -> None:
    """Nothing flows, and nothing is reported, until it has thought."""
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 60_000}}
    call = read("/v1beta/models/gemini-2.5-pro:streamGenerateContent", body, "google")
    assert left("google", call).output_tokens == 60_000
    chat = read(CHAT, {"model": "gemini-3-flash-preview", "messages": HELLO, "stream": True}, "google")
    assert left("google", chat).output_tokens == 4096


def test_a_claude_that_is_left_while_it_thinks_is_charged_its_limit() -> None:
    """The first report of a stream counts a few tokens of output already, whatever comes."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    call = claude(model="claude-sonnet-4-5", max_tokens=8000, thinking=thinking, stream=True, beta="a")
    message = {"model": call.model, "usage": {"input_tokens": 20, "output_tokens": 8}}
    start = json.dumps({"type": "message_start", "message": message}).encode()
    assert left("anthropic", call, start).output_tokens == 8000


def test_a_claude_that_is_left_while_it_fills_a_tools_input_is_charged_its_limit() -> None:
    """A value of a tool's input is held back until it is whole, however long it is (fine-grained tool streaming)."""
    tool = {"name": "write", "input_schema": {"type": "object"}}
    call = claude(model="claude-3-5-haiku-latest", max_tokens=8000, tools=[tool], stream=True, beta="a")
    message = {"model": call.model, "usage": {"input_tokens": 20, "output_tokens": 8}}
    start = json.dumps({"type": "message_start", "message": message}).encode()
    assert left("anthropic", call, start).output_tokens == 8000


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("azure", {"model": "our-assistant"}),
        ("groq", {"model": "qwen/qwen3-32b", "reasoning_format": "hidden"}),
        ("groq", {"model": "openai/gpt-oss-120b", "include_reasoning": False}),
    ],
)
def test_a_model_that_may_think_unseen_is_charged_its_limit_when_it_is_left(provider: str, body: Any) -> None:
    call = read(CHAT, {"messages": HELLO, "stream": True, **body}, provider)
    assert left(provider, call).output_tokens == 4096


@pytest.mark.parametrize("text", ["\U00012000" * 500, "A1B2C3D4" * 250, "a\n" * 1000], ids=["rare", "mixed", "lines"])
def test_a_stream_that_is_left_costs_its_input_at_a_token_a_byte_under_a_limit_in_money(text: str) -> None:
    """These are 2,000 tokens of 2,000 bytes in cl100k_base: a third of it would be a budget three times as large."""
    call = read(CHAT, {"model": "gpt-4", "messages": [{"role": "user", "content": text}], "stream": True})
    chunk = {"model": "gpt-4", "choices": [{"index": 0, "delta": {"content": text}}]}
    usage = left("openai", call, json.dumps(chunk, ensure_ascii=False).encode())
    assert usage.input_tokens >= 2000
    assert usage.output_tokens >= 2000
    assert usage.estimated
    assert left("openai", call, strict=False).input_tokens < 2000
    assert bounded(call).cost(4096) >= (usage.cost or 0) > 0


# Answers that nobody could read


class Provider(ThreadingHTTPServer):
    """Answers every request with the same."""

    daemon_threads = True
    status, content_type, body = 200, "application/json", b"{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.send_header("content-type", self.server.content_type)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def asked(token: str, **body: Any) -> Call:
    """The ledger's row of a chat call, made in this process and read to its end."""
    answer = Client().post(
        f"/proxy{CHAT}",
        json.dumps({"messages": HELLO, **body}),
        content_type="application/json",
        headers={"authorization": f"Bearer {token}"},
    )
    for _ in answer if answer.streaming else ():
        pass
    return Call.objects.latest("started_at")


USAGE = {"prompt_tokens": 9, "completion_tokens": 16_000, "total_tokens": 16_009}


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_is_too_large_to_be_read_is_charged_its_bound(issue: Any, provider: Provider) -> None:
    """20 alternatives for each of 16,000 tokens make 32 MiB, behind which the usage stands."""
    padding = [{"token": "x" * 1000}] * 34_000
    answer = {"model": "gpt-4o-mini", "choices": [{"logprobs": {"content": padding}}], "usage": USAGE}
    provider.body = json.dumps(answer).encode()
    _, token = issue("openai", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="gpt-4o-mini", max_tokens=16_000, logprobs=True, top_logprobs=20)
    assert call.cost is not None
    assert call.cost >= 16_000 * 600
    assert call.cost <= call.reserved
    assert call.estimated


@pytest.mark.django_db(transaction=True)
def test_an_answer_is_read_whatever_its_label_says(issue: Any, provider: Provider) -> None:
    provider.content_type, provider.body = "text/plain", json.dumps({"model": "gpt-4o-mini", "usage": USAGE}).encode()
    _, token = issue("openai", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="gpt-4o-mini", max_tokens=16_000)
    assert (call.cost, call.estimated) == (9 * 150 + 16_000 * 600, False)


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_is_no_json_is_charged_its_bound(issue: Any, provider: Provider) -> None:
    provider.content_type, provider.body = "application/json", b"The model has made this."
    _, token = issue("openai", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="gpt-4o-mini", max_tokens=16_000)
    assert call.cost == call.reserved >= 16_000 * 600


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [408, 504, 524])
def test_a_gateway_that_lost_patience_proves_nothing_about_the_model_behind_it(
    issue: Any, provider: Provider, status: int, stream: bool
) -> None:
    provider.status = status
    _, token = issue("openai", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="gpt-4o-mini", max_tokens=16_000, stream=stream)
    assert call.cost == call.reserved >= 16_000 * 600


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stream", [False, True])
def test_azure_bills_what_its_filter_refuses(issue: Any, provider: Provider, stream: bool) -> None:
    """(learn.microsoft.com, "HTTP error response code and billing status": 400 by a content filter, 408.)"""
    provider.status = 400
    provider.body = b'{"error": {"code": "content_filter", "message": "The response was filtered."}}'
    _, token = issue("azure", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="gpt-4o-mini", max_tokens=16_000, stream=stream)
    assert call.cost == call.reserved > 0
    provider.body = b'{"error": {"code": "invalid_request", "message": "No."}}'
    assert asked(token, model="gpt-4o-mini").cost == 0


# Numbers that no database can multiply


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("used", [10**12, 2**62])
def test_a_report_of_absurdly_many_tokens_leaves_a_clock_that_can_be_counted_with(
    sandbox_key: ProviderKey, by: Actor, used: int
) -> None:
    """SQLite makes a number with a point of a product that does not fit into 64 bits, and goes on with that."""
    account = Account(sandbox_key, by, tokens_per_minute=1)
    call = account.admit(tokens=1)
    assert settle(call, input_tokens=0, output_tokens=used)
    clock = account.row()["tokens_clock"]
    assert type(clock) is int
    assert clock < 2**62
    assert account.refusal(tokens=1).code == "token_rate_reached"
