"""What HDMNet's supplement reports: ResNet-50, mIoU in %, folds 0 to 3 (docs/networks/hdmnet.md section 10).

These need the full data sets, the paper's back-end and training; they stand beside measured numbers, never among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fewseg.data.source import ImageSource
from fewseg.evaluation.published import why_not_beside

T = TypeVar("T")
Folds = tuple[float, float, float, float, float]
"""Folds 0 to 3, and their mean as printed."""

SUPPORT_MASK: dict[str, dict[bool, Folds]] = {
    "pascal5i": {True: (71.2, 75.4, 67.6, 63.6, 69.5), False: (62.8, 69.4, 59.3, 53.6, 61.3)},
    "coco20i": {True: (43.8, 55.3, 51.6, 49.4, 50.0), False: (31.0, 37.7, 31.2, 33.8, 33.4)},
}
"""Table 1, 1-shot, by whether the support mask is used."""

TEMPERATURE: dict[str, dict[float, Folds]] = {
    "coco20i": {
        0.5: (42.1, 54.9, 48.6, 48.6, 48.6),
        1.0: (43.8, 55.3, 51.6, 49.4, 50.0),
        2.0: (43.1, 55.1, 50.0, 49.5, 49.4),
        5.0: (42.4, 54.9, 48.2, 47.5, 48.3),
    }
}
"""Table 2, 1-shot, by temperature."""

RELU: dict[str, dict[tuple[bool, int], Folds]] = {
    "coco20i": {
        (True, 1): (43.8, 55.3, 51.6, 49.4, 50.0),
        (False, 1): (45.0, 54.4, 49.4, 50.0, 49.7),
        (True, 5): (50.6, 61.6, 55.7, 56.0, 56.0),
        (False, 5): (49.0, 61.5, 55.7, 55.6, 55.5),
    }
}
"""Table 3, by (last ReLU kept, shots)."""

EPISODES = {"coco20i": "1000 episodes on fold 0 swing by up to 6.0 mIoU between ten repeats (supplement Fig. 2)"}

NOTE = (
    "published: HDMNet's supplement, ResNet-50, full data set, 10 repeats of its own episodes; comparable only with"
    " recipe hdmnet-paper on the full data"
)


def beside(
    values: Mapping[str, Mapping[T, Folds]], source: ImageSource, backbone: str
) -> tuple[Mapping[T, Folds], tuple[str, ...]]:
    """The values of a source's data set, with notes: none, and why not, unless the data and the back-end are the
    paper's.
    """
    if source.name not in values:
        return {}, ()
    refused = why_not_beside(source, backbone=backbone)
    return ({}, (f"published: not shown, since {refused}",)) if refused else (values[source.name], (NOTE,))


def at(values: Folds | None, fold: int | None) -> float | None:
    """The published value of a fold (None: the mean over folds); None where the paper has none."""
    return dict[int | None, float](zip((0, 1, 2, 3, None), values or (), strict=False)).get(fold)
