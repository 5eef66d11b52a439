"""How many classes does an image hold, and does the support mask matter there? (supplement Fig. 1).

From the index alone: no photo is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fewseg.data.episodes.sampling import training_images
from fewseg.data.source import Fold, ImageSource
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import COLORS
from fewseg.experiments.tables import Table, percent, save
from fewseg.metrics.intervals import percentile_interval
from fewseg.progress import Silent
from fewseg.report.figures import plain_text, tidy

NAME = "statistics"
NEARLY_ALL = 0.9
"""From this share of single-class test images on, the support mask is said to matter little."""


@dataclass(frozen=True)
class SubsetStatistics:
    """The images of a fold to train on (by the configured rule for novel classes), or to test on (with a novel one)."""

    subset: str
    fold: int
    images: int
    by_classes: tuple[int, ...]
    """Images that contain 1, 2, ... classes, novel or base, of at least the data set's min_pixels each."""

    @property
    def single(self) -> float:
        """Share of the images that hold one class only."""
        return self.by_classes[0] / max(self.images, 1)

    @property
    def mean_classes(self) -> float:
        """Classes per image."""
        return float(np.dot(range(1, len(self.by_classes) + 1), self.by_classes)) / max(self.images, 1)


@dataclass(frozen=True)
class ClassStatistics:
    """How much of an image a class covers, over the test images that hold it; shares of 1."""

    name: str
    images: int
    share: float
    quartiles: tuple[float, float]


@dataclass(frozen=True)
class Statistics:
    """What the index says."""

    subsets: tuple[SubsetStatistics, ...]
    classes: tuple[ClassStatistics, ...]
    warnings: tuple[str, ...]
    table: Table
    class_table: Table


def run_statistics(plan: Plan, *, progress: Silent | None = None) -> Statistics:
    """Count and write `statistics.csv`, `statistics-classes.csv`, `.json` and the figure into `plan.out`."""
    progress = progress or Silent()
    config = plan.config()
    sources = {subset: plan.source(subset, progress=progress) for subset in ("train", "test")}
    test = sources["test"]
    folds = plan.chosen_folds(test)
    found = [
        subset_statistics(sources[subset], sources[subset].fold(fold), novel=config.data.novel)
        for subset in sources
        for fold in progress(folds, f"counting {subset} images", len(folds))
    ]
    classes = tuple(class_statistics(test))
    warnings = mask_warnings(found)
    table = _table(sources, found, warnings, novel=config.data.novel)
    class_table = Table(
        f"{test.name}: foreground share per class, over the test images that hold it",
        ("class", "test images", "share, %", "lower quartile", "upper quartile"),
        tuple((one.name, str(one.images), percent(one.share), *map(percent, one.quartiles)) for one in classes),
        (f"index SHA-256: test {test.index.sha256[:16]}",),
    )
    record = plan.record(folds) | {
        "index_sha256": {subset: source.index.sha256 for subset, source in sources.items()},
        "subsets": [asdict(one) for one in found],
        "classes": [asdict(one) for one in classes],
        "warnings": list(warnings),
    }
    save(plan.out, NAME, table, record, {"": histogram_figure(found)})
    save(plan.out, f"{NAME}-classes", class_table, record, {"": share_figure(classes)})
    return Statistics(tuple(found), classes, warnings, table, class_table)


def subset_statistics(source: ImageSource, fold: Fold, *, novel: str) -> SubsetStatistics:
    """The histogram of a fold's images in a source, by its subset."""
    enough = source.index.counts[:, 1:] >= source.min_pixels  # (images, classes)
    if source.subset == "train":
        images = training_images(source, fold, novel=novel)
    else:
        images = np.flatnonzero(enough[:, [c - 1 for c in fold.novel]].any(1))
    by_classes = np.bincount(enough[images].sum(1), minlength=2)[1:]
    return SubsetStatistics(source.subset, fold.index, len(images), tuple(by_classes.tolist()))


