"""`results.csv`: what was found in each photo, a line a class."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewseg.data.regions import Parts, connected
from fewseg.errors import DataError
from fewseg.files import CSV_TEXT, replacing
from fewseg.segment.shards import parts_of

NAME = "results.csv"
COLUMNS = (
    "photo",
    "mask",
    "class",
    "value",
    "presence",
    "expected_iou",
    "doubt",
    "share",
    "parts",
    "sizes",
    "boxes",
    "written",
)
Told: TypeAlias = Sequence[tuple[float | None, float | None, float | None]]
"""Of every class the probability that it is there, the IoU to expect of its mask, and the doubt that is in it."""
Line: TypeAlias = dict[str, str]
"""A line of the table by its columns."""
_MOST_PARTS, _MOST_OBJECTS = 100, 5000
"""Largest connected parts, or objects, that are listed (a reader takes 131,072 letters at once); all are counted."""


class Row(NamedTuple):
    """A line of the table, as far as it is read again."""

    photo: str
    """Path as it was given."""
    mask: str
    """Path below the table's folder."""
    name: str
    """Of the class."""
    value: int
    """Of the class in the mask."""
    written: str
    """Hash of the mask's pixels as they were written; empty where they were somebody's work from the first."""


@contextmanager
def table_file(path: Path, classes: Sequence[str], *, several: bool) -> Iterator[Callable[..., None]]:
    """A table that is whole at the end, or absent: what adds a photo by its path, its mask's, labels, what is told, and
    the single objects of every class, where they are wanted instead of connected parts.

    None told takes what the table that is there, or those of parts (`Shard`), say of that mask: how it was written,
    too, so that a `corrected` mask is still known as one, and one that no table knew is. So it is where there are no
    labels either, for the mask cannot be read: its lines stay as they are.
    """
    former = {(line["mask"], line["class"]): line for table in parts_of(path.with_name(NAME)) for line in lines(table)}

    def add(
        photo: Path | str,
        mask: Path | None,
        labels: NDArray[np.uint8] | None,
        told: Told | None,
        objects: Mapping[int, Parts] | None = None,
        *,
        corrected: bool = False,
    ) -> None:
        name = "" if mask is None else mask.relative_to(path.parent).as_posix()
        if labels is None:
            known_lines = (line for (its, _), line in former.items() if mask is not None and its == name)
            writer.writerows([line.get(column, "") for column in COLUMNS] for line in known_lines)
            return
        there = pixels_hash(labels if several else labels * np.uint8(255))
        for value, title in enumerate(classes, start=1):
            known = former.get((name, title), {})
            if told is None:
                written = known.get("written") or ("" if corrected else there)
                said = [known.get(column, "") for column in ("presence", "expected_iou", "doubt")]
                said = said if written == there else ["", "", ""]  # it was corrected
            else:
                written = there
                said = ["" if number is None else f"{number:.3f}" for number in told[value - 1]]
            shown = value if several else 255
            inside = labels == value
            parts = connected(inside) if objects is None or value not in objects else objects[value]
            listed = _MOST_PARTS if objects is None else _MOST_OBJECTS
            writer.writerow([photo, name, title, shown, *said, f"{inside.mean():.6f}", *_parts(parts, listed), written])

    with replacing(path) as temporary, open(temporary, "w", **CSV_TEXT) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        yield add


def read_rows(path: Path) -> list[Row]:
    """A table's lines; DataError where it is none."""
    try:
        return [
            Row(line["photo"], line["mask"], line["class"], int(line["value"]), line["written"]) for line in lines(path)
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no table of fewseg segment ({error})") from error


def write_lines(path: Path, kept: Sequence[Line]) -> None:
    """A table of these lines in place of the one that is there; none where there are none."""
    if not kept:
        path.unlink()
        return
    with replacing(path) as temporary, open(temporary, "w", **CSV_TEXT) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([line[column] for column in COLUMNS] for line in kept)


def pixels_hash(pixels: NDArray[np.uint8]) -> str:
    """What a mask's pixels (H, W) are told by, however they are stored."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def lines(path: Path) -> Iterator[Line]:
    """A table's lines as they are; DataError where it cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error})") from error


def _parts(parts: Parts, most: int) -> list[str]:
    """Number of parts, and the largest ones' pixels and LEFT,TOP,RIGHT,BOTTOM."""
    largest = np.argsort(-parts.pixels, kind="stable")[:most]
    boxes = [f"{left},{top},{right},{bottom}" for top, left, bottom, right in parts.boxes[largest].tolist()]
    sizes = " ".join(map(str, parts.pixels[largest].tolist()))
    return [str(len(parts.pixels)), sizes, " ".join(boxes)]
