"""How one's own data is divided: classes into folds, images into training and test images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from fewseg.data.index import Indexed
from fewseg.data.source import Fold, SourceIndex, make_fold
from fewseg.errors import UsageError, check_choice


@dataclass(kw_only=True, eq=False)
class Folded(Indexed):
    """A source whose classes are divided by the user's options: `folds` parts of them, or the given `novel_classes`."""

    holds: ClassVar[str | None] = None
    """What `root` has in it; None where there need not be one."""
    subset: str = "train"
    root: Any = None
    """The directory; a Path once the source is made."""
    folds: int | None = None
    """Null: 4, or one for each class where there are fewer."""
    fold_seed: int | None = 0
    """Shuffles the classes before they are divided; None divides them in order."""
    novel_classes: list[str] | None = None

    def __post_init__(self) -> None:
        super().__init__(self.subset, self.root, holds=self.holds)

    def fold(self, index: int) -> Fold:
        """One of the automatic folds, or the novel classes that were given as fold 0."""
        count = len(self.class_names)
        if self.novel_classes:
            if index:
                raise UsageError(f"data.novel_classes makes one fold, fold 0; fold {index} was asked for")
            novel = [self.class_id(name, option="novel class") for name in self.novel_classes]
            return Fold.of(0, novel, classes=count)
        order = np.array(self.used)
        fold = make_fold(index, classes=len(order), folds=min(4, len(order)) if self.folds is None else self.folds)
        if self.fold_seed is not None:
            order = np.random.default_rng(self.fold_seed).permutation(order)
        return Fold.of(index, order[np.array(fold.novel) - 1].tolist(), classes=count)

    def class_id(self, name: str, *, option: str) -> int:
        """The class of that name; UsageError, which names the option, where there is none."""
        check_choice(option, name, self.class_names)
        return self.class_names.index(name) + 1

    @property
    def used(self) -> Sequence[int]:
        """The ids of the classes that automatic folds divide; others are base classes in every fold."""
        return range(1, 1 + len(self.class_names))


@dataclass(kw_only=True, eq=False)
class Divided(Folded):
    """A source whose images are divided by the user's options too: what `folder` and `coco_json` share.

    `val_fraction` is the share of images kept for testing. A subclass opens its data in `_open`.
    """

    val_fraction: float = 0.0
    min_pixels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.val_fraction < 1:
            raise UsageError(
                f"data.val_fraction={self.val_fraction} is no share of the images; give 0 up to (not with) 1"
            )
        ids = self._open()
        self._chosen = [i for i, image_id in enumerate(ids) if self._belongs(image_id)]
        self.ids = tuple(ids[i] for i in self._chosen)

    def _open(self) -> Sequence[str]:
        """Set `class_names` and give the ids of all images; `_chosen` then has the subset's places among them."""
        raise NotImplementedError

    def _belongs(self, image_id: str) -> bool:
        """Whether an image belongs to the subset; decided by its id alone, so new images move no others."""
        if self.val_fraction == 0:
            return True
        share = int(hashlib.sha256(image_id.encode()).hexdigest()[:12], 16) / 16**12
        return (share < self.val_fraction) == (self.subset == "test")

    def _build_index(self) -> SourceIndex:
        return SourceIndex(tuple(self.ids), self._index_of_all.counts[self._chosen][:, : 1 + len(self.class_names)])

    @cached_property
    def _index_of_all(self) -> SourceIndex:
        """Of both subsets, so that they share one cache."""
        raise NotImplementedError
