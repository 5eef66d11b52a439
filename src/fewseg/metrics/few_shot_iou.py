"""FewShotIoU: mIoU and FB-IoU as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fewseg.metrics.iou import COLUMNS, episode_counts, fb_iou, miou


class FewShotIoU(Metric):
    """Intersections and unions of every episode, pooled per class.

    mIoU: per class, the sum of intersections over the sum of unions of all its episodes, then the mean over
    `classes`; a class never drawn counts 0. FB-IoU: the mean of pooled background and foreground IoU. 255 in the
    truth is left out. (torchmetrics' own MeanIoU averages per image, which is not the few-shot mIoU.)
    """

    full_state_update = False
    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, truth: Tensor, class_id: int) -> None:
        """One episode: predicted mask (H, W) bool, truth (H, W) {0, 1, 255}, and its class."""
        self.rows.append(episode_counts(prediction, truth, class_id).unsqueeze(0))

    def table(self) -> NDArray[np.int64]:
        """(episodes, 5) counts; columns as in `COLUMNS`, in the order of the updates."""
        return dim_zero_cat(self.rows).cpu().numpy() if len(self.rows) else np.zeros((0, len(COLUMNS)), np.int64)

    def compute(self) -> dict[str, float]:
        """The keys miou and fb_iou, as shares of 1."""
        table = self.table()
        return {"miou": miou(table, self.classes), "fb_iou": fb_iou(table)}
