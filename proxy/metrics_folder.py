"""The folder that the workers of one gunicorn share: a file of numbers each, and what dead ones have counted in one.

The master folds a dead worker's file into ``…_dead.db``, so that counters never go back and scrapes do not get slower
with each worker that ever lived. A lock keeps a scrape from seeing the same numbers twice, or not at all. Django is not
known here, the master has none; prometheus_client is imported late, since it decides then where numbers are kept.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "aipassport-metrics-"


def new_name(parent: Path) -> Path:
    """A folder's name that nobody can guess; it is not made yet."""
    return parent / f"{_PREFIX}{secrets.token_hex(8)}"


def make(folder: Path, uid: int, gid: int) -> None:
    """Make it for workers of that user, and sweep out those whose server was killed before it could.

    A server holds a lock on its own for as long as one of its processes lives.
    """
    folder.mkdir(mode=0o700)
    held = os.open(folder / "new", os.O_RDWR | os.O_CREAT, 0o600)  # never closed
    fcntl.flock(held, fcntl.LOCK_EX)
    os.rename(folder / "new", folder / "alive")  # for others it is not there before it is locked
    os.chown(folder, uid, gid)
    for other in folder.parent.glob(f"{_PREFIX}*"):
        if other != folder:
            with suppress(OSError):
                _sweep(other)


def _sweep(folder: Path) -> None:
    """Raises OSError where its server lives, or is somebody else's."""
    lock = os.open(folder / "alive", os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


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
    from prometheus_client.multiprocess import mark_process_dead

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
    from prometheus_client.mmap_dict import MmapedDict

    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    sums = MmapedDict(str(to))
    try:
        for key, value, *_ in counted:
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    finally:
        sums.close()
