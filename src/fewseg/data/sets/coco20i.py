"""COCO-20i (Nguyen & Todorovic 2019): COCO 2014's 80 classes in four folds of twenty."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.images import read_labels, write_labels
from fewseg.data.index import Indexed
from fewseg.data.source import SCHEMES, Fold, SourceIndex, make_fold
from fewseg.errors import DataError, check_choice


class Coco20i(Indexed):
    """COCO 2014 below `root`: train2014, val2014 and annotations/instances_{train,val}2014.json; `test` is val2014.

    Label maps are drawn from the annotations as they are needed; `cache_labels` keeps them as PNG files. `scheme`:
    interleaved (novel = 4n + i + 1, the standard) or contiguous (20i + 1 .. 20i + 20, PANet). Where annotations
    overlap, a pixel is of the class that the file has last, as in the papers; `of_masks` has every class whole.
    """

    name = "coco20i"
    min_pixels = 2048
    by_masks = False
    """Whether a class is the union of its annotations, in masks and in the index; label maps stay the papers'."""

    def __init__(
        self,
        *,
        subset: str = "train",
        root: str | None = None,
        scheme: str = "interleaved",
        cache_labels: bool = False,
    ) -> None:
        super().__init__(subset, root, holds="annotations/, train2014/ and val2014/")
        check_choice("scheme", scheme, SCHEMES)
        self.scheme, self.cache_labels = scheme, cache_labels
        self.year = "train2014" if subset == "train" else "val2014"
        path = self.root / "annotations" / f"instances_{self.year}.json"
        if not path.is_file():
            raise DataError(f"{path} is missing; fetch COCO 2014 with `fewseg data download coco2014 --root {root}`")
        self._file = CocoFile(path, root=self.root, key=f"coco20i-{subset}")
        self.class_names = self._file.class_names
        self._file.tally.warn()
        self.ids = tuple(Path(name).stem for name in self._file.files)

    def describe(self) -> dict[str, Any]:
        """What was found, and the folds' scheme."""
        return super().describe() | {"root": str(self.root), "scheme": self.scheme}

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone: 0 background, 1..80 classes; COCO has no void."""
        if not self.cache_labels:
            return self._file.labels(i)
        folder = self.root / ".fewseg" / f"labels-{self.subset}-{self._file.mark[:12]}"
        path = folder / f"{self.ids[i]}.png"
        if path.exists():
            return read_labels(path)
        labels = self._file.labels(i)
        write_labels(labels, path)
        return labels

    def of_masks(self) -> Self:
        """The same images, with a class's mask and pixels whole, whatever is annotated over them."""
        source = copy.copy(self)
        source.__dict__.pop("index", None)
        source.by_masks = True
        return source

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """A class's mask (H, W) {0, 1} of image `i`."""
        return self._file.mask(i, class_id) if self.by_masks else super().mask_of(i, class_id, labels)

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self.root / self.year / self._file.files[i]

    def fold(self, index: int) -> Fold:
        """Twenty novel classes by the scheme; the other 60 are base."""
        return make_fold(index, classes=len(self.class_names), scheme=self.scheme)

    def _build_index(self) -> SourceIndex:
        return self._file.index(self.ids, self.progress, overlapping=self.by_masks)
