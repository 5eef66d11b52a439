"""What features and trained weights depend on beside the index: the photos, and the code that reads and encodes."""

from __future__ import annotations

import hashlib
import inspect
import marshal
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fewseg
from fewseg.data.source import ImageSource

ALL, READ = 2**29, 2**26
"""Bytes of photos up to which all are read; of more, evenly spread ones of `READ` together."""


def photos_fingerprint(source: ImageSource) -> dict[str, str]:
    """Hashes of a source's photos: `photos` of their names, sizes and content; where not all are read, `dates` of when
    they were changed, which a copy of the data does not share.

    A source without files, which draws its images, has in their place `photos` of its options and `code` of what
    draws. Of a mix of sources they are hashes of theirs.
    """
    if parts := getattr(source, "parts", None):
        each = {key: photos_fingerprint(part) for key, part in parts.items()}
        kinds = sorted({kind for found in each.values() for kind in found})
        return {
            kind: _sha256([repr([(key, found.get(kind)) for key, found in each.items()]).encode()]) for kind in kinds
        }
    path_of = getattr(source, "image_path", None)
    if path_of is None:
        options = {k: v for k, v in sorted(vars(source).items()) if isinstance(v, bool | int | float | str)}
        return {"photos": _sha256([repr(options).encode()]), "code": code_fingerprint(type(source))}
    paths = [path_of(i) for i in range(len(source.index.ids))]
    root = str(getattr(source, "root", ""))
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # a network's disk answers slowly, but many at once
        stats = list(threads.map(_size_and_time, paths))
        total = sum(size for size, _ in stats)
        every = 1 if total <= ALL else -(-total // READ)
        contents = threads.map(_content, paths[::every])
        named = (f"{str(p).removeprefix(root)}|{size}\n".encode() for p, (size, _) in zip(paths, stats, strict=True))
        photos = _sha256([*named, *contents])
    dates = {} if every == 1 else {"dates": _sha256(f"{time}\n".encode() for _, time in stats)}
    return {"photos": photos, **dates}


def source_classes(source: ImageSource) -> set[type]:
    """The class of a source, and those of the sources that it is a mix of."""
    parts = getattr(source, "parts", {}).values()
    return {type(source)}.union(*map(source_classes, parts))


def code_fingerprint(*classes: type) -> str:
    """Hash of the source code of fewseg's models and data, and of all files beside the classes' own."""
    package = Path(fewseg.__file__).parent
    files = {file for room in ("models", "data") for file in (package / room).rglob("*.py")}
    texts: list[bytes] = []
    for cls in {one for given in classes for one in given.__mro__[:-1]}:
        try:
            file = Path(inspect.getsourcefile(cls) or "")
        except TypeError:  # it was typed into a notebook
            texts += [marshal.dumps(f.__code__) for f in vars(cls).values() if inspect.isfunction(f)]
            continue
        if not _installed(cls, file, package):
            files |= set(file.parent.glob("*.py"))
    return _sha256([*(file.read_bytes() for file in sorted(files)), *sorted(texts)])


def _installed(cls: type, file: Path, package: Path) -> bool:
    """Whether a class is fewseg's own, or torch's and the like, whose versions say what they do."""
    return file.is_relative_to(package) or cls.__module__.partition(".")[0] in ("torch", "huggingface_hub", "typing")


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    except OSError:  # a photo that is missing is told where it is needed
        return 0, 0


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""


def _sha256(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
