"""The reader of COCO-format files of any size, which are never held in memory as Python objects.

The JSON text is walked once, element by element. A catalogue keeps the place of every annotation's text; label maps are
drawn from there, polygons and run lengths alike.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from fewseg.data.index import VERSION, cached_arrays, cached_index, fingerprint, in_parallel
from fewseg.data.source import SourceIndex
from fewseg.data.workers import follow_parent
from fewseg.errors import DataError
from fewseg.progress import Silent

MOST_CLASSES = 254
MOST_PIXELS = 178_956_970
"""Of an image: Pillow's own limit, since a label map takes as much memory as the file claims."""
_SPACE = re.compile(r"[\s]*")
_CHUNK = 500
"""Images per task of the index's processes."""


class CocoFile:
    """One annotation file: images, classes (1..N in the order of category ids) and label maps."""

    def __init__(self, path: Path, *, root: Path, key: str) -> None:
        self.path, self.root, self.key = path, root, key
        if not path.is_file():
            raise DataError(f"the annotation file {path} is missing")
        if not path.stat().st_size:
            raise DataError(f"the annotation file {path} is empty")
        self.mark = fingerprint([path], VERSION, root=root)
        """Fingerprint of the annotation file."""
        found = cached_arrays(lambda: _catalogue(path), root=root, key=f"{key}-catalogue", mark=self.mark)
        self.class_names: tuple[str, ...] = tuple(found["names"].tolist())
        """Names of class ids 1..N."""
        self.files: tuple[str, ...] = tuple(found["files"].tolist())
        """Every image's `file_name`, in the file's order."""
        self._sizes, self._first, self._parts = found["sizes"], found["first"], found["parts"]

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i`: its instances drawn in the order of their annotations, crowds included."""
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            drawn = _draw(text, self._size_and_parts(i), where=f"{self.path}, image {self.files[i]}")
        return np.ascontiguousarray(drawn)

    def classes_of(self, i: int) -> list[int]:
        """The class ids of image `i`'s annotations, each once, in their order."""
        return list(dict.fromkeys(self._size_and_parts(i)[1][:, 0].tolist()))

    def index(self, ids: Sequence[str], progress: Silent) -> SourceIndex:
        """How many pixels of which class every image holds; counted by one process per processor."""
        mark = f"{self.mark} {fingerprint([], tuple(ids), root=Path())}"
        return cached_index(ids, lambda: self._counts(progress), root=self.root, key=f"{self.key}-index", mark=mark)

    def _counts(self, progress: Silent) -> NDArray[np.int64]:
        """(images, 1 + N) counts, made chunk by chunk."""
        images = [self._size_and_parts(i) for i in range(len(self.files))]
        chunks = [images[first : first + _CHUNK] for first in range(0, len(images), _CHUNK)]
        count = partial(_count, str(self.path), len(self.class_names))
        if len(chunks) <= 2:
            return np.concatenate(list(map(count, chunks)))
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        pool = ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=follow_parent)
        return np.concatenate(list(in_parallel(count, chunks, progress, "drawing annotations", pool=pool)))

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of image `i`."""
        height, width = self._sizes[i].tolist()
        return height, width

    def _size_and_parts(self, i: int) -> tuple[tuple[int, int], NDArray[np.int64]]:
        """(height, width) of an image, and (n, 3) of its annotations: class id, begin and end in the file."""
        first, last = self._first[i : i + 2]
        return self.size(i), self._parts[first:last]


def _catalogue(path: Path) -> dict[str, NDArray[Any]]:
    """Names, file names, sizes, and every annotation's class and place, grouped by image in the file's order."""
    categories: list[dict[str, Any]] = []
    images: list[tuple[int, str, int, int]] = []
    annotations = array("q")  # of each its image, its category, begin and end
    for key, value, begin, end in _walk(path):
        try:
            if key == "categories":
                categories.append(value)
            elif key == "images":
                images.append((value["id"], value["file_name"], value["height"], value["width"]))
            elif key == "annotations" and value.get("segmentation"):
                annotations.extend((value["image_id"], value["category_id"], begin, end))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{path}: an entry of {key!r} at byte {begin} lacks {error}; is it COCO's format?"
            ) from error
    if not images or not categories:
        raise DataError(f"{path} has {len(images)} images and {len(categories)} categories; it is not of COCO's format")
    try:
        categories.sort(key=lambda category: category["id"])
        names = np.array([str(category["name"]) for category in categories])
        known = [np.array(ids, np.int64) for ids in ([c["id"] for c in categories], [image[0] for image in images])]
        sizes = np.array([image[2:] for image in images], np.int32)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: ids, names or sizes are not as COCO's format has them ({error})") from error
    if len(categories) > MOST_CLASSES:
        raise DataError(f"{path} has {len(categories)} categories; at most {MOST_CLASSES} are possible")
    if sizes.min() < 1 or int(sizes.astype(np.int64).prod(1).max()) > MOST_PIXELS:
        raise DataError(f"{path}: an image has no pixels, or more than {MOST_PIXELS / 1e6:.0f} million")
    image_ids, category_ids, begins, ends = np.array(annotations, np.int64).reshape(-1, 4).T
    class_of = _lookup(path, category_ids, known[0], "category_id") + 1
    image_of = _lookup(path, image_ids, known[1], "image_id")
    parts = np.column_stack([class_of, begins, ends])
    return {
        "names": names,
        "files": np.array([str(image[1]) for image in images]),
        "sizes": sizes,
        "first": np.concatenate([[0], np.bincount(image_of, minlength=len(images)).cumsum()]).astype(np.int64),
        "parts": parts[np.argsort(image_of, kind="stable")],
    }


def _lookup(path: Path, values: NDArray[np.int64], known: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    """Position of every value among the known ones, which may be in any order."""
    order = np.argsort(known, kind="stable")
    sorted_ids = known[order]
    place = np.searchsorted(sorted_ids, values).clip(max=len(known) - 1)
    if (wrong := sorted_ids[place] != values).any():
        raise DataError(f"{path}: an annotation has {what} {values[wrong][0]}, which the file does not list")
    return order[place]


def _walk(path: Path) -> Iterator[tuple[str, Any, int, int]]:
    """(key, element, begin, end) of every element of the file's top-level lists; places are in bytes."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        text = str(data, "latin-1")  # a character per byte, so that places in the text are places in the file
    decode = json.JSONDecoder().raw_decode

    def skip(at: int) -> int:
        return _SPACE.match(text, at).end()  # type: ignore[union-attr]

    try:
        at = skip(3 if text.startswith("\xef\xbb\xbf") else 0)
        if text[at] != "{":
            raise DataError(f"{path} is not of COCO's format: it must be one JSON object")
        at = skip(at + 1)
        while text[at] != "}":
            key, at = decode(text, at)
            at = skip(skip(at) + 1)
            if text[at] != "[":
                _, at = decode(text, at)
            else:
                at = skip(at + 1)
                while text[at] != "]":
                    value, end = decode(text, at)
                    yield key, value if text.isascii() else json.loads(text[at:end].encode("latin-1")), at, end
                    at = skip(end)
                    at = skip(at + 1) if text[at] == "," else at
                at += 1
            at = skip(at)
            at = skip(at + 1) if text[at] == "," else at
    except (ValueError, IndexError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); it may be cut off: fetch or export it again") from error


Task = tuple[tuple[int, int], NDArray[np.int64]]


def _count(path: str, classes: int, images: Sequence[Task]) -> NDArray[np.int64]:
    """(images, 1 + classes) pixel counts; runs in a process of its own."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        # Pillow's histogram: four times as fast as numpy's bincount, which takes bytes for 64-bit numbers first
        maps = (Image.fromarray(_draw(text, image, where=path).T) for image in images)
        counted = [labels.histogram()[: 1 + classes] for labels in maps]
    return np.array(counted, np.int64).reshape(-1, 1 + classes)


def _draw(text: mmap.mmap, image: Task, *, where: str) -> NDArray[np.uint8]:
    """The (H, W) label map; its memory lies column by column, as run lengths do."""
    (height, width), parts = image
    flat = np.zeros(height * width, np.uint8)
    for class_id, begin, end in parts.tolist():
        try:
            for runs in _runs(json.loads(text[begin:end])["segmentation"], height, width):
                _paint(flat, runs, class_id)
        except Exception as error:  # pycocotools raises bare Exceptions, TypeError and ValueError on malformed shapes
            raise DataError(f"{where}: the annotation at byte {begin} cannot be drawn ({error})") from error
    return flat.reshape(width, height).T


def _paint(flat: NDArray[np.uint8], runs: NDArray[np.int64], class_id: int) -> None:
    """Set the pixels of run lengths (background and foreground in turn); an instance's parts may overlap."""
    ends = runs.cumsum()
    if ends[-1] != len(flat):
        raise ValueError(f"its run lengths cover {ends[-1]} pixels, the image has {len(flat)}")
    lengths = runs[1::2]
    starts = ends[: 2 * len(lengths) : 2]
    flat[np.repeat(starts - lengths.cumsum() + lengths, lengths) + np.arange(lengths.sum())] = class_id


def _runs(segmentation: Any, height: int, width: int) -> Iterator[NDArray[np.int64]]:
    """Run lengths, column by column, of every part of an instance."""
    if isinstance(segmentation, list):
        for part in rle.frPyObjects(segmentation, height, width):
            yield _decoded(bytes(part["counts"]))  # type: ignore[arg-type]
        return
    if segmentation["size"] != [height, width]:
        raise ValueError(f"its size is {segmentation['size']}, its image's {[height, width]}")
    counts = segmentation["counts"]
    yield np.array(counts, np.int64) if isinstance(counts, list) else _decoded(counts.encode())


def _decoded(counts: bytes) -> NDArray[np.int64]:
    """COCO's compressed run lengths: digits of 5 bits with a flag for more, signed, each relative to the last but one.

    pycocotools only decodes to whole masks, which takes most of the time where instances are small.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = 5 * (np.arange(len(digits)) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((digits & 31) << place, first)
    values -= np.where(digits[last] & 16, 1 << (place[last] + 5), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values
