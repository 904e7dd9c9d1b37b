"""Signing in while others guess passwords: guessing is slow, and locks nobody out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from grants import logins
from grants.models import AuditEvent, RateWindow
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

HOME, OFFICE, STRANGER = "192.0.2.1", "203.0.113.1", "198.51.100.1"


@pytest.fixture(autouse=True)
def rates(settings: Any) -> dict[str, tuple[int, int]]:
    """Small ones; the network's own rate is out of the way unless a test is about it."""
    settings.AIPASSPORT_RATES = settings.AIPASSPORT_RATES | {
        "login": (1000, 60),
        "login-user": (3, 3600),
        "login-account": (6, 3600),
        "login-browser": (4, 3600),
    }
    return settings.AIPASSPORT_RATES


def page(password: str, *, at: str = HOME, username: str = "alice", browser: Client | None = None) -> Any:
    """An attempt on the sign-in page. Without ``browser`` in one that nobody has used before."""
    browser = browser or Client()
    return browser.post("/admin/login/", {"username": username, "password": password}, REMOTE_ADDR=at)


def rest(password: str, *, at: str = HOME, username: str = "alice") -> Any:
    body = {"username": username, "password": password}
    return Client(REMOTE_ADDR=at).post("/api/auth/token/", body, content_type="application/json")


def known(at: str = HOME) -> Client:
    """A browser that signed in to Alice's account before, and has ended its session since."""
    browser = Client()
    assert page(PASSWORD, at=at, browser=browser).status_code == 302
    browser.post("/admin/logout/")
    assert "_auth_user_id" not in browser.session
    return browser


def cookie(browser: Client) -> Any:
    return next(morsel for name, morsel in browser.cookies.items() if name.startswith("aipassport_browser_"))


def used_up_everywhere() -> None:
    """Strangers have used up the account's rate over all networks."""
    for n in range(6):
        assert rest("guess", at=f"10.{n}.0.1").status_code == 401
    assert rest("guess", at="10.99.0.1").status_code == 429


# Strangers lock nobody out


@pytest.mark.parametrize("door", [page, rest])
def test_forty_wrong_passwords_from_another_network_do_not_keep_the_owner_out(alice: Any, door: Any) -> None:
    statuses = [door("guess", at=STRANGER).status_code for _ in range(40)]
    assert statuses[-37:] == [429] * 37
    assert door(PASSWORD, at=STRANGER).status_code == 429
    assert door(PASSWORD, at=HOME).status_code in (200, 302)


def test_a_known_browser_signs_in_from_the_network_that_guesses(alice: Any, rates: Any) -> None:
    browser = known(at=OFFICE)
    rates["login"] = (5, 60)
    for _ in range(40):
        page("guess", at=OFFICE)
    assert page(PASSWORD, at=OFFICE).status_code == 429
    assert page(PASSWORD, at=OFFICE, browser=browser).status_code == 302


def test_guesses_from_many_networks_are_bounded_and_known_browsers_alone_get_past(alice: Any) -> None:
    browser = known()
    used_up_everywhere()
    assert page(PASSWORD, at=OFFICE).status_code == 429
    assert page(PASSWORD, at=OFFICE, browser=browser).status_code == 302


def test_another_account_is_not_affected(alice: Any, bob: Any) -> None:
    used_up_everywhere()
    assert page(PASSWORD, username="bob").status_code == 302


def test_right_passwords_do_not_count(alice: Any) -> None:
    for _ in range(10):
        assert rest(PASSWORD).status_code == 200
    assert set(RateWindow.objects.values_list("requests", flat=True)) == {0}


def test_a_right_password_takes_back_its_own_attempt_and_no_other(alice: Any) -> None:
    tries = [rest(password).status_code for password in ("guess", PASSWORD, "guess", PASSWORD, "guess", "guess")]
    assert tries == [401, 200, 401, 200, 401, 429]


# Guessing stays slow


def test_a_network_is_counted_over_all_its_accounts(alice: Any, rates: Any) -> None:
    rates["login"] = (3, 60)
    assert [rest("guess", username=f"user{n}").status_code for n in range(4)] == [401, 401, 401, 429]


def test_the_addresses_of_one_block_are_one_network(alice: Any) -> None:
    assert [rest("guess", at=f"198.51.100.{n}").status_code for n in range(4)] == [401, 401, 401, 429]
    addresses = [f"2001:db8:7:{n}::1" for n in range(4)]
    assert [rest("guess", at=at, username="bob").status_code for at in addresses] == [401, 401, 401, 429]
    assert rest("guess", at="2001:db8:8::1", username="bob").status_code == 401


