"""The index of what every image holds: built from annotations in parallel, cached, rebuilt when they change."""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.images import read_image
from fewseg.data.source import SUBSETS, SourceIndex, class_mask
from fewseg.errors import DataError, DataWarning, UsageError, check_choice, first_line
from fewseg.files import replacing
from fewseg.progress import Silent

VERSION = 2
"""Of the cache file's layout; a cache of another version is rebuilt."""

MOST_BYTES = 2**30
"""Of a cache's arrays together; COCO 2014's have a tenth."""


class Indexed:
    """What the sources on disk share: subset, directory, and an index that is built on first use and cached.

    A source that gives `holds`, what its directory has in it, is refused without a `root`. `progress` may be set on a
    source before its index is used; the command line sets it to a bar.
    """

    name: str
    class_names: tuple[str, ...]
    ids: Sequence[str]
    root: Path
    min_pixels: int = 1
    progress = Silent()
    _options: dict[str, Any]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Keeps the arguments, which say how the data are read."""
        made = super().__new__(cls)
        made._options = dict(zip(inspect.signature(cls).parameters, args, strict=False)) | options
        return made

    def __init__(self, subset: str, root: str | None = None, *, holds: str | None = None) -> None:
        check_choice("subset", subset, SUBSETS)
        self.subset = subset
        if root is not None:
            self.root = Path(root)
        elif holds is not None:
            raise UsageError(f"{self.name} needs a directory: give data.root=DIR with {holds} in it")

    def image_path(self, i: int) -> Path:
        """The photo's file, whether or not it is there."""
        raise NotImplementedError

    def labels(self, i: int) -> NDArray[Any]:
        """The (H, W) label map of image `i`, without its photo."""
        raise NotImplementedError

    def load(self, i: int) -> tuple[Image.Image, NDArray[Any]]:
        """Image `i` as RGB and its (H, W) label map."""
        return read_image(self.image_path(i)), self.labels(i)

    def shape_of(self, i: int) -> tuple[int, int]:
        """Height and width of image `i` as it is stored, from its file's head where Pillow reads that."""
        try:
            with Image.open(self.image_path(i)) as image:
                return image.height, image.width
        except (OSError, Image.DecompressionBombError):
            return self.load(i)[1].shape  # type: ignore[return-value]

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """A class's mask (H, W) {0, 1, 255 void} of image `i`, whose label map is `labels` if that is at hand."""
        return class_mask(self.load(i)[1] if labels is None else labels, class_id)

    @cached_property
    def index(self) -> SourceIndex:
        """What every image holds."""
        return self._build_index()

    def _build_index(self) -> SourceIndex:
        raise NotImplementedError

    def counted(self, files: Sequence[Path], *, key: str, root: Path | None = None) -> SourceIndex:
        """The index as `build_index` makes it of the source's own label maps; `files` are theirs, in order."""
        classes, root = len(self.class_names), root or self.root
        options = sorted((name, repr(value)) for name, value in self._options.items() if name != "root")
        reader = (*options, code_of(type(self)))
        return build_index(
            self.ids, self.labels, files, classes=classes, root=root, key=key, progress=self.progress, reader=reader
        )

    def describe(self) -> dict[str, Any]:
        """What was found on disk and which rules apply, JSON-able, for reports and `data stats`."""
        return {"name": self.name, "subset": self.subset, "images": len(self.index.ids)}


def build_index(
    ids: Sequence[str],
    labels: Callable[[int], NDArray[Any]],
    files: Sequence[Path],
    *,
    classes: int,
    root: Path,
    key: str,
    progress: Silent,
    reader: Sequence[object] = (),
) -> SourceIndex:
    """The index of `ids`: the cached one if `files` are unchanged, else counted on the label maps `labels(i)`.

    Images are counted by threads: decoding a PNG releases the interpreter's lock. `key` names the cache file, `reader`
    is whatever else the label maps depend on.
    """

    def row(i: int) -> NDArray[np.int64]:
        return count_labels(labels(i), classes=classes, path=files[i])

    def counts() -> NDArray[np.int64]:
        rows = in_parallel(row, range(len(ids)), progress, "reading annotations")
        return np.array(list(rows), np.int64).reshape(-1, 1 + classes)

    mark = fingerprint(files, VERSION, classes, tuple(ids), *reader, root=root)
    return cached_index(ids, counts, root=root, key=key, mark=mark)


def cached_index(
    ids: Sequence[str], counts: Callable[[], NDArray[np.int64]], *, root: Path, key: str, mark: str
) -> SourceIndex:
    """The index of `ids` with `counts()`, or the same from the cache; see `cached_arrays`. `mark` covers the ids."""
    found = cached_arrays(lambda: {"counts": counts().astype(np.int32)}, root=root, key=key, mark=mark)
    return SourceIndex(tuple(ids), found["counts"].astype(np.int64))


