"""How many tokens an input can be at most, where its text does not tell: pictures, sound, templates, hidden documents.

Each number is a maximum, with where it comes from; (?) marks what still wants a check against the provider's own pages.
What no table here knows counts as the model's whole context window. So do PDFs, for which no lower maximum holds.
OpenAI bills the text of a page and a picture of it, Anthropic tells what a page is typically (1,500 to 3,000 tokens and
a picture). Gemini tells 258 tokens a page and 1,000 pages, but has refused 946 pages for more than its window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from grants.providers import Capability, Provider

from ..dialects.base import Demand, UpstreamCall
from .shown import PLAIN_FIELDS
from .windows import window

# What a provider adds to a request at most: its chat template, and a prompt of its own where tools are given.
# Anthropic's tool prompt is 346 tokens for most models and 804 for some (?). A tool that the provider describes adds a
# description: Anthropic's bash 245 tokens, text editor 700, computer use 735.
OVERHEAD = 1024
PER_MESSAGE = 16  # tokens for the role and the separators of one message, beside its bytes
FRAMING = 16  # tokens around a text that is no conversation: beginning and end, an instruction for its kind of use
# Models whose template is documented to add no text, so that only separators come on top of the messages. By provider
# and flavor; names are matched whole; all others count as OVERHEAD.
#   OpenAI: 3 tokens a message and 3 for the answer (cookbook, "How to count tokens with tiktoken"), for gpt-3.5 and
#   gpt-4. Reasoning models and later families have no such document.
#   Anthropic: tokens that it adds by itself are not billed (platform.claude.com, "Token counting").
#   Gemini: a text counts the same with and without a conversation around it (ai.google.dev/gemini-api/docs/tokens).
_OPENAI_TEMPLATE = re.compile(
    r"(?:chatgpt-)?gpt-(?:3\.5-turbo|4|4-turbo|4o|4o-mini|4\.1|4\.1-mini|4\.1-nano)(?:-[0-9-]+)?"
)
_TEMPLATES = {
    ("openai", "chat"): _OPENAI_TEMPLATE,
    ("openai", "responses"): _OPENAI_TEMPLATE,
    ("anthropic", "anthropic"): re.compile(r"claude-[a-z0-9-]+"),
    ("google", "google"): re.compile(r"gemini-[0-9.]+-(?:pro|flash|flash-lite)(?:-preview|-[0-9-]+)?"),
}

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
        *((f"gpt-5.{minor}", 24_600) for minor in range(1, 7)),
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
        *((f"claude-{family}-5", 4784) for family in ("opus", "sonnet", "haiku", "fable", "mythos")),
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
_LONGER = re.compile(r"context-(?!management-)")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The most tokens of each kind that a call can bring in. ``whole``: of all together.

    ``unknown``: what there is no number for; it counts as the whole window, or as what the request shows where that is
    more. ``window``: ``None`` where that is unknown. What the request shows is never lowered to a window.
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
    unknown = _unseen(demand) if demand.hidden else ""
    unknown = unknown or ("pictures" if per_image is None else "recordings" if per_second is None else "")
    text = demand.text + _overhead(provider, call)
    images = demand.images * (per_image or 0)
    audio = sum(second + 1 for second in demand.audio) * (per_second or 0)
    whole = text + images + audio
    if unknown:
        whole = max(whole, limit) if limit else whole + _USUAL_WINDOW
    return Inputs(text, images, audio, whole, unknown, limit, widened)


def _unseen(demand: Demand) -> str:
    return "what the body does not show" + (f" at '{demand.unseen}'" if demand.unseen else "")


def _window(provider: Provider, call: UpstreamCall) -> tuple[int | None, bool]:
    """The window of the whole call, where it has one, and whether the call asks for a longer one than is usual.

    Embeddings and completions take many texts, each of which has a window of its own.
    """
    if not writes(call) or call.route == "openai.completions":
        return None, False
    limit = window(provider, call.model)
    longer = _LONGER.search(call.headers.get("anthropic-beta", ""))
    return (_LONG_WINDOW, True) if longer and (limit or 0) < _LONG_WINDOW else (limit, False)


def writes(call: UpstreamCall) -> bool:
    """Whether the answer is text, made token by token within an output limit."""
    return call.flavor in _TALKS and Capability.EMBEDDINGS not in call.capabilities


def _overhead(provider: Provider, call: UpstreamCall) -> int:
    """Tokens beside the bytes of the text: separators, the template, what the provider says of its tools."""
    if call.flavor in ("speech", "transcription"):
        return 0
    if not writes(call):
        return FRAMING
    demand = call.demand
    is_plain = demand.messages and demand.fields is not None and demand.fields <= PLAIN_FIELDS
    if is_plain and _template_is_known(provider.id, call.flavor, call.model):
        return PER_MESSAGE * (demand.messages + 1)
    return PER_MESSAGE * demand.messages + OVERHEAD * (1 + demand.described)


@lru_cache(maxsize=2048)
def _template_is_known(provider_id: str, flavor: str, model: str) -> bool:
    template = _TEMPLATES.get((provider_id, flavor))
    return template is not None and bool(template.fullmatch(model))


def picture_tokens(provider: Provider, model: str) -> int | None:
    """The most tokens that ``model`` counts one picture as; ``None`` where that is not known."""
    provider_id = "openai" if provider.id == "azure" else provider.id
    name = model.lower().removeprefix("models/")
    known = _EXACTLY.get(provider_id, {}).get(name)
    return known or next((tokens for start, tokens in _PICTURES.get(provider_id, ()) if name.startswith(start)), None)


def seconds(demand: Demand, least: int) -> int:
    """Seconds of sound that can be billed: a started one counts, and ``least`` for each recording."""
    return sum(max(second + 1, least) for second in demand.audio)