def test_a_forged_forwarded_address_is_no_other_network(alice: Any) -> None:
    for n in range(5):
        body = {"username": "alice", "password": "guess"}
        headers = {"X-Forwarded-For": f"10.{n}.0.1"}
        last = Client().post("/api/auth/token/", body, content_type="application/json", headers=headers)
    assert last.status_code == 429


@pytest.mark.parametrize(
    "spellings", [("alice", "ALICE", "Alice", "aLICE"), ("alice", "ａｌｉｃｅ", " alice", "ᵃlice")]
)
def test_spellings_of_a_username_do_not_multiply_the_attempts(alice: Any, spellings: tuple[str, ...]) -> None:
    assert [rest("guess", username=name).status_code for name in spellings] == [401, 401, 401, 429]


@pytest.mark.django_db(transaction=True)
def test_of_fifty_attempts_at_once_no_more_than_the_rate_look_at_the_password(alice: Any, rates: Any) -> None:
    looked: list[int] = []

    def slow(self: Any, password: str) -> bool:
        looked.append(1)
        time.sleep(0.2)
        return False

    def attempt(n: int) -> int:
        try:
            return rest("guess").status_code
        finally:
            connection.close()

    with mock.patch.object(User, "check_password", slow), ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(attempt, range(50)))
    assert (len(looked), statuses.count(401), statuses.count(429)) == (3, 3, 47)


def test_more_password_checks_at_once_than_a_worker_can_do_are_refused_at_once(alice: Any) -> None:
    browser = known()
    for _ in range(logins.MAX_PASSWORD_CHECKS):
        assert logins._password_checks.acquire(blocking=False)
    try:
        answer = rest(PASSWORD)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
        assert page(PASSWORD, browser=browser).status_code == 302
    finally:
        for _ in range(logins.MAX_PASSWORD_CHECKS):
            logins._password_checks.release()
    assert rest(PASSWORD).status_code == 200


def test_without_a_request_nothing_is_counted(alice: Any) -> None:
    for _ in range(10):
        assert authenticate(username="alice", password="guess") is None
    assert authenticate(username="alice", password=PASSWORD) == alice
    assert not RateWindow.objects.exists()


# Known browsers


