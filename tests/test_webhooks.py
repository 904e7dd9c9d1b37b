"""Webhooks, seen from their receiver: signed as Standard Webhooks says, sent to public addresses only, tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from django.utils import timezone

from grants import crypto, notices
from grants.models import Actor, Notice, Preferences
from proxy import courier

from . import live
from .api import owner
from .conftest import CANARY
from .live import eventually

pytestmark = pytest.mark.django_db


class Receiver(ThreadingHTTPServer):
    """What an owner runs. ``answer``: status and headers; ``got``: the requests that came, as (headers, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, dict[str, str]] = (204, {})
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.hangs = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        time.sleep(self.server.hangs)
        status, headers = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.got.append(({"method": "GET"}, b""))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def secret(alice: Any, by: Actor, receiver: Receiver, settings: Any) -> str:
    """Alice's webhook leads to the receiver, on a private network as far as this broker is concerned."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    made = Preferences.of(alice).change(by=by, webhook_url=receiver.url)
    assert made is not None
    return made


def verify(secret: str, headers: dict[str, str], body: bytes, *, now: float, tolerance: int = 300) -> dict[str, Any]:
    """The receiver of ``docs/notices.md``, by the specification and nothing of ours."""
    signed_at = int(headers["webhook-timestamp"])
    if abs(now - signed_at) > tolerance:
        raise ValueError("too old, or from the future")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = [item.partition(",") for item in headers["webhook-signature"].split()]
    if not any(version == "v1" and hmac.compare_digest(expected, value) for version, _, value in given):
        raise ValueError("not signed by the broker")
    return json.loads(body)


def test_a_receiver_can_check_who_sent_it_and_when(secret: str, alice: Any, receiver: Receiver) -> None:
    notices.send_test(alice)
    assert courier.deliver() == 1
    ((headers, body),) = receiver.got
    event = verify(secret, headers, body, now=time.time())
    assert event["type"] == "test"
    assert event["id"] == headers["webhook-id"] == str(Notice.objects.get().pk)
    assert datetime.fromisoformat(event["timestamp"]) == Notice.objects.get().created_at
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "AIPassport"
    assert Notice.objects.get().state == "delivered"
    for change in (
        {"body": body + b" "},
        {"headers": headers | {"webhook-id": "another"}},
        {"headers": headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}},
        {"secret": "whsec_" + base64.b64encode(bytes(32)).decode()},
        {"now": time.time() + 301},
    ):
        with pytest.raises(ValueError):
            verify(**{"secret": secret, "headers": headers, "body": body, "now": time.time()} | change)  # type: ignore[arg-type]


def test_the_signature_is_that_of_the_specifications_example(alice: Any) -> None:
    """The example of the Standard Webhooks libraries: key, id, time and body → signature."""
    key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    preferences = Preferences(user=alice, webhook_url="https://hooks.example/")
    preferences.webhook_secret = crypto.encrypt(key, context=preferences.context)
    body = b'{"test": 2432232314}'
    headers = courier.signed(preferences, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("sealed", ["", "v1.x.y"])
def test_nothing_is_sent_without_a_secret(alice: Any, secret: str, receiver: Receiver, sealed: str) -> None:
    notices.send_test(alice)
    Preferences.objects.filter(user=alice).update(webhook_secret="v1.broken.broken")
    assert courier.deliver() == 1
    assert receiver.got == []
    assert Notice.objects.get().state == "given up"
    with pytest.raises(courier.Undelivered):
        courier.signed(Preferences(user=alice, webhook_secret=sealed), "id", 0, b"")


def test_an_attempt_that_is_repeated_has_the_same_id_and_body_and_a_new_time(
    secret: str, alice: Any, receiver: Receiver
) -> None:
    receiver.answer = (500, {})
    notices.send_test(alice)
    courier.deliver()
    assert Notice.objects.get().last_error == "The webhook answered with HTTP 500."
    receiver.answer = (200, {})
    Notice.objects.update(next_attempt_at=timezone.now())
    time.sleep(1.1)
    courier.deliver()
    (first, body), (second, again) = receiver.got
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert first["webhook-timestamp"] < second["webhook-timestamp"]
    verify(secret, second, again, now=time.time())
    assert Notice.objects.get().state == "delivered"


@pytest.mark.parametrize(
    ("status", "state"),
    [(200, "delivered"), (299, "delivered"), (400, "trying again"), (429, "trying again"), (410, "given up")],
)
def test_what_the_receivers_answer_means(secret: str, alice: Any, receiver: Receiver, status: int, state: str) -> None:
    receiver.answer = (status, {"set-cookie": "a=b", "content-encoding": "gzip"})
    notices.send_test(alice)
    courier.deliver()
    assert Notice.objects.get().state == state


def test_a_redirect_is_not_followed(secret: str, alice: Any, receiver: Receiver) -> None:
    for status in (301, 302, 303, 307, 308):
        receiver.answer = (status, {"location": "http://169.254.169.254/latest/"})
        receiver.got.clear()
        Notice.objects.all().delete()
        notices.send_test(alice)
        courier.deliver()
        assert len(receiver.got) == 1
        assert "redirect" in Notice.objects.get().last_error


def test_an_answer_that_never_ends_is_not_read(secret: str, alice: Any, receiver: Receiver) -> None:
    receiver.answer = (200, {"content-length": str(10**12)})
    notices.send_test(alice)
    started = time.monotonic()
    courier.deliver()
    assert time.monotonic() - started < 2
    assert Notice.objects.get().state == "delivered"


def test_a_receiver_that_hangs_is_left(secret: str, alice: Any, receiver: Receiver, monkeypatch: Any) -> None:
    monkeypatch.setattr(courier, "_DEADLINE", 0.3)
    receiver.hangs = 3
    notices.send_test(alice)
    started = time.monotonic()
    courier.deliver()
    assert time.monotonic() - started < 2
    assert Notice.objects.get().last_error == "The webhook broke the connection, or took too long."


def test_one_owners_dead_webhook_does_not_keep_anothers_notices(
    secret: str, alice: Any, bob: Any, receiver: Receiver, by: Actor
) -> None:
    """Both have something waiting; of Alice's backlog one goes out, then Bob's, then the rest of hers."""
    Preferences.of(bob).change(by=Actor("api", bob), webhook_url=receiver.url + "/bob")
    for user, count in ((alice, 3), (bob, 1)):
        for number in range(count):
            Notice.objects.create(user=user, event="test", channel="webhook", once=str(number))
    assert courier.deliver() == 4
    owners = [Notice.objects.get(pk=headers["webhook-id"]).user for headers, _ in receiver.got]
    assert owners == [alice, bob, alice, alice]


# Where it may go


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_private_address_is_not_connected_to(alice: Any, by: Actor, settings: Any, host: str) -> None:
    """The address decides when a webhook is sent, whatever the URL was when it was saved."""
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host.strip("[]").replace("localhost", "127.0.0.1"), 0))
        listener.listen()
        listener.settimeout(0.2)
        settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
        url = f"http://{host}:{listener.getsockname()[1]}/"
        Preferences.of(alice).change(by=by, webhook_url=url)
        settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
        notices.send_test(alice)
        courier.deliver()
        with pytest.raises(TimeoutError):
            listener.accept()
    assert Notice.objects.get().state == "trying again"


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    alice: Any, by: Actor, settings: Any, monkeypatch: Any
) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        Preferences.of(alice).change(by=by, webhook_url=f"https://hooks.rebind.example:{port}/")
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
        notices.send_test(alice)
        courier.deliver()
        with pytest.raises(TimeoutError):
            listener.accept()


def test_what_failed_tells_nothing_of_the_network_behind(
    alice: Any, by: Actor, settings: Any, receiver: Receiver
) -> None:
    """A port that is open at a private address, and one that is closed: the same words."""
    said = set()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for port in (receiver.server_address[1], closed.getsockname()[1]):
            settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
            Preferences.of(alice).change(by=by, webhook_url=f"http://127.0.0.1:{port}/")
            settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
            Notice.objects.all().delete()
            notices.send_test(alice)
            courier.deliver()
            said.add(Notice.objects.get().last_error)
    assert said == {"No trusted connection to a public address of the webhook could be made."}


def test_netrc_and_proxy_variables_change_nothing(
    secret: str, alice: Any, receiver: Receiver, monkeypatch: Any, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password thief")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    notices.send_test(alice)
    courier.deliver()
    assert "authorization" not in receiver.got[0][0]


def test_the_secret_is_in_no_payload_log_list_or_error(
    secret: str, alice: Any, receiver: Receiver, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answer = (500, {})
    notices.send_test(alice)
    courier.deliver()
    told = caplog.text + json.dumps(owner(alice).get("/api/notices/").body) + repr(receiver.got)
    sealed = Preferences.of(alice).webhook_secret
    for hidden in (secret, secret.removeprefix("whsec_"), sealed):
        assert hidden not in told


# The whole way, through a real server


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_call_through_the_relay_is_told_within_seconds(
    server: Any, issue: Any, secret: str, receiver: Receiver
) -> None:
    grant, token = issue("sandbox", max_requests=2)
    body = {"model": "sandbox-chat", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(3):
        requests.post(f"{server.url}/proxy/v1/chat/completions", json=body, headers=headers, timeout=10)
    events = eventually(lambda: receiver.got, within=15)
    told = [verify(secret, headers, body, now=time.time()) for headers, body in events]
    assert {event["type"] for event in told} <= {"limit.threshold", "grant.exhausted"}
    last = eventually(
        lambda: [event for event in map(_event, receiver.got) if event["data"]["percent"] == 100], within=15
    )
    assert last[0]["data"]["grant"] == str(grant.pk)
    assert last[0]["data"]["used"] == 2


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_key_that_the_provider_refuses_is_told(server: Any, issue: Any, secret: str, receiver: Receiver) -> None:
    grant, token = issue("openai")
    body = {"model": "fake-refuses-the-key", "messages": [{"role": "user", "content": "Hello"}]}
    for _ in range(2):
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.post(f"{server.url}/proxy/v1/chat/completions", json=body, headers=headers, timeout=10)
        assert answer.status_code == 502
    event = _event(eventually(lambda: receiver.got, within=15)[0])
    assert (event["type"], event["data"]["provider_key"]) == ("key.rejected", str(grant.provider_key_id))
    assert CANARY[-8:] not in json.dumps(event)


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_server_that_relays_nothing_delivers_too(
    tmp_path: Path, transactional_db: Any, secret: str, receiver: Receiver, alice: Any
) -> None:
    notices.send_test(alice)
    with live.server(tmp_path / "log") as process:
        eventually(lambda: receiver.got, within=15)
        eventually(lambda: Notice.objects.get().delivered_at)
        process.stop()
    assert _event(receiver.got[0])["type"] == "test"


def _event(got: tuple[dict[str, str], bytes]) -> dict[str, Any]:
    return json.loads(got[1])
