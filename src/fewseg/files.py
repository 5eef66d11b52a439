"""Files written whole or not at all: to a temporary name first, then moved into place."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MARKED = 65536
"""Bytes at a file's beginning and end by which it is told from others."""


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` to write to; moved into place at the end, removed if writing fails.

    `durable`: it is on the disk, not just in the system's memory, before it takes the place of the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not the process's number, which another machine that writes to the same directory may have too
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(folder: Path, known: Callable[[str], object]) -> list[Path]:
    """What `replacing` left in a folder where a process was killed while it wrote files whose names are `known`."""
    found = ((path, re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.tmp", path.name)) for path in folder.glob(".*.tmp"))
    return [path for path, match in found if match and known(match[1])]


@contextmanager
def replacing_files(folder: Path, *, last: str, stay: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary folder beside `folder` to write files to; they are moved into it at the end, none if writing fails.

    The file named `last` goes last: whoever finds it finds the others. Names in `stay` do not replace old files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        work = Path(name)
        yield work
        folder.mkdir(exist_ok=True)
        for file in sorted(work.iterdir(), key=lambda f: (f.name == last, f.name)):
            if file.name not in stay or not (folder / file.name).exists():
                os.replace(file, folder / file.name)


def sync(path: Path) -> None:
    """Wait until a file or a directory's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Any) -> Path:
    """Write JSON whole or not at all."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return path


CSV_TEXT: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
"""How a text file of a table is opened."""


class Shown(str):
    """A cell's text as a table shows it, such as "< 0.001", with the plain value that stands for it in CSV."""

    plain: Any

    def __new__(cls, text: str, plain: Any) -> Shown:
        cell = super().__new__(cls, text)
        cell.plain = plain
        return cell


def write_csv(path: Path, rows: Iterable[Iterable[Any]], *, comments: Iterable[str] = ()) -> Path:
    """Write CSV whole or not at all; `comments` become lines with # before it, for what fewseg itself reads."""
    with replacing(path) as temporary, open(temporary, "w", **CSV_TEXT) as file:
        file.writelines(f"# {line}\n" for line in comments)
        csv.writer(file, lineterminator="\n").writerows([getattr(c, "plain", c) for c in row] for row in rows)
    return path


def write_failures(path: Path, failed: Sequence[tuple[object, str]]) -> Path | None:
    """List what could not be done, and why; None, and no list of an earlier run left, where all was done."""
    if not failed:
        path.unlink(missing_ok=True)
        return None
    return write_csv(path, [("path", "reason"), *failed])


def write_sealed(path: Path, body: bytes | memoryview, *, mark: bytes) -> None:
    """Write a file that begins with a line of `mark` and the hash of the rest."""
    with open(path, "wb") as file:
        file.write(_seal(body, mark))
        file.write(body)


def read_sealed(path: Path, *, mark: bytes) -> bytes | None:
    """The body that `write_sealed` wrote; None if a byte of the file changed."""
    with open(path, "rb") as file:
        head, body = file.readline(len(mark) + 65), file.read()
    return body if head == _seal(body, mark) else None


def _seal(body: bytes | memoryview, mark: bytes) -> bytes:
    return mark + hashlib.sha256(body).hexdigest().encode() + b"\n"


def content_mark(path: Path) -> str:
    """What tells a file from another of its name, without reading all of it: of its length, beginning and end; empty
    where it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            length = file.seek(0, os.SEEK_END)
            found = hashlib.sha256(str(length).encode())
            for place in (0, max(0, length - _MARKED)):
                file.seek(place)
                found.update(file.read(_MARKED))
    except OSError:
        return ""
    return found.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
