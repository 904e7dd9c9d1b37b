"""Bodies in: JSON without ambiguities, and the forms of RFC 7009 and RFC 7662. Answers out: JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from django.http import QueryDict
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import FormParser, JSONParser

# DRF hands both parsers the body that Django has read: bounded by DATA_UPLOAD_MAX_MEMORY_SIZE.


class OneFormat(DefaultContentNegotiation):
    """A view has one format; an ``Accept`` header that does not name it changes nothing."""

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


_VALUES = 10_000  # commas and brackets: 10 ms. What is sent here has far fewer; a megabyte of lists takes a second


class StrictJSONParser(JSONParser):
    """UTF-8 (RFC 8259 §8.1), every key once, no NaN, no half of a surrogate pair, nothing too deep or long to read."""

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        _refuse_encodings(parser_context)
        try:
            text = stream.read().decode()
            if sum(map(text.count, ",[{")) > _VALUES:
                raise ParseError("The body has too many values.")
            data = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
            if "\\u" in text:
                json.dumps(data, ensure_ascii=False).encode()
        except UnicodeError as error:
            raise ParseError("The body is not valid UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise ParseError("The body is not valid JSON (every key once, no NaN).") from error
        return data


class StrictFormParser(FormParser):
    """Every parameter once (RFC 6749 §3.2), as a plain dictionary."""

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        _refuse_encodings(parser_context)
        form = QueryDict(stream.read(), encoding="utf-8")
        repeated = [name for name, values in form.lists() if len(values) > 1]
        if repeated:
            raise ParseError(f"Given more than once: {', '.join(repeated)[:200]}")
        return form.dict()


def _refuse_encodings(parser_context: Mapping[str, Any] | None) -> None:
    """A compressed body is not unpacked: it could be a bomb."""
    request = (parser_context or {}).get("request")
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity") if request else "identity"
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(encoding, "Send the body without a Content-Encoding.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
