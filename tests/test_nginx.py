"""Behind the nginx that the documents recommend: streams arrive as they are sent, and nobody borrows an address."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings as configured

from grants.models import AuditEvent, Call

from .api import ask
from .front import Front, front
from .live import ROOT, Server, eventually, server
from .test_relay import finished_call

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

CLAIMED = "203.0.113.9"


@pytest.fixture
def machine(transactional_db: Any, settings: Any, tmp_path: Path) -> Iterator[Server]:
    """A server as it stands behind a TLS proxy."""
    settings.AIPASSPORT_URL = "https://localhost"
    settings.AIPASSPORT_AUDIENCE = "https://localhost/proxy"
    with server(tmp_path / "log", AIPASSPORT_TRUST_PROXY="true") as running:
        yield running


@pytest.fixture
def site(machine: Server, tmp_path: Path) -> Iterator[Front]:
    with front(tmp_path, machine) as running:
        yield running


def call(site: Front, token: str, model: str = "sandbox-1", *, content: str = "Hello", **more: Any) -> Any:
    return requests.post(
        f"{site.url}/proxy/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": content}], **more},
        headers={"authorization": f"Bearer {token}"},
        stream=more.get("stream", False),
        timeout=30,
        verify=site.certificate,
    )


def test_nginx_reads_the_recommended_files_without_a_complaint(tmp_path: Path) -> None:
    command = Front(tmp_path, []).command
    (tmp_path / "upstream.conf").write_text((ROOT / "deploy/nginx-upstream.conf").read_text())
    done = subprocess.run([*command, "-t"], text=True, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr
    assert "warn" not in done.stderr


def test_a_stream_arrives_chunk_by_chunk(site: Front, issue: Any) -> None:
    """The provider sends 20 chunks, 50 ms apart."""
    _, token = issue("openai")
    arrivals = [time.monotonic() for _ in call(site, token, "fake-paced", stream=True).iter_content(None)]
    assert len(arrivals) >= 20
    assert arrivals[-1] - arrivals[0] > 0.8
    assert max(b - a for a, b in pairwise(arrivals)) < 0.5
    assert finished_call().outcome == "ok"


def test_a_client_that_leaves_is_noticed_through_the_proxy(site: Front, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    answer = call(site, token, "fake-silent", stream=True)
    next(answer.iter_content(10))
    answer.close()
    assert upstream.disconnected.wait(3)
    assert finished_call().outcome == "client_gone"


def test_a_caller_cannot_claim_another_address_or_scheme(site: Front, machine: Server) -> None:
    forged = {
        "X-Forwarded-For": CLAIMED,
        "X-Forwarded-Proto": "http",
        "X-Real-IP": CLAIMED,
        "Forwarded": f"for={CLAIMED}",
    }
    answer = requests.post(
        f"{site.url}/api/grant-requests/",
        json=ask(),
        headers=forged,
        verify=site.certificate,
        timeout=10,
        allow_redirects=False,
    )
    assert answer.status_code == 201, answer.text  # and no redirect to where it is already
    assert AuditEvent.objects.latest("pk").address == "127.0.0.1"
    straight = requests.post(
        f"{machine.url}/api/grant-requests/",
        json=ask(),
        headers={"X-Forwarded-For": CLAIMED, "X-Forwarded-Proto": "https"},
        timeout=10,
    )
    assert straight.status_code == 201
    assert AuditEvent.objects.latest("pk").address == CLAIMED  # so nobody but the proxy may reach that port


def test_pages_lead_from_plain_http_to_https_and_tokens_do_not(site: Front) -> None:
    page = requests.get(f"{site.plain}/admin/", allow_redirects=False, timeout=10)
    assert page.status_code == 308
    assert page.headers["location"] == "https://localhost/admin/"
    for path in ("/proxy/v1/chat/completions", "/proxy", "/api/tokens/"):
        answer = requests.post(f"{site.plain}{path}", json={}, allow_redirects=False, timeout=10)
        assert answer.status_code == 403, path


def test_a_page_over_https_is_served_and_its_cookies_stay_there(site: Front) -> None:
    page = requests.get(f"{site.url}/admin/login/", verify=site.certificate, allow_redirects=False, timeout=10)
    assert page.status_code == 200
    assert "Secure" in page.headers["set-cookie"]
    assert page.headers["strict-transport-security"]


def test_a_body_of_megabytes_passes_and_is_written_nowhere(site: Front, issue: Any, tmp_path: Path) -> None:
    _, token = issue("sandbox")
    answer = call(site, token, content="x" * 8_000_000)
    assert answer.status_code == 200, answer.text[:300]
    assert "buffered to a temporary file" not in (tmp_path / "error.log").read_text()


def test_a_large_body_with_a_bad_token_gets_its_refusal(site: Front) -> None:
    answer = call(site, "forged", content="x" * 8_000_000)
    assert answer.status_code == 401
    assert answer.json()["error"]


def test_a_token_in_a_url_is_refused_and_stays_out_of_the_log(site: Front, issue: Any) -> None:
    _, token = issue("sandbox")
    path = "/proxy/v1beta/models/sandbox-1:generateContent"
    answer = requests.post(f"{site.url}{path}?key={token}", json={}, verify=site.certificate, timeout=10)
    assert answer.status_code == 400
    line = eventually(lambda: path in site.log.read_text() and site.log.read_text())
    assert " 400 " in line
    assert token[-20:] not in line


def ends(port: int) -> set[str]:
    """The other ends of all connections of this machine with ``port``, those just closed too."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        ports = [place.rpartition(":")[2] for place in line.split()[1:3]]
        if f"{port:04X}" in ports:
            found |= set(ports)
    return found - {f"{port:04X}", "0000"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="connections are counted as Linux lists them")
