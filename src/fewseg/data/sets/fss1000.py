"""FSS-1000 (Li et al. 2020): 1000 classes of ten images each; 520 to train on, 240 to validate, 240 to test."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.index import Indexed, read_list
from fewseg.data.masks import read_mask
from fewseg.data.source import Fold, SourceIndex
from fewseg.errors import DataError, UsageError

LISTS = {"train": ("train.txt", "trn.txt"), "val": ("val.txt",), "test": ("test.txt", "fss_test_set.txt")}


class Fss1000(Indexed):
    """Folders CLASS/N.jpg + CLASS/N.png below `root` (or `root`/fewshot_data), and the published lists of classes.

    The lists train.txt (or trn.txt), val.txt and test.txt, a class a line, lie in `root`, `root`/splits or
    `root`/splits/fss. Subset `train` holds the training and validation classes, `test` the test classes. The only fold
    has the training classes as base, the validation classes as held out, the test classes as novel.
    """

    name = "fss1000"
    min_pixels = 1

    def __init__(self, *, subset: str = "train", root: str | None = None) -> None:
        super().__init__(subset, root, holds="a folder of images for every class")
        if not self.root.is_dir():
            raise DataError(
                f"{self.root} is missing. FSS-1000 has no stable host: fetch fewshot_data.zip by way of"
                " https://github.com/HKUSTCV/FSS-1000 and unpack it there"
            )
        self._parts = {part: self._list(part, names) for part, names in LISTS.items()}
        self.class_names = tuple(sorted(name for names in self._parts.values() for name in names))
        self._number = {name: c for c, name in enumerate(self.class_names, 1)}
        if len(self._number) < len(self.class_names):
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise DataError(
                f"class {twice!r} occurs twice in the lists of {self.root}; every class belongs to one part"
            )

    def describe(self) -> dict[str, Any]:
        """What was found, and how many classes each list has."""
        counts = {part: len(names) for part, names in self._parts.items()}
        return super().describe() | {"root": str(self.root), "classes": counts}

    def labels(self, i: int) -> NDArray[np.uint16]:
        """The (H, W) label map of image `i` alone: 0 background, 1..1000 classes (16 bits hold them), 65535 void."""
        class_id, path = self._masks[i]
        mask = read_mask(path, ">=128")  # the data set's own rule; its edges are soft
        return np.where(mask == 1, class_id, np.where(mask == 255, 65535, 0)).astype(np.uint16)

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self._masks[i][1].with_suffix(".jpg")

    def fold(self, index: int) -> Fold:
        """The published division; there is only fold 0."""
        if index:
            raise UsageError(f"fss1000 has one fold, fold 0; fold {index} was asked for")
        base, held_out, novel = (tuple(sorted(self._number[name] for name in names)) for names in self._parts.values())
        return Fold(0, novel, base, held_out)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Image ids: CLASS/N."""
        return tuple(f"{path.parent.name}/{path.stem}" for _, path in self._masks)

    @cached_property
    def _masks(self) -> list[tuple[int, Path]]:
        """Class id and mask file of every image of the subset."""
        chosen = self._parts["test"] if self.subset == "test" else [*self._parts["train"], *self._parts["val"]]
        inner = self.root / "fewshot_data"
        base = inner if inner.is_dir() else self.root
        found: list[tuple[int, Path]] = []
        for name in chosen:
            masks = sorted((base / name).glob("*.png"), key=lambda path: (len(path.stem), path.stem))
            if not masks:
                raise DataError(f"class {name!r} has no masks in {base / name}; FSS-1000 has ten, 1.png to 10.png")
            found += [(self._number[name], path) for path in masks]
        return found

    def _build_index(self) -> SourceIndex:
        return self.counted([path for _, path in self._masks], key=f"fss1000-{self.subset}")

    def _list(self, part: str, names: tuple[str, ...]) -> list[str]:
        places = [self.root / inner / name for inner in ("", "splits", "splits/fss", "fewshot_data") for name in names]
        if (found := next((path for path in places if path.is_file()), None)) is None:
            raise DataError(
                f"the list of FSS-1000's {part} classes is missing: put {names[0]}, a class a line, into {self.root}"
                f" (also looked for {', '.join(str(path.relative_to(self.root)) for path in places[1:])})"
            )
        return read_list(found)
