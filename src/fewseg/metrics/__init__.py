"""Metrics: the pooled mIoU and FB-IoU of few-shot segmentation, and their intervals."""

from importlib import import_module
from typing import Any

# Imported when first used: torchmetrics, the base of FewShotIoU, takes a second or two.
_HOMES = {
    "iou": (
        *("COLUMNS", "base_confusion", "class_iou", "episode_counts", "episode_iou", "fb_iou", "foreground_by_class"),
        *("foreground_wins", "miou", "winners"),
    ),
    "intervals": ("bootstrap_interval", "bootstrap_miou", "t_interval"),
    "few_shot_iou": ("FewShotIoU",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"fewseg.metrics.{module}"), name)
    raise AttributeError(f"module 'fewseg.metrics' has no attribute {name!r}")
