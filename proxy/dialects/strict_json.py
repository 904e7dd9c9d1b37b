"""JSON as it is read here: one meaning for every reader, or refused.

What is checked must be what the provider understands. So whatever two parsers may read differently (duplicate keys,
NaN, numbers out of range, byte order marks, other encodings) is refused, and what passed is written anew.
RFC 8259, read as strictly as I-JSON (RFC 7493) reads it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..exceptions import BadRequest

MAX_DEPTH = 64
MAX_CONTAINERS = 500_000  # brackets and braces, also in strings: what parses for longer would hold every stream up
_SMALL = 16 * 1024  # bytes: at most 12 ms, whatever is in them
_PLAIN = 128 * 1024  # bytes: at most 15 ms in ASCII, with few values
_FEW = 2000  # commas
_VERY_FEW = 100
_INFINITY = float("inf")


def is_quick(data: bytes) -> bool:
    """Whether ``data`` surely takes less than 2 ms, as most bodies do. This look takes 1 μs."""
    size = len(data)
    if size <= 1024:
        return True
    return size <= (_SMALL if data.isascii() else 2048) and data.count(b",") <= _VERY_FEW


def is_cheap(data: bytes) -> bool:
    """Whether ``data`` surely takes less than 15 ms to parse, check and write anew. This look takes 10 μs."""
    size = len(data)
    return size <= _SMALL or (size <= _PLAIN and data.isascii() and data.count(b",") <= _FEW)


def loads(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``.

    Raises:
        BadRequest: it is anything but one well-formed, unambiguous object of at most :data:`MAX_DEPTH` levels and
            :data:`MAX_CONTAINERS` objects and lists.
    """
    if data[:3] == b"\xef\xbb\xbf":
        raise _malformed("it begins with a byte order mark")
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS:
        raise BadRequest("The body has too many objects and lists.", code="body_too_large", status=413)
    try:
        value = _decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise _malformed("it has a number out of range") from error
    if type(value) is not dict:
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    if containers > MAX_DEPTH:
        _check_depth(value)
    return value


def dumps(value: dict[str, Any]) -> bytes:
    """``value`` as compact UTF-8.

    Raises:
        BadRequest: a string in it has half a surrogate pair, which UTF-8 cannot carry.
    """
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise _malformed("a string in it has half a surrogate pair") from error


def _malformed(why: str) -> BadRequest:
    return BadRequest(f"The body is not well-formed JSON: {why}.", code="invalid_json")


def _too_deep() -> BadRequest:
    return BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadRequest(f"The key {twice[:80]!a} occurs twice in one object.", code="duplicate_key", param=twice[:80])
    return value


def _constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not a number")


def _float(digits: str) -> float:
    value = float(digits)
    if value in (_INFINITY, -_INFINITY):
        raise _malformed("it has a number out of range")
    return value


def _check_depth(value: Any) -> None:
    """Level by level, so that neither recursion nor long strings cost anything."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _too_deep()


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
