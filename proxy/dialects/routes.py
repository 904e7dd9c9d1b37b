"""Which paths are relayed, and what stands in for the rest.

A path is matched whole against a table; what goes upstream is built from the table's constants and a model's name,
percent-encoded. No byte of the caller's path is copied, so there is nothing to smuggle in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from grants.providers import Capability

from ..exceptions import BadRequest, EndpointNotRelayed
from .fields import Table


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    ``name``: the ledger's, its first half is the dialect. ``path``: below the dialect's prefix; ``{model}`` is one
    segment. ``body`` or ``form``: its fields; with a form, ``files`` are the names that carry files.
    ``query``: parameters that pass. ``everywhere``: offered too by providers whose own dialect is another one.
    ``model``: what the relay names where the body names none; without it a model is required.
    ``asks_usage``: its streams report usage where ``stream_options.include_usage`` is set.
    ``limits``: fields of the body that name its output limit, the usual one first; none: its output has no limit.
    """

    name: str
    method: str
    path: str
    capability: Capability | None = None
    flavor: str = "none"
    body: Table | None = None
    form: Table | None = None
    files: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()
    counted: bool = True
    everywhere: bool = False
    model: str = ""
    asks_usage: bool = False
    limits: tuple[str, ...] = ()
    dialect: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dialect", self.name.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request's path led: its route, the model that the path names, and the prefix that it came under."""

    route: Route
    model: str = ""
    prefix: str = ""


# One segment of a path that a name stands in. No ``@``: behind a host it would change who is asked.
_SEGMENT = r"(?!\.)[A-Za-z0-9._:+-]{1,200}(?<!\.)"
_CLEAN = re.compile(r"(?:/[A-Za-z0-9._:+~-]+)+")
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")
_SLASHES = re.compile(r"/{2,}")

OPENAI_PREFIXES = ("/v1", "", "/v1beta/openai", "/openai/v1", "/openai")
DEPLOYMENTS = "/openai/deployments"
GEMINI_PREFIXES = ("/v1beta", "/v1", "/v1alpha")
GEMINI_DEFAULT = "/v1beta"  # where a path names no version

_DEPLOYMENT = re.compile(rf"{DEPLOYMENTS}/({_SEGMENT})(/[a-z/]+)")
_GEMINI = re.compile(rf"(/v1|/v1beta|/v1alpha|)/models/({_SEGMENT}):([A-Za-z]+)")
_MODEL = re.compile(rf"(/v1beta/openai|/openai/v1|/openai|/v1beta|/v1alpha|/v1|)/models/({_SEGMENT}(?:/{_SEGMENT})*)")


_GEMINI_ONLY = ("/v1beta/", "/v1alpha/")


