"""What single providers do differently with OpenAI-shaped calls. One row a provider, nothing for most of them.

No provider's SDK stands behind these field lists, as one does behind the other tables: they hold what is commonly sent,
and wait to be checked one by one against the providers' references. One that is missing is refused by name, and the
owner of a key can let it through; ones that grant something (another model, state, the web) are what matters here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from grants.providers import Capability, Provider

from ..exceptions import BadRequest
from .fields import Reading, Rule, Table, plain
from .google_fields import SAFETY_AND_THINKING
from .rules import COUNT, OTHER_MODEL, STATEFUL, WEB, each, fields, kinds, needs, refused, some

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
    """

    chat: Table = field(default_factory=Table)
    asks_usage: bool = True
    always: frozenset[Capability] = frozenset()
    by_model: tuple[tuple[re.Pattern[str], frozenset[Capability]], ...] = ()
    prefix: str = ""
    deployments: bool = False


# Models that search by nature, whoever serves them: OpenAI's *-search-preview, *-search-api and *-deep-research.
_SEARCHING = (re.compile(r"search-preview|search-api|deep-research"), _WEB)


# OpenRouter's plugins by their id: its parsers and fixers are plain.
_PLUGIN = kinds(
    {"web": WEB, **plain("file-parser response-healing moderation context-compression")}, what="A plugin", key="id"
)


def _route(reading: Reading, where: str, value: Any) -> None:
    if value not in ("fallback", "sort"):
        raise BadRequest(f"'{where}' must be 'fallback' or 'sort'.", param=where)


_SAMPLERS = plain("top_k top_a min_p typical_p repetition_penalty")
_PRESET = refused("a preset is configured in the provider account and may name other models and tools")

PECULIAR: dict[str, Peculiarity] = {
    "azure": Peculiarity(
        Table(
            {"data_sources": needs(Capability.STATE, Capability.WEB, kind="stateful")}, plain("user_security_context")
        ),
        deployments=True,
    ),
    "google": Peculiarity(
        Table({"extra_body": fields(Table({"google": fields(SAFETY_AND_THINKING)}))}), prefix="models/"
    ),
    "anthropic": Peculiarity(Table(plain("thinking"))),
    "mistral": Peculiarity(
        Table(plain("random_seed safe_prompt prompt_mode document_image_limit document_page_limit guardrails")),
        asks_usage=False,
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
    ),
    "deepseek": Peculiarity(Table(plain("thinking"))),
    "xai": Peculiarity(Table({"search_parameters": WEB, "deferred": STATEFUL})),
    "cohere": Peculiarity(asks_usage=False),
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
    ),
    "together": Peculiarity(
        Table(
            _SAMPLERS,
            plain("context_length_exceeded_behavior reasoning chat_template_kwargs echo compliance"),
            {"safety_model": OTHER_MODEL},
        )
    ),
    "fireworks": Peculiarity(
        Table(
            _SAMPLERS,
            plain("mirostat_target mirostat_lr prompt_truncate_len context_length_exceeded_behavior ignore_eos echo"),
            plain("raw_output perf_metrics_in_response thinking reasoning_history prompt_cache_isolation_key"),
        )
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
    "cerebras": Peculiarity(Table(plain("clear_thinking disable_reasoning reasoning_format"))),
    "custom": Peculiarity(Table(_SAMPLERS, {"best_of": COUNT})),
}
_NONE = Peculiarity()


def of(provider: Provider) -> Peculiarity:
    return PECULIAR.get(provider.id, _NONE)


def asked_by_model(peculiarity: Peculiarity, model: str) -> frozenset[Capability]:
    """What a model asks for by its mere name."""
    found: frozenset[Capability] = frozenset()
    for pattern, capabilities in (_SEARCHING, *peculiarity.by_model):
        if pattern.search(model):
            found |= capabilities
    return found
