"""The body is the hole in default deny: the machinery of the field tables.

A :class:`Table` names every field of a body and gives each a :class:`Rule`. What is in no table is refused by name,
because unknown fields are how new ways around a grant arrive. Rules are built from a few combinators, so that a table
reads as the whole policy of its route::

    Table(
        plain("temperature top_p"),                            # goes through
        {"model": MODEL, "tools": each(kinds(TOOLS))},         # checked: models and hosted tools are granted or not
        {"max_tokens": LIMIT, "n": COUNT},                     # priced: bounds what the call can cost
        {"previous_response_id": STATEFUL},                    # needs the capability ``state``
    )

A rule runs on a value that is not ``null`` (every provider reads ``null`` as absent) and notes in the
:class:`Reading` what the call asks for, or raises ``BadRequest``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from grants.providers import Capability, Provider

from ..exceptions import BadRequest
from .base import Asked
from .demand import Tally

Kind = Literal["plain", "checked", "priced", "stateful", "hosted", "refused"]

# The charset that a grant's patterns have too; no ``..``, which an upstream could take for a path.
_MODEL = re.compile(r"(?!.*\.\.)[A-Za-z0-9@_][A-Za-z0-9._:/@+-]{0,199}")


class Reading:
    """What one body asks for, gathered while its fields are checked."""

    __slots__ = (
        "asked",
        "binary",
        "body",
        "capabilities",
        "characters",
        "extra",
        "may_store",
        "models",
        "opened",
        "prefix",
        "provider",
        "stream",
        "tally",
    )

    def __init__(
        self,
        provider: Provider,
        extra: tuple[str, ...] = (),
        prefix: str = "",
        default_limit: int | None = None,
        *,
        may_store: bool = False,
    ) -> None:
        self.provider = provider
        self.extra = extra  # names that the owner lets through
        self.prefix = prefix  # may lead a model's name without meaning anything
        self.body: dict[str, Any] = {}
        self.models: list[str] = []
        self.capabilities: set[Capability] = set()
        self.asked: dict[Capability, Asked] = {}  # by which field of the body
        self.may_store = may_store  # the grant includes ``state``
        self.stream = False
        self.binary = 0  # characters of base64 in the body
        self.characters: int | None = None  # where it is known exactly
        self.opened: set[str] = set()  # folded names of unknown fields that were let through
        self.tally = Tally(default_limit)

    def ask(self, capability: Capability, where: str, value: Any = None) -> None:
        """Note that the field at ``where`` asks for a capability; the first one is named in a refusal."""
        self.capabilities.add(capability)
        if capability not in self.asked:
            kind = value.get("type") if type(value) is dict else None
            self.asked[capability] = Asked(where, kind[:80] if type(kind) is str else "")

    def model(self, where: str, value: Any, *, first: bool = False) -> str:
        """Note a model that may run, and give its name as policy knows it. ``first``: it is the one that is billed."""
        if type(value) is not str or not _MODEL.fullmatch(value):
            raise BadRequest(f"'{where}' must be the name of a model.", param=where)
        name = value
        if self.prefix:
            name = value.removeprefix(self.prefix)
            if "/" in name:
                raise BadRequest(f"'{where}' names no model of {self.provider.label}.", param=where)
        if first and name in self.models:
            self.models.remove(name)
        if name not in self.models:
            self.models.insert(0 if first else len(self.models), name)
        return name


Check = Callable[[Reading, str, Any], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a field. ``check`` gets the reading, the field's path and its value; ``None``: nothing to do."""

    kind: Kind
    check: Check | None = None


PLAIN = Rule("plain")


def fold(name: str) -> str:
    """A name as the most lenient parser compares it: some ignore case, some take ``fileData`` for ``file_data``."""
    return name.casefold().replace("_", "").replace("-", "")


class Table(dict[str, Rule]):
    """Rules by field name. ``aliased``: the parser takes camelCase and snake_case for the same field (protobuf)."""

    def __init__(self, *parts: Mapping[str, Rule], aliased: bool = False) -> None:
        super().__init__()
        for part in parts:
            self.update(part)
        if aliased:
            self.update({snake(name): rule for name, rule in self.items()})
        self.aliased = aliased
        self.folded = frozenset(map(fold, self))


def snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda match: f"_{match[1].lower()}", name)


def plain(names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), PLAIN)


def apply(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


def check_fields(reading: Reading, table: Table, value: dict[str, Any], where: str = "") -> None:
    """Every field of one object by its rule; one that ``table`` does not know is refused."""
    for name, item in value.items():
        rule = table.get(name)
        if rule is None:
            _unknown(reading, table, name, where)
        elif rule.check is not None and item is not None:
            rule.check(reading, f"{where}.{name}" if where else name, item)
    if table.aliased and len({fold(name) for name in value}) != len(value):
        raise BadRequest("One field is given in two spellings.", code="duplicate_key", param=where or None)


def _unknown(reading: Reading, table: Table, name: str, where: str) -> None:
    """Let an unknown field of the body itself pass where the owner or the provider's row says so."""
    shown = ascii(f"{where}.{name}" if where else name)[1:-1][:200]
    if where or not (reading.provider.open_fields or name in reading.extra):
        raise BadRequest(f"The field '{shown}' is unknown, so it is not relayed.", code="unknown_field", param=shown)
    folded = fold(name)
    if folded in table.folded or folded in reading.opened:
        raise BadRequest(
            f"The field '{shown}' is too similar to a field that is checked. Use the documented spelling.",
            code="unknown_field",
            param=shown,
        )
    if folded in NEVER_OPEN and name not in reading.extra:
        raise BadRequest(
            f"The field '{shown}' is relayed only where the owner of the key allows it.",
            code="unknown_field",
            param=shown,
        )
    reading.opened.add(folded)
    if name in reading.extra:
        reading.tally.beyond(f"the field '{shown}', which the owner lets through")
    elif folded not in _HARMLESS_FOLDED:
        reading.tally.beyond(f"the field '{shown}', which may cost more than the limit tells")


# Names that no open table lets through, whatever the server makes of them: other models, state, hosted tools, and
# where gateways that speak OpenAI's format (LiteLLM, OpenRouter) take another address or key from the body.
_NEVER_OPEN = """
    models fallbacks context_window_fallbacks context_window_fallback_dict content_policy_fallbacks model_list
    fallback_models engine deployment_id custom_llm_provider route provider preset safety_model draft_model
    api_base base_url api_key api_version api_type user_config proxy organization headers extra_headers extra_body
    extra_query litellm_params litellm_credential_name
    conversation conversation_id previous_response_id session_id prompt_id background thread thread_id container
    cached_content store deferred vector_store_ids file_ids knowledge data_sources
    web_search_options web_search search_parameters search_settings plugins tool_ids tool_servers mcp_servers connectors
    compound_custom enable_search include_domains exclude_domains
    access_programs background_options billing_policy diagnostics model_armor_config prompt
"""
NEVER_OPEN = frozenset(map(fold, _NEVER_OPEN.split()))

# What servers of the owner's own take beyond OpenAI's fields and what changes neither the amount of the output nor that
# of the input: vLLM's and SGLang's sampling and guided decoding, llama.cpp's samplers. Any other field that is let
# through may be another name of the limit (llama.cpp takes ``n_predict`` before ``max_tokens``), or bring input that
# the body does not show (vLLM renders a request's own ``chat_template``): then the limit proves nothing.
_HARMLESS = """
    top_k top_a min_p typical_p top_n_sigma tfs_z repetition_penalty repeat_penalty repeat_last_n length_penalty
    mirostat mirostat_tau mirostat_eta xtc_probability xtc_threshold dynatemp_range dynatemp_exponent dry_multiplier
    dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers samplers logits_bias bad_words stop_token_ids
    include_stop_str_in_output skip_special_tokens spaces_between_special_tokens prompt_logprobs return_token_ids
    guided_json guided_regex guided_choice guided_grammar guided_decoding_backend structured_outputs grammar json_schema
    regex ebnf cache_prompt id_slot priority request_id rid
    chat_template_kwargs enable_thinking separate_reasoning stream_reasoning include_reasoning reasoning_format
    reasoning_effort thinking logit_bias seed verbosity
"""
_HARMLESS_FOLDED = frozenset(map(fold, _HARMLESS.split()))
