"""Every body field of Gemini's routes, and what it asks for.

The truth is google-genai's ``types.py`` and its ``_*_to_mldev`` converters (3.4) and https://ai.google.dev/api.
The service takes ``cachedContent`` and ``cached_content`` for the same field, a bare object for a list of one, and
reads ``null`` as absent (protobuf's JSON); so do these tables.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from grants.providers import Capability

from ..exceptions import BadRequest
from .fields import Reading, Rule, Table, apply, plain
from .rules import (
    CODE,
    COUNT,
    HIDDEN,
    LIMIT,
    MODALITIES,
    STATEFUL,
    STORED,
    TIER,
    WEB,
    beyond,
    each,
    every,
    fields,
    inline,
    refused,
)

_VERTEX = refused("it belongs to another Google service")


def _table(*parts: Any) -> Table:
    return Table(*parts, aliased=True)


def _file_uri(reading: Reading, where: str, value: Any) -> None:
    """A file of the account (Files API, Cloud Storage) is state; a page or video of others is the web."""
    if type(value) is not str:
        raise BadRequest(f"'{where}' must be a string.", param=where)
    try:
        parts = urlsplit(value.strip())
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        raise BadRequest(f"'{where}' is not a URI.", param=where) from None
    if "\\" in value or "@" in parts.netloc:
        raise BadRequest(f"'{where}' is not an unambiguous URI.", param=where)
    own = parts.scheme not in ("http", "https") or host == "googleapis.com" or host.endswith(".googleapis.com")
    reading.ask(Capability.STATE if own else Capability.WEB, where)
    reading.tally.hide(where)


def _same_model(reading: Reading, where: str, value: Any) -> None:
    """``model`` in a body repeats the path's, here or in a request within the request."""
    reading.model(where, value.removeprefix("models/") if type(value) is str else value)
    if len(reading.models) != 1:
        raise BadRequest(f"'{where}' must name the same model as the path.", param=where)


SAME_MODEL = Rule("checked", _same_model)

_FILE_DATA = fields(_table({"fileUri": Rule("stateful", _file_uri)}, plain("mimeType displayName")))
_BLOB = every(fields(_table(plain("data mimeType displayName"))), inline("data", "mimeType", "mime_type"))
_MEDIA = {
    "inlineData": _BLOB,
    "fileData": _FILE_DATA,
    **plain("videoMetadata mediaResolution mediaProcessing documentMetadata spreadsheetMetadata audioMetadata"),
}
_FUNCTION_RESPONSE = _table(
    plain("id name response willContinue scheduling"), {"parts": each(fields(_table(_MEDIA)), single=True)}
)
PART = _table(
    plain("text thought thoughtSignature functionCall executableCode codeExecutionResult toolCall toolResponse"),
    plain("partMetadata audioTranscription speechMetadata"),
    _MEDIA,
    {"functionResponse": fields(_FUNCTION_RESPONSE)},
)
CONTENT = fields(_table(plain("role"), {"parts": each(fields(PART), single=True)}))
CONTENTS = each(CONTENT, single=True)

TOOL = _table(
    plain("functionDeclarations"),
    apply(WEB, "googleSearch googleSearchRetrieval urlContext googleMaps mcpServers"),
    apply(WEB, "enterpriseWebSearch parallelAiSearch exaAiSearch"),
    apply(CODE, "codeExecution computerUse"),
    apply(every(STATEFUL, beyond("hosted tools")), "fileSearch retrieval"),
)
TOOLS = each(fields(TOOL), single=True)

GENERATION_CONFIG = _table(
    plain("temperature topP topK stopSequences seed presencePenalty frequencyPenalty logprobs responseLogprobs"),
    plain("responseMimeType responseSchema responseJsonSchema responseFormat enableEnhancedCivicAnswers"),
    plain("audioTimestamp audioTranscriptionConfig translationConfig enableAffectiveDialog"),
    {"candidateCount": COUNT, "maxOutputTokens": LIMIT, "responseModalities": MODALITIES},
    apply(Rule("priced"), "thinkingConfig mediaResolution"),
    apply(beyond("spoken or drawn answers"), "speechConfig imageConfig"),
    apply(_VERTEX, "routingConfig modelSelectionConfig generationOutputConfig"),
)

GENERATE = _table(
    plain("toolConfig safetySettings labels"),
    {
        "continuationToken": HIDDEN,
        "model": SAME_MODEL,
        "contents": CONTENTS,
        "systemInstruction": CONTENT,
        "tools": TOOLS,
        "generationConfig": fields(GENERATION_CONFIG),
        "serviceTier": TIER,
        "cachedContent": STATEFUL,
        "store": STORED,
        "modelArmorConfig": _VERTEX,
    },
)
COUNT_TOKENS = _table({"contents": CONTENTS, "generateContentRequest": fields(GENERATE), "model": SAME_MODEL})

_EMBED_CONFIG = plain("taskType title outputDimensionality autoTruncate documentOcr audioTrackExtraction mimeType")
EMBED = _table(
    _EMBED_CONFIG,
    {"model": SAME_MODEL, "content": CONTENT, "embedContentConfig": fields(_table(_EMBED_CONFIG))},
)
BATCH_EMBED = _table({"requests": each(fields(EMBED), single=True), "model": SAME_MODEL})

# What the OpenAI-shaped chat takes in ``extra_body.google``.
SAFETY_AND_THINKING = _table(plain("thinkingConfig safetySettings"), {"cachedContent": STATEFUL})
