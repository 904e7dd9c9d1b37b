"""The refusal of a call that has no price, with the command that sets one."""

from __future__ import annotations

import re
import shlex
from uuid import UUID

from grants.prices import UNITS
from grants.providers import Provider

from ..dialects.base import UpstreamCall
from ..exceptions import NotGranted

# Names that an owner's price row can name. An app chooses the name, and somebody copies the command into a shell.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")


class PriceUnknown(NotGranted):
    """No price is known for ``what``. ``units``: those that a price row of the owner needs; none where it cannot help.

    ``grant``: the grant of the call, which the command names.
    """

    def __init__(
        self, provider: Provider, call: UpstreamCall, what: str, units: tuple[str, ...], grant: UUID | None = None
    ) -> None:
        self.asked = (provider, call, what, units)
        message = f"This grant limits money, and there is no price for {what} at {provider.label}."
        super().__init__(
            f"{message} {_remedy(call.model, units, grant)}", code="price_unknown", param="model", final=True
        )

    def of_grant(self, grant: UUID) -> PriceUnknown:
        return PriceUnknown(*self.asked, grant)


def _remedy(model: str, units: tuple[str, ...], grant: UUID | None) -> str:
    if not units:
        return "Ask without it, or use a grant without a limit of money."
    if grant is None or not _NAME.fullmatch(model):
        return "The owner can set one on the provider key (admin: Provider keys, Edit, Prices)."
    row = f"{model}: {', '.join(f'{unit}=DOLLARS' for unit in units)}"
    meaning = " and ".join(UNITS[unit][1] for unit in units)
    return (
        f"The operator sets one with: python manage.py set_price {grant} {shlex.quote(row)} "
        f"(DOLLARS is the price of {meaning}). The owner can do the same in the admin: Provider keys, Edit, Prices. "
        "Newer price lists arrive with: python manage.py update_prices"
    )
