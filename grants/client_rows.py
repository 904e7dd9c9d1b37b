"""What a row of the table of clients is. See :mod:`grants.clients`."""

from __future__ import annotations

from typing import NamedTuple

SHELL = "shell"


class Part(NamedTuple):
    """Some lines, and where they go: ``shell``, or the name of a file.

    ``@URL@`` stands for the broker's address, ``@TOKEN@`` for the token, ``@MODEL@`` for a model that it covers.
    """

    place: str
    language: str
    text: str


class Client(NamedTuple):
    """One row of the table.

    ``base``: what comes after the broker's address. ``dialect``: what the provider must speak; "openai" for the
    Responses API, empty for OpenAI-shaped chat, which works with every provider. ``fresh``: how a new token gets in.
    ``also``: models that it calls beside the chosen one. ``off``: what to switch off, and why. ``tried``: the version
    that was run with these lines, empty for none.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    fresh: str
    base: str = "/proxy/v1"
    dialect: str = ""
    also: str = ""
    off: str = ""
    tried: str = ""
