"""The shipped model trained a little further on a few annotated photos of one class, by the recipe `lite-adapt`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.config import load_config
from fewseg.labels import IGNORE
from fewseg.progress import Silent
from fewseg.storage.saved import load_model, save_model
from fewseg.training.loop import train

RECIPE = ("lite-adapt",)
"""Words of the configuration."""


def adapt(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[Any]]],
    folder: Path,
    *,
    words: Sequence[str] = (),
    progress: Silent | None = None,
) -> Path:
    """Train on photos (H, W, 3) and masks (H, W) {0, 1, 255 ignore}, and save the model to `folder`, without the
    back-end, which comes with its package; returns the folder. `words` override the recipe's.
    """
    with tempfile.TemporaryDirectory(prefix="fewseg-adapt-") as name:
        data, run = Path(name) / "data", Path(name) / "run"
        for number, (photo, mask) in enumerate(pairs):
            for part, pixels in (("images", photo), ("masks", _as_shown(mask))):
                (data / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(data / part / f"{number}.png")
        config = load_config(*RECIPE, "folder", f"data.root={data}", "data.label=1", "data.class_name=it", *words)
        return save_model(load_model(train(config, run, progress=progress)), folder, slim=True)


def _as_shown(mask: NDArray[Any]) -> NDArray[np.uint8]:
    return np.where(mask == IGNORE, IGNORE, mask == 1).astype(np.uint8)