def cached_arrays(
    build: Callable[[], dict[str, NDArray[Any]]], *, root: Path, key: str, mark: str
) -> dict[str, NDArray[Any]]:
    """`build()`, or the same from the file that an earlier call with the same `mark` (a fingerprint) left.

    The cache is kept in `root`/.fewseg, or in the user's cache directory where `root` is read-only.
    """
    beside = root / ".fewseg" / f"{key}.npz"
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    aside = platformdirs.user_cache_path("fewseg") / "index" / f"{key}-{place}.npz"
    for path in (beside, aside):
        if (found := _read(path, mark)) is not None:
            return found
    arrays = build()
    for path in (beside, aside) if _writable(root) else (aside,):
        if _write(path, arrays, mark):
            break
    return arrays


def count_labels(labels: NDArray[np.integer], *, classes: int, path: Path) -> NDArray[np.int64]:
    """(1 + classes,) pixels of background and every class in a label map; void, its type's highest value, is left out.

    Raises DataError if the map holds a value that is no class; `path` is the file to name.
    """
    if labels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: a label map of {labels.dtype}; label maps are uint8 or uint16")
    void = np.iinfo(labels.dtype).max
    counts = np.bincount(labels.ravel(), minlength=void + 1)
    counts[void] = 0
    if counts[1 + classes :].any():
        value = 1 + classes + int(counts[1 + classes :].argmax())
        raise DataError(
            f"{path}: label value {value} is no class; allowed are 0 (background), 1 to {classes} and {void} (void)"
        )
    return counts[: 1 + classes]


def fingerprint(files: Iterable[Path], *extra: object, root: Path) -> str:
    """Hash of the files' names below `root`, sizes and modification times, of `extra`, and of the code that reads data
    here: what another version counted is never taken.
    """
    digest = hashlib.sha256(repr((_own_code(), *extra)).encode())
    for file in files:
        try:
            name, stat = str(file).removeprefix(str(root)), file.stat()  # the same hash wherever `root` is mounted
        except FileNotFoundError as error:
            raise DataError(f"{file}: there is no such file, though the data set names it") from error
        digest.update(f"\n{name}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()


@cache
def _own_code() -> str:
    """Hash of this package's source, or its version where there is none."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    content = b"".join(file.read_bytes() for file in files) or version("fewseg").encode()
    return hashlib.sha256(content).hexdigest()


@cache
def code_of(cls: type[Any]) -> str:
    """Hash of the source of the modules of a class and its bases; where one has none, its version counts."""
    modules = [inspect.getmodule(base) for base in cls.__mro__[:-1]]
    digest = hashlib.sha256()
    for module in dict.fromkeys(modules):
        try:
            text = inspect.getsource(module)  # type: ignore[arg-type]
        except (OSError, TypeError):
            text = f"{module} {getattr(module, '__version__', '')}"
        digest.update(text.encode())
    return digest.hexdigest()


def read_list(path: Path) -> list[str]:
    """The first word of every line of a list file, empty lines left out."""
    try:
        return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"the list {path} is missing; it names the data set's images, one a line") from error


def _writable(directory: Path) -> bool:
    """Whether files may be made in a directory; one without write bits is left alone even by root."""
    return os.access(directory, os.W_OK) and bool(directory.stat().st_mode & 0o222)


def in_parallel(
    call: Callable[[Any], Any], items: Sequence[Any], progress: Silent, what: str, *, pool: Executor | None = None
) -> Iterator[Any]:
    """`call(item)` of every item, in order, computed by the pool (by default one thread per processor)."""
    with pool or ThreadPoolExecutor(os.cpu_count()) as workers:
        try:
            yield from progress(workers.map(call, items), what, len(items))
        finally:
            workers.shutdown(cancel_futures=True)


def _read(path: Path, mark: str) -> dict[str, NDArray[Any]] | None:
    """The cached arrays, or None where there are none, or those of other annotations or versions, or damaged ones,
    which a DataWarning tells.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as members:
            if sum(member.file_size for member in members.infolist()) > MOST_BYTES:
                raise ValueError("it would fill the memory")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            if int(data["version"]) != VERSION or str(data["mark"]) != mark:
                return None
            arrays = {name: data[name] for name in data.files if name not in ("version", "mark", "sum")}
            if str(data["sum"]) != _sum(arrays):
                raise ValueError("its sum is wrong")
            return arrays
    except OSError:
        return None
    except Exception as error:  # a damaged archive raises anything
        warnings.warn(DataWarning(f"the index {path} is damaged ({first_line(error)}) and is made anew"), stacklevel=2)
        return None


def _write(path: Path, arrays: dict[str, NDArray[Any]], mark: str) -> bool:
    """Whether the cache could be written; a full or forbidden disk only costs the next run's time."""
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            about = {"version": np.array(VERSION), "mark": np.array(mark), "sum": np.array(_sum(arrays))}
            content: dict[str, Any] = {**arrays, **about}
            np.savez_compressed(file, **content)
    except OSError:
        return False
    return True


def _sum(arrays: dict[str, NDArray[Any]]) -> str:
    """Hash of the arrays' names, types, shapes and values."""
    digest = hashlib.blake2b()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
