"""Masks and label maps to counts of pixels, and counts to the field's numbers: pooled mIoU and FB-IoU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.labels import IGNORE

COLUMNS = ("class_id", "fg_intersection", "fg_union", "bg_intersection", "bg_union")
"""Columns of a table of counts: a row is an episode."""


def episode_counts(prediction: Tensor, truth: Tensor, class_id: int) -> Tensor:
    """(5,) int64: class id, then foreground and background intersection and union, in pixels."""
    valid = truth != IGNORE
    predicted, true = prediction.bool() & valid, (truth == 1) & valid
    fg_intersection, fg_union = (predicted & true).count_nonzero(), (predicted | true).count_nonzero()
    pixels = valid.count_nonzero()
    # what is not in the foreground's union is background in both
    counts = (fg_intersection, fg_union, pixels - fg_union, pixels - fg_intersection)
    return torch.stack([pixels.new_full((), class_id), *counts]).long()


def foreground_by_class(prediction: Tensor, labels: Tensor, classes: int) -> NDArray[np.int64]:
    """(1 + classes,) pixels of a predicted mask (H, W) by what is there in the label map (H, W); void is left out."""
    return label_pixels(labels[prediction.bool()], classes)


def label_pixels(labels: Tensor, classes: int) -> NDArray[np.int64]:
    """(1 + classes,) pixels of background and every class among labels of any shape; void is left out."""
    return torch.bincount(labels[labels <= classes].long(), minlength=1 + classes).cpu().numpy()


def base_confusion(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """(1 + classes, 2) intersection and union in pixels of a semantic label map (H, W) with its truth, 255 left out."""
    pairs = torch.bincount((truth.int() * 256 + prediction.int()).flatten(), minlength=2**16).view(256, 256)
    both = pairs[: 1 + classes, : 1 + classes]
    intersection = both.diagonal()
    predicted, true = pairs[:IGNORE, : 1 + classes].sum(0), pairs[: 1 + classes].sum(1)
    return torch.stack([intersection, predicted + true - intersection], 1)


def class_iou(table: NDArray[np.int64], classes: Sequence[int]) -> dict[int, float]:
    """Pooled foreground IoU of every class; 0 for a class without episodes."""
    sums = {c: table[table[:, 0] == c].sum(0) for c in classes}
    return {c: float(of_class[1] / max(of_class[2], 1)) for c, of_class in sums.items()}


def miou(table: NDArray[np.int64], classes: Sequence[int]) -> float:
    """Mean over `classes` of the pooled foreground IoU."""
    return float(np.mean(list(class_iou(table, classes).values())))


def fb_iou(table: NDArray[np.int64]) -> float:
    """Mean of the pooled foreground and background IoU."""
    sums = table[:, 1:].sum(0)
    return float((sums[0] / max(sums[1], 1) + sums[2] / max(sums[3], 1)) / 2)


def episode_iou(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """(episodes,) foreground IoU of each episode; 1 where neither prediction nor truth has foreground."""
    return np.where(table[:, 2] > 0, table[:, 1] / np.maximum(table[:, 2], 1), 1.0)


def foreground_wins(logits: Tensor) -> Tensor:
    """Logits (..., 2, H, W) to (..., H, W) bool: where their argmax is 1; torch's own takes a hundred times as long."""
    background, foreground = logits.unbind(-3)
    return foreground > background


def winners(logits: Tensor) -> Tensor:
    """Logits (..., C, H, W) of at most 256 classes to their argmax (..., H, W) uint8, the first of equal ones; torch's
    own takes several times as long.
    """
    last = logits.shape[-3] - 1
    best = (logits == logits.amax(-3, keepdim=True)).to(torch.uint8)
    from_the_end = torch.arange(last, -1, -1, dtype=torch.uint8, device=logits.device).view(-1, 1, 1)
    return last - best.mul_(from_the_end).amax(-3)
