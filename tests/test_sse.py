"""Events are cut out of a stream of bytes exactly, wherever the network cuts it."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.dialects.base import Event
from proxy.sse import Decoder

BOM = b"\xef\xbb\xbf"


def decode(*chunks: bytes, limit: int = 1 << 20) -> tuple[list[Event], bytes]:
    decoder = Decoder(limit)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events, decoder.rest()


def seen(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in events]


def reference(stream: bytes) -> list[tuple[str, bytes]]:
    """The specification, word for word and slow: lines first, then events; incomplete ones are left out."""
    text = stream.removeprefix(BOM)
    pieces = re.split(rb"(\r\n|\r|\n)", text)
    events, name, values = [], b"", []
    for line, ending in zip(pieces[::2], pieces[1::2], strict=False):
        assert ending
        if not line:
            events.append((name.decode("utf-8", "replace"), b"\n".join(values)))
            name, values = b"", []
        key, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if key == b"data":
            values.append(value)
        if key == b"event":
            name = value
    return events


ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.one_of(
    st.sampled_from(
        [
            b'data: {"a": 1}',
            b"data:x",
            b"data",
            b"data: ",
            b"data:  two",
            b"event: ping",
            b"event",
            b": comment",
            b":",
            b"",
            b"",
            b"",
            b"id: 1",
            b"retry: 5",
            b"unknown",
            b"data: \xe2\x80\xa8 \xc2\x85 \x0b\x0c",
            b"data: \xff\xfe",
            BOM + b"data: y",
        ]
    ),
    st.binary(max_size=6),
)
STREAMS = st.builds(
    lambda bom, lines, tail: bom + b"".join(line + end for line, end in lines) + tail,
    st.sampled_from([b"", BOM]),
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.sampled_from([b"", b"data: unfinish", b"\r"]),
)


@given(STREAMS)
@example(b"data: a\r\n\r\ndata: b\r\n\r\n")
@example(b"\r\n\r\r\n\n\r")
@example(BOM + b"\r\ndata: x\r\r")
def test_events_are_the_same_wherever_the_stream_is_cut_in_two(stream: bytes) -> None:
    expected = reference(stream)
    for cut in range(len(stream) + 1):
        events, rest = decode(stream[:cut], stream[cut:])
        assert b"".join(event.raw for event in events) + rest == stream
        assert seen(events) == expected


@given(STREAMS)
@example(BOM + b"data: a\r\n\r\n\r\ndata: b\r\r\n")
def test_events_are_the_same_when_every_byte_comes_alone(stream: bytes) -> None:
    events, rest = decode(*(stream[i : i + 1] for i in range(len(stream))))
    assert b"".join(event.raw for event in events) + rest == stream
    assert seen(events) == reference(stream)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"data: b", b"\r\n", b""]), max_size=30), st.integers(0, 12))
def test_no_byte_is_lost_or_invented_at_any_limit(chunks: list[bytes], limit: int) -> None:
    events, rest = decode(*chunks, limit=limit)
    assert b"".join(event.raw for event in events) + rest == b"".join(chunks)
    assert len(rest) <= limit + 1
    assert all(event.raw for event in events)


def test_a_chunk_of_whole_events_is_decoded_at_once() -> None:
    events, rest = decode(b'data: {"x": 1}\n\nevent: stop\ndata: {}\n\ndata: [DONE]\n\n')
    assert seen(events) == [("", b'{"x": 1}'), ("stop", b"{}"), ("", b"[DONE]")]
    assert rest == b""


def test_several_data_lines_are_joined_by_a_newline_and_the_last_name_counts() -> None:
    events, _ = decode(b"event: a\ndata: 1\nevent: b\ndata: 2\ndata\n\n")
    assert seen(events) == [("b", b"1\n2\n")]


def test_line_separators_of_unicode_do_not_split_lines() -> None:
    line = 'data: {"text": "one\u2028two\u2029three\x85\x0b\x0c"}'
    events, _ = decode(line.encode() + b"\n\n")
    assert events[0].data.decode() == line.removeprefix("data: ")


def test_comments_are_no_data_but_their_bytes_are_forwarded() -> None:
    events, rest = decode(b": keep-alive\n\n: again\ndata: x\n\n")
    assert seen(events) == [("", b""), ("", b"x")]
    assert events[0].raw == b": keep-alive\n\n"
    assert rest == b""


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\r\n\r", b"\r\n\n"])
def test_an_event_is_handed_out_with_the_byte_that_ends_its_blank_line(end: bytes) -> None:
    assert seen(decode(b"data: x" + end)[0]) == [("", b"x")]
    assert seen(decode(*[bytes([byte]) for byte in b"data: x" + end])[0]) == [("", b"x")]


def test_a_leading_byte_order_mark_is_not_part_of_the_first_field_and_later_ones_are() -> None:
    assert seen(decode(BOM + b"data: x\n\n" + BOM + b"data: y\n\n")[0]) == [("", b"x"), ("", b"")]


def test_an_unfinished_event_is_left_over_at_the_end() -> None:
    assert decode(b"data: x\n\nda", b"ta: y\n")[1] == b"data: y\n"


def test_an_event_beyond_the_limit_goes_on_without_being_observed_and_the_next_one_is_observed_again() -> None:
    stream = b"data: 1\n\ndata: " + b"x" * 500 + b"\r\nevent: big\r\n\r\ndata: 2\r\n\r\n"
    for size in (1, 2, 7, 100, 1000):
        decoder, out, most = Decoder(limit=64), [], 0
        for start in range(0, len(stream), size):
            out += decoder.feed(stream[start : start + size])
            most = max(most, len(decoder.rest()))
        assert b"".join(event.raw for event in out) + decoder.rest() == stream
        assert [event.data for event in out if event.data] == [b"1", b"2"]
        assert not any(event.name for event in out)
        assert most <= 64


@pytest.mark.slow
def test_tiny_chunks_cost_no_more_than_in_proportion() -> None:
    def seconds(size: int) -> float:
        decoder, started = Decoder(), time.process_time()
        decoder.feed(b"data: ")
        for _ in range(size):
            decoder.feed(b"x")
        assert len(decoder.feed(b"\n\n")[0].data) == size
        return time.process_time() - started

    small, large = min(seconds(20_000) for _ in range(3)), min(seconds(160_000) for _ in range(2))
    assert large < small * 8 * 3  # 8 times as much; quadratic would be 64 times
