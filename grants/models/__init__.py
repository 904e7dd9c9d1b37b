from .allowance import Allowance
from .audit import Actor, AuditEvent
from .calls import Call, Worker
from .grants import Grant
from .keys import ProviderKey
from .throttle import RateWindow
from .tokens import RevokedToken, SigningKey

__all__ = [
    "Actor",
    "Allowance",
    "AuditEvent",
    "Call",
    "Grant",
    "ProviderKey",
    "RateWindow",
    "RevokedToken",
    "SigningKey",
    "Worker",
]
