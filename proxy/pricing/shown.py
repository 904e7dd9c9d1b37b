"""Which streams show everything that their model makes, as it makes it.

An app can leave a stream before its report of usage. What flowed tells what was made only where the provider is proven
to stream all of it. Everything else may have been thought, or kept back, unseen: an unfinished answer is then charged
its whole output limit. So this is a list of what is proven, with the source beside each row; whatever is missing is
charged in full. Rows belong to a provider, whatever the wire format of the call.

A row also names the fields of a body that are known to hide nothing. A call with any other field (``thinking``,
``reasoning_format``, ``best_of``), or with a beta header, proves nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from grants.providers import Provider

from ..dialects.base import UpstreamCall

# Fields that bring no text of the provider's own into the input: those of OpenAI's routes, then Anthropic's, then
# Gemini's, whose parser takes either spelling.
_PLAIN = """
    model messages prompt input instructions max_tokens max_completion_tokens max_output_tokens n stream stream_options
    temperature top_p top_k min_p stop seed presence_penalty frequency_penalty repetition_penalty logit_bias logprobs
    top_logprobs user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention truncation
    include modalities
    system stop_sequences cache_control inference_geo
    contents systemInstruction system_instruction generationConfig generation_config maxOutputTokens topP topK
    stopSequences candidateCount candidate_count presencePenalty frequencyPenalty safetySettings safety_settings
    responseModalities response_modalities serviceTier labels
"""
_TOOL_FIELDS = "tools tool_choice parallel_tool_calls functions function_call response_format text"
_REASONING_FIELDS = "thinking reasoning_effort"
PLAIN_FIELDS = frozenset(_PLAIN.split())
# What may be the beginning of a stop sequence is held back until it is decided. A bias can make a model repeat tokens
# that have no text of their own: special ones, and single bytes of a longer character.
_OPEN_FIELDS = PLAIN_FIELDS - {"stop", "stop_sequences", "stopSequences", "logit_bias"}
_TOOLS = frozenset(_TOOL_FIELDS.split())
_REASONING = frozenset(_REASONING_FIELDS.split())
_DATE = r"(?:-20\d\d-\d\d-\d\d)?"
_DAY = r"(?:-20\d{6}|-latest)?"


class _Row(NamedTuple):
    """``names``: matched whole. ``fields``: what a call may name without hiding anything."""

    names: re.Pattern[str]
    fields: frozenset[str] = _OPEN_FIELDS


_ROWS: dict[str, tuple[_Row, ...]] = {
    # These models have no reasoning tokens (developers.openai.com/api/docs/guides/reasoning names those that have, the
    # model pages say "non-reasoning"). The arguments of function calls are streamed as they are made (guides,
    # "Function calling", section on streaming). Fine-tuned models and later families: no entry.
    "openai": (
        _Row(
            re.compile(
                r"gpt-3\.5-turbo(?:-0125|-1106|-16k)?|gpt-4(?:-0613|-32k)?"
                rf"|gpt-4-turbo(?:-preview)?{_DATE}|chatgpt-4o-latest|gpt-4o(?:-mini)?{_DATE}"
                rf"|gpt-4\.1(?:-mini|-nano)?{_DATE}"
            ),
            _OPEN_FIELDS | _TOOLS,
        ),
    ),
    # Extended thinking is off unless the request asks for it (docs.claude.com, "Migrating to Claude 4": "disabled by
    # default"); later models think by themselves. The input of tools is buffered until a value is whole
    # (docs, "Fine-grained tool streaming"), so no call with tools is here.
    "anthropic": (
        _Row(
            re.compile(
                rf"claude-3-(?:opus|sonnet|haiku){_DAY}|claude-3-[57]-(?:sonnet|haiku){_DAY}"
                rf"|claude-(?:opus|sonnet)-4{_DAY}|claude-(?:opus|sonnet)-4-0|claude-opus-4-1{_DAY}"
                rf"|claude-(?:opus|sonnet|haiku)-4-5{_DAY}"
            )
        ),
    ),
    # Only Gemini 2.5 and 3 think (firebase.google.com/docs/ai-logic/thinking, "Models that support this capability").
    # A function call is sent when it is whole, so no call with tools is here.
    "google": (_Row(re.compile(r"gemini-(?:1\.5-(?:pro|flash|flash-8b)|2\.0-flash(?:-lite)?)(?:-00[12])?")),),
    # The chain of thought is streamed whole, before the answer (api-docs.deepseek.com/guides/thinking_mode).
    "deepseek": (_Row(re.compile(r"deepseek-(?:chat|reasoner|v4-flash|v4-pro)"), _OPEN_FIELDS | _REASONING),),
    # Llama 3 has no reasoning mode (Meta's model cards); both hosts list their models that have (console.groq.com/docs/
    # reasoning, inference-docs.cerebras.ai/capabilities/reasoning).
    "groq": (_Row(re.compile(r"llama-3\.3-70b-versatile|llama-3\.1-8b-instant")),),
    "cerebras": (_Row(re.compile(r"llama3\.1-8b|llama-3\.3-70b")),),
    # Our own.
    "sandbox": (_Row(re.compile(r".*", re.DOTALL), _OPEN_FIELDS | _TOOLS | _REASONING),),
}
# What the owner of a custom server has said of it: thinking and tool calls are streamed as they are made.
_OWNERS_WORD = (_Row(re.compile(r".*", re.DOTALL), _OPEN_FIELDS | _TOOLS | _REASONING),)


def shows_all(provider: Provider, call: UpstreamCall, owner_says: bool = False) -> bool:
    """Whether all output that ``call`` makes is in its stream. ``owner_says``: the key's ``shows_everything``."""
    if "anthropic-beta" in call.headers or "openai-beta" in call.headers:
        return False
    rows = _OWNERS_WORD if owner_says and provider.id == "custom" else _ROWS.get(provider.id, ())
    name, fields = call.model.removeprefix("models/"), call.demand.fields
    return fields is not None and any(row.names.fullmatch(name) and fields <= row.fields for row in rows)
