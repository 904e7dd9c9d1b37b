"""Fetches a price list from an operator's URL, over the guarded connections of ``upstream.py``."""

from __future__ import annotations

import threading

from grants.models.keys import url_problem

from .dialects.base import UpstreamCall
from .exceptions import RelayError
from .pricing.price_file import MAX_BYTES, Unacceptable
from .upstream import Exchange

_DEADLINE = 60.0  # seconds for the whole answer
_HEADERS = {"accept": "application/json"}


def fetch(url: str) -> bytes:
    """The body of the answer. Redirects are not followed.

    Raises:
        Unacceptable: no whole answer of an acceptable size came from a public address.
    """
    if problem := url_problem(url):
        raise Unacceptable(f"The URL of the prices: {problem}")
    exchange = Exchange()
    deadline = threading.Timer(_DEADLINE, exchange.abort)
    deadline.daemon = True
    deadline.start()
    try:
        exchange.send(url, {}, UpstreamCall(route="prices", method="GET", path="", headers=_HEADERS))
        if exchange.status != 200:
            raise Unacceptable(f"The URL answered with HTTP {exchange.status}. Redirects are not followed.")
        body = exchange.read_all(MAX_BYTES + 1)
    except RelayError as error:
        raise Unacceptable(f"The prices could not be fetched: {error.message}") from error
    finally:
        deadline.cancel()
        exchange.close()
    if exchange.length is not None and exchange.length != len(body):
        raise Unacceptable("The answer is larger than the limit, or was cut.")
    return body
