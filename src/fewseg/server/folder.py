"""The folder of a server's run: visitors' files are in it, and in no other place.

It is removed when the server ends, on every signal that can be caught. What a server left that was killed, or whose
machine was switched off, the next one removes: a folder whose lock nobody holds.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fewseg.errors import UsageError, first_line, lacks_disk
from fewseg.server.refused import Refused

_LOCK = ".lock"
_RUN = "run-"


@contextmanager
def run_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for this run in `parent` (None: one of this user's in the system's place for temporary files).

    UsageError where the parent cannot be written, or is another user's.
    """
    parent = parent or Path(tempfile.gettempdir()) / f"fewseg-serve-{_user()}"
    _own(parent)
    try:
        with FileLock(parent / _LOCK, mode=0o600):  # a new run's folder is not taken for a dead one's
            _remove_dead(parent)
            folder = Path(tempfile.mkdtemp(prefix=_RUN, dir=parent))
            lock = FileLock(folder / _LOCK, mode=0o600)
            lock.acquire(blocking=False)
    except OSError as error:
        raise _unusable(parent, str(error.strerror)) from error
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """While a file is written to a visitor's folder: Refused, and a line in the log, where the system refuses it."""
    try:
        yield
    except OSError as error:
        full = lacks_disk(error)
        why, todo = ("no room is left", "make room") if full else (error.strerror or first_line(error), "mend that")
        told, todo = f"visitors' files cannot be written ({why})", f"{todo}, or give another place: --folder DIR"
        sys.stderr.write(f"error: {folder.parents[1]}: {told}; {todo}\n")
        raise Refused(507, f"{told}; try again later, or let whoever runs the server {todo}") from error


def _own(parent: Path) -> None:
    """The folder is there, and nobody else's: a name in a place that all may write to can be taken by anyone."""
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = parent.lstat()
    except OSError as error:
        raise _unusable(parent, str(error.strerror)) from error
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or not parent.is_dir() or parent.is_symlink()):
        raise _unusable(parent, "it is not this user's")


def _unusable(parent: Path, why: str) -> UsageError:
    return UsageError(f"{parent} cannot be used for visitors' files ({why}); give another place: --folder DIR")


def _remove_dead(parent: Path) -> None:
    for folder in parent.glob(f"{_RUN}*"):
        lock = FileLock(folder / _LOCK, mode=0o600)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            continue
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
