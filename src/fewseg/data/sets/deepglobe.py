"""DeepGlobe land cover (Demir et al. 2018) as cross-domain few-shot segmentation has it (PATNet, Lei et al. 2022)."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path

from fewseg.data.targets import Picture, Target


class DeepGlobe(Target):
    """PATNet's tiles: N/test/origin/TILE.jpg and N/test/groundtruth/TILE.png for N = 1 to 6, below `root` or
    `root`/Deepglobe. A tile that several classes have is one image that holds them all.
    """

    name = "deepglobe"
    holds = "folders 1 to 6 with test/origin/*.jpg and test/groundtruth/*.png (here or in Deepglobe/)"
    fetched = (
        "Fetch the preprocessed data by way of https://github.com/slei109/PATNet: the original pictures, which are of "
        "2448 pixels a side, are cut into tiles there"
    )
    # the colours in PATNet's order, which OpenCV reads as blue, green, red
    class_names = ("agriculture land", "urban land", "rangeland", "forest land", "water", "barren land")

    @cached_property
    def pictures(self) -> list[Picture]:
        """All tiles."""
        base = self._inner("Deepglobe", needs=" ".join(f"{c}/test/origin" for c in range(1, 7)))
        photos: dict[str, Path] = {}
        masks: dict[str, list[tuple[int, Path]]] = defaultdict(list)
        for class_id in range(1, 7):
            folder = base / str(class_id) / "test"
            for photo in folder.glob("origin/*.jpg"):
                photos.setdefault(photo.stem, photo)
                masks[photo.stem].append((class_id, folder / "groundtruth" / f"{photo.stem}.png"))
        return self._paired(Picture(name, photo, tuple(masks[name])) for name, photo in photos.items())
