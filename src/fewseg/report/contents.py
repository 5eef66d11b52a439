"""What a report shows, as plain data.

IoU values are fractions in [0, 1] (NaN: never measured) and are shown in per cent with one decimal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fewseg.errors import UsageError

Heading = TypeVar("Heading")
T = TypeVar("T")

Interval = tuple[float, float]
MAX_MARKS = 3
"""Others that a class's bar is marked with: marks differ in shape too, and three shapes stay apart at their size."""


@dataclass(frozen=True)
class Row:
    """One line of the main comparison: a method, an ablation or a baseline on the same episodes."""

    name: str
    miou: float
    interval: Interval | None = None
    fb_iou: float | None = None
    note: str = ""
    seen: str = ""
    """How many of the classes its model was trained on, in words, for the tiles at the page's head; empty for none."""
    highlight: bool = False
    """The run that the report is about: its bar is coloured, and the headline is taken from the first such row."""
    published: float | None = None
    """The paper's mIoU, in a column of its own, never mixed with measured values."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Further columns by their heading, e.g. {"p": "0.031", "s/episode": "0.12"}; texts as they are shown."""
    shots: int | None = None
    """Where rows differ in it they are on other episodes, and not held against one another."""

    def __post_init__(self) -> None:
        _check_fractions(f"row {self.name!r}", self.miou, self.fb_iou, self.published, *(self.interval or ()))


@dataclass(frozen=True)
class ClassScores:
    """The IoU of one novel class, with an interval and, as marks on the same bar, what others reach on it."""

    name: str
    iou: float
    interval: Interval | None = None
    episodes: int | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    """IoU of this class by the name of another row, e.g. {"without the support mask": 0.31}; at most MAX_MARKS."""

    def __post_init__(self) -> None:
        _check_fractions(f"class {self.name!r}", self.iou, *(self.interval or ()), *self.marks.values())


@dataclass(frozen=True)
class Confusion:
    """Where the predicted foreground of a class (or of a method, all classes together) lies, as shares of it.

    `itself`, `background` and `others` add up to 1; all are NaN where nothing was predicted.
    """

    name: str
    itself: float
    background: float
    others: Mapping[str, float]
    """Share on every other class by its name: on distractors, things of the query that were not asked for."""
    group: str = ""
    """Heading under which rows are gathered."""

    def __post_init__(self) -> None:
        _check_fractions(f"confusion {self.name!r}", self.itself, self.background, *self.others.values())


@dataclass(frozen=True)
class Curve:
    """A learning curve; curves with the same `chart` share axes, one without has its own."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    percent: bool = False
    """The values are fractions to be shown in per cent (IoU); the best one is then marked."""
    chart: str = ""
    place: int | None = None
    """Among the runs of a page, of which not each is in every chart: its colour, and named though it is alone."""

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values):
            raise UsageError(
                f"curve {self.name!r} has {len(self.steps)} steps and {len(self.values)} values; give as many"
            )


@dataclass(frozen=True)
class OtherPrediction:
    """What another method, or the same without the support mask, predicts on a panel's query."""

    name: str
    prediction: NDArray[Any]
    """(H, W) bool or {0, 1}."""
    iou: float | None = None

    def __post_init__(self) -> None:
        _check_fractions(f"prediction {self.name!r}", self.iou)


@dataclass(frozen=True, eq=False)
class Panel:
    """One episode in pictures. Supports and query may each have their own size."""

    class_name: str
    support_images: tuple[NDArray[np.uint8], ...]
    """K images, each (H, W, 3) RGB."""
    support_masks: tuple[NDArray[Any], ...]
    """K masks, each (H, W) {0, 1, 255 ignore}."""
    query_image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    prediction: NDArray[Any]
    """(H, W) bool or {0, 1}."""
    truth: NDArray[Any] | None = None
    """(H, W) {0, 1, 255 ignore}."""
    iou: float | None = None
    caption: str = ""
    group: str = ""
    """Heading under which panels are gathered, e.g. "Best", "Median", "Worst"."""
    correlations: tuple[NDArray[Any], ...] = ()
    """Correlation maps, coarse to fine, each (h, w)."""
    prior: NDArray[Any] | None = None
    """(h, w)."""
    others: tuple[OtherPrediction, ...] = ()
    method: str = "prediction"
    """Whose prediction it is."""

    def __post_init__(self) -> None:
        where = f"panel {self.class_name!r}"
        _check_fractions(where, self.iou)
        if len(self.support_images) != len(self.support_masks):
            raise UsageError(
                f"{where} has {len(self.support_images)} support images, {len(self.support_masks)} masks; give as many"
            )
        for image, mask in zip(self.support_images, self.support_masks, strict=True):
            _check_picture(f"{where}: support", image, mask)
        masks = [self.prediction, *(other.prediction for other in self.others)]
        _check_picture(f"{where}: query", self.query_image, *masks, *([] if self.truth is None else [self.truth]))


@dataclass(frozen=True)
class Section:
    """Free text and, if given, a table: the protocol record, seeds, hashes, versions."""

    title: str
    text: str = ""
    """Paragraphs, separated by empty lines."""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class ReportPage:
    """All that a report shows; every part but the title may be left out and then leaves no trace."""

    title: str
    subtitle: str = ""
    rows: tuple[Row, ...] = ()
    per_class: tuple[ClassScores, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    curves: tuple[Curve, ...] = ()
    panels: tuple[Panel, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    """What was measured, briefly, as (name, value): data set, fold, shots, episodes, hashes."""
    sections: tuple[Section, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    """How to make it again, as (what it does, command)."""
    interval_name: str = "95 % interval"
    rows_note: str = ""
    """What is to be known of some rows, told at the foot of their table."""
    opening: tuple[Panel, ...] = ()
    """Episodes in pictures that come before everything else."""


def gathered(items: Iterable[tuple[Heading, T]]) -> dict[Heading, list[T]]:
    """Items under their headings, in order of appearance."""
    grouped: dict[Heading, list[T]] = {}
    for group, item in items:
        grouped.setdefault(group, []).append(item)
    return grouped


def _check_fractions(where: str, *values: float | None) -> None:
    for value in values:
        if value is not None and not math.isnan(value) and not 0 <= value <= 1:
            raise UsageError(f"{where} holds {value:g}, which is no IoU; give fractions between 0 and 1")


def _check_picture(where: str, image: NDArray[Any], *masks: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise UsageError(f"{where} image has shape {image.shape} and type {image.dtype}; give (H, W, 3) uint8")
    for mask in masks:
        if mask.shape != image.shape[:2]:
            raise UsageError(
                f"{where} image is {image.shape[:2]} and its mask {mask.shape}; give both in the same size"
            )
