"""What owners do over REST: issue, approve, deny, change, revoke, mint, read the trail."""

from __future__ import annotations

import time
import uuid
from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from grants import policy, tokens
from grants.clock import microseconds
from grants.models import Actor, Allowance, AuditEvent, Call, Grant, ProviderKey
from grants.models.requesting import MAX_WRONG_CODES
from tests.api import Answer, Api, anyone, ask, owner
from tests.conftest import CANARY, PASSWORD, terms

pytestmark = pytest.mark.django_db


@pytest.fixture
def pending() -> Grant:
    answer = anyone().post("/api/grant-requests/", ask(max_requests=100))
    return Grant.objects.get(pk=answer.body["id"])


def issue(user: Any, key: ProviderKey, **changes: Any) -> Answer:
    body = ask(provider_key=str(key.pk)) | changes
    del body["provider"]
    return owner(user).post("/api/grants/", body)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body["error"]["code"]


# Signing in


def test_a_password_becomes_owner_tokens_and_a_refresh_token_the_next_access_token(alice: Any) -> None:
    answer = anyone().post("/api/auth/token/", {"username": "alice", "password": PASSWORD})
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert Api(Authorization=f"Bearer {answer.body['access']}").get("/api/grants/").status == 200
    refreshed = anyone().post("/api/auth/token/refresh/", {"refresh": answer.body["refresh"]})
    assert Api(Authorization=f"bearer {refreshed.body['access']}").get("/api/grants/").status == 200


def test_a_wrong_password_an_unknown_name_and_somebody_who_is_no_owner_are_answered_alike(alice: Any) -> None:
    get_user_model().objects.create_user("carol", password=PASSWORD)
    attempts = [("alice", "wrong"), ("nobody", PASSWORD), ("carol", PASSWORD)]
    answers = [anyone().post("/api/auth/token/", {"username": u, "password": p}) for u, p in attempts]
    assert {answer.status for answer in answers} == {401}
    assert answers[0].body == answers[1].body == answers[2].body


def test_a_changed_password_or_a_deactivation_ends_owner_tokens_and_refresh_tokens(alice: Any, bob: Any) -> None:
    pairs = {
        user: anyone().post("/api/auth/token/", {"username": user.username, "password": PASSWORD}).body
        for user in (alice, bob)
    }
    alice.set_password("another long password")
    bob.is_active = False
    for user, pair in pairs.items():
        user.save()
        assert Api(Authorization=f"Bearer {pair['access']}").get("/api/grants/").status == 401
        assert anyone().post("/api/auth/token/refresh/", {"refresh": pair["refresh"]}).status == 401


def test_a_deleted_owners_tokens_are_refused(bob: Any) -> None:
    pair = anyone().post("/api/auth/token/", {"username": "bob", "password": PASSWORD}).body
    bob.delete()
    assert Api(Authorization=f"Bearer {pair['access']}").get("/api/grants/").status == 401
    assert anyone().post("/api/auth/token/refresh/", {"refresh": pair["refresh"]}).status == 401


# Issuing and reading


def test_an_owner_issues_a_grant_on_a_key_of_their_own(alice: Any, sandbox_key: ProviderKey) -> None:
    answer = issue(alice, sandbox_key, expires_in=3600, max_requests=5, allowed_origins=["https://app.example"])
    assert answer.status == 201
    grant = Grant.objects.get()
    assert answer.body["id"] == str(grant.pk)
    assert answer.body["status"] == "approved"
    assert answer.body["owner"] == "alice"
    assert answer.body["provider_key"] == str(sandbox_key.pk)
    usage = answer.body["usage"]
    assert (usage["requests"], usage["in_flight"], usage["exhausted"], usage["closed_at"]) == (0, 0, False, None)
    assert (usage["spent"], usage["reserved"]) == ("0.00", "0.00")
    assert grant.terms == terms(valid_for=3600, max_requests=5, allowed_origins=("https://app.example",))
    assert Allowance.objects.get().max_requests == 5
    event = AuditEvent.objects.get(action="grant.issued")
    assert (event.actor, event.via, event.address) == ("alice", "api", "127.0.0.1")


