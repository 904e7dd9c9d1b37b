"""What is installed is what is locked: every version and every hash, and the lock agrees with pyproject."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-unit.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
EXTRAS = [item for extra in PROJECT["project"].get("optional-dependencies", {}).values() for item in extra]


def group(name: str) -> list[str]:
    """The requirements of a dependency group and of the groups that it includes."""
    found: list[str] = []
    for item in PROJECT["dependency-groups"][name]:
        found += [item] if isinstance(item, str) else group(item["include-group"])
    return found


WANTED = {
    "requirements.lock": RUNTIME,
    "requirements-unit.lock": RUNTIME + group("unit"),
    "requirements-dev.lock": RUNTIME + EXTRAS + group("dev"),
}


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Package → its pin, and its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pin, *hashes = re.split(r"\s+--hash=", line)
            requirement = Requirement(pin)
            assert canonicalize_name(requirement.name) not in found, f"{requirement.name} stands in {name} twice"
            found[canonicalize_name(requirement.name)] = (requirement, hashes)
    return found


def applies(marker: Marker | None, extras: Any = ()) -> bool:
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def needed(requirements: list[str]) -> set[str]:
    """Everything that these come with, on this machine."""
    found: set[tuple[str, str]] = set()
    ahead = [(Requirement(item), ()) for item in requirements]
    while ahead:
        requirement, extras = ahead.pop()
        if not applies(requirement.marker, extras):
            continue
        for extra in ("", *requirement.extras):
            if (key := (canonicalize_name(requirement.name), extra)) not in found:
                found.add(key)
                ahead += [(Requirement(item), (extra,)) for item in metadata.requires(requirement.name) or ()]
    return {name for name, _ in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_each_dependency_is_locked_to_a_version_that_pyproject_allows(lock: str) -> None:
    pins = locked(lock)
    for requirement in map(Requirement, WANTED[lock]):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in {lock}: make lock"
        (pin,) = pins[name][0].specifier
        assert requirement.specifier.contains(pin.version), f"{pins[name][0]} is not {requirement}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_has_what_the_dependencies_need_and_nothing_else(lock: str) -> None:
    pins = {name for name, (pin, _) in locked(lock).items() if applies(pin.marker)}
    assert pins == needed(WANTED[lock])


@pytest.mark.parametrize("lock", LOCKS)
def test_each_version_is_pinned_with_its_hashes_and_nothing_says_where_it_comes_from(lock: str) -> None:
    for pin, hashes in locked(lock).values():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes)
    text = (ROOT / lock).read_text()
    assert not re.search(r"https?:|file:|^--|^-[a-z]", text, re.MULTILINE)


def test_what_is_tested_is_what_runs() -> None:
    dev = locked("requirements-dev.lock")
    for smaller in ("requirements.lock", "requirements-unit.lock"):
        for name, (pin, hashes) in locked(smaller).items():
            assert dev[name][0].specifier == pin.specifier
            assert dev[name][1] == hashes


def test_make_installs_from_the_locks_alone() -> None:
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert {line.partition("pip install --quiet ")[2] for line in lines} == {
        f"--require-hashes -r {lock}" for lock in LOCKS
    }


_FOUND = '{"dependencies": [{"name": "one", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}]}'
_SKIPPED = '{"dependencies": [{"name": "one", "skip_reason": "not found"}]}'


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (_FOUND, 1, "one 1.0: CVE-1, fixed in 1.1"),
        (_SKIPPED, 0, "0 of 1 locked packages could be asked about"),
        ("", 0, "could not be asked"),
    ],
    ids=["a known hole", "packages it does not know", "no service"],
)
def test_a_known_hole_fails_the_audit_and_a_silent_service_does_not(
    tmp_path: Path, answer: str, code: int, said: str
) -> None:
    (tmp_path / "pip_audit.py").write_text(f"print({answer!r})")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, ".ci/audit.py"], cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout
