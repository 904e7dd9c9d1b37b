"""``update_prices`` and ``set_price``: validated, audited, one list for all workers, and no call between two lists."""

from __future__ import annotations

import io
import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from grants import policy as policies
from grants import tokens
from grants.models import Actor, AuditEvent, Call, Grant, PriceList, ProviderKey
from proxy.accounting import open_call
from proxy.dialects.base import Demand, UpstreamCall
from proxy.endings import Ending
from proxy.exceptions import NotGranted

from .callers import Caller
from .conftest import Issue
from .price_files import changed, first, priced, written

pytestmark = pytest.mark.django_db

LOWER = priced("openai", "gpt-3.5-turbo", input_mtok=0.01)
RISE = priced("openai", "gpt-4o", input_mtok=25)


def update(*args: str) -> Any:
    out = io.StringIO()
    call_command("update_prices", *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def told(*args: str) -> str:
    out = io.StringIO()
    call_command("update_prices", *args, stdout=out)
    return out.getvalue()


# The command


def test_prices_of_a_file_are_dated_kept_and_audited(tmp_path: Path) -> None:
    data = update("--file", written(tmp_path, changed(RISE)))
    assert (data["number"], data["status"], data["kept"]) == (1, "in force", 0)
    row = PriceList.objects.get()
    assert row.source == "file prices.json"
    assert row.created_at is not None
    assert {"kind": "higher", "model": "gpt-4o", "unit": "input_mtok", "before": "2.5", "after": "25"}.items() <= next(
        one for one in row.changes if one["unit"] == "input_mtok" and not one["when"]
    ).items()
    event = AuditEvent.objects.get(action="prices.updated")
    assert (event.via, event.detail["number"], event.detail["digest"]) == ("command", 1, row.digest)


def test_the_same_data_makes_no_second_list(tmp_path: Path) -> None:
    path = written(tmp_path, changed(RISE, LOWER))
    assert update("--file", path)["status"] == "in force"
    assert update("--file", path)["status"] == "unchanged"
    assert update("--file", path, "--accept-lower")["status"] == "in force"
    assert update("--file", path, "--accept-lower")["status"] == "unchanged"
    assert update("--file", path)["status"] == "unchanged"
    assert PriceList.objects.count() == 2


def test_lower_prices_are_named_and_wait_for_the_operator_and_then_the_trail_names_them(tmp_path: Path) -> None:
    path = written(tmp_path, changed(RISE, LOWER))
    text = told("--file", path)
    assert "lower  openai gpt-3.5-turbo input_mtok: 0.5 -> 0.01 [kept]" in text
    assert "--accept-lower" in text
    assert AuditEvent.objects.get().detail["lowered"] == []
    assert "[kept]" not in told("--file", path, "--accept-lower")
    event = AuditEvent.objects.first()
    assert event is not None
    assert event.detail["accepted_lower"] is True
    assert "openai gpt-3.5-turbo input_mtok: lower" in event.detail["lowered"]


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    data = update("--file", written(tmp_path, changed(RISE)), "--check")
    assert data["status"] == "checked"
    assert data["counts"]["higher"] >= 1
    assert not PriceList.objects.exists()
    assert not AuditEvent.objects.exists()


def test_without_a_source_the_installed_prices_are_taken_and_change_nothing() -> None:
    data = update()
    assert data["source"].startswith("genai-prices 0.")
    assert (data["status"], data["counts"]) == ("in force", {})
    assert update()["status"] == "unchanged"


@pytest.mark.parametrize("data", [b"{}", b"[" * 100_000, b"NaN", b"x" * (9 * 2**20)])
def test_a_bad_file_is_refused_in_one_line_and_changes_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CommandError, match=r"^Nothing was changed\. [^\n]+$"):
        update("--file", written(tmp_path, data))
    with pytest.raises(CommandError, match="Nothing was changed"):
        update("--file", str(tmp_path / "missing.json"))
    assert not PriceList.objects.exists()


def test_an_update_that_another_one_overtook_is_compared_again(tmp_path: Path, monkeypatch: Any) -> None:
    add, path = PriceList.add, written(tmp_path, changed(RISE))

    def overtaken(**values: Any) -> Any:
        monkeypatch.setattr(PriceList, "add", add)
        update("--installed")  # takes number 1
        return add(**values)

    monkeypatch.setattr(PriceList, "add", overtaken)
    assert update("--file", path)["number"] == 2
    assert list(PriceList.objects.values_list("number", flat=True)) == [2, 1]
    assert AuditEvent.objects.filter(action="prices.updated").count() == 2


def test_a_price_list_is_never_changed_or_deleted() -> None:
    update()
    row = PriceList.objects.get()
    with pytest.raises(TypeError):
        row.save()
    with pytest.raises(TypeError):
        row.delete()


# A URL