def test_nobody_issues_a_grant_on_a_key_that_is_not_theirs_or_is_disabled(
    alice: Any, bob: Any, root: Any, sandbox_key: ProviderKey, by: Actor
) -> None:
    for user in (bob, root):
        answer = issue(user, sandbox_key)
        assert answer.status == 400
        assert list(answer.body["error"]["fields"]) == ["provider_key"]
    sandbox_key.disable(by)
    assert list(issue(alice, sandbox_key).body["error"]["fields"]) == ["provider_key"]
    assert not Grant.objects.exists()


def test_keys_are_listed_without_their_secrets(alice: Any, by: Actor) -> None:
    key = ProviderKey.add(owner=alice, provider="openai", label="Work", secret=CANARY, by=by)
    response = Client().get("/api/provider-keys/", headers=owner(alice).headers)
    shown = {"id": str(key.pk), "label": "Work", "provider": "openai", "hint": CANARY[-4:], "disabled": False}
    assert response.json() == [shown | {"prices": [], "margin": 0, "shows_everything": False}]
    assert CANARY not in response.content.decode()
    assert key.secret not in response.content.decode()


def test_lists_are_paged_newest_first_and_no_row_comes_twice(alice: Any, sandbox_key: ProviderKey, by: Actor) -> None:
    made = [Grant.issue(key=sandbox_key, terms=terms(), app_name=f"App {n}", by=by) for n in range(5)]
    seen: list[str] = []
    path: str | None = "/api/grants/?page_size=2"
    while path:
        answer = owner(alice).get(path)
        assert len(answer.body["results"]) <= 2
        seen += [row["id"] for row in answer.body["results"]]
        path = answer.body["next"] and answer.body["next"].removeprefix("http://testserver")
    assert seen == [str(grant.pk) for grant in reversed(made)]


def test_a_list_of_grants_takes_a_bounded_number_of_queries(
    alice: Any, sandbox_key: ProviderKey, by: Actor, django_assert_max_num_queries: Any
) -> None:
    for n in range(10):
        Grant.issue(key=sandbox_key, terms=terms(), app_name=f"App {n}", by=by)
    with django_assert_max_num_queries(2):
        assert len(owner(alice).get("/api/grants/").body["results"]) == 10


# Deciding


def test_an_owner_who_was_given_the_id_approves_with_a_key_of_their_own(
    alice: Any, sandbox_key: ProviderKey, pending: Grant
) -> None:
    assert owner(alice).get(f"/api/grants/{pending.pk}/").body["status"] == "pending"
    assert owner(alice).get("/api/grants/").body["results"] == []
    answer = owner(alice).post(f"/api/grants/{pending.pk}/approve/", {"provider_key": str(sandbox_key.pk)})
    assert answer.status == 200
    assert (answer.body["status"], answer.body["owner"]) == ("approved", "alice")
    assert answer.body["max_requests"] == 100


def test_an_approval_narrows_what_it_names_and_keeps_what_it_does_not(
    alice: Any, sandbox_key: ProviderKey, pending: Grant
) -> None:
    body = {
        "provider_key": str(sandbox_key.pk),
        "models": ["sandbox-1"],
        "capabilities": ["chat"],
        "expires_in": 60,
        "max_requests": 3,
        "max_concurrency": 1,
        "token_lifetime": 120,
    }
    answer = owner(alice).post(f"/api/grants/{pending.pk}/approve/", body)
    assert answer.status == 200
    pending.refresh_from_db()
    assert pending.terms == terms(
        models=("sandbox-1",),
        capabilities=("chat",),
        valid_for=60,
        max_requests=3,
        max_concurrency=1,
        token_lifetime=120,
    )
    assert pending.approved_at is not None
    assert pending.expires_at == pending.approved_at + timedelta(seconds=60)


