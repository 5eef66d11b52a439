"""The figures of the experiments: pure functions of plain data, drawn with matplotlib's Figure alone."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fewseg.experiments.sweep_results import Line
from fewseg.report.overlays import Rgb, fit, heat, overlay_array, prediction_array, resize_image, resize_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fewseg.experiments.correlation import CorrelationRow
    from fewseg.experiments.shown_episodes import Scene
    from fewseg.experiments.statistics import ClassStatistics

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
"""Okabe and Ito's: told apart by colour-blind eyes too; markers differ as well, for a grey print."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIDE = 320
"""Longest side of a picture in pixels."""


def tidy(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Leave only the two axes that carry numbers, with small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)


def point(axes: Axes, x: float, one: Line, *, color: str, marker: str, label: str = "") -> None:
    """A number with its interval, and the published one, if there is one, as a hollow marker beside it."""
    if one.miou is not None:
        low, high = (100 * v for v in one.interval or (one.miou, one.miou))
        axes.plot([x, x], [low, high], color=color, linewidth=1.2, zorder=2)
        axes.plot([x], [100 * one.miou], marker, color=color, markersize=5, zorder=3, label=label or None)
    if one.published is not None:
        axes.plot([x], [one.published], marker, color=color, markersize=5, fillstyle="none", zorder=3)


