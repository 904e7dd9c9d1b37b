"""JSON has one meaning here, or none."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import strict_json
from proxy.exceptions import BadRequest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b'{"a": 1}x',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": 1, "a": 2}',
        b'{"x": {"a": 1, "a": 1}}',
        b'{"a": [{"b": 1, "\\u0062": 2}]}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": -1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "line\nbreak"}',
        b'{"a": "\\x"}',
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"\x1f\x8b\x08\x00",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        strict_json.loads(body)
    assert caught.value.status == 400
    assert caught.value.code in ("invalid_json", "duplicate_key")
    assert len(caught.value.message) < 200
    assert caught.value.message.isprintable()


def test_the_key_that_occurs_twice_is_named() -> None:
    with pytest.raises(BadRequest, match="'model' occurs twice") as caught:
        strict_json.loads(b'{"model": "a", "model": "b"}')
    assert (caught.value.code, caught.value.param) == ("duplicate_key", "model")


def test_sixty_four_levels_are_enough_for_everyone_and_brackets_in_strings_are_no_levels() -> None:
    assert strict_json.loads(b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}")
    assert strict_json.loads(b'{"a": "' + b"[" * 1000 + b'"}')
    assert strict_json.loads(b'{"a": [' + b"[]," * 1000 + b"[]]}")


def test_half_a_surrogate_pair_cannot_be_sent() -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        strict_json.dumps(strict_json.loads(b'{"a": "\\ud83d"}'))
    assert strict_json.dumps(strict_json.loads(b'{"a": "\\ud83d\\ude00"}')) == '{"a":"😀"}'.encode()


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_what_passes_means_the_same_afterwards(value: dict[str, Any]) -> None:
    try:
        again = strict_json.dumps(strict_json.loads(json.dumps(value).encode()))
    except BadRequest:
        return
    assert json.loads(again) == value


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_raise_anything_but_bad_request(body: bytes) -> None:
    try:
        value = strict_json.loads(body)
    except BadRequest:
        return
    assert type(value) is dict


def test_a_large_picture_costs_little() -> None:
    body = json.dumps({"a": [{"image": "A" * 3_000_000}] * 2}).encode()
    started = time.process_time()
    strict_json.dumps(strict_json.loads(body))
    assert time.process_time() - started < 0.5