def test_the_cookie_is_for_the_server_alone_and_says_nothing_about_the_password(alice: Any, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = True
    browser = Client()
    page(PASSWORD, browser=browser)
    morsel = cookie(browser)
    assert (morsel["httponly"], morsel["secure"], morsel["samesite"], morsel["path"]) == (True, True, "Lax", "/")
    assert morsel["max-age"] == 180 * 86_400
    assert alice.password not in morsel.value


def test_no_cookie_comes_without_a_sign_in(alice: Any) -> None:
    browser = Client()
    page("guess", browser=browser)
    browser.get("/admin/login/")
    assert not [name for name in browser.cookies if name.startswith("aipassport_browser_")]


def _forged(browser: Client, alice: Any) -> None:
    browser.cookies[cookie(browser).key] = cookie(browser).value[:-1] + "x"


def _of_another_user(browser: Client, alice: Any) -> None:
    bob = get_user_model().objects.create_user("bob", password=PASSWORD, is_staff=True)
    other = Client()
    page(PASSWORD, username="bob", browser=other)
    assert cookie(other).key.endswith(f"_{bob.pk}")
    browser.cookies[cookie(browser).key] = cookie(other).value


def _new_password(browser: Client, alice: Any) -> None:
    alice.set_password(PASSWORD)
    alice.save()


def _too_old(browser: Client, alice: Any) -> None:
    with mock.patch("django.core.signing.time.time", return_value=time.time() - 181 * 86_400):
        page(PASSWORD, browser=browser)


def _empty(browser: Client, alice: Any) -> None:
    browser.cookies[cookie(browser).key] = ""


@pytest.mark.parametrize("spoil", [_forged, _of_another_user, _new_password, _too_old, _empty])
def test_a_cookie_that_is_not_good_helps_nobody(alice: Any, spoil: Callable[[Client, Any], None]) -> None:
    browser = known()
    spoil(browser, alice)
    used_up_everywhere()
    assert page(PASSWORD, browser=browser).status_code == 429


def test_a_cookie_helps_with_its_own_account_alone(alice: Any, bob: Any) -> None:
    browser = known()
    for n in range(7):
        rest("guess", at=f"10.{n}.0.1", username="bob")
    assert page(PASSWORD, username="bob", browser=browser).status_code == 429
    assert page(PASSWORD, username="alice", browser=browser).status_code == 302


def test_a_stolen_cookie_guesses_within_a_rate_of_its_own_and_then_like_anybody(alice: Any) -> None:
    thief = known()
    statuses = [page("guess", at=STRANGER, browser=thief).status_code for _ in range(10)]
    assert statuses == [200] * (4 + 3) + [429] * 3
    assert page(PASSWORD, at=HOME).status_code == 302


def test_a_thief_who_uses_up_the_rate_of_a_browser_does_not_lock_it_out(alice: Any) -> None:
    browser = known()
    for _ in range(10):
        page("guess", at=STRANGER, browser=browser)
    assert page(PASSWORD, at=HOME, browser=browser).status_code == 302


# What the doors say


def test_the_page_says_what_happened_and_how_long_to_wait(alice: Any) -> None:
    for _ in range(3):
        answer = page("guess")
        assert answer.status_code == 200
        assert b"Too many" not in answer.content
    answer = page(PASSWORD)
    assert answer.status_code == 429
    assert 3500 < int(answer.headers["Retry-After"]) <= 3600
    html = " ".join(answer.content.decode().split())
    assert "too many failed attempts to sign in to this account from your network" in html
    assert "Wait 60 minutes" in html
    assert "signed in to this account before" in html


def test_the_api_answers_429_with_retry_after(alice: Any) -> None:
    for _ in range(3):
        rest("guess")
    answer = rest(PASSWORD)
    assert answer.status_code == 429
    assert 3500 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.json()["error"]["code"] == "throttled"
    assert "to this account from your network" in answer.json()["error"]["message"]


def test_after_the_window_the_owner_signs_in_again(alice: Any) -> None:
    for _ in range(4):
        rest("guess")
    assert rest(PASSWORD).status_code == 429
    for window in RateWindow.objects.all():
        RateWindow.objects.filter(pk=window.pk).update(started_at=window.started_at - 3600)
    assert rest(PASSWORD).status_code == 200


@pytest.mark.parametrize("door", [page, rest])
def test_a_known_and_an_unknown_username_are_answered_alike_and_without_a_hash(alice: Any, door: Any) -> None:
    told = {}
    with mock.patch.object(User, "set_password") as unknown, mock.patch.object(User, "check_password") as right:
        right.return_value = False
        for username in ("alice", "nobody"):
            answers = [door("guess", username=username) for _ in range(5)]
            told[username] = [(answer.status_code, "Retry-After" in answer.headers) for answer in answers]
    assert told["alice"] == told["nobody"]
    assert (right.call_count, unknown.call_count) == (3, 3)


def test_a_known_and_an_unknown_username_cost_as_many_queries(alice: Any) -> None:
    def queries(username: str) -> int:
        with CaptureQueriesContext(connection) as seen:
            rest("guess", username=username)
        return len(seen)

    assert [queries("alice") for _ in range(5)] == [queries("nobody") for _ in range(5)]


# The trail


def test_the_trail_has_the_start_of_a_throttle_once_a_window(alice: Any, root: Any) -> None:
    for _ in range(20):
        rest("guess", at=STRANGER)
    event = AuditEvent.objects.get()
    assert (event.action, event.owner, event.address) == ("sign_in.throttled", alice, STRANGER)
    assert event.detail == {"account": "alice", "rate": "login-user"}
    assert event.actor == event.via == "sign-in"


def test_the_trail_does_not_hold_what_was_typed_instead_of_a_username(alice: Any) -> None:
    for _ in range(20):
        rest("guess", username="my secret password")
    event = AuditEvent.objects.get()
    assert (event.owner, event.detail["account"]) == (None, "unknown")


def test_strangers_who_try_many_accounts_from_one_network_write_nothing_to_the_trail(rates: Any) -> None:
    rates["login"] = (10, 60)
    for n in range(40):
        rest("guess", username=f"user{n}")
    assert not AuditEvent.objects.exists()
    assert RateWindow.objects.count() == 1 + 2 * 10


# While a password is hashed

_HASHING = """
from gevent import monkey; monkey.patch_all()
import django; django.setup()
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connection
settings.PASSWORD_HASHERS = ["aipassport.hashers.PBKDF2PasswordHasher"]
connection.ensure_connection()
make_password("correct horse")
print(connection.connection is None)
"""


def test_while_a_password_is_hashed_no_database_connection_is_held(tmp_path: Path) -> None:
    env = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", _HASHING], env=env, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
