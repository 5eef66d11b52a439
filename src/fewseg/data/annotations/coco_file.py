"""The reader of COCO-format files of any size, which are never held in memory as Python objects.

A catalogue keeps the place of every annotation's text; masks and label maps are drawn from there, polygons and run
lengths alike. A class's mask is the union of its own annotations, whatever lies over them. A label map has one class a
pixel: where annotations overlap, the later one wins (the papers' rule) or the smaller one, which no order changes.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.coco_catalogue import VOID, outlines, parse, read_catalogue, utf8_text
from fewseg.data.annotations.runs import Rle, area, as_rle, checked_runs, outline_rle, paint, runs_of, union
from fewseg.data.index import VERSION, cached_arrays, cached_index, fingerprint, in_parallel
from fewseg.data.source import SourceIndex, map_type
from fewseg.data.text import Tally
from fewseg.data.workers import worker_pool
from fewseg.errors import DataError
from fewseg.labels import IGNORE, MOST_CLASSES
from fewseg.progress import Silent

_RULES = 3
"""Version of what is read and how: caches of others are made again."""
_MOST_WORK = 4e9
"""Pixels that one image's annotations may paint, however often; a byte of run lengths counts for 200."""
_CHUNK = 500
"""Images per task of the index's processes."""

Task = tuple[tuple[int, int], NDArray[np.int64]]
"""(height, width) of an image, and (n, 3) of its annotations: class number, begin and end in the text."""