class Directory:
    """The routes of all dialects by path."""

    def __init__(self, routes: Mapping[str, tuple[Route, ...]]) -> None:
        self._models = {route.dialect: route for group in routes.values() for route in group if _is(route, "models")}
        self._model = {route.dialect: route for group in routes.values() for route in group if _is(route, "model")}
        self._verbs = {route.path.partition(":")[2]: route for route in routes["google"] if ":" in route.path}
        self._deployed = {route.path: route for route in routes["openai"] if route.method == "POST"}
        self._static: dict[str, Place] = {}
        for route in routes["openai"]:
            for prefix in OPENAI_PREFIXES if "{" not in route.path else ():
                self._static[prefix + route.path] = Place(route, prefix=prefix)
        for route in routes["anthropic"]:
            if "{" not in route.path:
                self._static[route.path] = Place(route)
        self._static["/chat"] = self._static["/v1/chat/completions"]
        for prefix in GEMINI_PREFIXES:
            self._static[f"{prefix}/models"] = Place(self._models["google"], prefix=prefix)

    def find(self, method: str, path: str, headers: Mapping[str, str]) -> Place:
        """The place of a request.

        Raises:
            EndpointNotRelayed: it has none.
            BadRequest: it has one, under another method (405), or for requests that open no WebSocket (426).
        """
        place = self.look(method, path, headers)
        if place is None:
            raise EndpointNotRelayed(why_not(path) or self._hint(method, single_slashes(path), headers))
        if place.route.method != method and opens_websocket(headers):
            raise BadRequest(
                f"WebSockets are not relayed: send a {place.route.method} request to this path.",
                code="websocket_not_relayed",
                status=426,
            )
        if place.route.method != method:
            raise BadRequest(
                f"This endpoint takes {place.route.method} requests.", code="method_not_allowed", status=405
            )
        return place

    def look(self, method: str, path: str, headers: Mapping[str, str]) -> Place | None:
        """As :meth:`find`, but whatever the method; ``None`` where there is nothing."""
        path = single_slashes(path)
        if path == "/v1/models":
            return Place(self._models[by_headers(headers)], prefix="/v1")
        if path == "/models" and by_headers(headers) == "google":
            return Place(self._models["google"], prefix=GEMINI_DEFAULT)
        place = self._static.get(path)
        if place is not None:
            return place
        if not _CLEAN.fullmatch(path) or _DOTS.search(path):
            return None
        return self._named(method, path, headers)

    def _named(self, method: str, path: str, headers: Mapping[str, str]) -> Place | None:
        """A path with a name in it."""
        if match := _DEPLOYMENT.fullmatch(path):
            route = self._deployed.get(match[2])
            return Place(route, match[1], DEPLOYMENTS) if route else None
        gemini = path.startswith(_GEMINI_ONLY) or method != "GET" or by_headers(headers) == "google"
        if gemini and (match := _GEMINI.fullmatch(path)):  # else a colon is part of a model's name
            verb = self._verbs.get(match[3])
            return Place(verb, match[2], match[1] or GEMINI_DEFAULT) if verb else None
        if match := _MODEL.fullmatch(path):
            prefix, model = match[1], match[2]
            dialect = _dialect_of_model(prefix, headers)
            if dialect == "google":
                return None if "/" in model else Place(self._model[dialect], model, prefix or GEMINI_DEFAULT)
            return Place(self._model[dialect], model, prefix)
        return None

    def _hint(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """A sentence on a path that leads nowhere. Base URLs with one part too many are common: name what was meant."""
        if not _CLEAN.fullmatch(path) or len(path) > 200:
            return "This path is not relayed."
        start = path.find("/", 1)
        while start > 0:
            if (place := self.look(method, path[start:], headers)) is not None and place.route.method == method:
                return f"{path} is not relayed, {path[start:]} is: see the base URL."
            start = path.find("/", start + 1)
        return f"{path} is not relayed."


def single_slashes(path: str) -> str:
    """``path`` without empty segments: a base URL that ends in a slash makes them, and no route has one."""
    if "//" in path:
        path = _SLASHES.sub("/", path)
    return path[:-1] if path.endswith("/") and len(path) > 1 else path


def opens_websocket(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for a WebSocket. Reverse proxies drop ``Upgrade`` (it is hop-by-hop), not the key."""
    return "sec-websocket-key" in headers or "websocket" in headers.get("upgrade", "").lower()


def _dialect_of_model(prefix: str, headers: Mapping[str, str]) -> str:
    """The dialect of a path that names one model. Without a version only Gemini's header tells Gemini's."""
    if prefix + "/" in _GEMINI_ONLY:
        return "google"
    told = by_headers(headers)
    return told if prefix == "/v1" or (prefix == "" and told == "google") else "openai"


def _is(route: Route, what: str) -> bool:
    return route.name.partition(".")[2] == what


def by_headers(headers: Mapping[str, str]) -> str:
    """The dialect that a request's header names tell of, where its path does not."""
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return "google"
    return "anthropic" if "anthropic-version" in headers else "openai"


def by_path(path: str) -> str | None:
    """The dialect of a path that is not relayed, where its beginning tells."""
    if path.startswith(_GEMINI_ONLY) and not path.startswith("/v1beta/openai/"):
        return "google"
    return "anthropic" if path.startswith("/v1/messages") else None


def encoded(model: str) -> str:
    """A model's name as one segment of an upstream path."""
    return quote(model, safe=":")


_ACCOUNT = "they are kept in the provider account, which all apps on its key share"
_ADMIN = "they administer the provider account"
_LATER = "they run unattended, where no limit and no revocation would reach them"
NOT_RELAYED: dict[str, str] = {
    "files": f"Files are not relayed: {_ACCOUNT}.",
    "upload": f"Uploads are not relayed: {_ACCOUNT}.",
    "uploads": f"Uploads are not relayed: {_ACCOUNT}.",
    "batches": f"Batches are not relayed: {_LATER}.",
    "fine_tuning": "Fine-tuning is not relayed: its jobs and models are the provider account's.",
    "fine-tunes": "Fine-tuning is not relayed: its jobs and models are the provider account's.",
    "assistants": f"Assistants are not relayed: {_ACCOUNT}.",
    "threads": f"Threads are not relayed: {_ACCOUNT}.",
    "vector_stores": f"Vector stores are not relayed: {_ACCOUNT}.",
    "containers": f"Containers are not relayed: {_ACCOUNT}.",
    "conversations": f"Conversations are not relayed: {_ACCOUNT}.",
    "responses": f"Stored responses are not relayed: {_ACCOUNT}.",
    "chat": f"Stored chat completions are not relayed: {_ACCOUNT}.",
    "messages": f"Message batches are not relayed: {_LATER}.",
    "evals": f"Evals are not relayed: {_ACCOUNT}.",
    "graders": f"Graders are not relayed: {_ACCOUNT}.",
    "skills": f"Skills are not relayed: {_ACCOUNT}.",
    "agents": f"Agents are not relayed: {_ACCOUNT}.",
    "sessions": f"Sessions are not relayed: {_ACCOUNT}.",
    "environments": f"Environments are not relayed: {_ACCOUNT}.",
    "memory_stores": f"Memory stores are not relayed: {_ACCOUNT}.",
    "vaults": f"Vaults are not relayed: {_ACCOUNT}.",
    "prompts": f"Stored prompts are not relayed: {_ACCOUNT}.",
    "videos": f"Videos are not relayed: {_LATER}.",
    "realtime": "Realtime sessions are not relayed: they are not single calls that can be checked and counted.",
    "live": "Live sessions are not relayed: they are not single calls that can be checked and counted.",
    "interactions": f"Interactions are not relayed: {_ACCOUNT}.",
    "tunedModels": f"Tuned models are not relayed: {_ACCOUNT}.",
    "cachedContents": f"Cached contents are not relayed: {_ACCOUNT}.",
    "fileSearchStores": f"File search stores are not relayed: {_ACCOUNT}.",
    "corpora": f"Corpora are not relayed: {_ACCOUNT}.",
    "operations": f"Operations are not relayed: {_LATER}.",
    "organization": f"Organisation endpoints are not relayed: {_ADMIN}.",
    "organizations": f"Organisation endpoints are not relayed: {_ADMIN}.",
    "admin": f"Admin endpoints are not relayed: {_ADMIN}.",
    "projects": f"Project endpoints are not relayed: {_ADMIN}.",
    "webhooks": f"Webhooks are not relayed: {_ADMIN}.",
}
_PREFIX = re.compile(r"/(?:v1beta/openai/|openai/v1/|openai/deployments/|openai/|v1beta/|v1alpha/|v1/)?")


def why_not(path: str) -> str | None:
    """One sentence on a kind of endpoint that is never relayed; ``None`` for a path of no known kind."""
    path = single_slashes(path)
    match = _PREFIX.match(path)
    rest = path[match.end() :] if match else ""
    if rest.startswith("responses/compact"):
        return "Compaction is not relayed."
    return NOT_RELAYED.get(re.split("[/:]", rest, maxsplit=1)[0])
