"""How one's own data is divided: classes into folds, images into training and test images."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewseg.data.source import Fold, make_fold
from fewseg.errors import UsageError


@dataclass(frozen=True)
class Division:
    """`folds` parts of the classes, or one with the given `novel_classes`, and the share of images kept for testing."""

    folds: int = 4
    fold_seed: int | None = 0
    """Shuffles the classes before they are divided; None divides them in order."""
    novel_classes: tuple[str, ...] | None = None
    val_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise UsageError(
                f"data.val_fraction={self.val_fraction} is no share of the images; give 0 up to (not with) 1"
            )

    def fold(self, index: int, class_names: Sequence[str]) -> Fold:
        """Fold `index` over class ids 1..N of these names."""
        if self.novel_classes is not None:
            return self._given(index, class_names)
        fold = make_fold(index, classes=len(class_names), folds=self.folds)
        if self.fold_seed is None:
            return fold
        shuffled = np.random.default_rng(self.fold_seed).permutation(len(class_names)) + 1
        novel = tuple(sorted(int(shuffled[c - 1]) for c in fold.novel))
        return Fold(index, novel, tuple(c for c in range(1, len(class_names) + 1) if c not in novel))

    def holds(self, image_id: str, subset: str) -> bool:
        """Whether an image belongs to a subset; decided by its id alone, so new images move no others."""
        if self.val_fraction == 0:
            return True
        share = int(hashlib.sha256(image_id.encode()).hexdigest()[:12], 16) / 16**12
        return (share < self.val_fraction) == (subset == "test")

    def _given(self, index: int, class_names: Sequence[str]) -> Fold:
        if index:
            raise UsageError(f"data.novel_classes makes one fold, fold 0; fold {index} was asked for")
        for name in self.novel_classes or ():
            if name not in class_names:
                close = difflib.get_close_matches(name, class_names, 1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise UsageError(f"novel class {name!r} is not in the data set; it has {', '.join(class_names)}.{hint}")
        novel = tuple(c for c, name in enumerate(class_names, 1) if name in (self.novel_classes or ()))
        return Fold(0, novel, tuple(c for c in range(1, len(class_names) + 1) if c not in novel))
