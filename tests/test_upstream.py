"""The HTTP client: what goes to a provider, where it may go, and how its failures are said."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import requests
import responses

from proxy import upstream
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
        "content-length": "13",
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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_private_address_is_refused_before_a_byte_is_sent(settings: Any, host: str) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host.strip("[]"), 0))
        listener.listen()
        listener.settimeout(2)
        with pytest.raises(UpstreamFailed) as caught:
            send(f"http://{host}:{listener.getsockname()[1]}")
        assert caught.value.code == "upstream_address_refused"
        accepted, _ = listener.accept()
        accepted.settimeout(2)
        assert accepted.recv(1) == b""


def test_a_name_that_resolves_to_a_private_address_is_refused(settings: Any, monkeypatch: Any) -> None:
    """DNS rebinding: whatever the name said before, the connected peer decides."""
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
        with pytest.raises(UpstreamFailed) as caught:
            send(f"http://api.rebind.example:{port}")
    assert caught.value.code == "upstream_address_refused"


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
        ("fd00::1", False),
        ("fe80::1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2606:4700::1111", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    import ipaddress

    assert upstream._is_public(ipaddress.ip_address(address)) is public


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
