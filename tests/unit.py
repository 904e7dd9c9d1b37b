"""Which tests ``pytest --unit`` (``make unit``) runs: those that need no server, database, SDK, browser or program.

No list of tests is kept. A test file is left out if it, or a module of tests/ that it imports, imports a package
that requirements-unit.lock does not have, or if the file itself imports a module that starts programs or listens. Of
the other files, a test is left out if it is marked ``live``, ``browser`` or ``slow``, or if it asks for a fixture that
starts a process or prepares the database (see conftest.py). What these rules miss is refused while it runs: see
:func:`refuse`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-unit.lock"
OWN = frozenset({"aipassport", "grants", "proxy", "tests"})  # benchmarks start servers

MARKERS = frozenset({"live", "browser", "slow"})
FIXTURES = frozenset({"upstream", "postgresql", "_servers", "process"})  # what they start; others ask for these
PROGRAMS = frozenset({"subprocess", "multiprocessing", "socketserver", "http.server", "wsgiref.simple_server"})
REFUSED = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.system", "socket.bind"})


def imports(source: str, package: tuple[str, ...]) -> set[str]:
    """The absolute names of the modules that ``source`` imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def excluded(file: Path) -> str:
    """Why ``file`` is left out; empty if it is not."""
    direct = imports_of(file)
    if programs := sorted(PROGRAMS & direct):
        return f"imports {programs[0]}"
    names = direct.union(*(imports_of(helper) for helper in _helpers(file)))
    foreign = sorted({name.partition(".")[0] for name in names} - OWN - sys.stdlib_module_names - installed())
    return f"imports {foreign[0]}, which {LOCK.name} does not have" if foreign else ""


def needs_more(item: Any) -> bool:
    marked = any(item.get_closest_marker(name) for name in MARKERS)
    return marked or not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


@cache
def installed() -> frozenset[str]:
    """The names that can be imported from what is locked. In a larger environment the rest counts as not installed."""
    locked = {_canonical(name) for name in re.findall(r"^([\w.-]+)(?:\[.*\])?==", LOCK.read_text(), re.MULTILINE)}
    packages = metadata.packages_distributions()
    return frozenset(name for name, owners in packages.items() if locked.issuperset(map(_canonical, owners)))


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def imports_of(file: Path) -> frozenset[str]:
    return frozenset(imports(file.read_text(), file.relative_to(ROOT).parts[:-1]))


def _helpers(file: Path) -> Iterator[Path]:
    """The modules of tests/ that ``file`` imports, and that those import."""
    seen, ahead = set(), [file]
    while ahead:
        for name in imports_of(ahead.pop()):
            path = ROOT.joinpath(*name.split("."))
            for helper in (path.with_suffix(".py"), path / "__init__.py"):
                if name.startswith("tests.") and helper.is_file() and helper not in seen:
                    seen.add(helper)
                    ahead.append(helper)
                    yield helper


def refuse() -> None:
    """From now on in this process, starting a program and listening raise an error that says what to do."""
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in REFUSED:
        raise RuntimeError(f"{event} in a test that `make unit` runs: it needs the marker 'live' (see tests/unit.py)")
