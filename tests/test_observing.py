"""What of an answer is read where, and what is done with the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from proxy import bodies, dialects
from proxy.dialects.base import Event, Spooled, UpstreamCall
from proxy.observing import Observing, is_light

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    yield
    bodies.process.stop()


def observing(flavor: str = "chat", **changes: Any) -> Observing:
    call = UpstreamCall(route="openai.chat", method="POST", path="", models=("m",), flavor=flavor, **changes)
    return Observing(dialects.observer(call), uuid4(), flavor)


def answer(**more: Any) -> bytes:
    return json.dumps({"model": "m", "choices": [], "usage": USAGE} | more).encode()


@pytest.mark.live
def test_a_large_answer_is_read_by_the_process(tmp_path: Any) -> None:
    with (tmp_path / "body").open("w+b") as file:  # the request, which stays where it is
        seen = observing(json=Spooled(file, 0, b""))
        seen.body(answer(logprobs=[[]] * 50_000))
    assert bodies.process.pid
    assert (seen.result() or {})["usage"] == USAGE
    assert (seen.unread, seen.failed) == (False, False)


@pytest.mark.live
def test_a_large_answer_without_a_report_has_its_text_counted() -> None:
    seen = observing()
    seen.body(json.dumps({"choices": [{"message": {"content": "x" * 1000}}], "more": [[]] * 50_000}).encode())
    assert seen.result() is None
    assert seen.output_characters >= 1000


@pytest.mark.live
def test_a_large_error_is_known_for_one() -> None:
    seen = observing()
    seen.body(json.dumps({"error": {"message": "x"}, "more": [[]] * 50_000}).encode())
    assert seen.failed


@pytest.mark.live
def test_a_report_that_is_itself_large_is_not_believed() -> None:
    seen = observing()
    seen.body(answer(usage=USAGE | {f"x{number}": number for number in range(50_000)}))
    assert seen.result() is None


def test_a_report_of_very_many_steps_is_not_believed() -> None:
    models = [{"model": f"m{number}", "usage": USAGE} for number in range(51)]
    seen = observing()
    seen.body(answer(usage_breakdown={"models": models[:50]}))
    assert len((seen.result() or {})["parts"]) == 50
    seen.body(answer(usage_breakdown={"models": models}))
    assert seen.result() is None
    assert seen.unread


def test_many_embeddings_are_read_by_their_end() -> None:
    seen = observing("embeddings")
    body = {"data": [{"embedding": [0.5] * 1536}] * 20, "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    seen.body(json.dumps(body).encode())
    assert not bodies.process.pid
    assert (seen.result() or {})["usage"]["prompt_tokens"] == 7


def test_an_event_of_many_values_leaves_its_stream_unread() -> None:
    seen = observing()
    seen.event(Event(b"", "", answer()))
    assert seen.result() is not None
    seen.event(Event(b"", "", answer(more=[[]] * 50_000)))
    assert seen.unread
    assert seen.result() is None, "so that the whole limit is charged where money is limited"


def test_an_image_and_a_long_text_are_light() -> None:
    assert is_light(json.dumps({"b64_json": "A" * 6_000_000}).encode())
    assert is_light(json.dumps({"text": 'He said: "Well", and\nleft. ' * 10_000}, ensure_ascii=False).encode())
