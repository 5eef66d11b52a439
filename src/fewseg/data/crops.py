"""Data sets whose images are objects cut out of photos by their boxes, and whose classes are the objects' parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations.runs import Rle, paint, runs_of
from fewseg.data.images import read_image
from fewseg.data.index import Indexed, cached_index, code_of, fingerprint, in_parallel
from fewseg.data.source import SourceIndex, map_type
from fewseg.errors import DataError

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in whole pixels; right and bottom are outside."""


class Crop(NamedTuple):
    """An object in a photo."""

    id: str
    photo: int
    """Number of the photo: two objects of one photo have the same."""
    box: Box


class Crops(Indexed):
    """Objects as images. A subclass gives `crops`, `photo_path`, `shapes`, and the `files` that they are read from.

    A class of an image is the union of the object's own parts of that name: what lies in the box of other objects is
    not marked.
    """

    crops: Sequence[Crop]
    """All objects of the subset."""
    files: Sequence[Path]
    """The annotation files, for the index's cache."""

    def photo_path(self, photo: int) -> Path:
        """The file of a photo by its number."""
        raise NotImplementedError

    def shapes(self, i: int) -> list[tuple[int, Rle]]:
        """Class and shape, in the whole photo, of the parts of object `i`."""
        raise NotImplementedError

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """Ids of all objects."""
        return tuple(crop.id for crop in self.crops)

    @cached_property
    def cut_from(self) -> NDArray[np.int64]:
        """(images,) the number of the photo that each is cut from."""
        return np.array([crop.photo for crop in self.crops], np.int64)

    def image_path(self, i: int) -> Path:
        """The file of the photo that image `i` is cut from."""
        return self.photo_path(self.crops[i].photo)

    def load(self, i: int) -> tuple[Image.Image, NDArray[Any]]:
        """Image `i` as RGB, cut out of its photo, and its (H, W) label map."""
        photo = read_image(self.image_path(i))
        left, top, right, bottom = self.crops[i].box
        if right > photo.width or bottom > photo.height:
            raise DataError(
                f"{self.image_path(i)} is {photo.width} x {photo.height} pixels, but the object {self.crops[i].id} in "
                f"it reaches to {right}, {bottom}; is it the photo that was annotated?"
            )
        return photo.crop((left, top, right, bottom)), self.labels(i)

    def shape_of(self, i: int) -> tuple[int, int]:
        """Height and width of image `i`."""
        left, top, right, bottom = self.crops[i].box
        return bottom - top, right - left

    def labels(self, i: int) -> NDArray[Any]:
        """The (H, W) label map of image `i` alone; of parts that overlap the smaller is on top."""
        labels = np.zeros(self.shape_of(i), map_type(len(self.class_names)))
        for class_id, inside in sorted(self._masks(i).items(), key=lambda item: -int(item[1].sum())):
            labels[inside == 1] = class_id
        return labels

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """All parts of a class in image `i`, (H, W) {0, 1}."""
        return self._masks(i, class_id).get(class_id, np.zeros(self.shape_of(i), np.uint8))

    def labelled(self, i: int) -> NDArray[np.bool_]:
        """(1 + N,) bool: the classes that image `i` holds; of others it may show another object's."""
        return self.index.counts[i] > 0

    def _masks(self, i: int, only: int | None = None) -> dict[int, NDArray[np.uint8]]:
        """(H, W) by class."""
        drawn: dict[int, NDArray[np.uint8]] = {}
        left, top, right, bottom = self.crops[i].box
        for class_id, shape in self.shapes(i):
            if only in (None, class_id):
                height, width = shape["size"]
                mask = drawn.setdefault(class_id, np.zeros((width, height), np.uint8))  # column by column
                paint(mask.reshape(-1), runs_of(shape), 1)
        return {c: np.ascontiguousarray(mask.T[top:bottom, left:right]) for c, mask in drawn.items()}

    def _build_index(self) -> SourceIndex:
        def count(i: int) -> NDArray[np.int64]:
            counts, masks = np.zeros(1 + len(self.class_names), np.int64), self._masks(i)
            for class_id, mask in masks.items():
                counts[class_id] = mask.sum()
            covered = np.any([mask == 1 for mask in masks.values()], axis=0) if masks else np.zeros(1, bool)
            counts[0] = np.prod(self.shape_of(i)) - covered.sum()
            return counts

        def counts() -> NDArray[np.int64]:
            rows = in_parallel(count, range(len(self.crops)), self.progress, "drawing parts")
            return np.array(list(rows), np.int64).reshape(-1, 1 + len(self.class_names))

        mark = fingerprint(self.files, self.ids, self.class_names, code_of(type(self)), root=self.root)
        return cached_index(self.ids, counts, root=self.root, key=f"{self.name}-{self.subset}", mark=mark)


def whole_box(left: float, top: float, right: float, bottom: float, *, size: tuple[int, int]) -> Box | None:
    """A box in whole pixels, cut off at the sides of a photo of `size` (height, width); None if nothing is left."""
    height, width = size
    box = max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom))
    return box if box[0] < box[2] and box[1] < box[3] else None
