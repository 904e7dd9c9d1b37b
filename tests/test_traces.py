"""OpenTelemetry: a span a call, in its caller's trace, by the GenAI conventions; nothing where it is not asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from grants.models import Call
from proxy import telemetry
from proxy.dialects import ROUTES
from proxy.dialects.base import UpstreamCall
from proxy.telemetry import traces

from .conftest import CANARY
from .live import ROOT, eventually, server
from .test_relay import chat
from .test_settings import GOOD, start

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def spans() -> Iterator[Any]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.trace_with(traces.Tracer(provider))
    yield exporter.get_finished_spans
    telemetry.trace_with(None)


def ask(
    token: str, model: str = "sandbox-1", path: str = "v1/chat/completions", headers: Any = None, **more: Any
) -> Any:
    """One call in this process, its answer read to the end."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
    answer = Client().post(
        f"/proxy/{path}",
        body,
        content_type="application/json",
        headers={"authorization": f"Bearer {token}", **(headers or {})},
    )
    if answer.streaming:
        b"".join(answer.streaming_content)
    return answer


@pytest.mark.django_db
class TestSpans:
    def test_a_call_is_a_client_span_by_the_conventions(self, spans: Any, issue: Any, upstream: Any) -> None:
        _, token = issue("openai")
        assert ask(token).status_code == 200
        (span,) = spans()
        call = Call.objects.get()
        assert (span.name, span.kind) == ("chat sandbox-1", SpanKind.CLIENT)
        assert dict(span.attributes) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "sandbox-1",
            "gen_ai.response.model": "sandbox-1",
            "gen_ai.usage.input_tokens": call.input_tokens,
            "gen_ai.usage.output_tokens": call.output_tokens,
            "server.address": "127.0.0.1",
            "server.port": upstream.server_address[1],
            "aipassport.call.id": str(call.pk),
            "aipassport.grant.id": str(call.grant_id),
        }
        assert span.status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize("stream", [False, True])
    def test_it_stands_between_the_caller_s_and_the_provider_s(
        self, spans: Any, issue: Any, upstream: Any, stream: bool
    ) -> None:
        _, token = issue("openai")
        ask(token, headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"}, stream=stream)
        (span,) = spans()
        assert format_trace_id(span.context.trace_id) == TRACE
        assert format_span_id(span.parent.span_id) == PARENT
        sent = upstream.last.headers
        assert sent["traceparent"] == f"00-{TRACE}-{format_span_id(span.context.span_id)}-01"
        assert sent["tracestate"] == "vendor=1"

    @pytest.mark.parametrize("given", [{}, {"traceparent": "00-abc"}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}])
    def test_without_a_trace_of_the_caller_s_it_begins_one(
        self, spans: Any, issue: Any, upstream: Any, given: dict[str, str]
    ) -> None:
        _, token = issue("openai")
        ask(token, headers=given)
        (span,) = spans()
        assert span.parent is None
        ids = f"{format_trace_id(span.context.trace_id)}-{format_span_id(span.context.span_id)}"
        sent = upstream.last.headers["traceparent"]
        assert sent.startswith(f"00-{ids}-")
        assert int(sent[-2:], 16) & 1, "sampled"

    def test_a_caller_who_is_not_sampled_is_passed_on_as_such(self, issue: Any, upstream: Any) -> None:
        telemetry.trace_with(traces.Tracer(TracerProvider(sampler=ParentBased(TraceIdRatioBased(1.0)))))
        try:
            _, token = issue("openai")
            ask(token, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        finally:
            telemetry.trace_with(None)
        version, trace, span, flags = upstream.last.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "00")
        assert span != PARENT

    @pytest.mark.parametrize(
        ("model", "kind"),
        [
            ("fake-account-error", "429"),
            ("fake-refuses-the-key", "401"),
            ("fake-dies", "upstream_broken"),
        ],
    )
    def test_what_fails_says_how(self, spans: Any, issue: Any, model: str, kind: str) -> None:
        _, token = issue("openai")
        try:
            ask(token, model)
        except BrokenPipeError:
            assert model == "fake-dies"
        (span,) = spans()
        assert span.attributes["error.type"] == kind
        assert span.status.status_code is StatusCode.ERROR
        assert not span.status.description, "the provider's words are not ours to keep"

    def test_a_refused_call_is_no_span(self, spans: Any, issue: Any) -> None:
        _, token = issue("openai", models=("gpt-*",))
        assert ask(token).status_code == 404
        assert spans() == ()

    def test_no_content_and_no_credential_is_in_a_span(self, spans: Any, issue: Any) -> None:
        _, token = issue("openai")
        ask(token, messages=[{"role": "user", "content": "PROMPT-CANARY"}])
        for model in (token, CANARY):
            ask(token, model)
        text = "".join(span.to_json() for span in spans())
        assert "sandbox-1" in text
        for secret in (token, "PROMPT-CANARY", "You said", "sk-canary"):
            assert secret not in text


@pytest.mark.django_db
def test_without_traces_the_caller_s_context_goes_through_as_it_came(issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    ask(token, headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    assert upstream.last.headers["traceparent"] == TRACEPARENT
    assert upstream.last.headers["tracestate"] == "vendor=1"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_has_an_operation(route: Any) -> None:
    known = {"chat", "generate_content", "embeddings", "text_completion"}
    ours = {"image_generation", "speech", "transcription", "moderations", "count_tokens", "list_models"}
    call = UpstreamCall(route.name, route.method, "/", flavor=route.flavor)
    assert traces.operation(call) in known | ours
    if route.method == "GET":
        assert traces.operation(call) == "list_models"


# Switched on and off


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_server_sends_its_spans_to_the_collector(issue: Any, upstream: Any, tmp_path: Path) -> None:
    _, token = issue("sandbox")
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": upstream.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with server(tmp_path / "log", AIPASSPORT_TRACES="true", **collector) as running:
        assert chat(running, token).status_code == 200
        (sent,) = eventually(lambda: [seen for seen in upstream.seen if seen.path == "/v1/traces"][:1])
    assert b"chat sandbox-1" in sent.body
    assert b"aipassport" in sent.body
    assert str(Call.objects.get().pk).encode() in sent.body


def test_without_traces_and_metrics_their_libraries_are_not_even_imported() -> None:
    code = "import sys, aipassport.wsgi; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "aipassport.settings", **GOOD}
    done = subprocess.run(
        [sys.executable, "-c", f"import environ; environ.Env.read_env = lambda *a, **k: None\n{code}"],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "django" in done.stdout
    assert "opentelemetry" not in done.stdout
    assert "prometheus_client" not in done.stdout


def test_traces_without_their_libraries_stop_the_start() -> None:
    hidden = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name: None if 'opentel' in name else find(name)\n"
    )
    done = start(before=hidden, AIPASSPORT_TRACES="true")
    assert done.returncode != 0
    assert "pip install '.[otel]'" in done.stderr.strip().splitlines()[-1]
