"""How much text a model made, in an answer or in one event of a stream.

Everything in an answer counts as made by the model, except what is proven not to be: the lists here name what does not
count. A member that no list names counts in full, with the keys and numbers in it, so that a new kind of output is
never free. Text counts in bytes, of which no token is less than one.

Nothing here raises, whatever a provider sends.
"""

from __future__ import annotations

import json
import re
from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Members that a model does not make. Each name holds only within the objects of an answer (see _FRAMES), which have
# fields that their provider documents: the input of a tool is none of them, there every name is the model's.
_NOT_MADE = _names(
    # ids and places
    "id object created created_at createTime completed_at expires_at model modelVersion role type index status event_id"
    " item_id call_id response_id responseId tool_use_id tool_call_id output_index content_index summary_index"
    " sequence_number start_index end_index container container_id caller server_label provider seed token_id token_ids"
    " prompt_token_ids stop_reason stop_sequence stop_details finish_reason native_finish_reason finishReason"
    " finishMessage matched_stop incomplete_details system_fingerprint service_tier background"
    # reports, and the tokens of text that stands beside them
    " usage usageMetadata usage_breakdown x_groq time_info timings tool_usage tokenCount avgLogprobs logprobs"
    " top_logprobs prompt_logprobs logprobsResult embedding embeddings"
    # padding, and what is encrypted or signed: it is no text, and the text of it is in the report only
    " obfuscation signature thoughtSignature thought_signature encrypted_content encrypted_index"
    # pictures and sound in base64 or by their address
    " inlineData inline_data fileData file_data images image image_url b64_json partial_image_b64 videoMetadata"
    # what filters found
    " content_filter_results content_filter_result prompt_filter_results safetyRatings promptFeedback"
    # what searches found and tools gave out: input of the model, where it read it. Anthropic bills no cited text
    # (platform.claude.com, "Citations").
    " annotations annotation citations citation search_results citationMetadata groundingMetadata urlContextMetadata"
    " code_results browser_results"
)

# The same in objects that say their type: only there is such a name documented.
_NOT_MADE_BY_TYPE = _NOT_MADE | _names("data result results output outputs sources tools")

# Members that hold objects, or lists of them, whose own members are documented.
_FRAMES = _names(
    "choices delta message content parts candidates tool_calls function function_call custom item part content_block"
    " summary thinking reasoning_content reasoning_details reasoning action partialArgs"
    " executed_tools text"
)
# Results of tools are objects of these types. An advisor is a model.
_RESULTS = ("_tool_result", "_call_output")

# The usual event of a stream: one text, perhaps a report, and beside them only what is not made, or is empty. Most
# events are recognised by this pattern, which takes less time than to parse them. Groups: report, text, report.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_AROUND = (
    rb'(?:[\s{}\[\],]++|"(?:choices|delta|tool_calls|function|candidates|content|parts)"\s*+:\s*+[\[{]'
    rb'|"(?:id|object|created|model|type|index|role|item_id|output_index|content_index|sequence_number|service_tier'
    rb"|system_fingerprint|provider|obfuscation|token_id|modelVersion|responseId|thoughtSignature)"
    rb'"\s*+:\s*+(?:' + _STRING + rb"|\d++)"
    rb'|"[a-z_]++"\s*+:\s*+(?:null|false|true|""|\[\s*+\]|\{\s*+\})'
    rb'|"usage(?:Metadata)?"\s*+:\s*+(\{(?:[^{}]++|\{[^{}]*+\})*+\}))*+'
)
_TEXT = rb'"(?:content|text|delta|partial_json|thinking|reasoning_content|reasoning|arguments)"\s*+:\s*+'
usual = re.compile(_AROUND + _TEXT + rb'"((?:[^"\\]++|\\.)*+)"' + _AROUND, re.DOTALL).fullmatch

