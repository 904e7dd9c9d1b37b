"""What is tried with each client, and what the person at the screen must see."""

from __future__ import annotations

from typing import NamedTuple

DEAD = "The owner has revoked this grant."
CUT = "The owner has revoked or ended this grant."
SEEN = "I see 1 picture(s)."
HELLO = "Hello from the local provider."


class Case(NamedTuple):
    """``prompt``: with ``@PATH@`` for a file whose marker the answer names, where ``seen`` is empty. ``seen``: what
    must be printed. ``limits``: options of ``issue_grant``. ``revoked``: ``before`` the call, or ``during`` it.
    """

    name: str
    prompt: str = "Say hello."
    seen: str = HELLO
    limits: tuple[str, ...] = ()
    granted: bool = True
    revoked: str = ""

    @property
    def kind(self) -> str:
        """What a script of a library does: ``plain``, ``tools`` or ``picture``."""
        return "picture" if self.name == "picture" else "plain" if self.seen else "tools"


_READ = "Read the file @PATH@ and tell me the marker in it."
_MONEY = ("--max-cost", "5", "--default-output-tokens", "4096")

CASES = (
    Case("plain"),
    Case("tools", _READ, ""),
    Case("picture", "What is in this picture?", SEEN),
    Case("money", _READ, "", _MONEY),
    Case("refused model", seen="does not include the model", granted=False),
    Case("dead token", seen=DEAD, revoked="before"),
    Case("revoked", "Please count slowly.", CUT, revoked="during"),
)
