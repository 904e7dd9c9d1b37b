"""A second round of attacks: hostile answers, hostile framing, and what must not hang on one broken call."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import OperationalError, connection
from django.test import RequestFactory

from grants import ledger, policy, tokens
from grants.addresses import is_public
from grants.clock import uuid7
from grants.models import Allowance, Call
from proxy import accounting, upstream
from proxy.dialects.base import UpstreamCall
from proxy.exceptions import UpstreamFailed
from proxy.views import RelayView
from proxy.watch import Watch

from .conftest import CANARY
from .live import eventually
from .test_relay import chat
from .test_relay_attacks import BODY, post, raw

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def provider(answer: Answer) -> Iterator[str]:
    """A provider that speaks bytes: ``answer`` gets the socket and each request's head and body. Yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            held = b""
            while True:
                while b"\r\n\r\n" not in held:
                    if not (more := sock.recv(65536)):
                        return
                    held += more
                head, _, held = held.partition(b"\r\n\r\n")
                sizes = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                length = int(sizes[0]) if sizes else 0
                while len(held) < length:
                    if not (more := sock.recv(65536)):
                        return
                    held += more
                body, held = held[:length], held[length:]
                answer(sock, head + b"\r\n\r\n" + body)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def says(head: str, body: bytes = b"{}") -> Answer:
    """Always the same answer: status line and headers, then ``body`` with its length."""
    lines = f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode("latin-1")
    return lambda sock, _: sock.sendall(lines + body)


def nothing_is_open() -> bool:
    return not Call.objects.open().exists() and Allowance.objects.get().in_flight == 0


# Hostile answers


@pytest.mark.parametrize(
    "head",
    [
        "200 OK\r\ncontent-type: application/json\r\nx-request-id: a\x01b",
        "200 OK\r\ncontent-type: application/json\x7f",
        "429 Slow\r\ncontent-type: application/json\r\nretry-after: \x02",
        "200 OK\r\ncontent-type: application/json\r\nrequest-id: a\r\n folded",
    ],
)
def test_a_header_that_cannot_be_passed_on_leaves_no_call_open(server: Any, issue: Any, head: str) -> None:
    with provider(says(head)) as url:
        _, token = issue("custom", base_url=url)
        with suppress(requests.RequestException):
            assert chat(server, token).status_code in (200, 429)
        eventually(nothing_is_open)


@pytest.mark.parametrize("status", [101, 600, 999])
def test_a_status_that_is_no_answer_is_a_502_and_is_settled(server: Any, issue: Any, status: int) -> None:
    with provider(says(f"{status} Strange\r\ncontent-type: application/json", b"")) as url:
        _, token = issue("custom", base_url=url)
        answer = chat(server, token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
        eventually(nothing_is_open)


def test_an_answer_that_comes_after_an_interim_one_reaches_no_other_caller(server: Any, issue: Any) -> None:
    """A connection on which an answer is still to come must not be used again."""

    def answer(sock: socket.socket, request: bytes) -> None:
        body = json.dumps({"choices": [], "asked": json.loads(request.partition(b"\r\n\r\n")[2])["model"]}).encode()
        whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        if b'"first"' in request:
            sock.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
            time.sleep(0.4)
        sock.sendall(whole)

    with provider(answer) as url:
        _, token = issue("custom", base_url=url)
        chat(server, token, "first")
        assert chat(server, token, "second").json()["asked"] == "second"


def test_a_key_that_an_error_spells_with_escapes_is_seen_too(server: Any, issue: Any) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in CANARY)
    body = f'{{"error": {{"message": "bad key {escaped}"}}}}'.encode()
    with provider(says("400 Bad\r\ncontent-type: application/json", body)) as url:
        _, token = issue("custom", base_url=url)
        answer = chat(server, token)
        assert CANARY not in json.dumps(answer.json())