class Source(ThreadingHTTPServer):
    """Where an operator keeps prices. ``answer``: status, headers and body."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: Source

    def do_GET(self) -> None:
        self.server.asked += 1
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def source() -> Iterator[Source]:
    with Source(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def url(source: Source) -> str:
    return f"http://127.0.0.1:{source.server_address[1]}/prices.json"


def test_prices_come_from_a_url_of_the_settings(source: Source, settings: Any) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    settings.AIPASSPORT_PRICES_URL = url(source)
    source.answer = (200, {}, changed(RISE))
    assert update()["source"] == url(source)
    assert update("--installed", "--check")["source"].startswith("genai-prices")
    assert source.asked == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://prices.example/data.json",
        "https://127.0.0.1/data.json",
        "https://localhost/data.json",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://user:pw@prices.example/",
        "file:///etc/passwd",
        "sandbox://x",
        "https://prices.example/\nx",
    ],
)
def test_a_url_of_a_private_place_or_without_tls_is_not_asked(address: str) -> None:
    with pytest.raises(CommandError, match="Nothing was changed"):
        update("--url", address)


def test_a_public_name_that_leads_to_a_private_address_is_not_asked(source: Source, monkeypatch: Any) -> None:
    real = __import__("socket").getaddrinfo
    port = source.server_address[1]
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *args, **more: real("127.0.0.1", *args, **more))
    with pytest.raises(CommandError, match="no public IP address"):
        update("--url", f"https://prices.example:{port}/")
    assert source.asked == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((302, {"location": "http://127.0.0.1:1/"}, b""), "HTTP 302"),
        ((404, {}, b"[]"), "HTTP 404"),
        ((200, {}, b"x" * (8 * 2**20 + 5)), "larger than"),
        ((200, {"content-length": "999999"}, b"[]"), "broke the connection|cut"),
        ((200, {}, b"<html>"), "not JSON"),
    ],
)
def test_a_bad_answer_is_refused_and_redirects_are_not_followed(
    source: Source, settings: Any, answer: Any, reason: str
) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    source.answer = answer
    with pytest.raises(CommandError, match=reason):
        update("--url", url(source))
    assert source.asked == 1
    assert not PriceList.objects.exists()


# Calls


def chat(model: str = "gpt-4o", **demand: Any) -> UpstreamCall:
    asked = {"text": 100, "limit": 50} | demand
    return UpstreamCall(
        "openai.chat",
        "POST",
        "/v1/chat/completions",
        models=(model,),
        flavor="chat",
        json=b"{}",
        demand=Demand(**asked),
    )


class _Report:
    """An observer at the end of a stream that reported its usage."""

    output_characters = 200
    failed = False

    def result(self) -> dict[str, Any]:
        return {"model": "gpt-4o", "usage": {"prompt_tokens": 100, "completion_tokens": 50}}


def opened(issued: tuple[Grant, str], call: UpstreamCall) -> Any:
    claims = tokens.verify(issued[1])
    return open_call(claims, policies.read(claims), call, None)


def cost_of(opened: Any) -> int:
    opened.finish(Ending("ok", 200, 1, observer=_Report()))
    return Call.objects.get(pk=opened.id).cost or 0


def test_a_call_that_is_open_while_prices_change_is_charged_by_the_list_of_its_bound(
    issue: Issue, tmp_path: Path
) -> None:
    issued = issue("openai", max_cost=10**12)
    before = opened(issued, chat())
    update("--file", written(tmp_path, changed(RISE)))
    after = opened(issued, chat())
    assert (before.policy.price_list, after.policy.price_list) == ("", PriceList.objects.get().digest)
    assert after.reserved > before.reserved
    assert cost_of(after) == 100 * 25_000 + 50 * 10_000
    assert cost_of(before) == 100 * 2500 + 50 * 10_000


def test_a_refusal_gives_the_command_that_sets_the_price_and_the_command_works(issue: Issue) -> None:
    issued = issue("openai", max_cost=10**12)
    with pytest.raises(NotGranted) as refused:
        opened(issued, chat("gpt-99-sol"))
    assert refused.value.code == "price_unknown"
    command = refused.value.message.split("python manage.py ", 1)[1].split(" (DOLLARS", 1)[0]
    assert command == f"set_price {issued[0].pk} 'gpt-99-sol: input=DOLLARS, output=DOLLARS'"
    with pytest.raises(CommandError, match="decimal string"):
        call_command(*shlex.split(command), stdout=io.StringIO())
    call_command(*shlex.split(command.replace("DOLLARS", "2.50")), stdout=io.StringIO())
    assert opened(issued, chat("gpt-99-sol")).reserved > 0
    assert AuditEvent.objects.filter(action="key.changed", via="command").exists()


@pytest.mark.parametrize(
    ("flavor", "demand", "units"),
    [
        ("speech", {"characters": 10}, "character=DOLLARS"),
        ("transcription", {"audio": (5,)}, "second=DOLLARS"),
        ("images", {"pictures": 1}, "image=DOLLARS"),
        ("embeddings", {}, "input=DOLLARS"),
    ],
)
def test_the_command_names_the_units_that_the_call_needs(
    issue: Issue, flavor: str, demand: dict[str, Any], units: str
) -> None:
    call = UpstreamCall(
        "openai.x", "POST", "/", models=("new-model",), flavor=flavor, json=b"{}", demand=Demand(**demand)
    )
    with pytest.raises(NotGranted) as refused:
        opened(issue("openai", max_cost=10**12), call)
    assert f"'new-model: {units}'" in refused.value.message


@pytest.mark.parametrize(
    "name", ["x'; rm -rf ~ #", "$(id)", "`id`", "a b", "x\ny", "--json", "-x", "ü", "a" * 300, "x'$(id)'"]
)
def test_a_name_that_an_app_made_up_never_reaches_a_shell(issue: Issue, name: str) -> None:
    with pytest.raises(NotGranted) as refused:
        opened(issue("openai", max_cost=10**12), chat(name))
    assert "manage.py" not in refused.value.message
    assert "Provider keys" in refused.value.message


def test_a_tier_without_a_price_gets_no_command_that_would_not_help(issue: Issue) -> None:
    with pytest.raises(NotGranted) as refused:
        opened(issue("openai", max_cost=10**12), chat("gpt-4", tier="turbo"))
    assert "in the tier 'turbo'" in refused.value.message
    assert "manage.py" not in refused.value.message


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_every_server_process_charges_by_the_new_list_from_its_next_call_on(
    servers: Any, issue: Issue, tmp_path: Path
) -> None:
    _, token = issue("openai", max_cost=10**12)
    callers = [Caller(server, token) for server in servers]
    path = written(tmp_path, b"")

    for input_mtok, output_mtok in ((1, 10), (10, 100), (20, 300)):
        prices = {"input_mtok": input_mtok, "output_mtok": output_mtok}
        Path(path).write_bytes(changed(first("openai", id="fake", match={"starts_with": "fake-"}, prices=prices)))
        update("--file", path)
        for caller in callers:
            assert caller.ask().status == 200
            call = Call.objects.latest("id")
            assert call.input_tokens
            assert call.output_tokens
            assert call.cost == 1000 * (call.input_tokens * input_mtok + call.output_tokens * output_mtok)


# set_price


def test_a_price_goes_before_the_others_and_replaces_the_row_of_the_same_models(by: Actor, alice: Any) -> None:
    rows = [{"models": "gpt-*", "input": "9"}, {"models": "local-*", "free": True}]
    key = ProviderKey.add(owner=alice, provider="openai", label="Team", secret="sk-0123456789ab", by=by, prices=rows)
    call_command("set_price", str(key.pk), "gpt-*: input=1, output=2", "tts-1: character=15", stdout=io.StringIO())
    key.refresh_from_db()
    assert key.prices == [
        {"models": "gpt-*", "input": "1", "output": "2"},
        {"models": "tts-1", "character": "15"},
        {"models": "local-*", "free": True},
    ]


@pytest.mark.parametrize("row", ["gpt-4o", "gpt-4o: input=NaN", "gpt-4o: input=-1", ": input=1", "a b: input=1"])
def test_a_price_that_is_none_is_refused_and_nothing_is_changed(sandbox_key: ProviderKey, row: str) -> None:
    with pytest.raises(CommandError):
        call_command("set_price", str(sandbox_key.pk), row, stdout=io.StringIO())
    sandbox_key.refresh_from_db()
    assert sandbox_key.prices == []
    with pytest.raises(CommandError, match="No provider key and no grant"):
        call_command("set_price", "nonsense", "gpt-4o: input=1", stdout=io.StringIO())


# The admin


def test_the_admin_shows_which_list_is_in_force_and_what_changed(client: Client, root: Any, tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    strange = first("openai", id=script, match={"equals": script}, prices={"input_mtok": 7})
    update("--file", written(tmp_path, changed(RISE)))
    update("--file", written(tmp_path, changed(RISE, LOWER, strange)))
    client.force_login(root)
    listed = client.get("/admin/grants/pricelist/").content.decode()
    assert "Price list 2" in listed
    assert "in force" in listed
    assert "replaced" in listed
    page = client.get("/admin/grants/pricelist/2/change/").content.decode()
    assert "gpt-3.5-turbo" in page
    assert "not taken" in page
    assert script not in page
    assert "&lt;script&gt;" in page
    assert client.post("/admin/grants/pricelist/2/delete/").status_code == 403


def test_price_lists_are_for_superusers(client: Client, bob: Any) -> None:
    update()
    client.force_login(bob)
    for page in ("/admin/grants/pricelist/", "/admin/grants/pricelist/1/change/"):
        assert client.get(page).status_code in (302, 403)
