"""The part of docs/clients.md that comes from the table of clients: ``python -m tests.client_docs`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grants import clients

PAGE = Path(__file__).resolve().parent.parent / "docs/clients.md"
MARK = "<!-- From grants/clients.py. Change it there, then run: python -m tests.client_docs -->\n"
URL, TOKEN, MODEL = "https://aipassport.example", "TOKEN", "MODEL"


def document() -> str:
    """Everything after the mark."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from (
        "## A fresh token",
        "",
        "Save as `aipassport-token` in a folder of your `PATH`, and make it executable:",
        "",
    )
    yield from _fence(clients.filled(clients.HELPER, url=URL, token=TOKEN, model=MODEL))
    for client in clients.CLIENTS.values():
        yield from ("", f"## {client.title}", "")
        yield f"`issue_token GRANT --for {client.name}`. Needs {clients.needs(client)}. {_tried(client)}"
        ready = clients.ready(client, url=URL, token=TOKEN, model=MODEL)
        for part in ready.parts:
            yield from ("", f"{part.place}:", "")
            yield from _fence(part)
        yield ""
        yield from (f"- {note}" for note in ready.notes)


def _fence(part: clients.Part) -> Iterator[str]:
    yield from (f"```{part.language}", part.text, "```")


def _tried(client: clients.Client) -> str:
    return f"Tried with {client.tried}." if client.tried else "Not tried yet."


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + "\n" + document())
