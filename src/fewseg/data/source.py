"""What a data set is: the contract ImageSource, the index of what images hold, and folds of base and novel classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.errors import UsageError, check_choice
from fewseg.labels import MOST_CLASSES

SUBSETS = ("train", "test")
SCHEMES = ("interleaved", "contiguous")
"""How consecutive folds take their novel classes: every fourth class, or one block after the other."""


@dataclass(frozen=True)
class Fold:
    """One division of a data set's classes: novel ones to test on, base ones to train on, and `held_out` base classes.

    `held_out` classes are treated as novel while training (so that a model can be selected on them honestly).
    All tuples hold data set class ids in ascending order.
    """

    index: int
    novel: tuple[int, ...]
    base: tuple[int, ...]
    held_out: tuple[int, ...] = ()

    @classmethod
    def of(cls, index: int, novel: Iterable[int], *, classes: int) -> Fold:
        """The fold with these novel classes, in which all others of 1..`classes` are base."""
        chosen = set(novel)
        return cls(index, tuple(sorted(chosen)), tuple(c for c in range(1, classes + 1) if c not in chosen))

    def hold_out(self, count: int) -> Fold:
        """The fold with `count` base classes, evenly spaced among them, moved to `held_out`."""
        if not 0 <= count < len(self.base):
            raise UsageError(
                f"cannot hold out {count} of {len(self.base)} base classes to validate on; give train.held_out=0 to "
                f"{len(self.base) - 1}, or train.validation=none"
            )
        step = len(self.base) / max(count, 1)
        chosen = {self.base[int((i + 0.5) * step)] for i in range(count)}
        return Fold(self.index, self.novel, tuple(c for c in self.base if c not in chosen), tuple(sorted(chosen)))

    @property
    def unseen(self) -> tuple[int, ...]:
        """Classes that training must not see: novel and held out."""
        return tuple(sorted(self.novel + self.held_out))

    def base_index(self, class_id: int) -> int:
        """0-based index of a class among the base classes, -1 if it is none of them."""
        return self.base.index(class_id) if class_id in self.base else -1


def make_fold(index: int, *, classes: int, folds: int = 4, scheme: str = "contiguous") -> Fold:
    """Fold `index` of `folds` over class ids 1..`classes`.

    `contiguous`: novel = size*index+1 .. size*(index+1) (PASCAL-5i, PANet's COCO); `interleaved`: novel =
    folds*n+index+1 (COCO-20i, FWB). Classes left over by the division stay base in every fold.
    """
    if not 0 <= index < folds:
        raise UsageError(f"fold {index} does not exist; the data set has folds 0 to {folds - 1}")
    size = classes // folds
    if size < 1:
        raise UsageError(f"{classes} classes cannot be divided into {folds} folds; give data.folds={classes} or fewer")
    check_choice("scheme", scheme, SCHEMES)
    first = size * index + 1
    novel = range(index + 1, folds * size + 1, folds) if scheme == "interleaved" else range(first, first + size)
    return Fold.of(index, novel, classes=classes)


@dataclass(frozen=True)
class SourceIndex:
    """How many pixels of which class every image holds; built from the annotations alone."""

    ids: tuple[str, ...]
    """Image ids, in the data set's own order."""
    counts: NDArray[np.int64]
    """(images, 1 + classes): pixels of background (column 0) and of every class; void is counted nowhere."""

    def images_of(self, class_id: int, *, min_pixels: int = 1) -> NDArray[np.int64]:
        """Ascending indices of the images that hold at least `min_pixels` pixels of a class."""
        return np.flatnonzero(self.counts[:, class_id] >= min_pixels)

    def classes_in(self, image: int, *, min_pixels: int = 1) -> NDArray[np.int64]:
        """Ascending class ids (background left out) with at least `min_pixels` pixels in an image."""
        return np.flatnonzero(self.counts[image, 1:] >= min_pixels) + 1

    @cached_property
    def sha256(self) -> str:
        """Hash of ids and counts: the same annotations give the same hash on any machine."""
        digest = hashlib.sha256(json.dumps(list(self.ids)).encode())
        digest.update(np.ascontiguousarray(self.counts, dtype="<i8").tobytes())
        return digest.hexdigest()


def map_type(classes: int) -> type[np.uint8 | np.uint16]:
    """What label maps of so many classes are made of; its highest value is void."""
    return np.uint8 if classes <= MOST_CLASSES else np.uint16


def class_mask(labels: NDArray[Any], class_id: int) -> NDArray[np.uint8]:
    """A class's mask {0, 1, 255 void} from a label map (H, W), in which the type's highest value is void."""
    return np.where(labels == np.iinfo(labels.dtype).max, 255, labels == class_id).astype(np.uint8)


def mask_of(source: ImageSource, i: int, class_id: int, labels: NDArray[Any]) -> NDArray[np.uint8]:
    """What is annotated as a class in image `i`, (H, W) uint8 {0, 1, 255 void}; `labels` is what `load(i)` gave.

    It is the source's own `mask_of(i, class_id, labels)` where it has one, since annotations may overlap, else what
    the label map says.
    """
    own = getattr(source, "mask_of", None)
    return class_mask(labels, class_id) if own is None else own(i, class_id, labels)


def classes_hash(source: ImageSource | type[ImageSource]) -> str:
    """Of the class names in order: sources with the same one mean the same classes by their ids."""
    return hashlib.sha256(json.dumps(source.class_names).encode()).hexdigest()[:16]


def labelled(source: ImageSource, i: int) -> NDArray[np.bool_] | None:
    """Which classes' pixels would be marked in image `i`, (1 + N,) by class id; None: all of them.

    It is the source's own `labelled(i)` where it has one. A class for which it is False may be there without a mark:
    an image without that mark is no example of the class's absence.
    """
    own = getattr(source, "labelled", None)
    return None if own is None else own(i)


def cut_from(source: ImageSource) -> NDArray[np.int64] | None:
    """The number of the photo that every image is cut from, (images,); None: each is a photo of its own.

    It is the source's own `cut_from` where it has one. Images of one photo are never in one episode.
    """
    return getattr(source, "cut_from", None)


def of_masks(source: ImageSource) -> ImageSource:
    """The source whose index counts classes by their masks, where it has both (COCO-20i); else the source itself."""
    own = getattr(source, "of_masks", None)
    return source if own is None else own()


def shape_of(source: ImageSource, i: int) -> tuple[int, int]:
    """Height and width of image `i`; as the source's own `shape_of(i)` says, which reads no pixels, if it has one."""
    own = getattr(source, "shape_of", None)
    return source.load(i)[1].shape if own is None else own(i)  # type: ignore[return-value]


@runtime_checkable
class ImageSource(Protocol):
    """A data set's images and label maps, for one subset ("train" or "test").

    A source is constructed as `Source(subset=..., root=..., **options)`; `options` are JSON-able keyword arguments with
    annotated types (they become the keys that `data.` accepts in a configuration). `fold(i)` is part of the data
    set's rules. Where annotations overlap, a source also has `mask_of`, and where some classes are marked in
    some images only, `labelled`, and where images are parts of photos, `cut_from`, as the functions of these names say.
    """

    name: str
    subset: str
    class_names: tuple[str, ...]
    """Names of class ids 1..N (class_names[0] is class 1)."""
    min_pixels: int
    """An image counts for a class from this many of its pixels on (2048 on PASCAL-5i and COCO-20i)."""

    @property
    def index(self) -> SourceIndex:
        """What every image holds; built on first use and cached."""
        ...

    def load(self, i: int) -> tuple[Image.Image, NDArray[Any]]:
        """Image `i` as RGB and its (H, W) uint8 label map: 0 background, 1..N classes, 255 void.

        A source with more than 254 classes gives uint16 maps, in which 65535 is void.
        """
        ...

    def fold(self, index: int) -> Fold:
        """The data set's own division into base and novel classes."""
        ...
