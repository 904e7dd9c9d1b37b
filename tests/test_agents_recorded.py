"""What the agents send, as `make clients ARGS=--record` keeps it: all is understood, and bounded under a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from grants.providers import PROVIDERS, Capability
from proxy import dialects
from proxy.dialects.base import Inbound, UpstreamCall

FILES = sorted((Path(__file__).parent / "fixtures" / "agents").glob("*.json"))
RECORDED = [
    pytest.param(data["provider"], request, id=f"{file.stem}-{number}")
    for file in FILES
    for data in [json.loads(file.read_text())]
    for number, request in enumerate(data["requests"])
]


def read(provider: str, request: dict[str, Any], limit: int | None) -> UpstreamCall:
    url = urlsplit(request["path"])
    inbound = Inbound(
        "POST",
        url.path,
        tuple(parse_qsl(url.query, keep_blank_values=True)),
        headers=request["headers"],
        content_type="application/json",
        body=json.dumps(request["body"]).encode(),
    )
    return dialects.read(inbound, PROVIDERS[provider], (), limit)


def test_every_agent_was_recorded() -> None:
    names = {"claude-code", "codex", "codex-built-in-provider", "gemini-cli", "opencode", "qwen-code", "aider", "llm"}
    assert {file.stem for file in FILES} == names


@pytest.mark.parametrize(("provider", "request_"), [(row.values[0], row.values[1]) for row in RECORDED] or [])
@pytest.mark.parametrize("limit", [None, 4096])
def test_a_recorded_request_is_relayed_and_bounded(provider: str, request_: dict[str, Any], limit: int | None) -> None:
    call = read(provider, request_, limit)
    assert call.capabilities <= {Capability.CHAT}
    if limit is not None:
        assert (call.demand.unbounded, call.demand.hidden) == ("", False)
        assert call.demand.limit is not None
