"""The house rules of the architecture, as a walk over the import graph and the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from grants.providers import PROVIDERS
from proxy.dialects import DIALECTS

from .unit import imports_of

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("aipassport", "grants", "proxy")

# file or folder → what it may never import
NEVER = {
    "grants": ("proxy", "aipassport", "requests", "urllib3"),
    "grants/models": ("rest_framework", "proxy", "requests"),
    "grants/providers.py": ("django", "requests"),
    "grants/crypto.py": ("grants", "django.db"),
    "grants/ledger.py": ("requests", "rest_framework"),
    "grants/policy.py": ("requests", "rest_framework"),
    "proxy/dialects": ("django", "requests", "urllib3", "rest_framework", "grants.models", "grants.ledger"),
    "proxy/sse.py": ("django", "requests", "grants"),
    "proxy/pricing": ("django", "requests", "grants.models", "grants.ledger"),
    "proxy/sandbox": ("django", "grants.models", "grants.ledger"),
    "proxy/upstream.py": ("django.db", "grants.models", "grants.ledger", "grants.policy"),
    "proxy/streaming.py": ("django", "grants", "requests"),
    "proxy/exceptions.py": ("django", "rest_framework", "requests"),
}


def sources(place: str = "") -> list[Path]:
    path = ROOT / place
    files = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    return [file for file in files if "migrations" not in file.parts]


@pytest.mark.parametrize("place", NEVER)
def test_a_room_never_imports_what_it_must_not_know(place: str) -> None:
    for file in sources(place):
        for name in imports_of(file):
            forbidden = [never for never in NEVER[place] if name == never or name.startswith(never + ".")]
            assert not forbidden, f"{file.relative_to(ROOT)} imports {name}"


def test_settings_are_the_only_reader_of_the_environment() -> None:
    allowed = {"aipassport/settings.py", "aipassport/dotenv.py", "aipassport/wsgi.py"}
    for room in ROOMS:
        for file in sources(room):
            text = file.read_text()
            reads = "os.environ" in text or "os.getenv" in text
            assert not reads or str(file.relative_to(ROOT)) in allowed, file


def test_only_upstream_and_the_sandbox_speak_http() -> None:
    for room in ROOMS:
        for file in sources(room):
            name = str(file.relative_to(ROOT))
            if name not in ("proxy/upstream.py", "proxy/guarded.py") and not name.startswith("proxy/sandbox"):
                assert not {"requests", "urllib3", "httpx"} & {item.partition(".")[0] for item in imports_of(file)}, (
                    name
                )


def test_every_dialect_of_the_catalogue_has_a_module_and_the_other_way_round() -> None:
    assert set(DIALECTS) == {dialect for provider in PROVIDERS.values() for dialect in provider.dialects}


def test_files_and_functions_stay_readable() -> None:
    long = []
    for room in ROOMS:
        for file in sources(room):
            text = file.read_text()
            if text.count("\n") > 350:
                long.append(f"{file.relative_to(ROOT)}: {text.count(chr(10))} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 45:
                    long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not long, long


def test_env_example_lists_every_variable_that_settings_read() -> None:
    settings = ast.parse((ROOT / "aipassport/settings.py").read_text())
    read = {
        str(node.args[0].value)
        for node in ast.walk(settings)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    example = (ROOT / ".env.example").read_text()
    missing = [name for name in read if f"#{name}=" not in example]
    assert not missing


def test_the_settings_page_has_every_variable_with_its_default() -> None:
    example = re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)` )?\|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert len(example) > 40
    assert sorted(rows) == sorted(example)
