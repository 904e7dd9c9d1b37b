"""Personas and a few things that most tests need. Alice and Bob are owners; Root is a superuser."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from grants.models import Actor, Grant, ProviderKey
from grants.terms import Terms

CANARY = "sk-canary-0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse battery staple"


def terms(**changes: Any) -> Terms:
    return Terms(models=("sandbox-*",), capabilities=("chat", "embeddings")).with_(**changes)


@pytest.fixture
def alice(db: Any) -> Any:
    return get_user_model().objects.create_user("alice", password=PASSWORD, is_staff=True)


@pytest.fixture
def bob(db: Any) -> Any:
    return get_user_model().objects.create_user("bob", password=PASSWORD, is_staff=True)


@pytest.fixture
def root(db: Any) -> Any:
    return get_user_model().objects.create_superuser("root", password=PASSWORD)


@pytest.fixture
def by(alice: Any) -> Actor:
    return Actor("api", alice, "192.0.2.1")


@pytest.fixture
def sandbox_key(alice: Any, by: Actor) -> ProviderKey:
    return ProviderKey.add(owner=alice, provider="sandbox", label="Sandbox", secret="", by=by)


@pytest.fixture
def grant(sandbox_key: ProviderKey, by: Actor) -> Grant:
    return Grant.issue(key=sandbox_key, terms=terms(), app_name="Notebook", by=by)
