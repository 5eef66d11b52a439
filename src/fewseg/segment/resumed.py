"""Pictures whose files are there, read again with `resume`; what lies beside a corrected mask is made from it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.images import align_mask, read_labels
from fewseg.data.masks import read_marking
from fewseg.errors import DataError, UsageError
from fewseg.labels import IGNORE
from fewseg.segment import formats as files
from fewseg.segment.planning import Job
from fewseg.segment.shards import parts_of
from fewseg.segment.table import NAME, Told, pixels_hash, read_rows


class Seen(NamedTuple):
    """What was found in a picture."""

    labels: NDArray[np.uint8]
    """(H, W)."""
    objects: files.Objects | None
    told: Told | None
    """None where the mask was there already."""
    corrected: bool = False
    """Whether the mask was there, with other pixels than had been written."""


class Resumed:
    """What is there in the folder `out` of a run over several pictures, whose classes are `names`.

    Corrected masks are told by the folder's tables; where there are none, every mask is taken as it was written.
    """

    def __init__(self, out: Path, names: Sequence[str] | None, *, instances: bool) -> None:
        self._out, self._names, self._instances = out, names, instances
        self._several = files.is_label_map(names)
        rows = (row for table in parts_of(out / NAME) for row in read_rows(table))
        self._written = {row.mask: row.written for row in rows if row.mask}

    def has(self, outputs: Mapping[str, Path]) -> bool:
        """Whether a picture is not to be segmented: its files are all there, or its mask is somebody's work."""
        if all(path.is_file() for path in outputs.values()):
            return True
        return self._corrected(outputs)

    def keeps(self, outputs: Mapping[str, Path]) -> bool:
        """Whether a picture's mask was corrected, or cannot be read: nothing is written in its place."""
        try:
            return self._corrected(outputs)
        except DataError:
            return True

    def seen(self, piece: Job, outputs: dict[str, Path], read: Callable[[], Image.Image]) -> Seen:
        """What the mask says, its picture's other files made anew where it was corrected; DataError where it cannot be
        read, or is not of its picture's size.
        """
        labels, corrected = self._labels(outputs["png"])
        beside = {kind: path for kind, path in outputs.items() if kind != "png"}
        image = read() if corrected and beside else None
        if image is not None:
            labels = align_mask(labels, image.size, name=str(outputs["png"]))
        objects = files.objects_of(labels) if self._instances else None
        if image is not None:
            files.write(beside, image, labels, self._names, objects, photo=piece.query)
        return Seen(labels, objects, None, corrected)

    def _corrected(self, outputs: Mapping[str, Path]) -> bool:
        mask = outputs.get("png")
        return mask is not None and mask.is_file() and self._labels(mask)[1]

    def _labels(self, mask: Path) -> tuple[NDArray[np.uint8], bool]:
        """(H, W) of a mask, and whether it was corrected; read then as `teach --correct` reads it."""
        written = self._written.get(mask.relative_to(self._out).as_posix())
        try:
            there = read_labels(mask)
            if written in (None, pixels_hash(there)):
                return there if self._several else (there > 0).astype(np.uint8), False
            if self._several:
                return _counted(there), True
        except DataError:  # other colours
            if written is None or self._several:
                raise
        try:
            return _counted(read_marking(mask).mask), True
        except UsageError as error:
            raise DataError(str(error)) from error


def _counted(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values of a mask, what does not count as background."""
    return np.where(values == IGNORE, np.uint8(0), values)
