"""iSAID-5i (Yao et al. 2021, SDM): the aerial pictures of iSAID in patches, 15 classes in three folds."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.images import read_labels
from fewseg.data.index import Indexed
from fewseg.data.source import Fold, SourceIndex, make_fold
from fewseg.data.text import found_in
from fewseg.errors import DataError

_ENDING = "_instance_color_RGB.png"
_LAYOUTS = (("{}/images", "{}/semantic_png"), ("img_dir/{}", "ann_dir/{}"))


class Isaid5i(Indexed):
    """Patches NAME.png and label maps NAME_instance_color_RGB.png (grey: 0, classes 1..15, 255 void), for `train` and
    `val`: {train,val}/images and {train,val}/semantic_png, or img_dir/{train,val} and ann_dir/{train,val}.

    They lie below `root`, `root`/iSAID_patches or `root`/iSAID; `test` is val.
    """

    name = "isaid5i"
    min_pixels = 2048
    class_names = (
        *("ship", "storage tank", "baseball diamond", "tennis court", "basketball court"),
        *("ground track field", "bridge", "large vehicle", "small vehicle", "helicopter"),
        *("swimming pool", "roundabout", "soccer ball field", "plane", "harbor"),
    )
    holds = "train/ and val/ with images/ and semantic_png/ in each, or img_dir/ and ann_dir/ with train/ and val/"

    fetched = (
        "Fetch iSAID-5i by way of https://github.com/caoql98/SDM, or the patches of https://github.com/chunbolang/R2Net"
    )

    def __init__(self, *, subset: str = "train", root: str | None = None) -> None:
        super().__init__(subset, root, holds=self.holds)
        self._photos, self._maps = self._folders("train" if subset == "train" else "val")

    @cached_property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """The patches' names."""
        names = tuple(sorted(path.name.removesuffix(_ENDING) for path in self._maps.glob(f"*{_ENDING}")))
        if not names:
            raise DataError(f"isaid5i expects label maps NAME{_ENDING} in {self._maps}; {found_in(self._maps)}")
        return names

    def image_path(self, i: int) -> Path:
        """The patch's file."""
        return self._photos / f"{self.ids[i]}.png"

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone: 0 background, 1..15 classes, 255 void."""
        return read_labels(self._map(i))

    def fold(self, index: int) -> Fold:
        """Novel classes 5 * index + 1 .. 5 * index + 5; the other ten are base."""
        return make_fold(index, classes=15, folds=3)

    def describe(self) -> dict[str, Any]:
        """What was found: the two folders."""
        return super().describe() | {"photos": str(self._photos), "label_maps": str(self._maps)}

    def _build_index(self) -> SourceIndex:
        return self.counted([self._map(i) for i in range(len(self.ids))], key=f"isaid5i-{self.subset}")

    def _map(self, i: int) -> Path:
        return self._maps / f"{self.ids[i]}{_ENDING}"

    def _folders(self, part: str) -> tuple[Path, Path]:
        for base in (self.root / "iSAID_patches", self.root / "iSAID", self.root):
            for names in _LAYOUTS:
                photos, maps = (base / name.format(part) for name in names)
                if photos.is_dir() and maps.is_dir():
                    return photos, maps
        raise DataError(
            f"isaid5i expects {self.holds} in {self.root} (or in iSAID_patches/ or iSAID/); {found_in(self.root)}."
            f" {self.fetched}"
        )