@pytest.mark.parametrize(
    "wider",
    [
        {"models": ["*"]},
        {"models": ["sandbox-*", "gpt-4o"]},
        {"max_requests": 101},
        {"max_requests": None},
        {"token_lifetime": 7200},
        {"allowed_origins": ["https://evil.example"]},
        {"capabilities": ["chat", "web"]},
        {"app_name": "Another"},
        {"owner": 1},
    ],
)
def test_an_approval_never_widens(alice: Any, sandbox_key: ProviderKey, pending: Grant, wider: Any) -> None:
    answer = owner(alice).post(f"/api/grants/{pending.pk}/approve/", {"provider_key": str(sandbox_key.pk)} | wider)
    assert answer.status == 400
    assert list(answer.body["error"]["fields"]) == list(wider)
    pending.refresh_from_db()
    assert pending.status == "pending"


def test_an_approval_with_anothers_key_or_of_another_provider_is_refused(
    alice: Any, bob: Any, root: Any, sandbox_key: ProviderKey, pending: Grant, by: Actor
) -> None:
    openai = ProviderKey.add(owner=alice, provider="openai", label="Work", secret=CANARY, by=by)
    attempts = [(bob, sandbox_key.pk), (root, sandbox_key.pk), (alice, openai.pk), (alice, uuid.uuid4())]
    for user, key in attempts:
        answer = owner(user).post(f"/api/grants/{pending.pk}/approve/", {"provider_key": str(key)})
        assert answer.status == 400
        assert list(answer.body["error"]["fields"]) == ["provider_key"]
    pending.refresh_from_db()
    assert (pending.status, pending.owner) == ("pending", None)


def test_a_user_code_that_is_given_must_be_the_requests(alice: Any, sandbox_key: ProviderKey, pending: Grant) -> None:
    path, key = f"/api/grants/{pending.pk}/approve/", str(sandbox_key.pk)
    wrong = owner(alice).post(path, {"provider_key": key, "user_code": "AAAA-AAAA"})
    assert list(wrong.body["error"]["fields"]) == ["user_code"]
    typed = pending.user_code.lower().replace("-", " ")
    assert owner(alice).post(path, {"provider_key": key, "user_code": typed}).status == 200


def test_a_user_code_cannot_be_guessed(alice: Any, sandbox_key: ProviderKey, pending: Grant) -> None:
    path, key = f"/api/grants/{pending.pk}/approve/", str(sandbox_key.pk)
    for _ in range(MAX_WRONG_CODES):
        assert owner(alice).post(path, {"provider_key": key, "user_code": "AAAA-AAAA"}).status == 400
    right = owner(alice).post(path, {"provider_key": key, "user_code": pending.user_code})
    assert code(right) == (409, "not_pending")


def test_the_user_code_is_not_in_the_answer_it_is_read_off_the_app(alice: Any, pending: Grant) -> None:
    assert pending.user_code not in str(owner(alice).get(f"/api/grants/{pending.pk}/").body)


def test_a_request_is_decided_once(alice: Any, bob: Any, sandbox_key: ProviderKey, pending: Grant) -> None:
    path, body = f"/api/grants/{pending.pk}/", {"provider_key": str(sandbox_key.pk)}
    assert owner(alice).post(path + "approve/", body).status == 200
    assert code(owner(alice).post(path + "approve/", body)) == (409, "not_pending")
    assert code(owner(alice).post(path + "deny/")) == (409, "not_pending")
    assert owner(bob).post(path + "deny/").status == 404
    assert owner(bob).post(path + "approve/", body).status == 404


