"""One training at a time in a run directory: a lock, and who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fewseg.errors import DataError, UsageError
from fewseg.files import leftovers, write_json

LOCK, OWNER = ".lock", ".lock.json"
"""Files of a run directory while a process trains into it."""
_PATIENCE = 15.0
"""Seconds that a killed process's children (its loaders) may still hold its lock."""


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Inside, no other process trains into the directory `run`, which is made if need be; an empty one is removed.

    Raises UsageError that names the process which trains there, DataError for a directory that cannot be written.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    lock = FileLock(run / LOCK)
    try:
        run.mkdir(parents=True, exist_ok=True)
        _acquire(lock, run)
        for file in leftovers(run, OWNER.__eq__):
            file.unlink()
        write_json(run / OWNER, {"pid": os.getpid(), "host": socket.gethostname()})
    except OSError as error:
        lock.release()
        raise DataError(f"cannot write the run directory {run}: {error.strerror}; give another --out") from error
    try:
        yield
    finally:
        for name in (OWNER, LOCK):  # the lock last, while it is held
            with suppress(OSError):
                (run / name).unlink()
        lock.release()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _acquire(lock: FileLock, run: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            who, alive = _owner(run)
            if alive or time.monotonic() > end:
                raise UsageError(
                    f"{who} is training into {run}; wait for its end or stop it, or give another --out"
                ) from None
            time.sleep(0.1)
        else:
            if (run / LOCK).exists():  # else its holder removed it meanwhile, and another may make it anew
                return
            lock.release()


def _owner(run: Path) -> tuple[str, bool]:
    """Who holds the lock, and whether it is alive as far as can be known."""
    try:
        said = json.loads((run / OWNER).read_text())
        pid, host = int(said["pid"]), str(said["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process", True
    who = f"process {pid} on {host}"
    if host == socket.gethostname():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return who, False
        except OSError:
            pass
    return who, True