class CocoFile:
    """One annotation file: images, classes (1..N in the order of category ids), masks and label maps.

    `tally` counts the entries that were passed over; whoever opens the file has it told.
    """

    def __init__(self, path: Path, *, root: Path, key: str, most: int = MOST_CLASSES) -> None:
        self.path, self.root, self.key = path, root, key
        if not path.is_file():
            raise DataError(f"the annotation file {path} is missing")
        if not path.stat().st_size:
            raise DataError(f"the annotation file {path} is empty")
        self.mark = fingerprint([path], VERSION, _RULES, root=root)
        """Fingerprint of the annotation file."""
        found = cached_arrays(
            lambda: read_catalogue(path, most=most), root=root, key=f"{key}-catalogue", mark=self.mark
        )
        self.class_names: tuple[str, ...] = tuple(found["names"].tolist())
        """Names of class ids 1..N."""
        self.files: tuple[str, ...] = tuple(found["files"].tolist())
        """Every image's name, in the file's order."""
        self._sizes, self._first, self._parts = found["sizes"], found["first"], found["parts"]
        self._utf8 = bool(found["utf8"])
        self.tally = Tally(path)
        told = zip(*(found[name].tolist() for name in ("what", "count", "example")), strict=True)
        self.tally.found = {what: (count, example) for what, count, example in told}

    def labels(self, i: int, *, smaller_on_top: bool = False) -> NDArray[Any]:
        """The (H, W) label map of image `i`, crowds included: later annotations on top, or smaller ones.

        It is of `map_type`, whose highest value is void.
        """
        with self._drawing(i) as (text, task):
            dtype = map_type(len(self.class_names))
            return np.ascontiguousarray(_draw(text, task, dtype, smaller_on_top=smaller_on_top))

    def mask(self, i: int, class_id: int) -> NDArray[np.uint8]:
        """Everything in image `i` that is annotated as a class, (H, W) uint8 {0, 1, 255 void}."""
        with self._drawing(i) as (text, (size, parts)):
            flat = np.zeros(size[0] * size[1], np.uint8)
            chosen = size, parts[np.isin(parts[:, 0], (VOID, class_id))]
            drawn = [(IGNORE if number == VOID else 1, shapes) for number, shapes in _instances(text, chosen)]
            _paint_all(flat, sorted(drawn, key=lambda part: part[0] != IGNORE), chosen)
        return np.ascontiguousarray(flat.reshape(size[::-1]).T)

    def classes_of(self, i: int) -> list[int]:
        """The class numbers of image `i`'s annotations, each once, in their order; `VOID` is among them."""
        return list(dict.fromkeys(self._task(i)[1][:, 0].tolist()))

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Ascending ids of the classes that have annotations."""
        return tuple(c for c in np.unique(self._parts[:, 0]).tolist() if c != VOID)

    def images_of(self) -> NDArray[np.int64]:
        """(1 + N,) how many images have annotations of each class."""
        image = np.repeat(np.arange(len(self.files)), np.diff(self._first))
        pairs = np.unique(np.column_stack([self._parts[:, 0], image])[self._parts[:, 0] != VOID], axis=0)
        return np.bincount(pairs[:, 0], minlength=1 + len(self.class_names))

    def entries(self, i: int) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Every annotation of image `i`: its class number, begin and end in the text, and what it says."""
        with self._drawing(i) as (text, (_, parts)):
            for place in parts.tolist():
                yield place, parse(text[place[1] : place[2]])

    def shapes(self, i: int, parts: NDArray[np.int64]) -> list[tuple[int, Rle]]:
        """Class number and shape of some of image `i`'s annotations (n, 3), in their order; one may have several."""
        with self._drawing(i) as (text, (size, _)):
            return [(number, shape) for number, shapes in _instances(text, (size, parts)) for shape in shapes]

    def index(self, ids: Sequence[str], progress: Silent, *, overlapping: bool = False) -> SourceIndex:
        """How many pixels of which class every image holds, counted by one process per processor.

        They are those of the label map in the file's order, or, `overlapping`, those of every class's mask.
        """
        mark = f"{self.mark} {fingerprint([], tuple(ids), overlapping, root=Path())}"
        key = f"{self.key}-{'masks' if overlapping else 'index'}"
        return cached_index(ids, lambda: self._counts(progress, overlapping), root=self.root, key=key, mark=mark)

    def _counts(self, progress: Silent, overlapping: bool) -> NDArray[np.int64]:
        """(images, 1 + N) counts, made chunk by chunk."""
        images = [self._task(i) for i in range(len(self.files))]
        chunks = [images[first : first + _CHUNK] for first in range(0, len(images), _CHUNK)]
        count = partial(_count, self.path if self._utf8 else self._text, len(self.class_names), overlapping)
        try:
            if len(chunks) <= 2:
                return np.concatenate(list(map(count, chunks)))
            return np.concatenate(list(in_parallel(count, chunks, progress, "drawing annotations", pool=worker_pool())))
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of image `i`."""
        height, width = self._sizes[i].tolist()
        return height, width

    def _task(self, i: int) -> Task:
        first, last = self._first[i : i + 2]
        return self.size(i), self._parts[first:last]

    @contextmanager
    def _drawing(self, i: int) -> Iterator[tuple[Any, Task]]:
        """The text and what to draw of an image; DataError, naming it, where that cannot be drawn."""
        try:
            with _opened(self.path if self._utf8 else self._text) as text:
                yield text, self._task(i)
        except DataError as error:
            raise DataError(f"{self.path}, image {self.files[i]}: {error}") from error

    @cached_property
    def _text(self) -> bytes:
        """The whole text in UTF-8, of a file that is in another encoding."""
        return utf8_text(self.path)


@contextmanager
def _opened(text: Path | bytes) -> Iterator[Any]:
    if isinstance(text, bytes):
        yield text
        return
    with open(text, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _count(text: Path | bytes, classes: int, overlapping: bool, images: Sequence[Task]) -> NDArray[np.int64]:
    """(images, 1 + classes) pixel counts; runs in a process of its own."""
    with _opened(text) as opened:
        count = _count_masks if overlapping else _count_labels
        counted = [count(opened, image, classes) for image in images]
    return np.array(counted, np.int64).reshape(-1, 1 + classes)


def _count_labels(text: Any, image: Task, classes: int) -> list[int]:
    """Of the label map: an annotation has what it adds to the union of those above it, void lies beneath all."""
    counts, above, covered = [0] * (1 + classes), [], 0
    upwards = sorted(_instances(text, image), key=lambda part: part[0] != VOID)
    for class_id, several in groupby(reversed(upwards), key=itemgetter(0)):
        above = [union(above + [shape for _, shapes in several for shape in shapes])]
        before, covered = covered, area(above[0])
        if class_id != VOID:
            counts[class_id] += covered - before
    counts[0] = math.prod(image[0]) - covered
    return counts


def _count_masks(text: Any, image: Task, classes: int) -> list[int]:
    """Of every class's mask, and what is in none."""
    (height, width), counts = image[0], [0] * (1 + classes)
    by_class: dict[int, list[Rle]] = {}
    for class_id, shapes in _instances(text, image):
        by_class.setdefault(class_id, []).extend(shapes)
    masks = {class_id: union(drawn) for class_id, drawn in by_class.items()}
    for class_id, mask in masks.items():
        if class_id != VOID:
            counts[class_id] = area(mask)
    counts[0] = height * width - (area(union([*masks.values()])) if masks else 0)
    return counts


