"""What can be typed into the desk's forms, beyond Django's own fields."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from .. import money, pricelist


class Names(forms.CharField):
    """Names separated by commas, spaces or lines, as a tuple without repetitions."""

    def __init__(self, *, rows: int = 2, placeholder: str = "", **kwargs: Any) -> None:
        attrs = {"rows": rows, "placeholder": placeholder, "spellcheck": "false", "autocapitalize": "off"}
        super().__init__(**{"widget": forms.Textarea(attrs)} | kwargs)

    def to_python(self, value: Any) -> Any:
        return tuple(dict.fromkeys(name for name in re.split(r"[\s,]+", super().to_python(value) or "") if name))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return tuple(initial or ()) != self.to_python(data)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value


class Dollars(forms.CharField):
    """An amount in dollars, as nano-dollars; ``None`` where nothing was typed: no limit."""

    prefix, unlimited = "$", True

    def __init__(self, **kwargs: Any) -> None:
        attrs = {"inputmode": "decimal", "autocomplete": "off", "placeholder": "no limit"}
        super().__init__(required=False, max_length=30, widget=forms.TextInput(attrs), **kwargs)

    def to_python(self, value: Any) -> Any:
        typed = (super().to_python(value) or "").removeprefix("$").strip()
        try:
            return money.limit(typed) if typed else None
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def run_validators(self, value: Any) -> None:
        """They are those of texts; this is a number by now."""

    def prepare_value(self, value: Any) -> Any:
        return money.dollars(value) if isinstance(value, int) else value


class PriceRows(forms.CharField):
    """Price rows in the notation of :mod:`grants.pricelist`."""

    def __init__(self, **kwargs: Any) -> None:
        attrs = {
            "rows": 5,
            "spellcheck": "false",
            "autocapitalize": "off",
            "placeholder": f"{pricelist.EXAMPLE}\nlocal-*: free",
        }
        super().__init__(required=False, widget=forms.Textarea(attrs), **kwargs)

    def to_python(self, value: Any) -> Any:
        try:
            return pricelist.rows(super().to_python(value) or "")
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def prepare_value(self, value: Any) -> Any:
        return pricelist.text(value) if isinstance(value, list) else value


class Limit(forms.IntegerField):
    """A limit in whole numbers; ``None`` where nothing was typed: no limit."""

    unlimited = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, min_value=1, widget=forms.NumberInput({"placeholder": "no limit"}), **kwargs)