def test_a_denied_request_stays_denied_and_one_that_ran_out_cannot_be_approved(
    alice: Any, sandbox_key: ProviderKey, pending: Grant
) -> None:
    body = {"provider_key": str(sandbox_key.pk)}
    assert owner(alice).post(f"/api/grants/{pending.pk}/deny/").body["status"] == "denied"
    assert code(owner(alice).post(f"/api/grants/{pending.pk}/approve/", body)) == (409, "not_pending")
    late = Grant.objects.get(pk=anyone().post("/api/grant-requests/", ask()).body["id"])
    Grant.objects.filter(pk=late.pk).update(request_expires_at=timezone.now())
    assert code(owner(alice).post(f"/api/grants/{late.pk}/approve/", body)) == (409, "not_pending")


# Changing and ending


def test_new_terms_hold_for_the_next_call_and_what_is_not_named_stays(alice: Any, grant: Grant, by: Actor) -> None:
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    before = Allowance.objects.get().revision
    answer = owner(alice).patch(f"/api/grants/{grant.pk}/", {"models": ["sandbox-1"], "max_requests": 7})
    assert answer.status == 200
    assert answer.body["models"] == ["sandbox-1"]
    assert answer.body["capabilities"] == ["chat", "embeddings"]
    assert not policy.read(claims).allows_model("sandbox-embed")
    allowance = Allowance.objects.get()
    assert (allowance.max_requests, allowance.revision > before) == (7, True)
    assert owner(alice).patch(f"/api/grants/{grant.pk}/", {"max_requests": None}).body["max_requests"] is None


def test_the_end_can_be_moved_by_seconds_or_to_a_time(alice: Any, grant: Grant) -> None:
    path = f"/api/grants/{grant.pk}/"
    owner(alice).patch(path, {"expires_in": 120})
    grant.refresh_from_db()
    assert grant.expires_at is not None
    assert abs(grant.expires_at - timezone.now() - timedelta(seconds=120)) < timedelta(seconds=10)
    end = (timezone.now() + timedelta(days=3)).replace(microsecond=0)
    answer = owner(alice).patch(path, {"expires_at": end.isoformat()})
    assert datetime.fromisoformat(answer.body["expires_at"]) == end
    assert Allowance.objects.get().expires_at == microseconds(end)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"expires_in": 60, "expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"capabilities": ["web"]}, "capabilities"),
        ({"models": []}, "models"),
        ({"revoked_at": None}, "revoked_at"),
        ({"app_name": "Another"}, "app_name"),
        ({"provider_key": str(uuid.uuid4())}, "provider_key"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(alice: Any, grant: Grant, change: Any, field: str) -> None:
    before = Grant.objects.values().get()
    answer = owner(alice).patch(f"/api/grants/{grant.pk}/", change)
    assert answer.status == 400
    assert list(answer.body["error"]["fields"]) == [field]
    assert Grant.objects.values().get() == before


def test_a_revoked_grant_admits_nothing_and_revoking_it_again_is_no_error(alice: Any, grant: Grant, by: Actor) -> None:
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    for _ in range(2):
        answer = owner(alice).post(f"/api/grants/{grant.pk}/revoke/")
        assert (answer.status, answer.body["status"]) == (200, "revoked")
    with pytest.raises(policy.Denied):
        policy.read(claims)
    assert AuditEvent.objects.filter(action="grant.revoked").count() == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"max_requests": 5}),
        ("POST", "tokens/", {}),
        ("POST", "rotate-secret/", {}),
    ],
)
def test_what_needs_a_live_grant_says_in_which_state_it_is(
    alice: Any, grant: Grant, by: Actor, method: str, path: str, body: Any
) -> None:
    grant.revoke(by)
    assert code(owner(alice)(method, f"/api/grants/{grant.pk}/{path}", body)) == (409, "grant_revoked")


def test_what_was_never_granted_cannot_be_revoked(root: Any, pending: Grant) -> None:
    assert code(owner(root).post(f"/api/grants/{pending.pk}/revoke/")) == (409, "grant_pending")


