"""How alike the masks of two models are, such as a model and its graphs in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewseg.predictor import FewShotPredictor


@dataclass(frozen=True)
class Agreement:
    """How alike two models' masks are."""

    photos: int
    pixels: float
    """Share of all pixels with the same label."""
    iou: float
    """Mean over photos of the IoU of their two masks; two empty masks count as 1."""


def agreement(one: Any, other: Any, support: tuple[Any, Any], photos: Sequence[Any]) -> Agreement:
    """Compare the masks that two models, as `FewShotPredictor` takes them, give photos, with the same support (images,
    masks).
    """
    predictors = [FewShotPredictor(model) for model in (one, other)]
    for predictor in predictors:
        predictor.set_support(*support)
    same, ious = [], []
    for photo in photos:
        a, b = (predictor.predict(photo) for predictor in predictors)
        union = (a | b).sum()
        same.append((a == b).mean())
        ious.append((a & b).sum() / union if union else 1.0)
    return Agreement(len(photos), float(np.mean(same)), float(np.mean(ious)))
