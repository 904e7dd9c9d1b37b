"""The desk's forms. They read what was typed; whether it makes sense is for the models to say (see ``attempt``)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.utils import timezone

from ..clock import check_year
from ..models import Grant, ProviderKey
from ..prices import MAX_MARGIN
from ..providers import CAPABILITY_LABELS, PROVIDERS, Capability
from ..templatetags.desk import duration, when
from ..terms import DAY, DEFAULT_OUTPUT_TOKENS, DEFAULT_VALID_FOR, HOUR, LIMITS, Terms
from .fields import Dollars, Limit, Names, PriceRows

T = TypeVar("T")

EXPIRIES = (HOUR, DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY)
LIFETIMES = (300, 900, HOUR, 8 * HOUR, DAY, 7 * DAY, 30 * DAY)
CUSTOM, KEEP = "custom", "keep"


def capability_choices(offered: Iterable[str] = tuple(Capability)) -> list[tuple[str, str]]:
    offered = set(offered)
    return [(item.value, label) for item, label in CAPABILITY_LABELS.items() if item.value in offered]


def duration_choices(
    standard: Iterable[int], *, also: int | None = None, most: int | None = None
) -> list[tuple[str, str]]:
    """Durations to choose from: the ``standard`` ones up to ``most``, and ``also`` one that is in force already."""
    offered = {seconds for seconds in standard if most is None or seconds <= most}
    return [(str(seconds), duration(seconds)) for seconds in sorted(offered | {also or 0} - {0})]


class DeskForm(forms.Form):
    """``field_names``: what the models call a field → what it is called here."""

    field_names: dict[str, str] = {}

    def attempt(self, act: Callable[[], T]) -> T | None:
        """What ``act`` returns; ``None`` when the models refuse, with their reasons beside the fields."""
        try:
            with transaction.atomic():
                return act()
        except ValidationError as error:
            self.refuse(error)
            return None

    def refuse(self, error: ValidationError) -> None:
        found = error.error_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.error_list}
        for name, problems in found.items():
            field = self.field_names.get(name, name)
            for problem in problems:
                self.add_error(field if field in self.fields else None, problem)


PRICES_HELP = (
    "One line a model or pattern; the first that matches counts, before the prices that AIPassport knows. "
    "In dollars: input, output and cached per million tokens, character per million characters; image, second (of "
    "audio) and request each. Or free."
)


class KeyForm(DeskForm):
    provider = forms.ChoiceField(
        choices=[("", "Choose a provider…"), *((row.id, row.label) for row in PROVIDERS.values())]
    )
    label = forms.CharField(max_length=100, help_text="How you will recognise it, such as “Team account”.")
    secret = forms.CharField(
        label="API key",
        required=False,
        strip=True,
        widget=forms.PasswordInput({"autocomplete": "new-password", "spellcheck": "false", "data-lpignore": "true"}),
        help_text="Encrypted at once and never shown again, here or anywhere. Empty only for servers that need none.",
    )
    base_url = forms.CharField(
        label="Base URL",
        max_length=300,
        required=False,
        widget=forms.TextInput({"placeholder": "https://…"}),
        help_text="Empty for the provider’s own. Needed for Azure OpenAI, Amazon Bedrock and custom servers. "
        "It cannot be changed later: the stored key would go to another host.",
    )
    extra_fields = Names(
        required=False,
        placeholder="reasoning_format",
        help_text="Body fields that calls on this key may carry beyond those that AIPassport knows. Usually none.",
    )
    prices = PriceRows(label="Your own prices", help_text=PRICES_HELP)
    margin = forms.IntegerField(
        label="Safety margin, in percent",
        required=False,
        min_value=0,
        max_value=MAX_MARGIN,
        widget=forms.NumberInput({"placeholder": "0"}),
        help_text="On top of every price, where your bill is higher than the list.",
    )

    shows_everything = forms.BooleanField(
        label="Its streams show everything",
        required=False,
        help_text="Only for custom servers. Tick it where a stream shows all output as it is made, thinking and tool "
        "calls included. Under a limit on money, an answer that an app leaves early is then charged for what it "
        "showed, else for its whole output limit.",
    )

    def clean_margin(self) -> int:
        return self.cleaned_data["margin"] or 0

    def add(self, owner: Any, by: Any) -> ProviderKey | None:
        return self.attempt(lambda: ProviderKey.add(owner=owner, by=by, **self.cleaned_data))


class KeyEditForm(DeskForm):
    label = forms.CharField(max_length=100)
    secret = forms.CharField(
        label="New API key",
        required=False,
        strip=True,
        widget=forms.PasswordInput({"autocomplete": "new-password", "spellcheck": "false", "data-lpignore": "true"}),
        help_text="Empty keeps the one that is stored. A new one is used from the next call on; "
        "grants and tokens stay as they are.",
    )
    extra_fields = KeyForm.base_fields["extra_fields"]
    prices = KeyForm.base_fields["prices"]
    margin = KeyForm.base_fields["margin"]
    shows_everything = KeyForm.base_fields["shows_everything"]
    clean_margin = KeyForm.clean_margin

    def clean_extra_fields(self) -> list[str]:
        return list(self.cleaned_data["extra_fields"])

    def save(self, key: ProviderKey, by: Any) -> bool:
        wanted = {name: self.cleaned_data[name] for name in ProviderKey.CHANGEABLE}

        def act() -> bool:
            if wanted != {name: getattr(key, name) for name in wanted}:
                key.change(**wanted, by=by)
            if self.cleaned_data["secret"]:
                key.replace_secret(self.cleaned_data["secret"], by)
            return True

        return self.attempt(act) or False


class TermsForm(DeskForm):
    """What a grant allows. :meth:`terms` is what was chosen."""

    field_names = {"valid_for": "expiry"}

    models = Names(
        rows=3,
        placeholder="gpt-4o-mini\nclaude-*",
        help_text="One a line, or with commas. A star at the end stands for anything; * alone is every model.",
    )
    capabilities = forms.MultipleChoiceField(choices=capability_choices(), widget=forms.CheckboxSelectMultiple)
    expiry = forms.ChoiceField(label="The grant ends")
    expires_at = forms.DateTimeField(
        label="End", required=False, widget=forms.DateTimeInput({"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    )
    token_lifetime = forms.TypedChoiceField(
        label="A token lives", coerce=int, help_text="Short is safe: the app gets a new one when it needs it."
    )
    max_cost = Dollars(label="In total", help_text="Used up, it stays used up until you raise it.")
    max_cost_per_day = Dollars(label="A day", help_text="Begins anew at midnight, in your time zone.")
    max_cost_per_month = Dollars(label="A month", help_text="Begins anew on the first, in your time zone.")
    max_cost_per_call = Dollars(
        label="A call",
        help_text="Also what is set aside for a call that nothing else bounds, such as one with hosted tools.",
    )
    requests_per_minute = Limit(label="Requests a minute", help_text="At an even pace; a few at once are fine.")
    tokens_per_minute = Limit(label="Tokens a minute", help_text="In and out; what a call did not use is given back.")
    max_requests = Limit(label="Requests in total", help_text="Every call counts, also one that fails.")
    max_concurrency = Limit(label="Requests at a time", help_text="One more is refused until one of them ends.")
    default_output_tokens = forms.IntegerField(
        label="Output tokens by default",
        required=False,
        min_value=1,
        widget=forms.NumberInput({"placeholder": str(DEFAULT_OUTPUT_TOKENS)}),
        help_text="For a call that names no limit of its own, where money or tokens are limited.",
    )
    allowed_origins = Names(
        label="Web origins",
        required=False,
        placeholder="https://app.example",
        help_text="Web pages that may use it from a browser. Empty: none may; servers and scripts are not affected.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "expires_at" in self.fields:
            self.fields["expires_at"].help_text = f"Time zone: {timezone.get_current_timezone_name()}."

    def choose(self, name: str, choices: list[tuple[str, str]], initial: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101  a mistake of ours
        field.choices = choices
        self.initial.setdefault(name, initial)

    def clean_default_output_tokens(self) -> int:
        return self.cleaned_data["default_output_tokens"] or DEFAULT_OUTPUT_TOKENS

    def clean_expires_at(self) -> dt.datetime | None:
        ends: dt.datetime | None = self.cleaned_data["expires_at"]
        if ends is not None:
            try:
                check_year(ends)
            except ValueError as error:
                raise ValidationError(str(error)) from error
        return ends

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        if values.get("expiry") == CUSTOM and "expires_at" not in self.errors:
            ends = values.get("expires_at")
            if ends is None or ends <= timezone.now():
                self.add_error("expires_at", "A date and time in the future.")
        return values

    def terms(self, start: Terms | None = None) -> Terms:
        """``start`` with everything that was chosen; ``valid_for`` is as it was where an end was not chosen anew."""
        values = self.cleaned_data
        names = ("models", "capabilities", "token_lifetime", "allowed_origins", "default_output_tokens", *LIMITS)
        chosen = {name: values[name] for name in names if name in values}
        if values["expiry"].isdecimal():
            chosen["valid_for"] = int(values["expiry"])
        return (start or Terms(models=(), capabilities=())).with_(**chosen)


class IssueForm(TermsForm):
    provider_key = forms.ModelChoiceField(ProviderKey.objects.none(), label="Provider key", empty_label=None)
    app_name = forms.CharField(
        label="App", max_length=100, widget=forms.TextInput({"placeholder": "Notebook assistant"})
    )
    app_url = forms.CharField(
        label="App URL", max_length=300, required=False, widget=forms.TextInput({"placeholder": "https://app.example"})
    )
    reason = forms.CharField(
        label="Reason", max_length=500, required=False, help_text="One line for you and whoever reads the trail."
    )
    field_order = ["provider_key", "app_name", "app_url", "reason"]

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keys = ProviderKey.objects.held_by(user).enabled()
        field = self.fields["provider_key"]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101
        field.queryset = keys
        self.offers = {str(key.pk): sorted(key.row.capabilities) for key in keys}
        self.choose("expiry", [*duration_choices(EXPIRIES), (CUSTOM, "At a date and time…")], DEFAULT_VALID_FOR)
        self.choose("token_lifetime", duration_choices(LIFETIMES), HOUR)
        self.initial.setdefault("capabilities", [Capability.CHAT])

    def issue(self, by: Any) -> Grant | None:
        values = self.cleaned_data
        terms = self.terms()
        if values["expiry"] == CUSTOM:
            self.field_names = {"valid_for": "expires_at"}
            terms = terms.with_(valid_for=int((values["expires_at"] - timezone.now()).total_seconds()))
        labels = {name: values[name] for name in ("app_name", "app_url", "reason")}
        return self.attempt(lambda: Grant.issue(key=values["provider_key"], terms=terms, by=by, **labels))


class ChangeForm(TermsForm):
    def __init__(self, *args: Any, grant: Grant, **kwargs: Any) -> None:
        terms = grant.terms
        super().__init__(*args, initial={name: getattr(terms, name) for name in Terms.__dataclass_fields__}, **kwargs)
        self.grant = grant
        self.fields["capabilities"].choices = capability_choices(grant.row.capabilities)  # type: ignore[attr-defined]
        anew = [(value, f"{label} from now") for value, label in duration_choices(EXPIRIES)]
        keep = (KEEP, f"As it is: {when(grant.expires_at)}")
        self.choose("expiry", [keep, *anew, (CUSTOM, "At a date and time…")], KEEP)
        self.choose("token_lifetime", duration_choices(LIFETIMES, also=grant.token_lifetime), grant.token_lifetime)

    def change(self, by: Any) -> bool | None:
        """Whether the grant was still live; ``None`` when the terms were refused."""
        expiry = self.cleaned_data["expiry"]
        ends = self.cleaned_data["expires_at"] if expiry == CUSTOM else None
        if expiry.isdecimal():
            ends = timezone.now() + dt.timedelta(seconds=int(expiry))
        terms = self.terms(self.grant.terms).with_(valid_for=self.grant.valid_for)
        self.field_names = {"expires_at": "expires_at" if expiry == CUSTOM else "expiry"}
        return self.attempt(lambda: self.grant.change(terms=terms, by=by, expires_at=ends))


class ConsentForm(TermsForm):
    """What the owner makes of a request. Only less than was asked for can be chosen; the models check it again."""

    provider_key = forms.ModelChoiceField(ProviderKey.objects.none(), label="Your key", empty_label=None)
    user_code = forms.CharField(
        label="The code that the app shows",
        max_length=20,
        widget=forms.TextInput(
            {
                "autocomplete": "off",
                "autocapitalize": "characters",
                "spellcheck": "false",
                "placeholder": "XXXX-XXXX",
                "class": "ap-code-input",
            }
        ),
    )
    expires_at = None  # type: ignore[assignment]

    def __init__(self, *args: Any, grant: Grant, keys: Any, **kwargs: Any) -> None:
        asked = grant.terms
        super().__init__(*args, initial={name: getattr(asked, name) for name in Terms.__dataclass_fields__}, **kwargs)
        self.asked = asked
        self.fields["provider_key"].queryset = keys  # type: ignore[attr-defined]
        self.fields["capabilities"].choices = capability_choices(asked.capabilities)  # type: ignore[attr-defined]
        ends = duration_choices(EXPIRIES, also=asked.valid_for, most=asked.valid_for)
        self.choose("expiry", ends, asked.valid_for or DEFAULT_VALID_FOR)
        lives = duration_choices(LIFETIMES, also=asked.token_lifetime, most=asked.token_lifetime)
        self.choose("token_lifetime", lives, asked.token_lifetime)


class TokenForm(DeskForm):
    field_names = {"token_lifetime": "lifetime"}

    lifetime = forms.TypedChoiceField(label="The token lives", coerce=int)
    models = Names(label="Models", required=False, rows=3)
    capabilities = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple)

    def __init__(self, data: Any = None, *, grant: Grant) -> None:
        initial = {"models": grant.models, "capabilities": grant.capabilities, "lifetime": grant.token_lifetime}
        super().__init__(data, initial=initial)
        self.fields["capabilities"].choices = capability_choices(grant.capabilities)  # type: ignore[attr-defined]
        lives = duration_choices(LIFETIMES, also=grant.token_lifetime, most=grant.token_lifetime)
        self.fields["lifetime"].choices = lives  # type: ignore[attr-defined]
        self.fields["models"].help_text = "Take some away for a narrower token; empty means all that the grant allows."
        self.grant = grant

    def narrowing(self) -> dict[str, Any]:
        """What :func:`grants.tokens.mint` takes; ``None`` where the token is as wide as its grant."""
        values = self.cleaned_data
        models, capabilities = values["models"], tuple(values["capabilities"])
        return {
            "lifetime": values["lifetime"],
            "models": None if not models or set(models) == set(self.grant.models) else models,
            "capabilities": None if set(capabilities) == set(self.grant.capabilities) else capabilities,
        }
