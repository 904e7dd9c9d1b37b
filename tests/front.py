"""A real nginx in front of live servers, with the configuration that the documents recommend."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .live import ROOT, eventually, free_port

_MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/upstream.conf;
    include {folder}/site.conf;
}}
"""


def nginx() -> str:
    """The program. Where there is none the test is skipped; in CI, which installs it, that is an error."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        assert not os.environ.get("CI"), "CI has nginx"
        pytest.skip("no nginx here")
    return found


def certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost, its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "privkey.pem").write_bytes(private)
    return folder / "fullchain.pem"


class Front:
    """``url`` speaks TLS, ``plain`` does not; ``certificate`` is what clients must trust; ``log`` the access log."""

    def __init__(self, folder: Path, servers: Sequence[Any]) -> None:
        self.folder = folder
        self.certificate = str(certificate(folder))
        tls, plain = free_port(), free_port()
        self.url, self.plain = f"https://localhost:{tls}", f"http://localhost:{plain}"
        self.log = folder / "aipassport.log"
        self._write(tls, plain, [f"127.0.0.1:{server.port}" for server in servers])
        self.command = [nginx(), "-p", str(folder), "-c", str(folder / "main.conf")]

    def _write(self, tls: int, plain: int, machines: list[str]) -> None:
        """The recommended files; only places and ports are the test's own."""
        site = (ROOT / "deploy/nginx.conf").read_text()
        for theirs, ours in {
            "    listen [::]:80;\n": "",
            "    listen [::]:443 ssl;\n": "",
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "listen 443 ssl;": f"listen 127.0.0.1:{tls} ssl;",
            "ai.example.com": "localhost",
            "/etc/ssl/aipassport": str(self.folder),
            "/var/log/nginx/access.log": str(self.log),
        }.items():
            assert theirs in site, theirs
            site = site.replace(theirs, ours)
        upstream = (ROOT / "deploy/nginx-upstream.conf").read_text()
        lines = "\n".join(f"server {machine};" for machine in machines)
        (self.folder / "site.conf").write_text(site)
        (self.folder / "upstream.conf").write_text(upstream.replace("server 127.0.0.1:8000;", lines))
        user = "user root;" if os.geteuid() == 0 else ""  # the tests' folders are theirs alone
        (self.folder / "main.conf").write_text(_MAIN.format(folder=self.folder, user=user))

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def front(folder: Path, *servers: Any) -> Iterator[Front]:
    """nginx in front of ``servers``, round robin."""
    running = Front(folder, servers)
    process = subprocess.Popen(running.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(running.is_up, within=10)
        yield running
    finally:
        process.terminate()
        process.wait(10)
