"""The peers' programs: installed once, each into a folder of its own, at the versions that ``peers/`` pins.

A peer that cannot be installed (no network, no Node, another Python than the pins are for) is left out of the
measurement; the table says why.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from servers import HERE, ROOT

PINS = HERE / "peers"
FOLDER = ROOT / "build" / "peers"
_TIMEOUT = 900.0  # seconds for one installation


class UnavailableError(Exception):
    """This peer is not measured, and why."""


def litellm(folder: Path, *, offline: bool) -> Path:
    """The ``litellm`` program, in a virtual environment under ``folder``.

    Raises:
        UnavailableError: it is not there and cannot be installed.
    """
    place = folder / "litellm"

    def install() -> None:
        _run([sys.executable, "-m", "venv", str(place)])
        # Wheels only: nothing of a package runs while it is installed.
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run([*pip, "-r", str(PINS / "litellm.txt")])

    _once(place, [PINS / "litellm.txt"], install, offline=offline)
    return place / "bin" / "litellm"


def portkey(folder: Path, *, offline: bool) -> Path:
    """The gateway's ``start-server.js``, in a ``node_modules`` under ``folder``.

    Raises:
        UnavailableError: it is not there and cannot be installed.
    """
    if not shutil.which("node"):
        raise UnavailableError("node is not installed")
    place, pins = folder / "portkey", [PINS / "portkey" / name for name in ("package.json", "package-lock.json")]

    def install() -> None:
        place.mkdir(parents=True)
        for pin in pins:
            shutil.copy(pin, place)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place)

    _once(place, pins, install, offline=offline)
    return place / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def version(name: str) -> str:
    """The pinned version of a peer."""
    if name == "LiteLLM":
        lines = (PINS / "litellm.txt").read_text().splitlines()
        return next(line.partition("==")[2] for line in lines if line.startswith("litellm=="))
    package = json.loads((PINS / "portkey" / "package.json").read_text())
    return str(package["dependencies"]["@portkey-ai/gateway"])


def _once(place: Path, pins: list[Path], install: Callable[[], None], *, offline: bool) -> None:
    """Install where the pins have changed since the last time, or nothing is there yet."""
    mark = hashlib.sha256(b"".join(pin.read_bytes() for pin in pins)).hexdigest()
    stamp = place / ".installed"
    if stamp.exists() and stamp.read_text() == mark:
        return
    if offline:
        raise UnavailableError(f"{place.name} is not installed, and --offline forbids it")
    print(f"installing {place.name} into {place}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    install()
    stamp.write_text(mark)


def _run(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{Path(command[0]).name}: {type(error).__name__}") from error
    if done.returncode:
        # The installer's whole answer may name this machine's paths and its registry: not for a table.
        print(done.stderr[-3000:], file=sys.stderr)
        raise UnavailableError(f"its installation failed ({Path(command[0]).name} ended with {done.returncode})")