def test_calls_share_a_connection_to_the_server(site: Front, issue: Any, machine: Server) -> None:
    _, token = issue("sandbox")
    before = ends(machine.port)
    assert {call(site, token).status_code for _ in range(5)} == {200}
    assert len(ends(machine.port) - before) == 1
    assert Call.objects.count() == 5


def test_half_a_minute_of_silence_in_a_stream_is_waited_out(issue: Any, transactional_db: Any, tmp_path: Path) -> None:
    """Straight, and through the proxy; the test waits as long."""
    _, token = issue("openai")
    patient = {"AIPASSPORT_TRUST_PROXY": "true", "AIPASSPORT_READ_TIMEOUT": "60"}
    with (
        server(tmp_path / "log", **patient) as machine,
        front(tmp_path, machine) as site,
        ThreadPoolExecutor(2) as pool,
    ):

        def silence(url: str, ca: str | bool) -> tuple[float, bytes]:
            body = {
                "model": "fake-pauses",
                "stream": True,
                "max_tokens": 31,
                "messages": [{"role": "user", "content": "x"}],
            }
            headers = {"authorization": f"Bearer {token}"}
            path = f"{url}/proxy/v1/chat/completions"
            answer = requests.post(path, json=body, headers=headers, stream=True, timeout=60, verify=ca)
            chunks = answer.iter_content(None)
            assert b"let me think" in next(chunks)
            begun, rest = time.monotonic(), b"".join(chunks)
            return time.monotonic() - begun, rest

        for lasted, rest in pool.map(silence, (site.url, machine.url), (site.certificate, True)):
            assert 30 < lasted < 35
            assert b"done" in rest
            assert rest.endswith(b"[DONE]\n\n")
    assert set(Call.objects.values_list("outcome", flat=True)) == {"ok"}


def test_a_restart_does_not_wait_for_connections_that_nginx_keeps_open(
    site: Front, issue: Any, machine: Server
) -> None:
    _, token = issue("sandbox")
    assert call(site, token).status_code == 200
    time.sleep(1.1)
    begun = time.monotonic()
    machine.stop()
    assert time.monotonic() - begun < 5  # of 30, after which gunicorn kills
    assert call(site, token).status_code == 502


def test_timeouts_and_sizes_leave_the_decision_to_aipassport() -> None:
    conf = (ROOT / "deploy/nginx.conf").read_text()
    (silence,) = re.findall(r"proxy_read_timeout (\d+)s;", conf)
    (body,) = re.findall(r"client_max_body_size (\d+)m;", conf)
    assert int(silence) > configured.AIPASSPORT_READ_TIMEOUT
    assert int(body) * 1024 * 1024 > configured.AIPASSPORT_MAX_BODY_BYTES
