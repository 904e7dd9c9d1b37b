"""The folder that the workers of one gunicorn share: a file of numbers each, and what dead ones have counted in one.

The master folds a dead worker's file into ``…_dead.db``, so that counters never go back and scrapes do not get slower
with each worker that ever lived. A lock keeps a scrape from seeing the same numbers twice, or not at all.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead


@contextmanager
def locked(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Held for milliseconds: by scrapes together, by who changes files or names ``alone``."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def bury(folder: Path, pid: int) -> None:
    """A worker has died: its gauges go, its counts stay."""
    with locked(folder, alone=True):
        mark_process_dead(pid, str(folder))
        for kind in ("counter", "histogram"):
            file = folder / f"{kind}_{pid}.db"
            with suppress(FileNotFoundError):
                try:
                    _add(file, folder / f"{kind}_dead.db")
                finally:
                    file.unlink()  # also one that was killed while it wrote: it would break every scrape


def _add(file: Path, to: Path) -> None:
    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    sums = MmapedDict(str(to))
    try:
        for key, value, *_ in counted:
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    finally:
        sums.close()
