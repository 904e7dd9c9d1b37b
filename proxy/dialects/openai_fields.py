"""Every body field of the OpenAI-shaped routes, and what it asks for.

The truth is openai-python's ``types/**/*_params.py`` (3.54) and https://platform.openai.com/docs/api-reference; tests
walk the SDK's parameters against these tables. What single providers add is in ``peculiar.py``.

Pictures and files given by ``http(s)`` URL are allowed: the provider fetches them, as it does without a broker. What
that costs cannot be seen in the body (``HIDDEN``); what costs more than the output limit tells is ``beyond`` it.
"""

from __future__ import annotations

from typing import Any

from grants.providers import Capability

from ..exceptions import BadRequest
from .fields import PLAIN, Reading, Rule, Table, apply, plain
from .rules import (
    BINARY,
    CODE,
    COUNT,
    DESCRIBED,
    HIDDEN,
    LIMIT,
    MODALITIES,
    MODEL,
    NAME,
    NATURAL,
    OBJECT,
    OTHER_MODEL,
    RECORDING,
    STATEFUL,
    STORED,
    STREAM,
    TIER,
    WEB,
    beyond,
    each,
    every,
    fields,
    kinds,
    needs,
    refused,
    some,
)

# Parts of a message


# Who refuses any other file at the URL of a picture (OpenAI, guides/images-vision, "Image input requirements").
# Elsewhere it may be a document, so it counts as one.
_ONLY_PICTURES = frozenset({"openai", "azure"})


def _image_url(reading: Reading, where: str, value: Any) -> None:
    """``"https://…"`` or ``{"url": "data:…"}``."""
    url = value.get("url") if type(value) is dict else value
    if type(url) is str and url.startswith("data:"):
        reading.binary += len(url)
        reading.tally.inline(url, "", where)
    elif reading.provider.id in _ONLY_PICTURES:
        reading.tally.picture_at(url, where)
    else:
        reading.tally.hide(where)


def _media_url(reading: Reading, where: str, value: Any) -> None:
    """A film or a recording, inline or not: as much as the model can take in."""
    url = value.get("url") if type(value) is dict else value
    if type(url) is str and url.startswith("data:"):
        reading.binary += len(url)
    reading.tally.hide(where)


IMAGE_URL = Rule("checked", _image_url)
MEDIA_URL = Rule("checked", _media_url)
_FILE = Table({"file_data": BINARY, "file_id": STATEFUL, "file_url": HIDDEN}, plain("filename detail"))

CHAT_PARTS = {
    **plain("text refusal thinking reasoning reference"),
    "document_url": every(HIDDEN, beyond("documents that are read for the model")),  # Mistral: billed by the page
    "image_url": some(image_url=IMAGE_URL, file_id=STATEFUL),
    "video_url": some(video_url=MEDIA_URL),
    "audio_url": some(audio_url=MEDIA_URL),
    "input_audio": some(input_audio=RECORDING),
    "file": some(file=fields(_FILE), file_id=STATEFUL),
}
_CHAT_CONTENT = each(kinds(CHAT_PARTS, what="A part", openly=True), text=True, single=True)
_CHAT_MESSAGE = some(content=_CHAT_CONTENT, audio=STATEFUL)  # audio: {"id"} of an answer that the provider keeps

# Tools, of chat and of Responses


def _container(reading: Reading, where: str, value: Any) -> None:
    """``"cntr_…"``, or a container to be made: files, skills and domain secrets of the account, a way to the net."""
    if type(value) is str:
        reading.ask(Capability.STATE, where)
    elif _CONTAINER.check is not None:
        _CONTAINER.check(reading, where, value)


_NETWORK = kinds({"disabled": PLAIN, "allowlist": WEB}, what="A network policy")
_CONTAINER = some(file_ids=STATEFUL, skills=STATEFUL, container_id=STATEFUL, network_policy=_NETWORK)
_SHELL = {"local": PLAIN, "container_auto": every(CODE, _CONTAINER), "container_reference": every(CODE, STATEFUL)}
_SHELL_ENVIRONMENT = some(environment=kinds(_SHELL, what="An environment"))
_IMAGE_TOOL = Table(
    plain("type action background complexity frame_count frame_duration_ms input_fidelity moderation"),
    plain("output_compression output_format partial_images quality size"),
    {
        "model": OTHER_MODEL,
        "svg": some(model=OTHER_MODEL),
        "input_image_mask": some(file_id=STATEFUL, image_url=IMAGE_URL),
    },
)
_NAMESPACE = some(tools=each(kinds(plain("function custom"), what="A tool")))

# Without reach, but where the provider searches, the model runs again after each search.
_HOSTED_SEARCH = beyond("hosted tools")
_SEARCH = kinds(
    {"client": PLAIN, "server": _HOSTED_SEARCH}, what="A tool search", absent=_HOSTED_SEARCH, key="execution"
)

