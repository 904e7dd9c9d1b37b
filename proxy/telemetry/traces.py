"""OpenTelemetry spans, one a relayed call, by the semantic conventions for generative AI clients.

Only imported where the settings ask for traces: the libraries are an extra (``pip install '.[otel]'``). Where spans go,
and which are kept, the SDK reads from the standard ``OTEL_…`` variables.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from grants.policy import Policy

from ..dialects.base import UpstreamCall
from .events import Ended, model_name

# gen_ai.provider.name, where the conventions name a provider otherwise than the catalogue
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
# gen_ai.operation.name by how the usage is read: the conventions' words, and words like them where they have none
_OPERATIONS = {
    "anthropic": "chat",
    "google": "generate_content",
    "responses": "chat",
    "images": "image_generation",
    "none": "list_models",
}
_OF_ROUTE = {
    "anthropic.count_tokens": "count_tokens",
    "google.countTokens": "count_tokens",
    "google.embedContent": "embeddings",
    "google.batchEmbedContents": "embeddings",
    "openai.completions": "text_completion",
}

_propagator = TraceContextTextMapPropagator()


def exporting() -> TracerProvider:
    """Spans on their way to a collector, over OTLP and HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    named = Resource.create({SERVICE_NAME: "aipassport"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def operation(call: UpstreamCall) -> str:
    return _OF_ROUTE.get(call.route) or _OPERATIONS.get(call.flavor, call.flavor)


class Span:
    """The span of one call. ``headers``: the trace context that goes upstream in place of the caller's."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        self.headers: dict[str, str] = {}
        _propagator.inject(self.headers, trace.set_span_in_context(span, Context()))

    def end(self, event: Ended) -> None:
        span, did = self._span, event.settlement
        if span.is_recording():
            found: dict[str, Any] = {
                "gen_ai.response.model": event.response_model or None,
                "gen_ai.usage.input_tokens": did.input_tokens,
                "gen_ai.usage.output_tokens": did.output_tokens,
            }
            if did.outcome != "ok":
                refused = did.outcome == "upstream_error" and (did.status or 0) >= 400
                found["error.type"] = str(did.status) if refused else did.outcome
                span.set_status(trace.StatusCode.ERROR)
            span.set_attributes({name: value for name, value in found.items() if value is not None})
        span.end()


class Tracer:
    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("aipassport")

    def begin(self, id_: UUID, policy: Policy, call: UpstreamCall) -> Span:
        """A span of an admitted call, in the trace of its caller where there is one."""
        doing, model, server = operation(call), model_name(call), urlsplit(policy.base_url)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": doing,
            "gen_ai.provider.name": _PROVIDERS.get(policy.provider.id, policy.provider.id),
            "server.address": server.hostname or "",
            "aipassport.call.id": str(id_),
            "aipassport.grant.id": str(policy.grant),
        }
        if model:
            attributes["gen_ai.request.model"] = model
        if server.port:
            attributes["server.port"] = server.port
        return Span(
            self._tracer.start_span(
                f"{doing} {model}".rstrip(),
                context=_propagator.extract(call.headers, Context()),
                kind=trace.SpanKind.CLIENT,
                attributes=attributes,
            )
        )
