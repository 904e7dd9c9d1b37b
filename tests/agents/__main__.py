"""Run real clients from the registries against this broker: ``make clients ARGS="codex llm"``, or without names all.

Each client is installed at its newest version into ``build/clients``, gets the lines that the token page and
``issue_token --for`` print, and is tried with every case of :mod:`.cases` against :mod:`.provider`. Prints one table.
Exit code 1: a client did not show what it must. It needs Node with npm, and the registries.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grants.client_rows import SHELL
from grants.clients import CLIENTS, ready

from . import broker, provider, recording
from .broker import Broker, Issued
from .cases import CASES, Case
from .libraries import LIBRARIES, python_version
from .node_rows import SCRIPTS, versions
from .provider import KEY, LocalProvider
from .tools import TOOLS, Tool, version

ROWS = TOOLS + LIBRARIES
_BUILD = broker.ROOT / "build" / "clients"
_SECONDS = 120.0  # for one case


def _file(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _folder(tool: Tool) -> Path:
    return _BUILD / tool.package.replace("/", "_").replace(" ", "+")


def _install(tool: Tool) -> None:
    folder = _folder(tool)
    if tool.registry == "npm":
        packages = [f"{name}@latest" for name in tool.package.split()]
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
        subprocess.run(command, check=True, capture_output=True)
        return
    if not (folder / "bin").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--upgrade", *tool.package.split()], check=True)


def _programs(tool: Tool) -> Path:
    folder = _folder(tool)
    return folder / ("node_modules/.bin" if tool.registry == "npm" else "bin")


class Run:
    """One client in a home folder of its own."""

    def __init__(self, tool: Tool, home: Path, url: str, issued: Issued) -> None:
        self._tool, self._home, self._url, self._token = tool, home, url, issued.token
        (home / "work").mkdir(parents=True)
        self.marker = f"MARKER-{secrets.token_hex(4)}"
        self._path = home / "work" / "marker.txt"
        self._path.write_text(self.marker + "\n")
        self._env = {"PATH": f"{_programs(tool)}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb", "CI": "1"}
        self._configure()
        if tool.command[0] == "node":  # which finds packages from the folder of the script
            for script in SCRIPTS.glob("*.mjs"):
                shutil.copy(script, _folder(tool))

    def _configure(self) -> None:
        tool = self._tool
        client = CLIENTS[tool.lines or tool.name]
        lines = ready(client, url=self._url, token=self._token, model=tool.model)
        for part in lines.parts:
            if part.place == SHELL:
                exports = [line.removeprefix("export ").split("=", 1) for line in part.text.splitlines() if "=" in line]
                self._env |= {name: value.strip("'\"") for name, value in exports}
            elif part.place.startswith("~/"):
                self._write(part.place, part.text)
            elif "llm" in part.place:
                self._write("~/.config/io.datasette.llm/extra-openai-models.yaml", part.text)
        for place, text in tool.files.items():
            self._write(place, text)
        self._env |= {name: self._filled(value) for name, value in tool.settings.items()}

    def _write(self, place: str, text: str) -> None:
        path = self._home / place.removeprefix("~/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._filled(text))

    def _filled(self, text: str) -> str:
        values = {"@URL@": self._url, "@TOKEN@": self._token, "@MODEL@": self._tool.model}
        for mark, value in {**values, "@PACKAGES@": str(_folder(self._tool))}.items():
            text = text.replace(mark, value)
        return text

    def start(self, case: Case, log: Path) -> subprocess.Popen[bytes]:
        asked = case.prompt.replace("@PATH@", str(self._path))
        words = [self._filled(word) for word in self._tool.command]
        command = [word.replace("@PROMPT@", asked).replace("@KIND@", case.kind) for word in words]
        program = shutil.which(command[0], path=self._env["PATH"]) or command[0]
        with log.open("wb") as file:
            return subprocess.Popen(
                [program, *command[1:]],
                cwd=self._home / "work",
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def version(self) -> str:
        if self._tool.command[0] == "node":
            return versions(self._tool, _folder(self._tool))
        if self._tool.command[0] == "python":
            return python_version(self._tool, _programs(self._tool))
        done = subprocess.run(
            [_programs(self._tool) / self._tool.command[0], "--version"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return version(done.stdout + done.stderr)


def _try(case: Case, tool: Tool, folder: Path, own: Broker, upstream: LocalProvider) -> str:
    """``ok``, or what was wrong."""
    issued = own.issue(tool.provider, "*" if case.granted else "no-such-model", *case.limits)
    run = Run(tool, folder, own.url, issued)
    if case.revoked == "before":
        own.revoke(issued.grant)
    upstream.refused.clear()
    before, began, log = len(upstream.seen), time.monotonic(), folder / "output.log"
    process = run.start(case, log)
    revoked = case.revoked != "during"
    while process.poll() is None and time.monotonic() < began + _SECONDS:
        time.sleep(0.2)
        if not revoked and any("slowly" in str(seen.body) for seen in upstream.seen[before:]):
            time.sleep(2)
            own.revoke(issued.grant)
            revoked = True
    if process.poll() is None:
        os.killpg(process.pid, 9)
        return f"does not end in {_SECONDS:.0f} s"
    if upstream.refused:
        return f"the provider refused: {upstream.refused[0]}"
    printed = " ".join(log.read_text(errors="replace").split())
    wanted = case.seen or f"The marker is {run.marker}"  # its tool may print the marker alone
    return "ok" if wanted in printed else f"not printed: {wanted!r} (see {log})"


def _record(tool: Tool, folder: Path, upstream: LocalProvider) -> None:
    """Keep what the client sends, before the broker changes it: the provider takes the broker's paths, too."""
    run = Run(tool, folder, upstream.url, Issued("", KEY))
    case, began = CASES[0 if "tools" in tool.cannot else 1], len(upstream.seen)
    run.start(case, folder / "output.log").wait(_SECONDS)
    recording.write(_file(tool.name), tool.provider, upstream.seen[began:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(tool.name for tool in ROWS)}")
    parser.add_argument(
        "--record", action="store_true", help="keep small recordings of the agents for the suite instead"
    )
    parser.add_argument("--offline", action="store_true", help="use what is installed already")
    options = parser.parse_args()
    rows = TOOLS if options.record else ROWS
    chosen = [tool for tool in rows if not options.names or tool.name in options.names]
    folder = Path(tempfile.mkdtemp(prefix="aipassport-clients-"))
    failed = False
    print("| client | version |", " | ".join(case.name for case in CASES), "|")
    print("|---" * (len(CASES) + 2) + "|")
    with provider.running() as upstream, broker.running(folder, upstream) as own:
        for tool in chosen:
            if not options.offline:
                _install(tool)
            if options.record:
                _record(tool, folder / f"{_file(tool.name)}-record", upstream)
                continue
            cells, told = [], ""
            for number, case in enumerate(CASES):
                if case.name in tool.cannot or (case.kind == "picture" and "@KIND@" not in tool.command):
                    cells.append("—")
                    continue
                result = _try(case, tool, folder / f"{_file(tool.name)}-{number}", own, upstream)
                cells.append("ok" if result == "ok" else "NO")
                told += "" if result == "ok" else f"{tool.name}, {case.name}: {result}\n"
            found = Run(tool, folder / _file(tool.name), own.url, Issued("", "none")).version()
            print(f"| {tool.name} | {found} | {' | '.join(cells)} |\n{told}", end="", flush=True)
            failed = failed or bool(told)
    sys.exit(failed)


if __name__ == "__main__":
    main()
