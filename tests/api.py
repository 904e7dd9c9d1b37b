"""Callers of the REST API, for tests: they speak JSON and hand back what came, status first."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from django.test import Client

from grants.api.authentication import OwnerRefreshToken


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any


class Api:
    """A caller. ``headers`` go with every request; ``client`` carries the cookies."""

    def __init__(self, client: Client | None = None, **headers: str) -> None:
        self.client = client or Client(enforce_csrf_checks=True)
        self.headers = headers

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        kwargs: dict[str, Any] = {} if body is None else {"data": body, "content_type": "application/json"}
        response = self.client.generic(method, path, **self._encoded(kwargs), headers=self.headers | headers)
        return Answer(response.status_code, self._parsed(response), response.headers)

    def raw(self, path: str, data: bytes, content_type: str = "application/json", **headers: str) -> Answer:
        response = self.client.generic("POST", path, data, content_type, headers=self.headers | headers)
        return Answer(response.status_code, self._parsed(response), response.headers)

    def get(self, path: str) -> Answer:
        return self("GET", path)

    def post(self, path: str, body: Any = None) -> Answer:
        return self("POST", path, body)

    def patch(self, path: str, body: Any) -> Answer:
        return self("PATCH", path, body)

    @staticmethod
    def _encoded(kwargs: dict[str, Any]) -> dict[str, Any]:
        return kwargs | {"data": json.dumps(kwargs["data"])} if kwargs else kwargs

    @staticmethod
    def _parsed(response: Any) -> Any:
        return response.json() if response.headers.get("Content-Type", "").startswith("application/json") else None


def anyone() -> Api:
    return Api()


def owner(user: Any) -> Api:
    """With a fresh owner token."""
    return Api(Authorization=f"Bearer {OwnerRefreshToken.for_user(user).access_token}")


def bearer(token: str) -> Api:
    return Api(Authorization=f"Bearer {token}")


def ask(**changes: Any) -> dict[str, Any]:
    """The body of a grant request."""
    body = {
        "app_name": "Notebook",
        "app_url": "https://notebook.example",
        "provider": "sandbox",
        "models": ["sandbox-*"],
        "capabilities": ["chat", "embeddings"],
        "reason": "Summaries of my notes",
    }
    return body | changes