_DEEP = 1 << 20  # bytes that are assumed where a value is nested too deeply to be looked through
_SMALL = 64 * 1024  # bytes that are parsed whatever they hold
_DENSE = 200_000  # characters of structure and escapes; a document with more takes too long to parse
_STRUCTURE = b'",:[]{}\\'
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_HALF_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*+)\\u[0-9a-fA-F]{0,3}\Z")
_LITERAL = b"0123456789+-.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TAIL = 64 * 1024  # where a document that is not parsed is looked through for its report
_REPORT = re.compile(rb'"(usage|usageMetadata)"\s*:\s*(\{(?:[^{}]|\{[^{}]*+\})*+\})')
_MODEL = re.compile(rb'"(model|modelVersion)"\s*:\s*("[^"\\]*+")')


def size(value: Any) -> int:
    """Bytes of text in a part of an answer whose members are documented."""
    if isinstance(value, str):
        return _bytes(value)
    if isinstance(value, list):
        return sum(map(size, value))
    if not isinstance(value, dict):
        return 0
    kind = value.get("type")
    if isinstance(kind, str) and kind.endswith(_RESULTS) and not kind.startswith("advisor"):
        return 0
    found, skipped = 0, _NOT_MADE_BY_TYPE if isinstance(kind, str) else _NOT_MADE
    for name, member in value.items():
        if name == "audio" and isinstance(member, dict):
            found += size(member.get("transcript"))  # the rest is sound
        elif member and name not in skipped:
            found += size(member) if name in _FRAMES or _is_piece(member) else _whole(member)
    return found


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _whole(value: Any) -> int:
    """Bytes of a member that no list names, or that may hold any names: the input of a tool."""
    if isinstance(value, str):
        return _bytes(value)
    return _bytes(json.dumps(value, ensure_ascii=False)) if isinstance(value, dict | list) else 0


def _is_piece(value: Any) -> bool:
    """Whether this is a piece of a Gemini function call. What stands around a piece is longer than the piece."""
    return isinstance(value, dict) and "partialArgs" in value


def read(data: bytes) -> Any:
    """The JSON in ``data``, which may have been cut off.

    What cannot be parsed, or not in a short time, is an object with all of its text in one member that no list names;
    a report of usage is looked for by a pattern.
    """
    if len(data) > _SMALL and len(data) - len(data.translate(None, _STRUCTURE)) > _DENSE:
        return {"unread": data.decode(errors="replace"), **_told(data)}
    try:
        return json.loads(data)
    except RecursionError:
        return {"unread": data.decode(errors="replace")}
    except ValueError:
        return _repaired(data)


def _told(data: bytes) -> dict[str, Any]:
    found = {}
    for match in [*_MODEL.finditer(data[:_TAIL]), *_REPORT.finditer(data[-_TAIL:])]:
        try:
            found[match[1].decode()] = json.loads(match[2])
        except (ValueError, RecursionError):
            continue
    return found


def _repaired(data: bytes) -> Any:
    """JSON that was cut off, with its end added: what is open is closed, half a literal is replaced."""
    opened, in_string, end = bytearray(), False, len(data)
    for match in _TOKEN.finditer(data):
        kind = match[0][:1]
        if kind == b'"':
            in_string, end = not match[1], match.end()
        elif kind in b"{[":
            opened += b"}" if kind == b"{" else b"]"
        elif opened:
            opened.pop()
    kept = _HALF_ESCAPE.sub(rb"\1", data[:end]) if in_string else data.rstrip().rstrip(_LITERAL)
    text, closing = kept.decode(errors="replace"), opened[::-1].decode()
    for middle in ('"', '":0') if in_string else ("", "0", ":0", '"":0'):
        try:
            return json.loads(text + middle + closing)
        except (ValueError, RecursionError):
            continue
    return {"unread": data.decode(errors="replace")}


def made(value: Any) -> int:
    """:func:`size`, whatever the value is."""
    try:
        return size(value)
    except RecursionError:
        return _DEEP
