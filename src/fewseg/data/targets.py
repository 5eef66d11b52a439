"""Data sets that are only tested on, as in cross-domain few-shot segmentation: all classes are novel in one fold."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewseg.data.index import Indexed
from fewseg.data.masks import read_mask
from fewseg.data.source import Fold, SourceIndex
from fewseg.data.text import found_in
from fewseg.errors import DataError, UsageError


class Picture(NamedTuple):
    """A photo and the masks of the classes that it holds."""

    id: str
    photo: Path
    masks: tuple[tuple[int, Path], ...]
    """Class and file; the class's pixels are those of at least 128."""


class Target(Indexed):
    """A data set whose images are all test images; both subsets hold them. A subclass gives `pictures`."""

    holds: ClassVar[str]
    """What `root` has in it."""
    fetched: ClassVar[str]
    """Where a person gets it."""

    def __init__(self, *, subset: str = "train", root: str | None = None) -> None:
        super().__init__(subset, root, holds=self.holds)

    @cached_property
    def pictures(self) -> list[Picture]:
        """All photos, in the order of their ids."""
        raise NotImplementedError

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """Ids of all images."""
        return tuple(picture.id for picture in self.pictures)

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self.pictures[i].photo

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone: 0 background, 1..N classes; there is no void."""
        return read_masks(self.pictures[i].masks)

    def fold(self, index: int) -> Fold:
        """The only fold, fold 0, in which all classes are novel."""
        if index:
            raise UsageError(f"{self.name} has one fold, fold 0, of which all classes are novel; got fold {index}")
        count = len(self.class_names)
        return Fold.of(0, range(1, 1 + count), classes=count)

    def describe(self) -> dict[str, Any]:
        """What was found, and the classes."""
        return super().describe() | {"root": str(self.root), "classes": list(self.class_names)}

    def _build_index(self) -> SourceIndex:
        files = [path for picture in self.pictures for _, path in picture.masks[:1]]
        return self.counted(files, key=self.name)

    def _inner(self, *names: str, needs: str) -> Path:
        """The first of these folders in `root`, or `root` itself, that has all of what it needs."""
        wanted = needs.split()
        for folder in (*(self.root / name for name in names), self.root):
            if all((folder / name).is_dir() for name in wanted):
                return folder
        raise self._absent(self.root)

    def _absent(self, folder: Path) -> DataError:
        return DataError(f"{self.name} expects {self.holds} in {self.root}; {found_in(folder)}. {self.fetched}")

    def _paired(self, pictures: Iterable[Picture]) -> list[Picture]:
        """The pictures in the order of their ids; DataError where there are none, or where a file is missing."""
        found = sorted(pictures)
        if not found:
            raise self._absent(self.root)
        for picture in found:
            if lacking := [path for path in (picture.photo, *(p for _, p in picture.masks)) if not path.is_file()]:
                raise DataError(f"{self.name}: image {picture.id} needs {lacking[0]}, which is missing. {self.fetched}")
        return found


def read_masks(masks: Iterable[tuple[int, Path]]) -> NDArray[np.uint8]:
    """The (H, W) label map of masks by class; DataError where they are of several sizes, or share a pixel."""
    labels, first = None, Path()
    for class_id, path in masks:
        inside = read_mask(path, ">=128") == 1
        if labels is None:
            labels, first = np.zeros(inside.shape, np.uint8), path
        if inside.shape != labels.shape:
            sizes = " and ".join(" x ".join(map(str, array.shape[::-1])) for array in (labels, inside))
            raise DataError(f"{first} and {path} are masks of one photo, but {sizes} pixels")
        if labels[inside].any():
            raise DataError(f"{path} marks pixels that another class's mask of the same photo marks, as {first} does")
        labels[inside] = class_id
    if labels is None:
        raise DataError("a photo without a mask")
    return labels
