"""Models and episodes for the benchmarks: the same ones for both ways, from one seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.build import create_model
from fewseg.episode import Episode

BASE_CLASSES = 15


def make_model(backbone: str, *, shots: int, side: int, method: str = "hdmnet") -> Any:
    """A method with random weights, whose back-end's BatchNorms know the scale of their inputs, as trained ones do."""
    torch.manual_seed(0)
    model = create_model(method, backbone=backbone, base_classes=BASE_CLASSES, shots=shots, image_size=side)
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum, norm.training = 1.0, True
    with torch.no_grad():
        model.backbone(model.backbone.normalise(photos(4, 97)))
    for norm in norms:
        norm.momentum, norm.training = 0.1, False
    return model.eval()


def photos(count: int, side: int, *, seed: int = 0) -> Tensor:
    """(count, 3, side, side) smooth random pictures."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 12, 12, generator=g)
    fine = torch.rand(count, 3, side, side, generator=g)
    return 0.8 * F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1) + 0.2 * fine


def disc(side: int, share: float) -> Tensor:
    """(side, side) uint8 mask whose foreground is a rectangle's `share` of the picture, off its middle."""
    mask = torch.zeros(side, side, dtype=torch.uint8)
    length = round(side * share**0.5)
    start = (side - length) // 3
    mask[start : start + length, start : start + length] = 1
    return mask


def make_episode(side: int, *, shots: int, share: float, batch: int = 1) -> Episode:
    """Episodes whose supports have `share` of foreground."""
    masks = disc(side, share).expand(batch, shots, -1, -1).contiguous()
    return Episode(
        query_image=photos(batch, side, seed=1),
        support_images=photos(batch * shots, side, seed=2).unflatten(0, (batch, shots)),
        support_masks=masks,
        class_id=torch.zeros(batch, dtype=torch.long),
        base_index=torch.full((batch,), -1),
        query_mask=disc(side, 0.2).expand(batch, -1, -1).contiguous(),
    )


def write_data_set(
    root: Path, *, images: int, classes: int, shown: int, size: tuple[int, int] = (500, 375), drawn: int | None = None
) -> None:
    """A folder data set: photos (JPEG) with label maps, one or two of the first `shown` classes in each.

    Only `drawn` of them differ, the others are links to those.
    """
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("".join(f"thing {c}\n" for c in range(1, classes + 1)))
    rng = np.random.default_rng(0)
    width, height = size
    y, x = np.mgrid[:height, :width]
    drawn = min(drawn or images, images)
    for i in range(drawn, images):
        for name in ("images/{:04d}.jpg", "labels/{:04d}.png"):
            (root / name.format(i)).symlink_to((root / name.format(i % drawn)).resolve())
    for i in range(drawn):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(root / "images" / f"{i:04d}.jpg")
        labels = np.zeros((height, width), np.uint8)
        for c in {i % shown, (i + 1 + i // shown) % shown}:
            centre = rng.uniform(0.25, 0.75, 2) * (height, width)
            radius = rng.uniform(0.15, 0.3) * height
            labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = c + 1
        Image.fromarray(labels).save(root / "labels" / f"{i:04d}.png")