def test_nobody_rotates_the_secret_of_a_request_that_is_not_theirs(bob: Any, root: Any, pending: Grant) -> None:
    assert owner(bob).post(f"/api/grants/{pending.pk}/rotate-secret/").status == 404
    assert code(owner(root).post(f"/api/grants/{pending.pk}/rotate-secret/")) == (409, "grant_pending")


def test_a_rotated_secret_collects_and_is_shown_once(alice: Any, grant: Grant) -> None:
    answer = owner(alice).post(f"/api/grants/{grant.pk}/rotate-secret/")
    assert answer.headers["Cache-Control"] == "no-store"
    collected = anyone().post("/api/tokens/", answer.body)
    assert collected.status == 201
    assert answer.body["request_secret"] not in str(list(AuditEvent.objects.values()))


# Tokens


def test_a_minted_token_is_shown_once_and_listed_by_its_jti(alice: Any, grant: Grant) -> None:
    path = f"/api/grants/{grant.pk}/tokens/"
    answer = owner(alice).post(path, {"lifetime": 120, "models": ["sandbox-1"], "capabilities": ["chat"]})
    assert answer.status == 201
    assert answer.body["expires_in"] == 120
    assert answer.body["base_url"] == grant.base_url
    assert tokens.verify(answer.body["token"]).jti == answer.body["jti"]
    plain = owner(alice).post(path)
    listed = owner(alice).get(path).body["results"]
    assert [row["jti"] for row in listed] == [plain.body["jti"], answer.body["jti"]]
    assert (listed[1]["models"], listed[1]["capabilities"]) == (["sandbox-1"], ["chat"])
    assert (listed[0]["models"], listed[0]["capabilities"], listed[0]["revoked_at"]) == (None, None, None)
    assert answer.body["token"] not in str(listed)


@pytest.mark.parametrize(
    ("wider", "field"), [({"models": ["*"]}, "models"), ({"lifetime": 7200}, "lifetime"), ({"scope": "chat"}, "scope")]
)
def test_a_minted_token_is_never_wider_than_its_grant(alice: Any, grant: Grant, wider: Any, field: str) -> None:
    answer = owner(alice).post(f"/api/grants/{grant.pk}/tokens/", wider)
    assert answer.status == 400
    assert list(answer.body["error"]["fields"]) == [field]
    assert not AuditEvent.objects.filter(action="token.issued").exists()


def test_one_token_is_taken_back_by_its_jti(alice: Any, grant: Grant, by: Actor) -> None:
    mine, other = tokens.mint(grant, by=by), tokens.mint(grant, by=by)
    for _ in range(2):
        answer = owner(alice).post(f"/api/grants/{grant.pk}/tokens/{mine.jti}/revoke/")
        assert (answer.status, answer.body) == (200, {"jti": mine.jti, "revoked": True})
    with pytest.raises(policy.Denied):
        policy.read(tokens.verify(mine.token))
    assert policy.read(tokens.verify(other.token))
    listed = {
        row["jti"]: row["revoked_at"] for row in owner(alice).get(f"/api/grants/{grant.pk}/tokens/").body["results"]
    }
    assert listed[mine.jti] is not None
    assert listed[other.jti] is None
    assert owner(alice).post(f"/api/grants/{grant.pk}/tokens/{'0' * 32}/revoke/").status == 404


# The trail


@pytest.fixture
def calls(grant: Grant) -> list[Call]:
    now = int(time.time() * 1_000_000)
    common = {"grant": grant, "worker": uuid.uuid4(), "jti": "0" * 32, "kid": "0" * 32, "route": "openai.chat"}
    rows = [
        Call(id=uuid.UUID(int=1), model="sandbox-1", stream=False, counted=1, day=20261123, started_at=now, **common),
        Call(
            id=uuid.UUID(int=2),
            model="sandbox-2",
            stream=True,
            counted=1,
            day=20261123,
            started_at=now,
            finished_at=now + 1500,
            outcome="ok",
            status=200,
            input_tokens=3,
            output_tokens=4,
            cost=5,
            **common,
        ),
    ]
    return Call.objects.bulk_create(rows)