def test_a_cut_stream_with_a_length_breaks_off_instead_of_waiting(server: Any, issue: Any, by: Any) -> None:
    """The error that ends a cut stream is not of the length that the provider announced."""

    def answer(sock: socket.socket, _: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100000\r\n\r\n")
        sock.sendall(b'data: {"choices": []}\n\n')
        time.sleep(8)

    with provider(answer) as url:
        grant, token = issue("custom", base_url=url)
        with chat(server, token, stream=True, stream_options={"include_usage": True}) as stream:
            parts = stream.iter_content(None)
            assert next(parts)
            began = time.monotonic()
            grant.revoke(by)
            assert b"revoked" in b"".join(parts)
            assert time.monotonic() - began < 3


# Hostile framing


@pytest.mark.parametrize("method", ["TRACE", "CONNECTED", "PROPFIND", "HEAD", "LINK"])
def test_a_method_that_is_not_relayed_is_a_405(server: Any, issue: Any, method: str) -> None:
    _, token = issue("openai")
    assert raw(server, method, "/proxy/v1/chat/completions", token)[0] == 405


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}xx0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"2;a\rb\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_broken_chunks_are_a_400(server: Any, issue: Any, upstream: Any, body: bytes) -> None:
    _, token = issue("openai")
    before = len(upstream.seen)
    head = (
        f"POST /proxy/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(5)
        sock.sendall(head.encode() + body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 400")
    assert len(upstream.seen) == before


def test_half_an_upload_is_not_taken_for_a_whole_one(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    before = len(upstream.seen)
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + b"x" * 1000
    )
    head = (
        f"POST /proxy/v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        "content-type: multipart/form-data; boundary=b\r\ncontent-length: 100000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(5)
        sock.sendall(head.encode() + form)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(65536).startswith(b"HTTP/1.1 400")
    assert len(upstream.seen) == before


def test_a_caller_chooses_neither_the_script_name_nor_the_scheme(server: Any, issue: Any) -> None:
    """gunicorn takes both from headers of a peer on this machine, which every local reverse proxy is."""
    _, token = issue("openai")
    assert raw(server, "GET", "/proxy/health", token, headers={"SCRIPT_NAME": "/proxy"})[0] == 404
    assert raw(server, "GET", "/health", token, headers={"SCRIPT_NAME": "/other"})[0] == 200
    headers = {"x-forwarded-proto": "https", "x-forwarded-ssl": "off"}
    assert raw(server, "GET", "/health", token, headers=headers)[0] == 200


def test_a_token_in_a_malformed_line_does_not_reach_the_log(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    for line in (f"authorization Bearer {token}", f"Bearer {token}: x", f"authorization: Bearer {token}\x01"):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(f"GET /proxy/v1/models HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n".encode())
            assert sock.recv(65536).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(f"GET /proxy/v1/models?key={token} x HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        sock.recv(65536)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(f"GET /proxy/v1/models HTTP/1.1\r\nauthorization: Bearer {token}\r\n".encode())
    time.sleep(0.2)
    assert token not in server.log.read_text()


def test_no_database_connection_is_held_while_a_body_arrives(grant: Any, by: Any) -> None:
    """A pool of four, and four callers that send a byte a minute: nobody else would get in."""
    held: list[bool] = []

    class SlowBody:
        def read(self, *_: Any) -> bytes:
            held.append(connection.connection is not None)
            return b""

    token = tokens.mint(grant, by=by).token
    headers = {"authorization": f"Bearer {token}"}
    request = RequestFactory().post("/proxy/", b"{", content_type="application/json", headers=headers)
    request.META["HTTP_TRANSFER_ENCODING"] = "chunked"
    request.META["wsgi.input"] = SlowBody()
    assert RelayView.as_view()(request, path="v1/chat/completions").status_code == 400
    assert held == [False]


# One broken call, and all the others


def admitted(grant: Any, by: Any, worker: Any) -> Any:
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    entry = ledger.Entry(id=uuid7(), jti=claims.jti, kid=claims.kid, worker=worker, route="openai.chat")
    ledger.admit(policy.read(claims), entry)
    return entry.id


def test_a_settlement_that_the_database_will_never_take_does_not_stop_the_watch(grant: Any, by: Any) -> None:
    watch = Watch(worker=uuid4())
    ledger.beat(watch.worker)
    poisoned, other = admitted(grant, by, watch.worker), admitted(grant, by, watch.worker)
    watch.settle(poisoned, ledger.Settlement("ok", 200, cost=-1), grant.pk)
    watched = watch.enter(other, None)
    grant.revoke(by)
    watch.tick(time.monotonic())
    assert watched.cut is not None, "revocation is now, whatever became of another call"
    call = Call.objects.get(pk=poisoned)
    assert (call.finished_at is not None, call.cost, call.estimated) == (True, None, True)


def test_a_call_is_settled_though_its_usage_cannot_be_read(grant: Any, by: Any) -> None:
    """Bigger than the database's integers: SQLite's driver refuses with an error that is not the database's."""
    watch = Watch(worker=uuid4())
    ledger.beat(watch.worker)
    call = admitted(grant, by, watch.worker)
    watch.settle(call, ledger.Settlement("ok", 200, input_tokens=2**70, cost=2**70), grant.pk)
    watch.tick(time.monotonic())
    assert nothing_is_open()


def test_an_admission_that_fails_behind_its_commit_is_taken_back(grant: Any, by: Any, monkeypatch: Any) -> None:
    """The row stands, nobody will ever finish it, and its worker is alive: no reaper comes."""
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    allowed = policy.read(claims)

    admit = ledger.admit

    def broken(*admission: Any) -> None:
        admit(*admission)
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(accounting, "watch", watch := Watch(worker=uuid4()))
        watch._thread = threading.current_thread()  # ticks by hand
        ledger.beat(watch.worker)
        patched.setattr(ledger, "admit", broken)
        with pytest.raises(OperationalError):
            accounting.open_call(claims, allowed, UpstreamCall("openai.models", "GET", "/v1/models"), None)
    assert not nothing_is_open()
    watch.tick(time.monotonic())
    assert nothing_is_open()
    assert Allowance.objects.get().requests == 0


def test_a_database_that_takes_no_admission_for_hours_does_not_fill_the_memory_of_its_workers() -> None:
    """A disk that is full, say: policies can be read all the time, so that each call comes as far as its admission."""
    watch = Watch(worker=uuid4())
    for _ in range(3000):
        watch.doubt(uuid4())
    assert watch.unsettled == 1000


def test_a_pooled_connection_does_not_see_yesterdays_grants(grant: Any, by: Any) -> None:
    """A cursor that nobody read to its end would pin what the next user of its connection sees."""
    ready, go = threading.Event(), threading.Event()

    def elsewhere() -> None:
        connection.ensure_connection()  # one of its own
        ready.set()
        go.wait(5)
        grant.revoke(by)
        connection.close()

    other = threading.Thread(target=elsewhere)
    other.start()
    ready.wait(5)
    cursor = connection.cursor()
    cursor.execute("SELECT jti FROM grants_auditevent UNION ALL SELECT app_name FROM grants_grant")
    cursor.fetchone()
    connection.close()
    connection.ensure_connection()
    go.set()
    other.join()
    with pytest.raises(policy.Denied) as caught:
        policy.read(tokens.Claims(grant.pk, "0" * 32, "0" * 32, 0, 0, 2**40))
    assert caught.value.code == "grant_revoked"
    assert cursor is not None  # alive until here


@pytest.mark.parametrize("address", ["::127.0.0.1", "fec0::1", "64:ff9b:1::7f00:1", "5f00::1", "4000::1"])
def test_no_odd_spelling_of_an_address_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_a_tls_error_behind_the_handshake_is_a_call_that_reached_the_provider(
    settings: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    settings.AIPASSPORT_UPSTREAM_CA_BUNDLE = certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(65536)
            socket.socket(fileno=os.dup(tls.fileno())).sendall(b"this is no TLS record at all")
            time.sleep(0.2)

    threading.Thread(target=serve, daemon=True).start()
    call = UpstreamCall("openai.chat", "POST", "/v1/chat/completions", json=b"{}")
    with pytest.raises(UpstreamFailed) as caught:
        upstream.Exchange().send(f"https://localhost:{listener.getsockname()[1]}", {}, call)
    assert caught.value.connected


def self_signed(folder: Any) -> str:
    """The path of a certificate for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(encoding) + private)
    return str(path)


def test_the_requests_of_this_file_are_well_formed(server: Any, issue: Any) -> None:
    """Else the refusals above would prove nothing."""
    _, token = issue("openai")
    assert post(server, "/proxy/v1/chat/completions", token, BODY | {"model": "sandbox-1"}).status_code == 200


def test_a_refusal_for_the_database_s_sake_does_not_ask_it_once_more(issue: Any, monkeypatch: Any) -> None:
    """Who waited for a connection in vain would wait as long again for the headers that tell of limits."""
    _, token = issue("sandbox", max_requests=5)

    def away(*_: Any) -> None:
        raise OperationalError("away")

    asked: list[Any] = []
    monkeypatch.setattr(ledger, "admit", away)
    monkeypatch.setattr(ledger, "standing", asked.append)
    body = {"model": "sandbox-1", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {token}"}
    request = RequestFactory().post("/proxy/", body, content_type="application/json", headers=headers)
    answer = RelayView.as_view()(request, path="v1/chat/completions")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert asked == []
