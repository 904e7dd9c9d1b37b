"""Which lines point a client (a command-line agent or a library) at the broker: one table for all who print them.

The token page, ``issue_token --for`` and docs/clients.md all take the lines from here. The client's own entries are in
:mod:`grants.client_tools` and :mod:`grants.client_libraries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .client_libraries import LIBRARIES
from .client_rows import Client, Part
from .client_tools import TOOLS

CLIENTS: dict[str, Client] = {client.name: client for client in (*TOOLS, *LIBRARIES)}


class Ready(NamedTuple):
    """A client with its lines filled in."""

    client: Client
    url: str
    parts: tuple[Part, ...]

    @property
    def notes(self) -> list[str]:
        """What one has to know beside the lines, a sentence or two each."""
        named = (
            ("Base URL", f"{self.url}{self.client.base}"),
            ("Fresh token", self.client.fresh),
            ("Also calls", self.client.also),
            ("Switch off", self.client.off),
        )
        return [f"{name}: {text}" for name, text in named if text]


_NEEDS = {
    "": "any provider",
    "openai": "a provider with OpenAI's Responses API",
    "anthropic": "a provider with Anthropic's Messages API",
    "google": "a provider with the Gemini API",
}

# Prints a fresh token, for whatever takes a command. It needs nothing but curl and sed, and keeps the secret in a file:
# arguments of a process can be read by other users of the machine.
HELPER = Part(
    "aipassport-token",
    "sh",
    """\
#!/bin/sh
# Reads {"grant": "…", "request_secret": "…"} from a file that only you can read (chmod 600).
answer=$(curl -sS --fail-with-body @URL@/api/tokens/ -H 'content-type: application/json' \\
  -d @"$HOME/.config/aipassport.json") || { echo "$answer" >&2; exit 1; }
printf '%s' "$answer" | sed -n 's/.*"token": *"\\([^"]*\\)".*/\\1/p'""",
)


def filled(part: Part, *, url: str, token: str, model: str) -> Part:
    """``part`` with its placeholders replaced."""
    text = part.text
    for mark, value in (("@URL@", url), ("@TOKEN@", token), ("@MODEL@", model)):
        text = text.replace(mark, value)
    return part._replace(text=text)


def ready(client: Client, *, url: str, token: str, model: str) -> Ready:
    """``client`` with its lines for this broker, token and model."""
    return Ready(client, url, tuple(filled(part, url=url, token=token, model=model) for part in client.parts))


def fits(client: Client, dialects: Sequence[str]) -> bool:
    """Whether the client works on a grant whose provider speaks ``dialects``, its own first.

    The Responses API is relayed only where OpenAI's format is the provider's own.
    """
    if client.dialect == "openai":
        return dialects[0] == "openai"
    return not client.dialect or client.dialect in dialects


def needs(client: Client) -> str:
    """What the grant's provider has to offer, in words."""
    return _NEEDS[client.dialect]


def as_text(one: Ready) -> str:
    """All lines of a client for a terminal, each part below its place."""
    blocks = [f"# {part.place}\n{part.text}" for part in one.parts]
    return "\n\n".join([*blocks, "\n".join(f"# {note}" for note in one.notes)])
