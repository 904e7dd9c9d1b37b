from .allowance import Allowance
from .audit import Actor, AuditEvent
from .calls import Call, Worker
from .grants import Grant
from .keys import KeyUse, ProviderKey
from .notices import Notice
from .preferences import Preferences
from .price_lists import PriceList
from .throttle import RateWindow
from .tokens import RevokedToken, SigningKey
from .totals import DailyTotal

__all__ = [
    "Actor",
    "Allowance",
    "AuditEvent",
    "Call",
    "DailyTotal",
    "Grant",
    "KeyUse",
    "Notice",
    "Preferences",
    "PriceList",
    "ProviderKey",
    "RateWindow",
    "RevokedToken",
    "SigningKey",
    "Worker",
]
