"""Photos whose unmarked parts are classes too: regions that look alike, by maps of `fewseg.features.region_classes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.source import Fold, ImageSource, SourceIndex, class_mask, labelled, map_type, mask_of

UNSURE = 255
"""In a map: no region."""


class WithRegions:
    """A source with K further classes, the regions of its photos that hold no label; all else is the source's own.

    `maps` (n, s, s) uint8 say of the photos `images` where which region 0..K-1 is, also beneath what is labelled, and
    `counts` (n, K) how many unlabelled pixels each has. In these photos an unlabelled pixel of no region is void; other
    photos are as they were, and whether they hold a region is not known.
    """

    def __init__(
        self,
        inner: ImageSource,
        images: NDArray[np.int64],
        maps: NDArray[np.uint8],
        counts: NDArray[np.int64],
    ) -> None:
        self.inner, self.maps = inner, maps
        self._rows = {int(i): n for n, i in enumerate(images)}
        self._counts, self._first = counts, 1 + len(inner.class_names)
        self.class_names = (*inner.class_names, *(f"region {n}" for n in range(1, 1 + counts.shape[1])))
        self.name, self.subset, self.min_pixels = inner.name, inner.subset, inner.min_pixels
        own = np.pad(inner.index.counts, ((0, 0), (0, len(self.regions))))
        own[images, self._first :], own[images, 0] = counts, 0
        self.index = SourceIndex(inner.index.ids, own)
        """What every image holds."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":  # while it is unpickled there is nothing to ask
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def parts(self) -> dict[str, ImageSource]:
        """What its photos and its code are found in (`fewseg.data.fingerprint`)."""
        return {"photos": self.inner}

    @property
    def regions(self) -> range:
        """The class ids of the regions."""
        return range(self._first, 1 + len(self.class_names))

    @property
    def class_weights(self) -> NDArray[np.float64] | None:
        """(1 + N,) the source's own, and 1 for regions; None where it has none."""
        own = getattr(self.inner, "class_weights", None)
        return None if own is None else np.pad(own, (0, len(self.regions)), constant_values=1.0)

    def fold(self, index: int) -> Fold:
        """The source's own, with the regions among its base classes."""
        return self.fold_with(self.inner.fold(index))

    def fold_with(self, fold: Fold) -> Fold:
        """The same for a fold in which classes are held out, or all are trained on."""
        return Fold(fold.index, fold.novel, (*fold.base, *self.regions), fold.held_out)

    def load(self, i: int) -> tuple[Image.Image, NDArray[Any]]:
        """Image `i` as RGB and its (H, W) label map."""
        image, labels = self.inner.load(i)
        return image, self._with_regions(i, labels)

    def labels(self, i: int) -> NDArray[Any]:
        """The (H, W) label map of image `i` alone."""
        own = getattr(self.inner, "labels", None)
        return self._with_regions(i, self.inner.load(i)[1] if own is None else own(i))

    def _with_regions(self, i: int, labels: NDArray[Any]) -> NDArray[Any]:
        kind = map_type(len(self.class_names))
        void, wide = np.iinfo(kind).max, labels.astype(np.uint16)
        wide[labels == np.iinfo(labels.dtype).max] = void
        if (row := self._rows.get(i)) is not None:
            table = np.full(256, void, np.uint16)
            table[: len(self.regions)] = self.regions
            bare = wide == 0
            wide[bare] = table[enlarged(self.maps[row], labels.shape)[bare]]
        return wide.astype(kind)

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """A class's mask (H, W) {0, 1, 255 void}: a region's by the label map, another's as the source has it."""
        if class_id >= self._first:
            return class_mask(labels, class_id)
        kind, void = map_type(len(self.inner.class_names)), np.iinfo(labels.dtype).max
        own = np.where(labels >= self._first, 0, labels).astype(kind)
        own[labels == void] = np.iinfo(kind).max
        return mask_of(self.inner, i, class_id, own)

    def labelled(self, i: int) -> NDArray[np.bool_]:
        """(1 + N,) which classes' pixels would be marked in image `i`: a region that lies beneath a label is not."""
        own = labelled(self.inner, i)
        known = np.ones(1 + len(self.class_names), np.bool_)
        known[: self._first] = True if own is None else own
        known[self._first :] = False
        if (row := self._rows.get(i)) is not None:
            there = np.bincount(self.maps[row].ravel(), minlength=256)[: len(self.regions)] > 0
            known[self._first :] = ~there | (self._counts[row] > 0)
        return known


def enlarged(small: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A map (s, s) at a photo's size, by nearest neighbour."""
    return np.asarray(Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
