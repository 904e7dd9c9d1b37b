"""What single providers do differently with OpenAI-shaped calls. One row a provider, nothing for most of them.

No provider's SDK stands behind these field lists, as one does behind the other tables: they hold what is commonly sent,
and wait to be checked one by one against the providers' references. One that is missing is refused by name, and the
owner of a key can let it through; ones that grant something (another model, state, the web) are what matters here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from grants.providers import Capability, Provider

from ..exceptions import BadRequest
from .fields import Reading, Rule, Table, plain
from .google_fields import SAFETY_AND_THINKING
from .rules import COUNT, OTHER_MODEL, STATEFUL, WEB, beyond, each, fields, kinds, needs, refused, some

_WEB = frozenset({Capability.WEB})
_CODE = frozenset({Capability.CODE})
_STATE = frozenset({Capability.STATE})


@dataclass(frozen=True, slots=True)
class Peculiarity:
    """``chat``: fields of its own on chat, and ones that it means differently.

    ``asks_usage``: a stream reports usage only on request; elsewhere it comes by itself, and asking may be refused.
    ``always``: what all text generation there asks for. ``by_model``: what a model asks for, by a pattern found in its
    name. ``prefix``: may lead every model's name without meaning anything. ``deployments``: paths name a deployment,
    and an API version is part of the query.

    ``limit``: the field in which its chat surely obeys an output limit; ``either``: it obeys the other name as surely.
    Models that reason by OpenAI's rules take only ``max_completion_tokens``, whoever serves them.
    ``tier``: the standard service tier, where the account may be set to another one. ``caches``: input may be written
    into a cache, at a price of its own, without being asked to; false where the provider's documentation excludes it.
    ``unbounded``: why no output limit bounds its text generation; empty only where everything that is generated is
    known to count against the limit (the sources stand in ``limits.py``). ``bounded_models``: the models for which
    that is known although it is not for the others. ``unbounded_models``: models that it does not hold for.
    """

    chat: Table = field(default_factory=Table)
    asks_usage: bool = True
    always: frozenset[Capability] = frozenset()
    by_model: tuple[tuple[re.Pattern[str], frozenset[Capability]], ...] = ()
    prefix: str = ""
    deployments: bool = False
    limit: str = "max_tokens"
    either: bool = False
    tier: str = ""
    caches: bool = True
    unbounded: str = "a provider that is not known to obey an output limit"
    bounded_models: re.Pattern[str] | None = None
    unbounded_models: tuple[tuple[re.Pattern[str], str], ...] = ()

    def limit_of(self, model: str) -> str:
        """The field in which this server surely obeys an output limit for ``model``."""
        return "max_completion_tokens" if _REASONING.search(model) else self.limit


# OpenAI's reasoning models: o1, o3-mini, o4-mini…, gpt-5 and later; they refuse ``max_tokens``.
_REASONING = re.compile(r"(?:^|[/.])(?:o[1-9](?![a-z0-9])|gpt-(?:[5-9]|[1-9]\d)(?![a-z]))")
_COMPLETION = "max_completion_tokens"

# Models that search by nature, whoever serves them: OpenAI's *-search-preview, *-search-api and *-deep-research.
_SEARCHING = (re.compile(r"search-preview|search-api|deep-research"), _WEB)


def searches(model: str) -> bool:
    """Whether the model searches by nature."""
    return bool(_SEARCHING[0].search(model))


# OpenRouter's plugins by their id: its parsers and fixers are plain.
_PLUGIN = kinds(
    {"web": WEB, **plain("file-parser response-healing moderation context-compression")}, what="A plugin", key="id"
)


def _route(reading: Reading, where: str, value: Any) -> None:
    if value not in ("fallback", "sort"):
        raise BadRequest(f"'{where}' must be 'fallback' or 'sort'.", param=where)


_SAMPLERS = plain("top_k top_a min_p typical_p repetition_penalty")
_PRESET = refused("a preset is configured in the provider account and may name other models and tools")

# Gemini's models that draw or speak without being asked to: their output costs more than text.
_DRAWING = (re.compile(r"image|banana|imagen|veo|-tts|audio|lyria|-live"), "spoken or drawn answers")

PECULIAR: dict[str, Peculiarity] = {
    "openai": Peculiarity(limit=_COMPLETION, either=True, tier="default", unbounded=""),
    "azure": Peculiarity(
        Table(
            {"data_sources": needs(Capability.STATE, Capability.WEB, kind="stateful")}, plain("user_security_context")
        ),
        deployments=True,
        limit=_COMPLETION,
        either=True,
        tier="default",
        unbounded="",
    ),
    "google": Peculiarity(
        Table({"extra_body": fields(Table({"google": fields(SAFETY_AND_THINKING)}))}),
        prefix="models/",
        either=True,
        caches=False,
        unbounded="",
        unbounded_models=(_DRAWING,),
    ),
    "anthropic": Peculiarity(Table(plain("thinking")), either=True, caches=False, unbounded=""),
    "mistral": Peculiarity(
        Table(
            {"guardrails": beyond("guardrails")},
            plain("random_seed safe_prompt prompt_mode document_image_limit document_page_limit"),
        ),
        asks_usage=False,
        unbounded="",
    ),
    "groq": Peculiarity(
        Table(
            plain("citation_options disable_tool_validation documents include_reasoning reasoning_format"),
            {"search_settings": WEB, "include_domains": WEB, "exclude_domains": WEB},
            {
                "compound_custom": some(
                    models=some(answering_model=OTHER_MODEL, reasoning_model=OTHER_MODEL),
                    tools=needs(Capability.WEB, Capability.CODE),
                )
            },
        ),
        by_model=((re.compile("compound"), _WEB | _CODE),),
        limit=_COMPLETION,
        either=True,
        tier="on_demand",
        unbounded="",
    ),
    "deepseek": Peculiarity(Table(plain("thinking")), unbounded=""),
    "xai": Peculiarity(
        Table({"search_parameters": WEB, "deferred": STATEFUL}),
        limit=_COMPLETION,
        either=True,
        unbounded="reasoning beyond the limit",
    ),
    "cohere": Peculiarity(
        asks_usage=False,
        unbounded="reasoning that may be beyond the limit",
        bounded_models=re.compile(
            r"command(?:-light)?|command-r(?:-plus|7b)?(?:-\d\d-\d{4})?|command-a(?:-vision|-translate)?(?:-\d\d-\d{4})?"
            r"|c4ai-aya-(?:expanse|vision)-\d+b"
        ),
    ),
    "openrouter": Peculiarity(
        Table(
            _SAMPLERS,
            plain("transforms reasoning include_reasoning usage provider structured_outputs image_config"),
            plain("cache_control session_id trace"),
            {
                "models": each(OTHER_MODEL),
                "route": Rule("checked", _route),
                "plugins": each(_PLUGIN),
                "preset": _PRESET,
            },
        ),
        by_model=(
            (re.compile(r":online|^perplexity/"), _WEB),
            (re.compile(r"@preset"), _STATE),
        ),
        either=True,
        unbounded="other providers that it may be routed to",
    ),
    "together": Peculiarity(
        Table(
            _SAMPLERS,
            plain("context_length_exceeded_behavior reasoning chat_template_kwargs echo compliance"),
            {"safety_model": OTHER_MODEL},
        ),
        unbounded="",
    ),
    "fireworks": Peculiarity(
        Table(
            _SAMPLERS,
            plain("mirostat_target mirostat_lr prompt_truncate_len context_length_exceeded_behavior ignore_eos echo"),
            plain("raw_output perf_metrics_in_response thinking reasoning_history prompt_cache_isolation_key"),
        ),
        unbounded="",
    ),
    "perplexity": Peculiarity(
        Table(
            plain("top_k search_mode search_domain_filter search_language_filter search_recency_filter"),
            plain("search_after_date_filter search_before_date_filter last_updated_after_filter"),
            plain("last_updated_before_filter return_images return_related_questions return_citations"),
            plain("image_domain_filter image_format_filter media_response language_preference stream_mode"),
            plain("enable_search_classifier disable_search country num_search_results language"),
        ),
        asks_usage=False,
        always=_WEB,
    ),
    "cerebras": Peculiarity(
        Table(plain("clear_thinking disable_reasoning reasoning_format")), limit=_COMPLETION, unbounded=""
    ),
    # "An upper bound for the number of tokens that can be generated" (docs.aws.amazon.com/bedrock, "Chat Completions").
    "bedrock": Peculiarity(unbounded=""),
    "custom": Peculiarity(Table(_SAMPLERS, {"best_of": COUNT}), caches=False, unbounded=""),  # the owner's own server
    "sandbox": Peculiarity(caches=False, unbounded=""),
}
_NONE = Peculiarity()


def of(provider: Provider) -> Peculiarity:
    return PECULIAR.get(provider.id, _NONE)


@lru_cache(maxsize=2048)
def asked_by_model(provider: str, model: str) -> tuple[frozenset[Capability], str]:
    """What a model asks for by its mere name, and why no output limit bounds what it generates (``""``: one does)."""
    peculiarity = PECULIAR.get(provider, _NONE)
    found: frozenset[Capability] = frozenset()
    for pattern, capabilities in (_SEARCHING, *peculiarity.by_model):
        if pattern.search(model):
            found |= capabilities
    known = peculiarity.bounded_models is not None and peculiarity.bounded_models.fullmatch(model)
    why = "search" if found or peculiarity.always else "" if known else peculiarity.unbounded
    for pattern, reason in peculiarity.unbounded_models:
        if pattern.search(model):
            why = why or reason
    return found, why
