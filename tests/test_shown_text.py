"""What an owner reads before consenting looks like what it is, and dates and addresses at the edges are refused."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.addresses import may_be_public_host
from grants.models import Actor, Grant, ProviderKey
from grants.shown_text import MAX_MARKS, name_problem, text_problem, web_page_problem

from .api import anyone, ask, owner

NAMES = [
    "Notebook",
    "Ünïcödé & Söhne (3)",
    "Nguyễn Văn A",
    unicodedata.normalize("NFD", "Nguyễn Văn Ệ"),
    "مساعد الملاحظات",
    "می‌خواهم",
    "מחברת",
    "שָׁלוֹם",
    "ผู้ช่วยจดบันทึก",
    "हिन्दी नोटबुक",
    "क्‍ष",
    "ශ්‍රී ලංකා",
    "മലയാളം",
    "བསྒྲུབས",
    "မြန်မာ",
    "メモ帳アシスタント",
    "笔记本",
    "노트북",
    "Ελληνικά",
    "Записки",
    "Notes 🚀",
    "Family 👨‍👩‍👧‍👦 app",
    "Doctor 👩🏽‍⚕️",
    "Love ❤️ 1️⃣",
    "Flag 🇩🇪 🏳️‍🌈",
    "C++ / C# – “quoted” · 5 €",
]
NASTY = {
    "right-to-left override": "Bank\u202etxt.exe",
    "isolate": "a\u2066b\u2069",
    "right-to-left mark": "a\u200fb",
    "Arabic letter mark": "a\u061cb",
    "zero-width space": "a\u200bb",
    "joiner between Latin letters": "a\u200db",
    "non-joiner at the end": "می\u200c",
    "joiner after an emoji": "Notes 🚀\u200d",
    "soft hyphen": "a\u00adb",
    "byte order mark": "\ufeffa",
    "line separator": "a\u2028b",
    "newline": "a\nb",
    "NUL": "a\0b",
    "no-break space": "a\u00a0b",
    "ideographic space": "a\u3000b",
    "tag characters": "a\U000e0041b",
    "Hangul filler": "a\u3164b",
    "halfwidth Hangul filler": "a\uffa0b",
    "Braille blank": "a\u2800b",
    "grapheme joiner": "a\u034fb",
    "variation selector on a letter": "a\ufe0fb",
    "another variation selector": "a\U000e0100b",
    "private use": "a\ue000b",
    "stack of marks": "a" + "\u0301" * (MAX_MARKS + 1),
    "mark on nothing": "\u0301a",
    "mark on a space": "a \u0301b",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_in_every_script_pass(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_text_that_does_not_look_like_what_it_is_is_refused(text: str) -> None:
    assert text_problem(text) is not None


@pytest.mark.parametrize("name", ["\u3164", "\u115f\u1160", "\u2800", "🚀", "…", " ", "", "\u0301", "-_-"])
def test_a_name_has_a_letter_or_a_digit_that_can_be_seen(name: str) -> None:
    assert name_problem(name) is not None


@given(st.text(max_size=30))
def test_what_passes_has_no_invisible_or_direction_changing_character(text: str) -> None:
    if text_problem(text) is None:
        left = [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]
        assert set(left) <= {"\u200c", "\u200d"}


@given(st.text(alphabet=st.characters(categories=("Lu", "Ll", "Nd"), max_codepoint=0x24F), min_size=1, max_size=30))
def test_plain_words_always_pass(text: str) -> None:
    assert name_problem(text) is None


PAGES = [
    "https://app.example",
    "http://localhost:8000/x?y=1#z",
    "https://xn--bcher-kva.example/",
    "https://[2001:db8::1]/",
]
NO_PAGES = [
    "javascript:alert(1)",
    "//app.example",
    "https://",
    "https://bank.example@evil.example/",
    "https://@evil.example/",
    "https://bücher.example/",
    "https://аррӏе.example/",
    "https://app.example/\u202egnp.exe",
    "https://app.example/a b",
    "https://app.example\\@evil.example",
    "https://app.example:99999/",
    "https://app%2eexample/",
    "https://app.example/\u200b",
]


@pytest.mark.parametrize("url", PAGES)
def test_addresses_of_web_pages_pass(url: str) -> None:
    assert web_page_problem(url) is None


@pytest.mark.parametrize("url", NO_PAGES)
def test_addresses_that_may_be_taken_for_another_are_refused(url: str) -> None:
    assert web_page_problem(url) is not None


@pytest.mark.django_db
class TestAtEveryEntrance:
    @pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
    @pytest.mark.parametrize("field", ["app_name", "app_url", "reason"])
    def test_an_app_s_request_with_such_text_is_refused_by_field(self, field: str, text: str) -> None:
        value = f"https://app.example/{text}" if field == "app_url" else text
        answer = anyone().post("/api/grant-requests/", ask(**{field: value}))
        assert answer.status == 400
        assert list(answer.body["error"]["fields"]) == [field]
        assert not Grant.objects.exists()

    def test_a_blank_letter_is_no_app_s_name(self) -> None:
        answer = anyone().post("/api/grant-requests/", ask(app_name="\u3164"))
        assert (answer.status, list(answer.body["error"]["fields"])) == (400, ["app_name"])

    @pytest.mark.parametrize("name", NAMES)
    def test_names_in_every_script_are_kept_as_they_are(self, name: str) -> None:
        assert anyone().post("/api/grant-requests/", ask(app_name=name, reason=name)).status == 201
        assert (Grant.objects.get().app_name, Grant.objects.get().reason) == (name, name)

    def test_a_model_or_an_origin_of_such_text_is_refused(self) -> None:
        for field, value in (("models", "gpt\u202e"), ("allowed_origins", "https://bücher.example")):
            answer = anyone().post("/api/grant-requests/", ask(**{field: [value]}))
            assert (answer.status, next(iter(answer.body["error"]["fields"])).partition(".")[0]) == (400, field)

    @pytest.mark.parametrize("text", ["Team\u202e", "\u3164", "a\u200bb"])
    def test_the_label_of_a_key_is_read_beside_the_request(self, alice: Any, by: Actor, text: str) -> None:
        key = ProviderKey.add(owner=alice, provider="sandbox", label="Sandbox", secret="", by=by)
        answer = owner(alice).patch(f"/api/provider-keys/{key.pk}/", {"label": text})
        assert (answer.status, list(answer.body["error"]["fields"])) == (400, ["label"])

    def test_a_right_to_left_name_cannot_move_what_stands_beside_it(self, alice: Any, client: Any) -> None:
        assert anyone().post("/api/grant-requests/", ask(app_name="מחברת", reason="סיבה")).status == 201
        client.force_login(alice)
        page = client.get(f"/consent/{Grant.objects.get().pk}/").content.decode()
        assert "<bdi>מחברת</bdi>" in page
        assert "<bdi>סיבה</bdi>" in page


# Dates

ENDS = ["0001-01-01", "1899-12-31", "9000-01-01", "9999-12-31"]


@pytest.mark.django_db
@pytest.mark.parametrize("day", ENDS)
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_at_the_ends_of_the_calendar_is_a_400(alice: Any, grant: Grant, name: str, day: str) -> None:
    for path in ("calls", "totals"):
        answer = owner(alice).get(f"/api/{path}/?{name}={day}")
        assert (answer.status, list(answer.body["error"]["fields"])) == (400, [name])
    assert owner(alice).get(f"/api/calls.csv?{name}={day}").status == 400


@pytest.mark.django_db
@pytest.mark.parametrize("day", [*ENDS, "1900-01-01", "8999-12-31"])
def test_a_day_at_the_ends_of_the_calendar_is_no_error_in_the_admin(
    alice: Any, grant: Grant, client: Any, day: str
) -> None:
    client.force_login(alice)
    for name in ("period_from", "period_to"):
        assert client.get(f"/admin/grants/call/?{name}={day}").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+14:00",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59-12:00",
        "9999-12-31T23:59:59Z",
        "8999-12-31T23:59:59-12:00",
        "1900-01-01T00:00:00+14:00",
    ],
)
def test_an_end_at_the_ends_of_the_calendar_is_an_error_of_its_field(
    alice: Any, grant: Grant, client: Any, moment: str
) -> None:
    answer = owner(alice).patch(f"/api/grants/{grant.pk}/", {"expires_at": moment})
    assert (answer.status, list(answer.body["error"]["fields"])) == (400, ["expires_at"])
    client.force_login(alice)
    posted = {"models": "*", "capabilities": ["chat"], "expiry": "custom", "expires_at": moment, "token_lifetime": 3600}
    answer = client.post(f"/admin/grants/grant/{grant.pk}/terms/", posted)
    assert answer.status_code in (200, 400)
    before = grant.expires_at
    grant.refresh_from_db()
    assert grant.expires_at == before


@pytest.mark.django_db
def test_a_duration_beyond_the_calendar_is_a_wrong_argument() -> None:
    from django.core.management import CommandError, call_command

    for arguments in (["purge", "--calls-older-than=999999999d"], ["purge", "--calls-older-than=36501d"]):
        with pytest.raises(CommandError, match="too long"):
            call_command(*arguments)


# Addresses

PUBLIC = ["api.openai.com", "API.example.", "8.8.8.8", "2606:4700::1111", "1password.example", "my_host.example.org"]
NOT_PUBLIC = [
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.1",
    "127.0.0.1.",
    "0",
    "0x",
    "8.8.8.010",
    "::1",
    "::1%25lo",
    "fe80::1%eth0",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "a.localhost.",
    "redis",
    "metadata.google.internal",
    "metadata.google.internal.",
    "printer.local",
    "nas.home.arpa",
    "１２７.0.0.1",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "a..example",
    "",
    ".",
]


@pytest.mark.parametrize("host", PUBLIC)
def test_public_hosts_pass(host: str) -> None:
    assert may_be_public_host(host)


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_no_spelling_of_a_private_address_passes(host: str) -> None:
    assert not may_be_public_host(host)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}", "0X{:X}"]))
def test_a_number_is_never_a_host(number: int, spelling: str) -> None:
    assert not may_be_public_host(spelling.format(number))


@pytest.mark.django_db
@pytest.mark.parametrize("host", [host for host in NOT_PUBLIC if host])
def test_base_urls_and_webhooks_refuse_them(alice: Any, by: Actor, settings: Any, host: str) -> None:
    from django.core.exceptions import ValidationError

    from grants.models import Preferences

    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = False
    url = f"https://[{host}]/v1" if ":" in host else f"https://{host}/v1"
    with pytest.raises(ValidationError) as caught:
        ProviderKey.add(owner=alice, provider="custom", label="x", secret="s", base_url=url, by=by)
    assert list(caught.value.message_dict) == ["base_url"]
    with pytest.raises(ValidationError) as caught:
        Preferences.of(alice).change(by=by, webhook_url=url)
    assert list(caught.value.message_dict) == ["webhook_url"]