TOOLS: dict[str, Rule] = {
    **plain("function custom apply_patch local_shell"),  # the app's own
    "tool_search": _SEARCH,
    "namespace": _NAMESPACE,
    "shell": _SHELL_ENVIRONMENT,
    **apply(WEB, "web_search web_search_2025_08_26 web_search_preview web_search_preview_2025_03_11"),
    **apply(WEB, "x_search live_search browser_search"),  # xAI, Groq
    "mcp": every(WEB, some(tunnel_id=STATEFUL)),
    **apply(CODE, "computer computer_use_preview programmatic_tool_calling code_execution"),
    "code_interpreter": every(CODE, some(container=Rule("checked", _container))),
    "image_generation": every(needs(Capability.IMAGES), fields(_IMAGE_TOOL)),
    **apply(every(STATEFUL, beyond("hosted tools")), "file_search collections_search"),
}
_TOOL = every(kinds(TOOLS, what="A tool"), DESCRIBED)

_MODERATION = fields(Table({"model": OTHER_MODEL}, plain("policy")))
_PROMPT_CACHE = fields(Table(plain("mode prewarm ttl"), {"comparison_response_id": STATEFUL}))
_SAMPLING = plain("temperature top_p presence_penalty frequency_penalty seed stop logit_bias top_logprobs user")
_ACCOUNT = plain("metadata safety_identifier prompt_cache_key prompt_cache_retention verbosity")

# What common clients send about themselves (Codex: ``client_metadata``). It asks for nothing, and stays here: many
# providers refuse what they do not know.
DROPPED = ("client_metadata",)

CHAT = Table(
    _SAMPLING,
    _ACCOUNT,
    plain("logprobs response_format tool_choice parallel_tool_calls functions function_call reasoning_effort"),
    {
        "prediction": beyond("a predicted answer"),  # what of it is rejected is billed as output
        "audio": beyond("spoken or drawn answers"),
        "model": MODEL,
        "modalities": MODALITIES,
        "messages": each(_CHAT_MESSAGE),
        "tools": each(_TOOL),
        "moderation": _MODERATION,
        "prompt_cache_options": _PROMPT_CACHE,
        "stream": STREAM,
        "stream_options": OBJECT,
    },
    {"max_tokens": LIMIT, "max_completion_tokens": LIMIT, "n": COUNT, "service_tier": TIER},
    {"store": STORED},
    {"web_search_options": WEB},
)


def _prompts(reading: Reading, where: str, value: Any) -> None:
    """Several prompts in one list (of texts, or of lists of tokens) get their answers each."""
    if type(value) is list and not all(type(item) is int for item in value):
        reading.tally.candidates = max(1, len(value))


COMPLETIONS = Table(
    _SAMPLING,
    plain("suffix echo logprobs"),
    {"prompt": Rule("priced", _prompts)},
    {"model": MODEL, "stream": STREAM, "stream_options": OBJECT},
    {"max_tokens": LIMIT, "n": COUNT, "best_of": COUNT},
)

# Responses: items of the input, by type

RESPONSE_PARTS = {
    **plain("input_text output_text refusal text summary_text reasoning_text"),
    "input_image": some(image_url=IMAGE_URL, file_id=STATEFUL),
    "computer_screenshot": some(image_url=IMAGE_URL, file_id=STATEFUL),
    "input_file": some(file_data=BINARY, file_id=STATEFUL, file_url=HIDDEN),
    "input_audio": some(input_audio=RECORDING),
}
_CONTENT = each(kinds(RESPONSE_PARTS, what="A part"), text=True, single=True)
_MESSAGE = some(content=_CONTENT)
_OUTPUT = some(output=_CONTENT)
_MORE_TOOLS = some(tools=each(_TOOL))  # tools that come in the conversation are tools


def _untyped(reading: Reading, where: str, value: Any) -> None:
    """A message in short form has a role; what has only an id refers to an item that the provider keeps."""
    rule = _MESSAGE if "role" in value else STATEFUL
    if rule.check is not None:
        rule.check(reading, where, value)


def _kept(*inline: str) -> Rule:
    """An item that is resolved from what the provider keeps, unless one of these fields brings it along."""

    def check(reading: Reading, where: str, value: Any) -> None:
        if not any(value.get(name) for name in inline):
            reading.ask(Capability.STATE, where, value)
            reading.tally.hide(where)

    return Rule("stateful", check)


def _drawn(reading: Reading, where: str, value: Any) -> None:
    """A picture that the model drew, which it looks at again; its base64 counts as text as well."""
    reading.tally.images += 1


