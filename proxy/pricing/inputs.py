"""How many tokens an input can be at most, where its text does not tell: pictures, sound, templates, hidden documents.

Each number is a maximum, with where it comes from; (?) marks what still wants a check against the provider's own pages.
What no table here knows counts as the model's whole context window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grants.providers import Capability, Provider

from ..dialects.base import Demand, UpstreamCall
from .tariffs import window

# What providers add to a request: roles and separators, chat templates, and a prompt of their own where tools are
# given: Anthropic's is 346 tokens for most models and 804 for some (?).
OVERHEAD = 1024
FRAMING = 16  # tokens around a text that is no conversation: beginning and end, an instruction for its kind of use
# Anthropic's client-side tools with a date in their type (``UpstreamCall.dated_tools``) bring a description of their
# own: bash 245 tokens, text editor 700, computer use 735.

# The most tokens of one picture, by what its model's name begins with; the first that fits. The longest names first.
#   OpenAI (guides/images-vision): tiles of 512 px in at most 2048 × 768 px are 8, each 170 tokens and 85 of base
#   (gpt-4o), 5,667 and 2,833 (gpt-4o-mini, ?), 150 and 75 (o1, o3, ?). Or patches of 32 px, 1,536 at most, times
#   1.62 (gpt-4.1-mini), 2.46 (gpt-4.1-nano), 1.72 (o4-mini, ?). Sources differ on gpt-4.1 and gpt-5, tiles or patches:
#   the larger stands here. From gpt-5.1 on up to 10,000 patches ("original"), as OpenAI's own Codex counts them; their
#   factor was measured as 1.2, 2.46 is the highest known. Later families are not documented alike: no entry.
#   Anthropic (vision): pictures are scaled to about 1,600 tokens, 1,561 as measured; from Opus 4.7 on to 2,576 px,
#   which are 92 × 52 patches of 28 px (?).
#   Gemini 3 (media-resolution): "ultra high" is 2,240 tokens. Gemini 2's tiles have no documented end.
_PICTURES: dict[str, tuple[tuple[str, int], ...]] = {
    "openai": (
        ("gpt-4o-mini", 48_169),
        ("gpt-4.1-mini", 2489),
        ("gpt-4.1-nano", 3779),
        ("gpt-4o", 1445),
        ("chatgpt-4o", 1445),
        ("gpt-4.1", 1536),
        ("gpt-4.5", 1536),
        ("gpt-5-mini", 2489),
        ("gpt-5-nano", 3779),
        ("gpt-5-chat", 2489),
        ("gpt-5-20", 2489),
        ("gpt-5.", 24_600),
        ("o4-mini", 2643),
        ("o1", 1275),
        ("o3", 1275),
    ),
    "anthropic": (
        ("claude-3", 1600),
        ("claude-opus-4-7", 4784),
        ("claude-opus-4-8", 4784),
        ("claude-opus-4", 1600),
        ("claude-sonnet-4", 1600),
        ("claude-haiku-4", 1600),
        ("claude-", 4784),
    ),
    "google": (("gemini-3", 2240),),
}
_EXACTLY = {"openai": {"gpt-5": 2489}}

# Tokens of one second of sound. Gemini: 32 (?). OpenAI: 10 of what a user says (realtime costs); its prices of
# transcription, $6 a million tokens and about $0.006 a minute (?), make 17: 25 is more than both.
_SOUND = {"openai": 25, "azure": 25, "google": 32}
_USUAL_SOUND = 25  # where money does not depend on it: transcriptions are paid by the second

_TALKS = frozenset({"chat", "responses", "anthropic", "google"})  # flavors of conversations, and of Gemini's embeddings

# A token's rate limits nothing worse than time: where a window is not known, that of most open models is taken.
_USUAL_WINDOW = 131_072
_LONG_WINDOW = 1_048_576  # Anthropic's beta ``context-1m``, for models whose own window is shorter

# Models that think unseen: what flowed of an answer that was cut does not tell how much they had made before. Gemini
# reports nothing until it has thought. Deployments at Azure have any name; those of models that do not think are usual.
_UNSEEN = {
    "openai": re.compile(r"(?:^|[/.])(?:o[1-9](?![a-z0-9])|gpt-(?:[5-9]|[1-9]\d)(?![a-z]))"),
    "anthropic": re.compile(r"claude-[a-z]+-(?:[5-9]|[1-9]\d)(?![a-z0-9])"),
    "google": re.compile(r"gemini-(?:2\.5|[3-9])"),
}
_SEEN = re.compile(r"gpt-?(?:3|4)")
_HIDING = frozenset({b'"include_reasoning"', b'"reasoning_format"'})  # Groq, Cerebras, vLLM


@dataclass(frozen=True, slots=True)
class Inputs:
    """The most tokens of each kind that a call can bring in. ``whole``: of all together, never above the window.

    ``unknown``: what there is no number for; it counts as the whole window. ``window``: ``None`` where that is unknown.
    ``widened``: the call asks for a longer window than the model's usual one.
    """

    text: int
    images: int
    audio: int
    whole: int
    unknown: str = ""
    window: int | None = None
    widened: bool = False


def inputs(provider: Provider, call: UpstreamCall) -> Inputs:
    """The most that ``call`` can bring in. Never raises; ``unknown`` without a window is a matter of judgement."""
    demand = call.demand
    limit, widened = _window(provider, call)
    per_image = picture_tokens(provider, call.model) if demand.images else 0
    per_second = (
        _SOUND.get(provider.id, _USUAL_SOUND if call.flavor == "transcription" else None) if demand.audio else 0
    )
    unknown = "what the body does not show" if demand.hidden else ""
    unknown = unknown or ("pictures" if per_image is None else "recordings" if per_second is None else "")
    text = demand.text + _overhead(call)
    images = demand.images * (per_image or 0)
    audio = sum(second + 1 for second in demand.audio) * (per_second or 0)
    whole = text + images + audio
    if unknown:
        whole = limit or whole + _USUAL_WINDOW
    return Inputs(text, images, audio, min(whole, limit) if limit else whole, unknown, limit, widened)


def _window(provider: Provider, call: UpstreamCall) -> tuple[int | None, bool]:
    """The window of the whole call, where it has one, and whether the call asks for a longer one than is usual.

    Embeddings and completions take many texts, each of which has a window of its own.
    """
    if not writes(call) or call.route == "openai.completions":
        return None, False
    limit = window(provider, call.model)
    if limit is None or limit >= _LONG_WINDOW or "context-" not in call.headers.get("anthropic-beta", ""):
        return limit, False
    return _LONG_WINDOW, True


def writes(call: UpstreamCall) -> bool:
    """Whether the answer is text, made token by token within an output limit."""
    return call.flavor in _TALKS and Capability.EMBEDDINGS not in call.capabilities


def _overhead(call: UpstreamCall) -> int:
    if call.flavor in ("speech", "transcription"):
        return 0
    if not writes(call):
        return FRAMING
    return OVERHEAD * (1 + call.dated_tools)


def picture_tokens(provider: Provider, model: str) -> int | None:
    """The most tokens that ``model`` counts one picture as; ``None`` where that is not known."""
    provider_id = "openai" if provider.id == "azure" else provider.id
    name = model.lower().removeprefix("models/")
    known = _EXACTLY.get(provider_id, {}).get(name)
    return known or next((tokens for start, tokens in _PICTURES.get(provider_id, ()) if name.startswith(start)), None)


def seconds(demand: Demand, least: int) -> int:
    """Seconds of sound that can be billed: a started one counts, and ``least`` for each recording."""
    return sum(max(second + 1, least) for second in demand.audio)


def thinks_unseen(provider: Provider, call: UpstreamCall) -> bool:
    """Whether the model may have made more than an answer that was cut has shown."""
    if call.flavor == "anthropic":  # a value of a tool's input flows only when it is whole
        return b'"thinking"' in call.marks or b'"tools"' in call.marks or bool(_UNSEEN["anthropic"].search(call.model))
    if provider.id == "google":
        return bool(_UNSEEN["google"].search(call.model))
    if call.flavor not in ("chat", "responses"):
        return False
    hidden = not _HIDING.isdisjoint(call.marks) or (provider.id == "azure" and not _SEEN.search(call.model))
    return hidden or bool(_UNSEEN["openai"].search(call.model))
