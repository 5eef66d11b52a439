"""SUIM, underwater pictures (Islam et al. 2020), as a target of cross-domain few-shot segmentation."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewseg.data.images import read_image
from fewseg.data.targets import Picture, Target

_NAMES = {
    "FV": "fish and vertebrates",
    "HD": "human divers",
    "PF": "aquatic plants and sea-grass",
    "RI": "reefs and invertebrates",
    "RO": "robots and instruments",
    "SR": "sea-floor and rocks",
    "WR": "wrecks and ruins",
}
_BITS = ("", "HD", "PF", "WR", "RO", "RI", "FV", "SR")
"""Classes by the bits of a mask's colour, red the highest."""


class Suim(Target):
    """SUIM's own folders train_val and TEST, each with images/NAME.jpg and masks/NAME.bmp in eight colours.

    Or all of it as images/NAME.jpg and masks/CLASS/NAME.bmp (CLASS: FV, HD, PF, RI, RO, SR, WR). Either lies below
    `root` or `root`/SUIM.

    All 1635 images are test images. A colour's channel counts from 128 on. The water (BW) is the background.
    """

    name = "suim"
    class_names = tuple(_NAMES.values())
    holds = "train_val/ and TEST/ with images/ and masks/ in each, or images/ and masks/CLASS/ (here or in SUIM/)"
    fetched = "Fetch it by way of https://irvlab.cs.umn.edu/resources/suim-dataset"

    @cached_property
    def pictures(self) -> list[Picture]:
        """All images."""
        return self._paired(self._merged() or self._own())

    @cached_property
    def _base(self) -> Path:
        inner = self.root / "SUIM"
        return inner if inner.is_dir() else self.root

    def _own(self) -> list[Picture]:
        """Of SUIM's own folders; the class of a mask is 0, since it has all of them."""
        parts = [self._base / name for name in ("train_val", "TEST")]
        if not all((part / name).is_dir() for part in parts for name in ("images", "masks")):
            raise self._absent(self._base)
        photos = [(part, photo) for part in parts for photo in part.glob("images/*.jpg")]
        return [Picture(p.stem, p, ((0, part / "masks" / f"{p.stem}.bmp"),)) for part, p in photos]

    def _merged(self) -> list[Picture]:
        """Of a folder a class; none where it is not so laid out."""
        if not (self._base / "masks" / "FV").is_dir():
            return []
        masks: dict[str, list[tuple[int, Path]]] = defaultdict(list)
        for class_id, name in enumerate(_NAMES, 1):
            for path in (self._base / "masks" / name).glob("*.*"):
                masks[path.stem].append((class_id, path))
        photos = self._base / "images"
        return [Picture(name, photos / f"{name}.jpg", tuple(found)) for name, found in masks.items()]

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone: 0 water, 1..7 classes."""
        (class_id, path), *_ = self.pictures[i].masks
        if class_id:
            return super().labels(i)
        bits = (np.asarray(read_image(path)) >= 128) @ np.array([4, 2, 1])
        return np.array([0, *(1 + list(_NAMES).index(name) for name in _BITS[1:])], np.uint8)[bits]
