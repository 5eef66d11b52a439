"""LVIS-92i (Liu et al. 2024, Matcher): the classes of LVIS v1 that have enough images, in ten folds of 92."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.lvis import lvis_file, lvis_photo
from fewseg.data.index import Indexed
from fewseg.data.source import Fold, SourceIndex
from fewseg.errors import DataError, UsageError

FOLDS = 10


class Lvis92i(Indexed):
    """lvis_v1_train.json, lvis_v1_val.json and COCO 2017's train2017 and val2017, below `root` or folders in it.

    `test` is LVIS's val, whose photos lie in both folders. A class of an image is the union of its instances; in label
    maps smaller ones lie on larger ones. Of the classes that more than one image of train and of val hold, in the order
    of their ids, fold f has f, f + 10, ... as novel; all others are base. LVIS marks in an image some classes only: of
    those without an instance nothing is known here.
    """

    name = "lvis92i"
    holds = "lvis_v1_train.json, lvis_v1_val.json, train2017/ and val2017/"

    def __init__(self, *, subset: str = "train", root: str | None = None) -> None:
        super().__init__(subset, root, holds=self.holds)
        self._files = {
            part: lvis_file(self.root, f"lvis_v1_{part}.json", data=self.name, part=part, fetched_as="lvis")
            for part in ("train", "val")
        }
        self._file = self._files["train" if subset == "train" else "val"]
        train, val = (file.class_names for file in self._files.values())
        if train != val:
            raise DataError(f"the categories of lvis_v1_train.json and lvis_v1_val.json in {self.root} differ")
        self.class_names = train
        self._file.tally.warn()
        self.ids = tuple(Path(name).stem for name in self._file.files)

    def image_path(self, i: int) -> Path:
        """The photo's file, in train2017 or val2017."""
        return lvis_photo(self.root, self._file.files[i])

    def labels(self, i: int) -> NDArray[Any]:
        """The (H, W) label map of image `i` alone: 0 background, 1..N classes."""
        return self._file.labels(i, smaller_on_top=True)

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """All instances of a class in image `i`, (H, W) {0, 1}."""
        return self._file.mask(i, class_id)

    def labelled(self, i: int) -> NDArray[np.bool_]:
        """(1 + N,) bool: the classes that image `i` has instances of."""
        return self.index.counts[i] > 0

    def fold(self, index: int) -> Fold:
        """Every tenth of the classes with enough images is novel, as many in each fold."""
        if not 0 <= index < FOLDS:
            raise UsageError(f"lvis92i has folds 0 to {FOLDS - 1}; fold {index} was asked for")
        size = len(self.enough) // FOLDS
        if not size:
            raise DataError(f"{self.root} has {len(self.enough)} classes with two images in train and in val; LVIS 920")
        return Fold.of(index, self.enough[index : size * FOLDS : FOLDS], classes=len(self.class_names))

    @cached_property
    def enough(self) -> list[int]:
        """Ids of the classes of which train and val have more than one image."""
        counts = [file.images_of() for file in self._files.values()]
        return np.flatnonzero(np.min(counts, axis=0) > 1).tolist()

    def describe(self) -> dict[str, Any]:
        """What was found, and how many classes have enough images: 920 in the paper."""
        return super().describe() | {"root": str(self.root), "classes_with_enough_images": len(self.enough)}

    def _build_index(self) -> SourceIndex:
        return self._file.index(self.ids, self.progress, overlapping=True)