def class_statistics(source: ImageSource) -> Iterator[ClassStatistics]:
    """The share of the labelled pixels that each class covers in the images that hold it."""
    counts = source.index.counts
    pixels = np.maximum(counts.sum(1), 1)
    for c, name in enumerate(source.class_names, 1):
        images = source.index.images_of(c, min_pixels=source.min_pixels)
        shares = counts[images, c] / pixels[images] if len(images) else np.zeros(1)
        quartiles = percentile_interval(shares, low=0.25, high=0.75)
        yield ClassStatistics(name, len(images), float(shares.mean()), quartiles)


def mask_warnings(found: Sequence[SubsetStatistics]) -> tuple[str, ...]:
    """A sentence per fold whose test images nearly all hold one class only."""
    return tuple(
        f"fold {one.fold}: {100 * one.single:.0f} % of the {one.images} test images hold one class only; a method that"
        " ignores the support mask and segments whatever stands out does nearly as well there, so the fold says little"
        " about matching (see `fewseg experiment support-mask`)"
        for one in found
        if one.subset == "test" and one.images and one.single >= NEARLY_ALL
    )


def histogram_figure(found: Sequence[SubsetStatistics]) -> Figure:
    """Images by the number of classes that they contain: a row each for train and test, a column per fold."""
    subsets, folds = (list(dict.fromkeys(keys)) for keys in zip(*((s.subset, s.fold) for s in found), strict=True))
    figure = Figure(figsize=(1.9 * len(folds) + 0.8, 1.7 * len(subsets) + 0.5), layout="constrained")
    charts = figure.subplots(len(subsets), len(folds), squeeze=False, sharex=True)
    for one in found:
        r, c = subsets.index(one.subset), folds.index(one.fold)
        axes, values = charts[r, c], np.asarray(one.by_classes)
        bars = axes.bar(range(1, len(values) + 1), values, color=COLORS[r], width=0.75)
        share = values / max(values.sum(), 1)
        axes.bar_label(bars, [f"{100 * s:.0f}%" if s >= 0.005 else "" for s in share], fontsize=6, padding=1)
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"fold {one.fold}" if r == 0 else "", fontsize=9)
        last = r == len(subsets) - 1
        tidy(axes, y=f"{one.subset} images" if c == 0 else "", x="classes in the image" if last else "")
    return figure


def share_figure(classes: Sequence[ClassStatistics]) -> Figure:
    """The foreground share of every class: mean and quartiles, the largest on top."""
    order = sorted((one for one in classes if one.images), key=lambda one: one.share)
    figure = Figure(figsize=(4.2, 0.7 + 0.17 * len(order)), layout="constrained")
    axes = figure.subplots()
    for y, one in enumerate(order):
        axes.plot([100 * q for q in one.quartiles], [y, y], color="#9aa3af", linewidth=3, solid_capstyle="butt")
        axes.plot([100 * one.share], [y], "o", color=COLORS[0], markersize=4)
    axes.set_yticks(range(len(order)), [plain_text(one.name) for one in order])
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(left=0)
    tidy(axes, x="share of the image (%)")
    return figure


def _table(
    sources: dict[str, ImageSource],
    found: Sequence[SubsetStatistics],
    warnings: Sequence[str],
    *,
    novel: str,
) -> Table:
    most, rows = max(len(one.by_classes) for one in found), []
    for one in found:
        numbers = map(str, one.by_classes + (0,) * (most - len(one.by_classes)))
        mean = f"{one.mean_classes:.2f}"
        rows.append((one.subset, str(one.fold), str(one.images), percent(one.single), mean, *numbers))
    test = sources["test"]
    hashes = ", ".join(f"{subset} {source.index.sha256[:16]}" for subset, source in sources.items())
    return Table(
        f"{test.name}: images by the number of classes that they contain (supplement Fig. 1)",
        ("subset", "fold", "images", "one class, %", "mean", *map(str, range(1, most + 1))),
        tuple(rows),
        (
            f"a class counts from {test.min_pixels} pixels on; train: images to train on with data.novel={novel};"
            " test: images with a novel class; all classes of the data set are counted",
            f"exact counts, no sample; index SHA-256: {hashes}",
            *(f"warning: {text}" for text in warnings),
        ),
    )