def test_the_ledger_is_read_newest_first_and_filtered(alice: Any, calls: list[Call], grant: Grant) -> None:
    rows = owner(alice).get("/api/calls/").body["results"]
    assert [row["outcome"] for row in rows] == ["ok", "open"]
    assert rows[0] | {"id": "", "started_at": "", "finished_at": ""} == {
        "id": "",
        "grant": str(grant.pk),
        "jti": "0" * 32,
        "route": "openai.chat",
        "model": "sandbox-2",
        "stream": True,
        "outcome": "ok",
        "status": 200,
        "started_at": "",
        "finished_at": "",
        "first_byte_us": None,
        "duration_us": 1500,
        "input_tokens": 3,
        "output_tokens": 4,
        "cached_tokens": None,
        "output_limit": None,
        "reserved": "0.00",
        "cost": "0.000000005",
        "overrun": "0.00",
        "estimated": False,
    }
    assert abs(datetime.fromisoformat(rows[0]["started_at"]) - timezone.now()) < timedelta(minutes=1)
    for query, count in (
        ("outcome=ok", 1),
        ("model=sandbox-1", 1),
        (f"grant={grant.pk}", 2),
        (f"grant={uuid.uuid4()}", 0),
        ("outcome=open&model=sandbox-2", 0),
    ):
        assert len(owner(alice).get(f"/api/calls/?{query}").body["results"]) == count
    assert len(owner(alice).get("/api/calls/?page_size=1").body["results"]) == 1


def test_events_are_filtered_by_action_and_grant(alice: Any, grant: Grant, by: Actor) -> None:
    grant.revoke(by)
    rows = owner(alice).get("/api/events/").body["results"]
    assert [row["action"] for row in rows] == ["grant.revoked", "grant.issued", "key.added"]
    assert len(owner(alice).get("/api/events/?action=grant.revoked").body["results"]) == 1
    assert len(owner(alice).get(f"/api/events/?grant={grant.pk}").body["results"]) == 2


@pytest.mark.parametrize("path", ["/api/calls/", "/api/events/", "/api/grants/"])
@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=",
        "cursor=cD1hYmM=",
        "cursor=cD0lMDA=",
        "cursor=cj14",
        "cursor=%00",
        "cursor=bz0xMDAwMDA5OTk5OTk=&cursor=x",
        "page_size=0",
        "page_size=x",
        "page_size=201",
        "page_size=1e3",
        "unknown=1",
        "grant=x&action=x&outcome=x",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(alice: Any, grant: Grant, path: str, query: str) -> None:
    answer = owner(alice).get(f"{path}?{query}")
    assert answer.status == 400
    assert answer.body["error"]["fields"]


def test_a_huge_position_in_a_cursor_is_no_server_error(alice: Any, grant: Grant) -> None:
    for position in ("9" * 30, "9" * 5000, "-1", "2026-11-23", "99999-01-01", uuid.uuid4().hex):
        cursor = b64encode(f"p={position}".encode()).decode().rstrip("=")
        for path in ("/api/calls/", "/api/events/", "/api/grants/"):
            padded = cursor + "=" * (-len(cursor) % 4)
            assert owner(alice).get(f"{path}?cursor={padded}").status in (200, 400)


def test_a_session_with_a_csrf_token_may_do_what_an_owner_token_may(alice: Any, grant: Grant) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    client.get("/admin/login/")
    client.cookies["csrftoken"] = "a" * 32
    session = Api(client, **{"X-CSRFToken": "a" * 32})
    assert session.get("/api/grants/").status == 200
    assert session.post(f"/api/grants/{grant.pk}/revoke/").status == 200
