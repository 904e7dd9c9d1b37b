"""The HTTP client: what goes to a provider, where it may go, and how its failures are said."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import requests
import responses
import urllib3

from proxy import guarded, upstream
from proxy.dialects.base import FilePart, Form, UpstreamCall
from proxy.exceptions import UpstreamFailed, UpstreamTimeout

from .conftest import CANARY

CALL = UpstreamCall(route="openai.chat", method="POST", path="/v1/chat/completions", json=b'{"model":"m"}')
KEY = {"authorization": f"Bearer {CANARY}"}
PROVIDER = "https://api.openai.com"


def send(base_url: str = PROVIDER, call: UpstreamCall = CALL) -> upstream.Exchange:
    exchange = upstream.Exchange()
    exchange.send(base_url, KEY, call)
    return exchange


@responses.activate
def test_the_request_is_built_from_nothing_but_the_call_and_the_key() -> None:
    responses.post(f"{PROVIDER}/v1/chat/completions", json={"ok": True})
    exchange = send()
    assert exchange.status == 200
    sent = responses.calls[0].request
    assert sent.body == CALL.json
    assert dict(sent.headers) == {
        "user-agent": "AIPassport",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "Content-Length": "13",
        "authorization": f"Bearer {CANARY}",
    }


@responses.activate
def test_netrc_and_proxy_variables_change_nothing(monkeypatch: Any, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.openai.com login thief password thief")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")
    responses.post(f"{PROVIDER}/v1/chat/completions", json={})
    send()
    assert responses.calls[0].request.headers["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    ("error", "kind", "connected"),
    [
        (requests.ConnectTimeout(), UpstreamTimeout, False),
        (requests.ReadTimeout(), UpstreamTimeout, True),
        (requests.exceptions.SSLError("certificate of host secret.internal"), UpstreamFailed, False),
        (requests.exceptions.ProxyError("x"), UpstreamFailed, False),
        (requests.ConnectionError("x"), UpstreamFailed, True),
        (requests.exceptions.ChunkedEncodingError("x"), UpstreamFailed, True),
    ],
)
@responses.activate
def test_foreign_errors_are_translated_once_and_their_words_stay_here(
    error: Exception, kind: type[Exception], connected: bool
) -> None:
    responses.post(f"{PROVIDER}/v1/chat/completions", body=error)
    with pytest.raises(kind) as caught:
        send()
    assert caught.value.connected is connected  # type: ignore[attr-defined]
    assert "secret.internal" not in str(caught.value)
    assert CANARY not in repr(caught.value)


def refusal(url: str) -> tuple[type, str, int, str, bool]:
    """What is told of a call to ``url``."""
    with pytest.raises(UpstreamFailed) as caught:
        send(url)
    error = caught.value
    return type(error), error.code, error.status, error.message, error.connected


@pytest.mark.live
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_private_address_is_refused_alike_whether_its_port_is_open_or_closed(settings: Any, host: str) -> None:
    """No connection is even tried: its error, or the time that it takes, would tell."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host.strip("[]"), 0))
        listener.listen()
        url = f"http://{host}:{listener.getsockname()[1]}"
        while_open = refusal(url)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert while_open == refusal(url)
    assert while_open[1:3] == ("upstream_address_refused", 502)


def test_a_name_that_does_not_exist_is_refused_as_one_that_is_private(settings: Any, monkeypatch: Any) -> None:
    """Else anybody with a key could ask which internal names exist."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False

    def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "vault.corp.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 1))]
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert refusal("https://vault.corp.example") == refusal("https://missing.corp.example")


@pytest.mark.live
@pytest.mark.parametrize("port", ["open", "closed"])
def test_a_name_that_resolves_anew_while_it_is_connected_to_tells_nothing(
    settings: Any, monkeypatch: Any, port: str
) -> None:
    """DNS rebinding: what was checked is what is connected to, and the peer is checked again."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    looked_up = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if port == "open":
            listener.listen()
        number = listener.getsockname()[1]

        def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
            looked_up.append(host)
            found = "127.0.0.1" if len(looked_up) > 1 and host == "api.rebind.example" else host
            found = "192.0.2.1" if len(looked_up) == 1 else found
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, number))]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        # 192.0.2.1 is for documentation; here it is taken for public, and stands for a host that does not answer.
        monkeypatch.setattr(guarded, "is_public", lambda address: str(address) == "192.0.2.1")
        settings.AIPASSPORT_CONNECT_TIMEOUT = 0.5
        with pytest.raises((UpstreamFailed, UpstreamTimeout)):
            send(f"http://api.rebind.example:{number}")
        listener.settimeout(0.1)
        if port == "open":
            with pytest.raises(TimeoutError):
                listener.accept()
    assert looked_up == ["api.rebind.example", "192.0.2.1"], "the name is looked up once"


@pytest.mark.live
def test_the_connected_peer_is_checked_as_well(settings: Any, monkeypatch: Any) -> None:
    """A route, or a translation on the way, may lead elsewhere than the address says."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(guarded._Guarded, "_public_addresses", lambda self: ["127.0.0.1"])
        assert refusal(f"http://api.example:{port}")[1] == "upstream_address_refused"
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(2)
            assert accepted.recv(1) == b""


def test_the_name_stays_what_tls_expects_in_the_certificate(settings: Any, monkeypatch: Any) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    connection = guarded._GuardedHTTPS("api.example", 1, timeout=1)
    monkeypatch.setattr(guarded._Guarded, "_public_addresses", lambda self: ["127.0.0.1", "::1"])
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        connection._new_conn()
    assert connection.host == "api.example"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::ffff:224.0.0.1", False),
        ("::127.0.0.1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2606:4700::1111", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    import ipaddress

    assert guarded.is_public(ipaddress.ip_address(address)) is public


def test_an_address_is_no_name_and_waits_for_no_other_lookup() -> None:
    from aipassport.resolver import Resolver

    resolver = Resolver()
    resolver.pool = None  # its threads
    for address in ("127.0.0.1", "::1"):
        assert {found[4][:2] for found in resolver.getaddrinfo(address, 443)} == {(address, 443)}


def test_a_multipart_body_is_streamed_from_its_spool_and_re_encoded_exactly(tmp_path: Any) -> None:
    import io

    from django.core.files.uploadhandler import MemoryFileUploadHandler
    from django.http.multipartparser import MultiPartParser

    from proxy import multipart

    content = bytes(range(256)) * 100
    form = Form(
        fields=(("model", "whisper-1"), ("prompt", 'quotes " and\r\nlines é')),
        files=(FilePart("file", 'ev"il\r\n.wav', "audio/wav", len(content), io.BytesIO(content)),),
    )
    content_type, length, blocks = multipart.encode(form)
    body = b"".join(blocks)
    assert len(body) == length
    meta = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(length)}
    fields, files = MultiPartParser(meta, io.BytesIO(body), [MemoryFileUploadHandler()]).parse()
    assert fields["prompt"] == 'quotes " and\r\nlines é'
    assert files["file"].read() == content
    assert multipart.parse(meta, io.BytesIO(body)).fields == form.fields
