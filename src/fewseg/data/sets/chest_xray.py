"""Chest X-rays with lungs (Candemir, Jaeger et al. 2013) as cross-domain few-shot segmentation has them (PATNet)."""

from __future__ import annotations

from functools import cached_property

from fewseg.data.targets import Picture, Target


class ChestXray(Target):
    """CXR_png/NAME.png and masks/NAME_mask.png below `root`, `root`/LungSegmentation or `root`/Lung Segmentation.

    X-rays without a mask are left out. `montgomery` adds those whose mask has the X-ray's own name (MCUCXR_*): PATNet's
    code takes names that end in _mask alone.
    """

    name = "chest_xray"
    class_names = ("lung",)
    holds = "CXR_png/ and masks/ (here or in LungSegmentation/)"
    fetched = "Fetch 'chest-xray-masks-and-labels' by nikhilpandey360 at https://www.kaggle.com/datasets (a login)"

    def __init__(self, *, subset: str = "train", root: str | None = None, montgomery: bool = False) -> None:
        super().__init__(subset=subset, root=root)
        self.montgomery = montgomery

    @cached_property
    def pictures(self) -> list[Picture]:
        """All X-rays with a mask."""
        base = self._inner("LungSegmentation", "Lung Segmentation", needs="CXR_png masks")
        masks = {path.stem.removesuffix("_mask"): path for path in base.glob("masks/*_mask.png")}
        if self.montgomery:
            masks |= {path.stem: path for path in base.glob("masks/MCUCXR_*.png") if not path.stem.endswith("_mask")}
        return self._paired(
            Picture(name, base / "CXR_png" / f"{name}.png", ((1, mask),)) for name, mask in masks.items()
        )
