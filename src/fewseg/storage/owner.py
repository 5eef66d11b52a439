"""One process at a time in a directory that it writes, or one a part of the work: locks, and who holds them.

The locks are the system's: what was killed leaves files, but holds nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.files import leftovers, write_json

_PATIENCE = 15.0
"""Seconds that a killed process's children (its loaders) may still hold its lock."""
_LOCK = re.compile(r"\.lock(?:-(\w+))?")
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Part(NamedTuple):
    """A part of the work on a directory, which may be done beside others, by their names."""

    name: str = ""
    beside: str = "(?!)"
    """Pattern of the names of those; "" is the name of the whole work."""


@contextmanager
def owned(
    run: Path,
    doing: str = "training into",
    *,
    what: str = "run directory",
    part: Part | None = None,
    wait: float = 0,
) -> Iterator[None]:
    """Inside, no other process is at work in the directory `run`, which is made if need be; an empty one is removed.

    `part`: but on parts that may be done beside it. `wait`: so many seconds for one that is. Raises UsageError that
    names the process which is at work there, DataError for a directory that cannot be written; where its file system
    has no locks, a warning says so.
    """
    part = part or Part()
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = _acquire(run, part, doing, wait)
    except OSError as error:
        raise DataError(f"cannot write the {what} {run}: {error.strerror}; give another --out") from error
    if lock is None:
        told = f"{run} lies where the system locks no files: nothing keeps out another process that is {doing} it"
        warnings.warn(DataWarning(f"{told}; start none meanwhile"), stacklevel=3)
    try:
        yield
    finally:
        if lock is not None:
            _let_go(lock)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


class _Held(Exception):
    """Another process is at work: who, and whether it is alive as far as can be known."""

    def __init__(self, who: str, *, alive: bool) -> None:
        self.who, self.alive = who, alive


class _NoLocks(Exception):
    """The file system has none."""


def _acquire(run: Path, part: Part, doing: str, wait: float) -> FileLock | None:
    """The lock of a part, once nobody is at work who keeps it out; None where there are no locks."""
    start = time.monotonic()
    while True:
        try:
            return _first(run, part)
        except _NoLocks:
            return None
        except _Held as held:
            if time.monotonic() - start > (wait if held.alive else max(wait, _PATIENCE)):
                todo = "wait for its end or stop it, or give another --out"
                raise UsageError(f"{held.who} is {doing} {run}; {todo}") from None
        time.sleep(0.1)


def _first(run: Path, part: Part) -> FileLock:
    """The lock of a part, and the file that names this process; what dead ones left is removed.

    One process at a time looks who is there, for two that begin would keep out each other.
    """
    guard, own = FileLock(run / ".lock.guard"), _lock(run, part.name)
    try:
        _take(guard, patience=_PATIENCE)
        for other in {found[1] or "" for file in run.glob(".lock*") if (found := _LOCK.fullmatch(file.name))}:
            if other != part.name and not re.fullmatch(part.beside, other):
                _take(dead := _lock(run, other), other)
                _let_go(dead)
        _take(own, part.name)
        for file in leftovers(run, _owner(own).name.__eq__):
            file.unlink()
        write_json(_owner(own), {"pid": os.getpid(), "host": socket.gethostname()})
    except BaseException:
        _let_go(own)
        raise
    finally:
        _let_go(guard)
    return own


def _take(lock: FileLock, part: str = "", *, patience: float = 0) -> None:
    """Hold a lock; _Held, OSError or _NoLocks where that cannot be."""
    try:
        with warnings.catch_warnings():
            # filelock would make do with a file's being there, which outlives a process that is killed
            warnings.simplefilter("error", UserWarning)
            lock.acquire(timeout=patience)
    except Timeout:
        who, alive = _holder(_owner(lock))
        raise _Held(f"{who} (part {part})" if part else who, alive=alive) from None
    except UserWarning as warning:
        raise _NoLocks from warning
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        raise _NoLocks from error


def _let_go(lock: FileLock) -> None:
    """Remove a lock that is held, and who held it; the lock last, while it is held."""
    if lock.is_locked:
        for file in (_owner(lock), Path(lock.lock_file)):
            with suppress(OSError):
                file.unlink()
        lock.release()


def _lock(run: Path, part: str) -> FileLock:
    return FileLock(run / (f".lock-{part}" if part else ".lock"))


def _owner(lock: FileLock) -> Path:
    """The file that names who holds a lock."""
    return Path(f"{lock.lock_file}.json")


def _holder(file: Path) -> tuple[str, bool]:
    """Who holds a lock, and whether it is alive as far as can be known: not where it is not named, or no more."""
    try:
        said = json.loads(file.read_text())
        pid, host = int(said["pid"]), str(said["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process", False
    who = f"process {pid} on {host}"
    if host == socket.gethostname():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return who, False
        except OSError:
            pass
    return who, True
