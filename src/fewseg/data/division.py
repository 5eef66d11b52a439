"""How one's own data is divided: classes into folds, images into training and test images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fewseg.data.index import Indexed
from fewseg.data.source import Fold, SourceIndex, make_fold
from fewseg.errors import UsageError, check_choice


@dataclass(frozen=True)
class Division:
    """`folds` parts of the classes, or one with the given `novel_classes`, and the share of images kept for testing."""

    folds: int = 4
    fold_seed: int | None = 0
    """Shuffles the classes before they are divided; None divides them in order."""
    novel_classes: Sequence[str] | None = None
    val_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise UsageError(
                f"data.val_fraction={self.val_fraction} is no share of the images; give 0 up to (not with) 1"
            )

    def fold(self, index: int, class_names: Sequence[str]) -> Fold:
        """Fold `index` over class ids 1..N of these names."""
        count = len(class_names)
        if self.novel_classes:
            if index:
                raise UsageError(f"data.novel_classes makes one fold, fold 0; fold {index} was asked for")
            for name in self.novel_classes:
                check_choice("novel class", name, class_names)
            return Fold.of(0, (c for c, name in enumerate(class_names, 1) if name in self.novel_classes), classes=count)
        fold = make_fold(index, classes=count, folds=self.folds)
        if self.fold_seed is None:
            return fold
        shuffled = np.random.default_rng(self.fold_seed).permutation(count) + 1
        return Fold.of(index, (int(shuffled[c - 1]) for c in fold.novel), classes=count)

    def holds(self, image_id: str, subset: str) -> bool:
        """Whether an image belongs to a subset; decided by its id alone, so new images move no others."""
        if self.val_fraction == 0:
            return True
        share = int(hashlib.sha256(image_id.encode()).hexdigest()[:12], 16) / 16**12
        return (share < self.val_fraction) == (subset == "test")


class Divided(Indexed):
    """A source whose classes and images are divided by the user's options: what `folder` and `coco_json` share.

    A subclass calls `_divide` once it knows the ids of all its images.
    """

    def __init__(self, subset: str, root: str | None, *, holds: str, division: Division, min_pixels: int) -> None:
        super().__init__(subset, root, holds=holds)
        self.division, self.min_pixels = division, min_pixels

    def _divide(self, ids: Sequence[str]) -> None:
        """Keep, of all images, those of the subset: their ids, and their places among all in `_chosen`."""
        self._chosen = [i for i, image_id in enumerate(ids) if self.division.holds(image_id, self.subset)]
        self.ids = tuple(ids[i] for i in self._chosen)

    def fold(self, index: int) -> Fold:
        """One of the automatic folds, or the novel classes that were given as fold 0."""
        return self.division.fold(index, self.class_names)

    def _build_index(self) -> SourceIndex:
        return SourceIndex(tuple(self.ids), self._index_of_all.counts[self._chosen][:, : 1 + len(self.class_names)])

    @cached_property
    def _index_of_all(self) -> SourceIndex:
        """Of both subsets, so that they share one cache."""
        raise NotImplementedError
