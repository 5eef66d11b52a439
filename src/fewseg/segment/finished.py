"""Pictures that are not segmented again: of corrected masks, beside which all is made anew, and with `resume` of those
whose files are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.images import align_mask, read_labels
from fewseg.data.masks import read_marking
from fewseg.errors import DataError, UsageError
from fewseg.files import content_mark
from fewseg.labels import IGNORE
from fewseg.segment import formats as files
from fewseg.segment.corrected import saved_again
from fewseg.segment.planning import Job
from fewseg.segment.table import Row, Told, pixels_hash


class Seen(NamedTuple):
    """What was found in a picture."""

    labels: NDArray[np.uint8]
    """(H, W)."""
    objects: files.Objects | None
    told: Told | None
    """None where that is not known: of masks that are somebody's work, or of former versions."""
    there: bool = False
    """Whether the mask was there already."""
    corrected: bool = False
    """Whether it was there, and is somebody's work."""
    claimed: NDArray[np.int64] | None = None
    """(C, C): see `data.winners.claimed`; None of one class, and where it was there."""


class Finished:
    """What is there in the folder `out` of a run over several pictures, whose classes are `names`.

    A mask is somebody's work that has other pixels than the folder's `rows` say were written; one that they do not
    name, unless it says itself that fewseg wrote these pixels.
    """

    def __init__(
        self, out: Path, names: Sequence[str] | None, rows: Sequence[Row], *, instances: bool, resume: bool
    ) -> None:
        self._out, self._names, self._instances, self._resume = out, names, instances, resume
        self._several = files.is_label_map(names)
        self.of_others: list[Path] = []
        """Masks that were there, and were made of other photos of the same names: they are made anew."""
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(row.mask, []).append(row)

    def has(self, piece: Job, outputs: Mapping[str, Path]) -> bool:
        """Whether a picture is not to be segmented: its mask is somebody's work, or, with `resume`, its files are all
        there, and its mask is not of another photo of that name.
        """
        there = self._resume and all(path.is_file() for path in outputs.values())
        if there and not _is_of_another(piece.query, outputs.get("png")):
            return True
        if self._corrected(outputs):
            return True
        self.of_others += [outputs["png"]] if there else []
        return False

    def keeps(self, outputs: Mapping[str, Path]) -> bool:
        """Whether a picture's mask was corrected, or cannot be read: nothing is written in its place."""
        try:
            return self._corrected(outputs)
        except DataError:
            return True

    def seen(self, piece: Job, outputs: dict[str, Path], read: Callable[[], Image.Image]) -> Seen | None:
        """What the mask says, its picture's other files made anew where it was corrected; None where no masks are
        written. DataError where it cannot be read, or is not of its picture's size.
        """
        if "png" not in outputs:
            return None
        labels, corrected = self._labels(outputs["png"])
        beside = {kind: path for kind, path in outputs.items() if kind != "png"}
        image = read() if corrected and beside else None
        if image is not None:
            labels = align_mask(labels, image.size, name=str(outputs["png"]))
        objects = files.objects_of(labels) if self._instances else None
        if image is not None:
            files.write(beside, image, labels, self._names, objects, photo=piece.query)
        told = None if corrected else self._told(outputs["png"])
        return Seen(labels, objects, told, there=True, corrected=corrected)

    def _told(self, mask: Path) -> Told | None:
        """What a mask says that was told of it."""
        try:
            told = json.loads(files.signature(mask).get(files.TOLD, "null"))
            found = [tuple(None if one is None else float(one) for one in each) for each in told or ()]
        except (ValueError, TypeError):
            return None
        fits = len(found) == len(self._names or (None,)) and all(len(each) == 3 for each in found)
        return cast(Told, found) if fits else None

    def _corrected(self, outputs: Mapping[str, Path]) -> bool:
        mask = outputs.get("png")
        return mask is not None and mask.is_file() and self._labels(mask)[1]

    def _labels(self, mask: Path) -> tuple[NDArray[np.uint8], bool]:
        """(H, W) of a mask, and whether it was corrected; read then as `teach --correct` reads it."""
        rows = self._rows.get(mask.relative_to(self._out).as_posix(), [])
        try:
            there = read_labels(mask)
        except DataError:  # other colours
            there = None
        if there is not None and _is_fewsegs(mask, there, rows):
            return there if self._several else (there > 0).astype(np.uint8), False
        self._check_classes(mask, [row.name for row in rows])
        if self._several:
            return _counted(saved_again(mask, self._names or ())), True
        try:
            return _counted(read_marking(mask).mask), True
        except UsageError as error:
            raise DataError(str(error)) from error

    def _check_classes(self, mask: Path, of: list[str]) -> None:
        """DataError where somebody's mask is `of` other classes than this run's, as far as that shows."""
        names = [*(self._names or ())]
        if of and names and of not in (names, [files.UNNAMED]):
            raise DataError(
                f"{mask.name} was corrected, and stays, but is of {', '.join(of)}, and this run is of "
                f"{', '.join(names)}; give another --out"
            )


def _is_of_another(photo: Path, mask: Path | None) -> bool:
    """Whether a mask says that it is of other content than the photo has."""
    of = mask and files.signature(mask).get(files.PHOTO)
    return bool(of) and content_mark(photo) not in ("", of)


def _is_fewsegs(mask: Path, there: NDArray[np.uint8], rows: Sequence[Row]) -> bool:
    """Whether a mask has the pixels that fewseg wrote, by its rows of the table, or by what it says itself."""
    pixels = pixels_hash(there)
    if rows:
        return pixels == rows[-1].written
    said = files.signature(mask)
    return said.get(files.PIXELS, pixels if files.MADE_BY in said else "") == pixels


def _counted(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values of a mask, what does not count as background."""
    return np.where(values == IGNORE, np.uint8(0), values)
