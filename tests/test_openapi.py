"""The API's description is valid, complete and true: schemathesis attacks the API with what it says."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client
from django.urls import resolve
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation

from aipassport.wsgi import application
from grants.api.urls import urlpatterns
from grants.models import Actor, Grant, ProviderKey
from tests.api import owner
from tests.conftest import terms

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
UNDESCRIBED = {"api-schema", "api-docs", "api-not-here"}

# 413 and 415 are in the schema, and not in the list of what a generator expects for bad data.
# A body may be valid by its schema and still make no sense: an unknown key, a capability that the provider lacks.
CHECKS = {
    "negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "405", "409", "413", "415"]},
    "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "404", "409"]},
}


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return json.loads(Client().get("/api/schema/").content)


def test_the_schema_is_valid_and_made_without_a_warning(capsys: Any) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=io.StringIO())


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    described = {
        resolve(path.format(id="0" * 8 + "-0000-0000-0000-" + "0" * 12, jti="0" * 32)).url_name
        for path in document["paths"]
    }
    assert described == {pattern.name for pattern in urlpatterns} - UNDESCRIBED


def test_every_operation_says_who_may_call_it_and_what_goes_wrong(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for_apps = operation["tags"][0] in ("apps", "login")
            owners = [{"ownerToken": []}, {"session": [], "csrf": []}]
            assert operation["security"] == ([{}] if for_apps else owners), path
            assert ("429" if for_apps else "403") in operation["responses"]
            assert "401" in operation["responses"]
            assert method == "get" or {"400", "413", "415"} <= operation["responses"].keys()
            assert operation["summary"]
            assert operation["description"]


def test_bodies_are_closed_but_for_those_that_oauth_keeps_open(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Body"):
            assert (schema.get("additionalProperties") is False) is (name != "TokenBody"), name


def test_the_schema_is_public_but_no_place_for_a_delegated_token(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.")
    assert Client().get("/api/schema/", headers={"Authorization": "Bearer x"}).status_code == 401


def test_the_docs_page_fetches_nothing_from_elsewhere() -> None:
    page = Client().get("/api/docs/")
    script = Client().get("/api/docs/?script=")
    assert (page.status_code, script.status_code) == (200, 200)
    assert script.headers["Content-Type"].startswith("application/javascript")
    for text in (page.content.decode(), script.content.decode()):
        assert "http://" not in text.replace("http://testserver", "")
        assert "https://" not in text
    assert "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js" in page.content.decode()
    assert "<script>" not in page.content.decode()
    assert '"validatorUrl": null' in script.content.decode()


# Under attack


@pytest.fixture
def connected() -> Iterator[None]:
    """As Django's test client does: the connection is the test's transaction, and outlives a request."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def world(connected: None, alice: Any, sandbox_key: ProviderKey, by: Actor, settings: Any) -> dict[str, Any]:
    """Things that are there to be hit: a live grant, a revoked one, a request."""
    settings.AIPASSPORT_RATES = dict.fromkeys(settings.AIPASSPORT_RATES, (1_000_000, 60))
    live = Grant.issue(key=sandbox_key, terms=terms(), app_name="Live", by=by)
    dead = Grant.issue(key=sandbox_key, terms=terms(), app_name="Dead", by=by)
    dead.revoke(by)
    asked, _ = Grant.request(provider="sandbox", terms=terms(), app_name="Asked", by=Actor("app"))
    return {
        "grants": [str(live.pk), str(dead.pk), str(asked.pk)],
        "key": str(sandbox_key.pk),
        "headers": owner(alice).headers,
    }


def aimed(case: Any, world: dict[str, Any]) -> Any:
    """Most of the cases, at things that exist: a random id hits nothing. What is wrong about a case stays wrong."""
    body = case.meta.components.get(ParameterLocation.BODY)
    if case.meta.generation.mode.is_negative and not (body and body.mode.is_negative):
        return case
    grant = case.path_parameters.get("id")
    if isinstance(grant, str) and grant[-1:] in "0123456789ab":
        case.path_parameters["id"] = world["grants"][int(grant[-1], 16) % 3]
    if isinstance(case.body, dict) and _UUID.fullmatch(str(case.body.get("provider_key"))):
        case.body["provider_key"] = world["key"]
    return case


OPERATIONS = [
    ("POST", "/api/grant-requests/"),
    ("POST", "/api/tokens/"),
    ("POST", "/api/tokens/introspect/"),
    ("POST", "/api/tokens/revoke/"),
    ("POST", "/api/auth/token/"),
    ("POST", "/api/auth/token/refresh/"),
    ("GET", "/api/grants/"),
    ("POST", "/api/grants/"),
    ("GET", "/api/grants/{id}/"),
    ("PATCH", "/api/grants/{id}/"),
    ("POST", "/api/grants/{id}/approve/"),
    ("POST", "/api/grants/{id}/deny/"),
    ("POST", "/api/grants/{id}/revoke/"),
    ("POST", "/api/grants/{id}/reopen/"),
    ("POST", "/api/grants/{id}/rotate-secret/"),
    ("GET", "/api/grants/{id}/tokens/"),
    ("POST", "/api/grants/{id}/tokens/"),
    ("POST", "/api/grants/{id}/tokens/{jti}/revoke/"),
    ("GET", "/api/provider-keys/"),
    ("GET", "/api/provider-keys/{id}/"),
    ("PATCH", "/api/provider-keys/{id}/"),
    ("GET", "/api/calls/"),
    ("GET", "/api/calls.csv"),
    ("GET", "/api/totals/"),
    ("GET", "/api/events/"),
    ("GET", "/api/preferences/"),
    ("PATCH", "/api/preferences/"),
    ("POST", "/api/preferences/webhook-secret/"),
    ("POST", "/api/preferences/test/"),
    ("GET", "/api/notices/"),
]
BOUNDED = settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_no_operation_is_spared(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_api_does_what_its_schema_says(
    method: str, path: str, mode: GenerationMode, world: dict[str, Any], document: dict[str, Any]
) -> None:
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict({"checks": CHECKS}))
    schema.app = application
    operation = schema[path][method]
    headers = world["headers"] if {"ownerToken": []} in document["paths"][path][method.lower()]["security"] else {}

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode))
    def attack(case: Any) -> None:
        aimed(case, world).call_and_validate(headers=headers)

    attack()
