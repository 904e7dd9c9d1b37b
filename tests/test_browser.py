"""The owner's way through the desk in a real Chromium: sign in, add a key, grant, issue a token, use it, revoke.

Pictures of every step land in ``screenshots/``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from grants.models import Actor, Grant

from .conftest import CANARY, PASSWORD, terms

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).resolve().parent.parent / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

Picture = Callable[[str], None]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # playwright's event loop runs in this thread; Django takes that for a mistake
        before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def server_url(server: Any) -> str:
    """Where the product listens: gunicorn, as it is deployed."""
    return str(server.url)


@pytest.fixture
def troubles() -> list[str]:
    """What a browser would complain about: script errors, refused resources, other hosts, server errors."""
    return []


@pytest.fixture
def page(chromium: Any, server_url: str, troubles: list[str]) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, base_url=server_url, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    ours = (server_url, "data:")
    page.on("request", lambda request: None if request.url.startswith(ours) else troubles.append(request.url))
    page.on("response", lambda response: troubles.append(response.url) if response.status >= 500 else None)
    yield page
    context.close()


@pytest.fixture
def picture(page: Any) -> Picture:
    SCREENSHOTS.mkdir(exist_ok=True)

    def take(name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, animations="disabled")

    return take


def sign_in(page: Any, username: str) -> None:
    page.fill("[name=username]", username)
    page.fill("[name=password]", PASSWORD)
    page.click("button[type=submit]")


def ask_the_relay(server_url: str, token: str) -> requests.Response:
    body = {"model": "sandbox-1", "messages": [{"role": "user", "content": "Hello!"}]}
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{server_url}/proxy/v1/chat/completions", json=body, headers=headers, timeout=10)


def add_key(page: Any, *, provider: str, label: str, secret: str = "") -> None:
    page.goto("/admin/grants/providerkey/add/")
    page.select_option("[name=provider]", provider)
    page.fill("[name=label]", label)
    page.fill("[name=secret]", secret)


def test_from_signing_in_to_the_refusal_after_revoking(
    page: Any, alice: Any, server_url: str, picture: Picture, troubles: list[str]
) -> None:
    page.goto("/admin/")
    picture("01-sign-in")
    sign_in(page, "alice")
    page.get_by_role("link", name="Add a provider key").wait_for()
    picture("02-first-visit")

    add_key(page, provider="openai", label="Team account", secret=CANARY)
    picture("03-add-key")
    page.get_by_role("button", name="Store the key").click()
    page.get_by_text("is stored, encrypted").wait_for()
    assert CANARY not in page.content()
    picture("04-key")
    add_key(page, provider="sandbox", label="Sandbox")
    page.get_by_role("button", name="Store the key").click()

    page.get_by_role("link", name="Issue a grant").click()
    assert page.locator("input[value=images]").is_disabled()  # the sandbox does not offer it
    page.fill("[name=app_name]", "Notebook assistant")
    page.fill("[name=models]", "sandbox-*")
    page.fill("[name=max_requests]", "100")
    assert page.locator("[name=expires_at]").is_hidden()
    picture("05-issue-grant")
    page.get_by_role("button", name="Issue, then a token").click()
    picture("06-issue-token")
    page.get_by_role("button", name="Issue the token").click()
    token = page.locator("#ap-token").inner_text()
    page.locator("[data-copy='#ap-token']").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == token
    page.get_by_role("tab", name="Anthropic SDK").click()
    assert "from anthropic import Anthropic" in page.locator("[role=tabpanel]:visible").inner_text()
    picture("07-token")

    answer = ask_the_relay(server_url, token)
    assert answer.status_code == 200, answer.text
    page.get_by_role("link", name="Back to the grant").click()
    assert token not in page.content()
    page.locator("td", has_text="sandbox-1").first.wait_for()
    picture("08-grant")

    page.locator("a[href$='/revoke/']").click()
    picture("09-revoke")
    page.get_by_role("button", name="Revoke this grant").click()
    page.get_by_text("cannot make calls any more").wait_for()
    picture("10-revoked")
    refused = ask_the_relay(server_url, token)
    assert refused.status_code in (401, 403), refused.text
    page.goto("/admin/")
    picture("11-overview")
    assert not troubles


def test_an_owner_consents_on_a_telephone(
    page: Any, alice: Any, by: Actor, server_url: str, picture: Picture, troubles: list[str]
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    wanted = terms(models=("gpt-4o*", "o4-mini"), valid_for=90 * 86_400, max_requests=1000)
    grant, _ = Grant.request(
        provider="openai",
        terms=wanted,
        app_name="Mail triage",
        by=Actor("app"),
        app_url="https://triage.example",
        reason="Sorts your inbox and drafts answers",
    )
    page.goto(f"/consent/{grant.pk}/")
    sign_in(page, "alice")
    page.get_by_text("You have no enabled key").wait_for()
    picture("20-consent-without-a-key")
    page.get_by_role("link", name="Add a key").click()
    assert page.locator("[name=provider]").input_value() == "openai"
    add_key(page, provider="openai", label="Team account", secret=CANARY)
    page.get_by_role("button", name="Store the key").click()

    page.goto(f"/consent/{grant.pk}/")
    picture("21-consent")
    page.fill("[name=user_code]", "BBBB-BBBB")
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("Not the code of this request").wait_for()
    picture("22-wrong-code")
    page.fill("[name=user_code]", grant.user_code.lower())
    page.get_by_text("Allow less than it asks for").click()
    page.fill("[name=max_requests]", "50")
    picture("23-consent-narrowed")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("heading", name="Approved").wait_for()
    picture("24-approved")
    grant.refresh_from_db()
    assert (grant.status, grant.max_requests) == ("approved", 50)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "scrolls sideways"
    assert not [trouble for trouble in troubles if "400" not in trouble]


def test_every_page_of_the_desk_is_without_script_errors(
    page: Any, root: Any, server_url: str, picture: Picture, troubles: list[str]
) -> None:
    page.goto("/admin/")
    sign_in(page, "root")
    add_key(page, provider="sandbox", label="Sandbox")
    page.get_by_role("button", name="Store the key").click()
    page.get_by_role("button", name="Disable now").click()
    page.get_by_text("No grant on this key is served any more").first.wait_for()
    for name in ("grant", "providerkey", "call", "auditevent", "signingkey"):
        page.goto(f"/admin/grants/{name}/")
        page.wait_for_load_state("networkidle")
        picture(f"30-{name}")
    page.goto("/admin/grants/auditevent/")
    page.get_by_text("Filters").first.click()
    page.get_by_role("button", name=re.compile("apply", re.IGNORECASE)).wait_for()
    picture("31-filters")
    for url in ("/admin/auth/user/", "/admin/auth/user/add/", f"/admin/auth/user/{root.pk}/change/"):
        page.goto(url)
        page.wait_for_load_state("networkidle")
    picture("32-user")
    page.goto("/api/docs/")
    page.get_by_text("grant-requests").first.wait_for()
    assert not troubles


_CALL = """async ([url, token]) => {
    const answer = await fetch(url, {
        method: "POST",
        headers: {"authorization": `Bearer ${token}`, "content-type": "application/json", "x-stainless-lang": "js"},
        body: JSON.stringify({model: "sandbox-1", stream: true, messages: [{role: "user", content: "Hello there"}]}),
    });
    return [answer.status, await answer.text(), answer.headers.get("x-aipassport-call")];
}"""


def test_a_page_of_another_origin_calls_the_relay_where_its_grant_says_so(
    chromium: Any, upstream: Any, server_url: str, issue: Any
) -> None:
    """Any page of another origin will do: here the fake provider's 404."""
    _, allowed = issue("sandbox", allowed_origins=(upstream.url,))
    _, other = issue("sandbox", allowed_origins=("https://elsewhere.example",))
    page = chromium.new_page()
    page.goto(f"{upstream.url}/a-page")
    url = f"{server_url}/proxy/v1/chat/completions"
    status, text, call = page.evaluate(_CALL, [url, allowed])
    assert status == 200
    assert text.endswith("data: [DONE]\n\n")
    assert call
    status, text, _ = page.evaluate(_CALL, [url, other])
    assert status == 403
    assert "origin_not_granted" in text
    page.close()
