"""nginx in front of several servers, as the documentation recommends it: TLS, streaming, long silences."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .live import free_port

_CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};

  upstream machines {{
    {machines}
    keepalive 64;
  }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass http://machines;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_next_upstream off;
      proxy_read_timeout 650s;
      client_max_body_size 33m;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Frontend:
    """``url`` is where clients go; ``certificate`` is what they must trust."""

    url: str
    certificate: str


def _certify(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))


def need_nginx() -> None:
    """Skip without it, but not where all must run."""
    if shutil.which("nginx") is None:
        if os.environ.get("CI") == "true":
            raise RuntimeError("nginx is missing: apt-get install nginx-light")
        pytest.skip("nginx is not installed")


@contextmanager
def nginx(folder: Path, servers: Sequence[Any]) -> Iterator[Frontend]:
    """In turns to each of ``servers``."""
    need_nginx()
    folder.mkdir()
    _certify(folder)
    port = free_port()
    machines = " ".join(f"server 127.0.0.1:{server.port} max_fails=0;" for server in servers)
    user = "user root;" if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, machines=machines, user=user))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)])
    frontend = Frontend(f"https://127.0.0.1:{port}", str(folder / "cert.pem"))
    try:
        _wait(frontend, process, folder)
        yield frontend
    finally:
        process.terminate()
        process.wait(10)


def _wait(frontend: Frontend, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            assert requests.get(f"{frontend.url}/health", verify=frontend.certificate, timeout=5).status_code == 200
            return
        except requests.ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "error.log").read_text()) from None
        time.sleep(0.05)
