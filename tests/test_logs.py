"""The log: a line a call that tells who, what, how long and how much, and never what was said or with which key."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from aipassport.logs import JSONFormatter
from grants.models import Call
from proxy.telemetry.logs import Line

from .callers import Caller
from .conftest import CANARY
from .live import ROOT, eventually, server
from .test_limits_live import PER_TOKEN, price
from .test_relay import chat

PROMPT = "PROMPT-CANARY-7f3a what is said stays said"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def json_server(tmp_path: Path, transactional_db: Any) -> Iterator[Any]:
    """At DEBUG, as all servers of the tests."""
    with server(tmp_path / "log", AIPASSPORT_LOG_FORMAT="json") as running:
        yield running


def told(server: Any, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if line["logger"] == "aipassport.calls" and line["event"] == event]


def ask(server: Any, token: str, model: str = "sandbox-1", headers: dict[str, str] | None = None, **more: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], **more}
    headers = {"authorization": f"Bearer {token}", **(headers or {})}
    return requests.post(f"{server.url}/proxy/v1/chat/completions", json=body, headers=headers, timeout=30)


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
class TestLinesOfCalls:
    def test_a_call_s_line_agrees_with_its_row(self, json_server: Any, issue: Any) -> None:
        grant, token = issue("openai", max_cost=10**10)
        price(PER_TOKEN)
        answer = ask(json_server, token, "fake-metered", {"traceparent": TRACEPARENT}, max_tokens=300)
        call = Call.objects.get()
        (line,) = eventually(lambda: told(json_server, "call"))
        assert line["call"] == str(call.pk) == answer.headers["x-aipassport-call"]
        assert (line["grant"], line["app"], line["trace"]) == (str(grant.pk), "Notebook", TRACE)
        assert (line["provider"], line["model"], line["route"]) == ("openai", "fake-metered", "openai.chat")
        assert (line["outcome"], line["status"], line["stream"]) == ("ok", 200, False)
        assert (line["input_tokens"], line["output_tokens"]) == (call.input_tokens, call.output_tokens)
        assert line["cost_usd"] == pytest.approx((call.cost or 0) / 1e9)
        assert line["cost_usd"] > 0
        assert line["first_byte_us"] == call.first_byte_us
        assert line["total_us"] >= line["added_us"] + line["first_byte_us"] > line["added_us"] > 0
        assert line["level"] == "INFO"

    def test_a_call_whose_cost_nobody_knows_tells_the_bound_that_the_ledger_charged(
        self, json_server: Any, issue: Any
    ) -> None:
        _, token = issue("openai", max_cost=10**10)
        price(PER_TOKEN)
        assert Caller(json_server, token).ask("fake-dies", max_tokens=300).status == 0
        call = eventually(lambda: Call.objects.exclude(finished_at=None).first())
        (line,) = eventually(lambda: told(json_server, "call"))
        assert call.cost == call.reserved > 0
        assert (line["outcome"], line["estimated"]) == ("upstream_broken", True)
        assert line["cost_usd"] == pytest.approx(call.cost / 1e9)

    def test_a_refusal_s_line_has_its_code_and_what_is_known_so_far(
        self, json_server: Any, issue: Any, by: Any
    ) -> None:
        grant, token = issue("sandbox", models=("sandbox-1",))
        ask(json_server, token, "gpt-4o", {"traceparent": TRACEPARENT})
        ask(json_server, "no-token")
        grant.revoke(by)
        ask(json_server, token)
        model, forged, revoked = eventually(lambda: (seen := told(json_server, "refusal"))[2:] and seen)
        assert (model["code"], model["status"], model["trace"]) == ("model_not_granted", 404, TRACE)
        assert (model["grant"], model["model"], model["provider"]) == (str(grant.pk), "gpt-4o", "sandbox")
        assert (forged["code"], forged["status"], forged["grant"]) == ("invalid_token", 401, "")
        assert (revoked["code"], revoked["grant"], revoked["app"]) == ("grant_revoked", str(grant.pk), "")
        assert told(json_server, "call") == []
        assert "django.request" not in json_server.log.read_text(), "one line tells of a refusal"

    def test_no_line_repeats_a_token_a_key_a_prompt_or_an_answer(self, json_server: Any, issue: Any) -> None:
        _, token = issue("openai")
        said = [ask(json_server, token, model, stream=stream) for model, stream in SPOKEN]
        for model in (token, CANARY, f"x {token}"):
            said.append(ask(json_server, token, model))
        said.append(ask(json_server, token, headers={"traceparent": token}))
        said.append(ask(json_server, token, headers={"x-api-key": CANARY}))
        said.append(ask(json_server, token[:-4] + "AAAA"))
        said.append(ask(json_server, token, surprise=PROMPT))
        said.append(requests.post(f"{json_server.url}/proxy/v1/chat/completions?key={token}", timeout=10))
        eventually(lambda: len(told(json_server, "call")) + len(told(json_server, "refusal")) == len(said))
        log = json_server.log.read_text()
        for secret in (token, token.rpartition(".")[2], CANARY, CANARY[3:30], PROMPT, "PROMPT-CANARY", ANSWER):
            assert secret not in log
        assert any(ANSWER in answer.text for answer in said), "the sandbox answers with these words"

    def test_every_line_of_the_server_is_json_from_its_start_to_its_end(self, json_server: Any, issue: Any) -> None:
        _, token = issue("sandbox")
        ask(json_server, token)
        json_server.stop()
        lines = [json.loads(line) for line in json_server.log.read_text().splitlines()]
        assert {"gunicorn.error", "aipassport.calls"} <= {line["logger"] for line in lines}
        assert all(line["time"].endswith("+00:00") and line["level"] for line in lines)

    def test_at_warning_there_are_no_lines_of_calls(self, tmp_path: Path, issue: Any) -> None:
        _, token = issue("sandbox")
        with server(tmp_path / "log", LOG_LEVEL="WARNING") as running:
            assert chat(running, token).status_code == 200
            running.stop()
            assert "aipassport.calls" not in running.log.read_text()

    def test_without_json_a_call_is_one_readable_line(self, server: Any, issue: Any) -> None:
        grant, token = issue("sandbox")
        before = len(server.log.read_text())
        assert Caller(server, token).ask("sandbox-1").status == 200
        (line,) = eventually(
            lambda: [line for line in server.log.read_text()[before:].splitlines() if "aipassport.calls" in line]
        )
        assert f"INFO aipassport.calls call call={Call.objects.get().pk} grant={grant.pk} app=Notebook " in line
        assert " outcome=ok status=200 " in line


ANSWER = "You said:"  # the sandbox's first words
SPOKEN = [("sandbox-1", False), ("sandbox-1", True), ("fake-dies", True), ("fake-fails", True)] + [
    (name, False) for name in ("fake-echoes-the-key", "fake-refuses-the-key", "fake-html-error", "fake-redirects")
]


def test_every_field_is_in_the_operators_table() -> None:
    table = (ROOT / "docs/operations.md").read_text().partition("| Field |")[2]
    source = ast.parse((ROOT / "proxy/telemetry/logs.py").read_text())
    fields = {key.value for node in ast.walk(source) if isinstance(node, ast.Dict) for key in node.keys}
    assert len(fields) > 15
    assert [name for name in fields if f"`{name}`" not in table] == []


# Formatting


@pytest.mark.parametrize("nasty", ['a "b"', "two\nlines", "\u2028", "x=1 y=2", "\x1b[31m", "ü", "\ud800"])
def test_what_callers_choose_cannot_begin_a_line_or_a_field_of_its_own(nasty: str) -> None:
    record = logging.makeLogRecord({"name": "x", "msg": Line("call", {"app": nasty, "outcome": "ok"})})
    as_json = JSONFormatter().format(record)
    assert json.loads(as_json)["app"] == nasty
    for text in (as_json, record.getMessage()):
        assert text.isascii()
        assert text.isprintable()
    assert record.getMessage() == f"call app={json.dumps(nasty)} outcome=ok"


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.makeLogRecord({"name": "x", "msg": "failed", "exc_info": (ValueError, error, None)})
    line = JSONFormatter().format(record)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]