ITEMS: dict[str, Rule] = {
    "message": _MESSAGE,
    **plain("function_call custom_tool_call local_shell_call local_shell_call_output apply_patch_call"),
    **plain("apply_patch_call_output computer_call tool_search_call configuration_update shell_call_output"),
    **apply(HIDDEN, "web_search_call file_search_call compaction"),  # what they hold is not in the body
    "compaction_trigger": beyond("compaction"),
    **apply(_OUTPUT, "function_call_output custom_tool_call_output computer_call_output"),
    **apply(_MORE_TOOLS, "additional_tools tool_search_output"),
    "reasoning": _kept("encrypted_content", "content"),
    "image_generation_call": every(_kept("result"), Rule("checked", _drawn)),
    "item_reference": STATEFUL,
    "shell_call": _SHELL_ENVIRONMENT,
    **apply(CODE, "code_interpreter_call program program_output"),
    **apply(WEB, "mcp_list_tools mcp_approval_request mcp_approval_response mcp_call"),
}
_INPUT = each(kinds(ITEMS, what="An item", absent=Rule("checked", _untyped)), text=True)


def _reasoning(reading: Reading, where: str, value: Any) -> None:
    """In other modes than the standard one, more than one model's worth of reasoning may be billed."""
    if type(value) is dict and value.get("mode") not in (None, "standard"):
        reading.tally.beyond("reasoning beyond the limit")


_COUNTED = Table(
    plain("instructions text tool_choice parallel_tool_calls truncation"),
    {"reasoning": Rule("priced", _reasoning)},
    {"model": MODEL, "input": _INPUT, "tools": each(_TOOL)},
    {"conversation": STATEFUL, "previous_response_id": STATEFUL},
)
INPUT_TOKENS = Table(_COUNTED, plain("personality"))
RESPONSES = Table(
    _COUNTED,
    _ACCOUNT,
    plain("temperature top_p top_logprobs user include image"),
    plain(" ".join(DROPPED)),
    {
        "context_management": beyond("compaction"),
        "stream": STREAM,
        "stream_options": OBJECT,
        "moderation": _MODERATION,
        "prompt_cache_options": _PROMPT_CACHE,
        "access_programs": refused("it asks for a programme of the provider account"),
    },
    {"max_output_tokens": LIMIT, "max_tool_calls": NATURAL, "service_tier": TIER},
    {
        "prompt": every(STATEFUL, beyond("a stored prompt, which may bring tools")),
        "background": every(STATEFUL, beyond("work in the background, whose usage is not seen")),
        "background_options": STATEFUL,
        "store": STORED,
    },
)

EMBEDDINGS = Table(plain("input dimensions encoding_format user"), {"model": MODEL})


def _moderated(reading: Reading, where: str, value: Any) -> None:
    """Texts, or parts with text or a picture."""
    for part in value if type(value) is list else ():
        if type(part) is dict and part.get("image_url") is not None:
            _image_url(reading, where, part["image_url"])


MODERATIONS = Table({"model": MODEL, "input": Rule("checked", _moderated)})


def _spoken(reading: Reading, where: str, value: Any) -> None:
    """Speech is priced by the character: exactly these."""
    if type(value) is not str:
        raise BadRequest("'input' must be a string.", param=where)
    reading.characters = len(value)


def _speech_events(reading: Reading, where: str, value: Any) -> None:
    reading.stream = value == "sse"


SPEECH = Table(
    plain("instructions response_format speed voice"),
    {"model": MODEL, "input": Rule("priced", _spoken), "stream_format": Rule("checked", _speech_events)},
)


def _animated(reading: Reading, where: str, value: Any) -> None:
    if value == "gif":
        reading.tally.beyond("animated pictures")


def _partial(reading: Reading, where: str, value: Any) -> None:
    if value not in (0, "0"):
        reading.tally.beyond("partial pictures")


_PICTURE = plain("background output_compression response_format user safety_identifier")
_PICTURE_PRICE = {
    "n": COUNT,
    "size": NAME,
    "quality": NAME,
    "partial_images": Rule("priced", _partial),
    "output_format": Rule("priced", _animated),
    "complexity": beyond("planned pictures"),
    **apply(beyond("animated pictures"), "frame_count frame_duration_ms"),
}
_SVG = some(model=OTHER_MODEL)
IMAGES = Table(
    _PICTURE,
    plain("prompt style moderation"),
    _PICTURE_PRICE,
    {"model": MODEL, "stream": STREAM, "svg": _SVG},
)

# Forms: values are strings; ``name[]`` and ``name[key]`` count as ``name``.

_FORM = {"model": MODEL, "stream": STREAM}
IMAGE_EDITS = Table(
    _PICTURE,
    plain("prompt"),
    _PICTURE_PRICE,
    {"input_fidelity": beyond("high input fidelity")},
    _FORM,
    {"svg": refused("in a form its model cannot be checked")},
)
IMAGE_VARIATIONS = Table(plain("response_format user"), {"n": COUNT, "size": NAME, "model": MODEL})
TRANSCRIPTIONS = Table(
    plain("prompt response_format temperature language languages keywords include timestamp_granularities"),
    plain("chunking_strategy known_speaker_names"),
    {"known_speaker_references": Rule("plain", beyond("unparsed audio").check)},  # recordings too
    _FORM,
)
TRANSLATIONS = Table(plain("prompt response_format temperature language"), {"model": MODEL})
