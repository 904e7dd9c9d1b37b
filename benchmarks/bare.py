"""The floor: a WSGI function that relays POSTs with one requests session. No Django, no checks, no ledger.

``/small/…`` and ``/paced/…`` go to the base URLs in ``SMALL_UPSTREAM`` and ``PACED_UPSTREAM``. Run it as
``gunicorn -w 2 -k gevent bare:app``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

_UPSTREAMS = {name: os.environ[f"{name.upper()}_UPSTREAM"] for name in ("small", "paced")}
_session = requests.Session()
_session.trust_env = False
_session.mount("http://", HTTPAdapter(pool_maxsize=256))  # as many as the relay keeps: reconnecting is not the floor


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Forward one POST; hand its answer on as it arrives."""
    _, upstream, path = environ["PATH_INFO"].split("/", 2)
    response = _session.post(
        f"{_UPSTREAMS[upstream]}/{path}",
        data=environ["wsgi.input"].read(),
        headers={"content-type": "application/json", "authorization": "Bearer provider-key"},
        stream=True,
        allow_redirects=False,
        timeout=(10, 600),
    )
    names = ("content-type", "content-length")
    headers = [(name, response.headers[name]) for name in names if name in response.headers]
    start_response(f"{response.status_code} {response.reason}", headers)
    return _body(response)


def _body(response: requests.Response) -> Iterator[bytes]:
    try:
        while chunk := response.raw.read1(65536):
            yield chunk
    finally:
        response.close()
