"""Photos and masks in places that fsspec knows (the extra `remote`): s3://bucket/photos, gs://, zip://a.zip, ...

Photos are read one at a time, without a copy on the disk. Files to write lie in a temporary folder and are brought to
their place while the work goes on, whole ones alone, so that `--resume` finds them there.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from fewseg.errors import DataError, FewsegError, UsageError, first_line, install_line, refuse_address

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)
_FETCHED = re.compile(r"(^|::)(https?|ftp)://", re.IGNORECASE)
_SECONDS = 5.0
"""Between two looks for files that are to be brought to their place."""


def is_remote(given: object) -> bool:
    """Whether it is an address of fsspec's, and no file or folder."""
    return isinstance(given, str) and bool(_ADDRESS.match(given)) and not os.path.exists(given)


def files_at(address: str) -> dict[str, str]:
    """The addresses of all files in a folder, or of the one file, by their paths below it.

    UsageError where fsspec does not know the place, or nothing is there.
    """
    files, root = _place(address)
    with _told(address):
        single = files.isfile(root)
        found = [root] if single else sorted(files.find(root))
    if not found:
        raise UsageError(f"{address}: there is no such file or folder")
    above = PurePosixPath(root).parent if single else PurePosixPath(root)
    return {str(PurePosixPath(path).relative_to(above)): _address_of(address, files, path) for path in found}


def read_at(address: str) -> io.BytesIO:
    """A file's bytes; DataError where it cannot be read."""
    files, path = _place(address)
    with _told(address, DataError):
        content = io.BytesIO(files.cat_file(path))
    content.name = address
    return content


@contextmanager
def outputs_at(out: str, *, resume: bool) -> Iterator[Path]:
    """The folder to write to: `out` itself, or a temporary one whose files are brought to the address `out`.

    With `resume` it begins with what is there, otherwise with masks and tables alone, by which corrected ones are
    known. UsageError where nothing can be written there, DataError where that ends meanwhile.
    """
    if not is_remote(out):
        yield Path(out)
        return
    files, root = _place(out)
    with TemporaryDirectory(prefix="fewseg-") as name:
        work = Path(name)
        with _told(out):
            before = _prepared(files, root, work, resume=resume)
        with _Bringing(files, root, work, out):
            yield work
        with _told(out, DataError):
            for path, place in before.items():
                if not path.exists():
                    files.rm_file(place)


def _prepared(files: Any, root: str, work: Path, *, resume: bool) -> dict[Path, str]:
    """See that files can be written to a place, and fetch what is there, without `resume` masks and tables: files, and
    where they are.
    """
    files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/.fewseg", b"")
    files.rm_file(f"{root}/.fewseg")
    there = (place for place in files.find(root) if resume or place.endswith((".png", ".csv")))
    before = {work / PurePosixPath(place).relative_to(root): place for place in there}
    for path, place in before.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(place, str(path))
    return before


class _Bringing:
    """Brings the files of a folder to their place, in a thread, and all of them at the end."""

    def __init__(self, files: Any, root: str, work: Path, out: str) -> None:
        self._files, self._root, self._work, self._out = files, root, work, out
        self._known = self._states()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="bringing")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        with _told(self._out, DataError):
            self._bring()

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS):
            with contextlib.suppress(Exception):  # the end tries again, and says what is wrong
                self._bring()

    def _bring(self) -> None:
        for path, state in self._states().items():
            if self._known.get(path) == state:
                continue
            place = f"{self._root}/{path.relative_to(self._work).as_posix()}"
            self._files.makedirs(str(PurePosixPath(place).parent), exist_ok=True)
            self._files.put_file(str(path), place)
            self._known[path] = state

    def _states(self) -> dict[Path, tuple[int, int]]:
        """All whole files, and by what a change of theirs is told."""
        found = (path for path in sorted(self._work.rglob("*")) if path.is_file() and path.suffix != ".tmp")
        return {path: ((about := path.stat()).st_mtime_ns, about.st_size) for path in found}


def _place(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it; UsageError where fsspec cannot tell."""
    if match := _FETCHED.search(address):
        refuse_address(address[match.start(2) :])
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise UsageError(f"{address}: this needs fsspec; install it with: {install_line('remote')}") from error
    try:
        files, path = url_to_fs(address)
    except (ImportError, ValueError, OSError, TypeError) as error:
        raise UsageError(f"{address}: fsspec does not reach it ({first_line(error)})") from error
    return files, path.rstrip("/")


def _address_of(given: str, files: Any, path: str) -> str:
    """The address of a file that was found below another: `zip://a.jpg::b.zip`, `simplecache::s3://b/a.jpg`."""
    first, chained, rest = given.partition("::")
    own = files.unstrip_protocol(path)
    if not chained:
        return own
    return f"{own}::{rest}" if "://" in first else f"{first}::{own}"


@contextmanager
def _told(address: str, kind: type[FewsegError] = UsageError) -> Iterator[None]:
    """What libraries of stores raise, of whatever kind, as an error of ours."""
    try:
        yield
    except (FewsegError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        raise kind(f"{address}: {type(error).__name__}: {first_line(error)}") from error
