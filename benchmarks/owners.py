"""An owner of a measured AIPassport, and the grants that are made through the API."""

from __future__ import annotations

import http.cookiejar
import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

EVERY_LIMIT = {  # none is reached
    "max_requests": 10**9,
    "max_concurrency": 1000,
    "max_cost": "1000000",
    "max_cost_per_day": "900000",
    "max_cost_per_month": "950000",
    "max_cost_per_call": "10",
    "requests_per_minute": 60_000_000,
    "tokens_per_minute": 60_000_000,
}


class Owner:
    """Signed in to the desk, and with a token for the API."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url = url
        self._token = ""
        self._token = self.post("auth/token/", {"username": username, "password": password})["access"]
        self._desk = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar := http.cookiejar.CookieJar()))
        self._desk.open(f"{url}/admin/login/").read()
        form = {"username": username, "password": password, "next": "/health"}
        form["csrfmiddlewaretoken"] = next(str(cookie.value) for cookie in jar if cookie.name == "csrftoken")
        self._desk.open(f"{url}/admin/login/", urllib.parse.urlencode(form).encode()).read()

    def post(self, path: str, body: Any) -> Any:
        """The API's answer."""
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"{self._url}/api/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def get(self, path: str) -> Any:
        headers = {"authorization": f"Bearer {self._token}"}
        return urllib.request.urlopen(urllib.request.Request(self._url + path, headers=headers))

    def api(self, path: str) -> Callable[[], None]:
        def act() -> None:
            json.load(self.get(f"/api/{path}"))

        return act

    def desk(self, path: str) -> Callable[[], None]:
        def act() -> None:
            self._desk.open(f"{self._url}/admin/{path}").read()

        return act

    def export(self, most: int) -> None:
        """So many lines of the calls, at least."""
        with self.get("/api/calls.csv") as answer:
            lines = 0
            while lines < most and (data := answer.read(65536)):
                lines += data.count(b"\n")


class Grants:
    """Makes what the load needs through the owner's API."""

    def __init__(self, owner: Owner, key: str, seconds: float) -> None:
        self._owner = owner
        self._terms = {"provider_key": key, "app_name": "Bench", "models": ["*"], "capabilities": ["chat"]}
        self._terms |= {"expires_in": int(seconds) + 7200, "token_lifetime": int(seconds) + 3600}

    def issue(self, **limits: Any) -> tuple[str, str, str]:
        """A new grant: its id, a token of it, and that token's ``jti``."""
        grant = self._owner.post("grants/", self._terms | limits)["id"]
        answer = self._owner.post(f"grants/{grant}/tokens/", {})
        return grant, answer["token"], answer["jti"]

    def many(self, count: int) -> list[str]:
        """Tokens of so many grants, every second one with every limit there is."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda n: self.issue(**(EVERY_LIMIT if n % 2 else {}))[1], range(count)))

    def revoke(self, grant: str, jti: str = "") -> None:
        """The grant, or only one token of it."""
        self._owner.post(f"grants/{grant}/tokens/{jti}/revoke/" if jti else f"grants/{grant}/revoke/", {})
