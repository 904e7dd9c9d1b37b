"""Names of models, which callers choose, kept few: a label of a metric costs memory for as long as the server lives."""

from __future__ import annotations

import json
from pathlib import Path

from ..metrics_folder import locked

LIMIT = 50  # models of all providers together
OTHER = "other"
_LENGTH = 100


class Names:
    """The first :data:`LIMIT` models that a provider answered with success; all others are called ``other``.

    ``folder``: where all workers of this server keep one list.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = folder / "models" if folder is not None else None
        self._known: set[tuple[str, str]] = set()

    def name(self, provider: str, model: str, *, success: bool) -> str:
        """What the call's model is called here."""
        if not model or (provider, model) in self._known:
            return model
        if not success or len(model) > _LENGTH or len(self._known) >= LIMIT:
            return OTHER
        self._learn((provider, model))
        return model if (provider, model) in self._known else OTHER

    def _learn(self, pair: tuple[str, str]) -> None:
        if self._file is None:
            self._known.add(pair)
            return
        with locked(self._file.parent, alone=True), self._file.open("a+", encoding="ascii") as file:
            file.seek(0)
            self._known = {(provider, model) for provider, model in map(json.loads, file)}
            if pair not in self._known and len(self._known) < LIMIT:
                file.write(json.dumps(pair) + "\n")
                self._known.add(pair)
