"""How the processes of a soak stand: memory, descriptors, sockets by kind. Reads ``/proc``, so Linux only."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from databases import PostgreSQL, SQLite
from servers import Process

LISTENING = "0A"  # the state of a socket in /proc/net/tcp
Sample = dict[str, float]  # by the row of the table


def _memory(pid: int) -> dict[str, float]:
    """MB: resident, and of it what is this process's alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"RSS, MB": kilobytes["Rss"] / 1e3, "USS, MB": own / 1e3}


def _tcp(pid: int) -> dict[str, tuple[int, int, str]]:
    """Inode of each TCP socket on the machine → local port, remote port, state."""
    found = {}
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
                found[fields[9]] = local, remote, fields[3]
    return found


class Probe:
    """Samples the workers of one AIPassport, each under a number that stays its own."""

    def __init__(self, process: Process, upstream_port: int, database: SQLite | PostgreSQL) -> None:
        self._process, self._upstream, self._database = process, upstream_port, database
        self.workers = sorted(process.workers())

    def sample(self) -> Sample:
        """Raises FileNotFoundError or ProcessLookupError where a worker is gone."""
        found: Sample = {}
        for number, pid in enumerate(self.workers, 1):
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            of_worker = _memory(pid) | self._descriptors(pid) | {"threads": int(status["Threads"])}
            found |= {f"worker {number}: {name}": value for name, value in of_worker.items()}
        found["connections at PostgreSQL"] = self._database.connections()
        found["open calls"] = self._database.open_calls()
        found["WAL of SQLite, MB"] = self._database.wal() / 1e6
        return found

    def _descriptors(self, pid: int) -> dict[str, float]:
        sockets, kinds = _tcp(pid), Counter[str]()
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                kinds[self._kind(os.readlink(entry.path), sockets)] += 1
        named = ("from clients", "to the upstream", "to the database", "others")
        return {"descriptors": float(kinds.total())} | {f"… {kind}": float(kinds[kind]) for kind in named}

    def _kind(self, link: str, sockets: dict[str, tuple[int, int, str]]) -> str:
        if self._database.is_file(link):
            return "to the database"
        local, remote, state = sockets.get(link.removeprefix("socket:[").removesuffix("]"), (0, 0, ""))
        if local == self._process.port and state != LISTENING:
            return "from clients"
        if remote == self._upstream:
            return "to the upstream"
        return "to the database" if remote and remote == self._database.port else "others"
