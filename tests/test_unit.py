"""The rules that choose what ``make unit`` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import unit


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_sdks.py", "imports anthropic, which requirements-unit.lock does not have"),
        ("test_lock.py", "imports subprocess"),
        ("test_dialects_routes.py", ""),
        ("test_unit.py", ""),
    ],
)
def test_a_file_is_left_out_for_what_it_imports(name: str, reason: str) -> None:
    assert unit.excluded(Path(__file__).with_name(name)) == reason


def test_imports_are_found_inside_functions_and_made_absolute() -> None:
    source = "def f():\n    from . import live\n    import openai.types\nfrom .agents.broker import Broker\n"
    assert {"tests.live", "openai.types", "tests.agents.broker"} <= unit.imports(source, ("tests",))


def test_a_program_and_a_listening_socket_are_refused() -> None:
    for event in ("subprocess.Popen", "os.posix_spawn", "socket.bind"):
        with pytest.raises(RuntimeError, match="marker 'live'"):
            unit._refuse(event, ())
    unit._refuse("open", ())


def test_only_what_is_locked_counts_as_installed() -> None:
    assert {"pytest", "hypothesis", "django"} <= unit.installed()
    assert unit.installed().isdisjoint({"openai", "anthropic", "google", "playwright", "schemathesis"})