def _draw(
    text: Any, image: Task, dtype: type[np.uint8 | np.uint16], *, smaller_on_top: bool = False
) -> NDArray[np.uint8 | np.uint16]:
    """The (H, W) label map, void beneath all; its memory lies column by column, as run lengths do."""
    height, width = image[0]
    flat = np.zeros(height * width, dtype)
    drawn = _instances(text, image)
    if smaller_on_top:
        drawn.sort(key=lambda part: (-sum(map(area, part[1])), part[0]))
    drawn.sort(key=lambda part: part[0] != VOID)
    void = int(np.iinfo(dtype).max)
    _paint_all(flat, [(void if number == VOID else number, shapes) for number, shapes in drawn], image)
    return flat.reshape(width, height).T


def _paint_all(flat: NDArray[Any], drawn: list[tuple[int, list[Rle]]], image: Task) -> None:
    """One instance over the other; its parts may overlap too."""
    work = 0
    for value, shapes in drawn:
        for runs in map(runs_of, shapes):
            work += int(runs[1 : len(runs) // 2 * 2].sum())  # painting passes over what lies between the runs
            _check_work(work, image)
            paint(flat, runs, value)


def _instances(text: Any, image: Task) -> list[tuple[int, list[Rle]]]:
    """Class number and parts of every annotation, in the file's order.

    DataError, before the time and the memory are spent, for more than an image can have.
    """
    size, parts = image
    found, pixels, most, work, counted = [], math.prod(size), 0, 0, 0
    for class_id, begin, end in parts.tolist():
        shapes = _shapes(text, begin, end, size)
        found.append((class_id, shapes))
        most += sum(pixels + 200 * len(shape["counts"]) for shape in shapes)
        if most > _MOST_WORK:  # only now are their areas looked at
            later = [shape for _, several in found[counted:] for shape in several]
            work += sum(area(shape) + 200 * len(shape["counts"]) for shape in later)
            _check_work(work, image)
            counted, most = len(found), work
    return found


def _check_work(work: int, image: Task) -> None:
    if work > _MOST_WORK:
        (height, width), parts = image
        raise DataError(
            f"the {len(parts)} annotations of an image of {width} x {height} pixels would paint more than "
            f"{_MOST_WORK / 1e9:.0f}e9; are its size and outlines right?"
        )


def _shapes(text: Any, begin: int, end: int, size: tuple[int, int]) -> list[Rle]:
    """Every part of an instance."""
    height, width = size
    try:
        annotation = parse(text[begin:end])
        if isinstance(segmentation := annotation.get("segmentation"), dict):
            return [as_rle(checked_runs(segmentation["counts"], height * width), height, width)]
        return [outline_rle(part, height, width) for part in outlines(annotation)]
    except ValueError as error:  # of the catalogue's checks only an outline's length is left
        raise DataError(f"the annotation at byte {begin} cannot be drawn ({error})") from error
