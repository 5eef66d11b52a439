"""What the figures of several experiments share: series that can be told apart, numbers with intervals, episodes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewseg.experiments.lines import Line, nothing_found
from fewseg.report.contents import Panel
from fewseg.report.figures import plain_text, tidy
from fewseg.report.overlays import Rgb, panel_pictures

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
"""Okabe and Ito's: told apart by colour-blind eyes too; markers differ as well, for a grey print."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def point(axes: Axes, x: float, one: Line, *, color: str, marker: str, label: str = "") -> None:
    """A number with its interval, and the published one, if there is one, as a hollow marker beside it."""
    if one.miou is not None:
        low, high = (100 * v for v in one.interval or (one.miou, one.miou))
        axes.plot([x, x], [low, high], color=color, linewidth=1.2, zorder=2)
        axes.plot([x], [100 * one.miou], marker, color=color, markersize=5, zorder=3, label=label or None)
    if one.published is not None:
        axes.plot([x], [one.published], marker, color=color, markersize=5, fillstyle="none", zorder=3)


def say_nothing_found(figure: Figure, lines: Sequence[Line]) -> None:
    """Say below a figure which of its numbers say nothing, where there are such."""
    if told := nothing_found(lines):
        width = int(figure.get_figwidth() * 16)
        figure.supxlabel(textwrap.fill(plain_text(told[0], 600), width), fontsize=7, color="#b3261e")


def setting_figure(lines: Sequence[Line], *, label: str) -> Figure:
    """IoU of every setting (along x) by fold, in per cent, with intervals; hollow: published."""
    order, folds = (list(dict.fromkeys(keys)) for keys in zip(*((one.setting, one.fold) for one in lines), strict=True))
    figure = Figure(figsize=(1.6 + 1.1 * len(order), 3.0), layout="constrained")
    axes = figure.subplots()
    named = set()
    for one in lines:
        f = folds.index(one.fold)
        color, marker = ("#000000", "D") if one.fold is None else (COLORS[f % 6], MARKERS[f % 7])
        name = "mean" if one.fold is None else f"fold {one.fold}"
        x = order.index(one.setting) + 0.11 * (f - (len(folds) - 1) / 2)
        point(axes, x, one, color=color, marker=marker, label="" if name in named else name)
        named |= {name} if one.miou is not None else set()
    axes.set_xticks(range(len(order)), [textwrap.fill(plain_text(", ".join(s)), 14) for s in order])
    axes.set_xlim(-0.5, len(order) - 0.5)
    tidy(axes, x=label, y="mIoU (%)")
    if named:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    say_nothing_found(figure, lines)
    return figure


def episode_cells(panel: Panel) -> dict[str, tuple[str, Rgb]]:
    """The pictures of an episode, each with the text below it, by kind; the first of those of one kind."""
    cells = {}
    for kind, _, iou, picture in reversed(list(panel_pictures(panel))):
        text = "" if iou is None else f"IoU {100 * iou:.0f} %"
        cells[kind] = (panel.class_name if kind == "support" else text, picture)
    return cells