def setting_figure(lines: Sequence[Line], order: Sequence[tuple[str, ...]], *, label: str) -> Figure:
    """IoU of every setting (in `order`, along x) by fold, in per cent, with intervals; hollow: published."""
    figure = Figure(figsize=(1.6 + 1.1 * len(order), 3.0), layout="constrained")
    axes = figure.subplots()
    folds = list(dict.fromkeys(one.fold for one in lines))
    for f, fold in enumerate(folds):
        shift = 0.11 * (f - (len(folds) - 1) / 2)
        color, marker = ("#000000", "D") if fold is None else (COLORS[f % 6], MARKERS[f % 7])
        name = "mean" if fold is None else f"fold {fold}"
        for x, setting in enumerate(order):
            for one in lines:
                if one.setting == setting and one.fold == fold:
                    point(axes, x + shift, one, color=color, marker=marker, label=name)
                    name = ""
    axes.set_xticks(range(len(order)), [textwrap.fill(", ".join(s), 14) for s in order], parse_math=False)
    axes.set_xlim(-0.5, len(order) - 0.5)
    tidy(axes, x=label, y="mIoU (%)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def drop_figure(lines: Sequence[Line], drops: Sequence[Line]) -> Figure:
    """With and without the support mask, by level and fold, and the drop with its paired interval."""
    groups = list(dict.fromkeys((one.setting[0], one.fold) for one in drops))
    figure = Figure(figsize=(5.4 + 0.7 * len(groups), 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = ["\n".join(p for p in (level, "mean" if fold is None else f"fold {fold}") if p) for level, fold in groups]
    for x, (level, fold) in enumerate(groups):
        for name, shift, color, marker in (("with", -0.12, COLORS[0], "o"), ("without", 0.12, COLORS[5], "s")):
            for one in lines:
                if one.setting == (level, name) and one.fold == fold:
                    label = f"{name} support mask" if x == 0 else ""
                    point(left, x + shift, one, color=color, marker=marker, label=label)
        for one in drops:
            if (one.setting[0], one.fold) == (level, fold):
                point(right, x, one, color="#000000", marker="D")
    for axes, text in ((left, "mIoU (%)"), (right, "drop (mIoU points)")):
        axes.set_xticks(range(len(groups)), labels, parse_math=False)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_ylim(min(0, axes.get_ylim()[0]), max(1, axes.get_ylim()[1]))  # models that find nothing: no scale
        tidy(axes, y=text)
    right.axhline(0, color="#9aa3af", linewidth=0.8, zorder=1)
    if left.get_legend_handles_labels()[0]:
        figure.legend(*left.get_legend_handles_labels(), fontsize=7, frameon=False, ncols=2, loc="outside upper center")
    return figure


def grid(rows: Sequence[Sequence[tuple[str, Rgb]]], *, gap_after: int | None = None, titles: Any = None) -> Figure:
    """Pictures in rows, each with a short text below it; `titles` head the columns.

    After column `gap_after` there is a gap.
    """
    columns = max(map(len, rows))
    widths = [1.0] * columns
    if gap_after is not None:
        widths.insert(gap_after, 0.12)
    rows = [[(text, no_higher_than_wide(picture)) for text, picture in row] for row in rows]
    heights = [max(p.shape[0] / p.shape[1] for _, p in row) + 0.14 for row in rows]
    figure = Figure(figsize=(1.5 * sum(widths), 1.5 * sum(heights) + 0.3))
    cells = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights)
    for axes in cells.flat:
        axes.set_axis_off()
    top = 1 - 0.3 / figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=top, wspace=0.04, hspace=0.0)
    for r, row in enumerate(rows):
        for c, (text, picture) in enumerate(row):
            axes = cells[r, c + (gap_after is not None and c >= gap_after)]
            axes.imshow(picture)
            axes.set_anchor("N")
            axes.annotate(
                text, (0.5, 0), (0, -2), "axes fraction", "offset points", ha="center", va="top", fontsize=6.5
            ).set_parse_math(False)
            if r == 0 and titles:
                axes.set_title(titles[c], fontsize=7.5, parse_math=False, pad=3)
    return figure


def no_higher_than_wide(picture: Rgb) -> Rgb:
    """The picture with white beside it if it is higher than wide, so that it does not stretch its row."""
    missing = max(0, picture.shape[0] - picture.shape[1])
    return np.pad(picture, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)


def scene_figure(scenes: Sequence[Scene]) -> Figure:
    """Simple scenes on the left, complex ones on the right: support, truth, prediction with and without the mask."""
    sides = [[_scene_row(s) for s in scenes if s.kind == kind] for kind in ("simple", "complex")]
    kinds = [kind for kind, side in zip(("simple", "complex"), sides, strict=True) if side]
    sides = [side for side in sides if side]
    rows = [[cell for cells in row for cell in cells] for row in zip(*sides, strict=False)]
    heads = ("support", "query, truth", "with mask", "without mask")
    titles = [f"{kind}: {head}" if h == 0 else head for kind in kinds for h, head in enumerate(heads)]
    return grid(rows, gap_after=4 if len(sides) == 2 else None, titles=titles)


def _scene_row(scene: Scene) -> list[tuple[str, Rgb]]:
    panel = scene.panel
    size = fit(panel.query_image.shape[:2], SIDE)
    other = panel.others[0]
    return [
        (panel.class_name, support_picture(panel)),
        ("", truth_picture(panel)),
        (iou_text(panel.iou), prediction_array(panel, panel.prediction, size)),
        (iou_text(other.iou), prediction_array(panel, other.prediction, size)),
    ]


def support_picture(panel: Any) -> Rgb:
    """The first support with its mask."""
    image, mask = panel.support_images[0], panel.support_masks[0]
    size = fit(image.shape[:2], SIDE)
    return overlay_array(resize_image(image, size), resize_mask(mask, size))


def truth_picture(panel: Any) -> Rgb:
    """The query with its truth."""
    size = fit(panel.query_image.shape[:2], SIDE)
    return overlay_array(resize_image(panel.query_image, size), resize_mask(panel.truth, size))


def iou_text(iou: float | None) -> str:
    """An episode's IoU below its picture."""
    return "" if iou is None else f"IoU {100 * iou:.0f} %"


def repeats_figure(series: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """The mIoU of every repeat by line (fold or run), one chart per number of episodes, on one scale."""
    counts = sorted({n for values in series.values() for n in values})
    figure = Figure(figsize=(3.3 * len(counts) + 1.0, 2.8), layout="constrained")
    charts = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axes, n in zip(charts, counts, strict=True):
        for s, (name, values) in enumerate(series.items()):
            shown = [100 * v for v in values[n]]
            axes.plot(
                range(1, len(shown) + 1),
                shown,
                marker=MARKERS[s % 7],
                color=COLORS[s % 7],
                markersize=3.5,
                linewidth=1.0,
                label=name,
            )
        axes.set_title(f"{n} episodes", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes, x="repeat", y="mIoU (%)" if axes is charts[0] else "")
    figure.legend(*charts[0].get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside right center")
    return figure


def histogram_figure(counts: Mapping[tuple[str, int], Sequence[int]]) -> Figure:
    """Images by the number of classes that they contain: a row each for train and test, a column per fold.

    `counts` by (subset, fold): images with 1, 2, ... classes.
    """
    subsets, folds = list(dict.fromkeys(s for s, _ in counts)), list(dict.fromkeys(f for _, f in counts))
    figure = Figure(figsize=(1.9 * len(folds) + 0.8, 1.7 * len(subsets) + 0.5), layout="constrained")
    charts = figure.subplots(len(subsets), len(folds), squeeze=False, sharex=True)
    for r, subset in enumerate(subsets):
        for c, fold in enumerate(folds):
            axes, values = charts[r, c], np.asarray(counts[subset, fold])
            bars = axes.bar(range(1, len(values) + 1), values, color=COLORS[r], width=0.75)
            share = values / max(values.sum(), 1)
            axes.bar_label(bars, [f"{100 * s:.0f}%" if s >= 0.005 else "" for s in share], fontsize=6, padding=1)
            axes.margins(y=0.12)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            tidy(
                axes, y=f"{subset} images" if c == 0 else "", x="classes in the image" if r == len(subsets) - 1 else ""
            )
            if r == 0:
                axes.set_title(f"fold {fold}", fontsize=9)
    return figure


def share_figure(classes: Sequence[ClassStatistics]) -> Figure:
    """The foreground share of every class: mean and quartiles, the largest on top."""
    order = sorted((one for one in classes if one.images), key=lambda one: one.share)
    figure = Figure(figsize=(4.2, 0.7 + 0.17 * len(order)), layout="constrained")
    axes = figure.subplots()
    for y, one in enumerate(order):
        low, high = (100 * q for q in one.quartiles)
        axes.plot([low, high], [y, y], color="#9aa3af", linewidth=3, solid_capstyle="butt")
        axes.plot([100 * one.share], [y], "o", color=COLORS[0], markersize=4)
    axes.set_yticks(range(len(order)), [one.name for one in order], parse_math=False)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(left=0)
    tidy(axes, x="share of the image (%)")
    return figure


def correlation_figure(rows: Sequence[CorrelationRow]) -> Figure:
    """One row per episode: support, query, the correlation maps of stages 3 to 1 of every model, its prediction."""
    cells, titles = [], ["support", "query, truth"]
    for row in rows:
        panel = row.panels[0][1]
        size = fit(panel.query_image.shape[:2], SIDE)
        image = resize_image(panel.query_image, size)
        shown = [(panel.class_name, support_picture(panel)), ("", truth_picture(panel))]
        for _, one in row.panels:
            shown += [("", heat(array, size, image=image)) for array in one.correlations]
            shown.append((iou_text(one.iou), prediction_array(one, one.prediction, size)))
        cells.append(shown)
    for name, one in rows[0].panels:
        stages = len(one.correlations)
        titles += [f"stage {stages - i}" + (f"\n{name}" if i == 0 else "") for i in range(stages)] + ["prediction"]
    return grid(cells, titles=titles)
