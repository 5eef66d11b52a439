"""Figures for a paper, drawn by matplotlib through `Figure` alone: pyplot keeps global state."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from fewseg.errors import UsageError
from fewseg.files import replacing
from fewseg.report.charts import thin
from fewseg.report.overlays import panel_maps, panel_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from fewseg.report.contents import ClassScores, Confusion, Curve, Panel, ReportPage, Row

STRONG = "#2f6fb5"
MARKS = (("D", "#b8500b"), ("o", "#0a7a5c"), ("s", "#94407f"))
"""Shape and colour of the marks on per-class bars, as on the page."""


def panel_figure(panel: Panel) -> Figure:
    """One episode as a figure for a paper: pictures in the first row, prior and correlation maps in the second."""
    pictures = [(caption, picture) for _, caption, picture in panel_pictures(panel, side=480)]
    maps = [(caption, picture) for caption, _, picture in panel_maps(panel, side=480)]
    rows = [pictures, maps] if maps else [pictures]
    columns = max(map(len, rows))
    heights = [1.6 * max(picture.shape[0] / picture.shape[1] for _, picture in row) + 0.25 for row in rows]
    figure = Figure(figsize=(1.6 * columns, sum(heights)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, cells in zip(grid, rows, strict=True):
        for axes, (caption, picture) in zip(row, cells, strict=False):
            axes.imshow(picture)
            axes.set_title(textwrap.fill(_plain_text(caption), 24), fontsize=8, parse_math=False)
    return figure


def page_figures(page: ReportPage) -> dict[str, Figure]:
    """Every figure of a report by a file name without an ending; parts that the page leaves out have none."""
    found: dict[str, Figure] = {}
    if page.rows:
        found["comparison"] = bars_figure(page.rows)
    if page.per_class:
        found["classes"] = classes_figure(page.per_class)
    groups = dict.fromkeys(confusion.group for confusion in page.confusions)
    for n, group in enumerate(groups, 1):
        found[f"confusion-{n}"] = confusion_figure([c for c in page.confusions if c.group == group])
    if page.curves:
        found["curves"] = curves_figure(page.curves)
    for n, panel in enumerate(page.panels, 1):
        found[f"episode-{n:02}"] = panel_figure(panel)
    return found


def save_figures(folder: str | Path, page: ReportPage) -> list[Path]:
    """Write every figure of a report into a folder, as PDF and as PNG."""
    figures = page_figures(page).items()
    return [save_figure(Path(folder) / f"{name}{ending}", f) for name, f in figures for ending in (".pdf", ".png")]


def bars_figure(rows: Sequence[Row]) -> Figure:
    """The mIoU of every row of a comparison as a horizontal bar with its interval, in per cent."""
    figure = Figure(figsize=(5.5, 0.6 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        axes.barh(y, 100 * row.miou, height=0.6, color=STRONG if row.highlight else "#9aa3af")
        if row.interval is not None:
            _whisker(axes, row.interval, y)
    _name_rows(axes, [row.name for row in rows])
    axes.set_xlabel("mIoU (%)")
    return figure


def classes_figure(per_class: Sequence[ClassScores]) -> Figure:
    """The IoU of every class as a horizontal bar with its interval, and marks for what others reach, in per cent."""
    names = list(dict.fromkeys(name for scores in per_class for name in scores.marks))
    figure = Figure(figsize=(5.5, 0.9 + 0.3 * len(per_class)), layout="constrained")
    axes = figure.subplots()
    for y, scores in enumerate(per_class):
        axes.barh(y, 100 * scores.iou, height=0.6, color=STRONG)
        if scores.interval is not None:
            _whisker(axes, scores.interval, y)
    for name, (marker, color) in zip(names, MARKS, strict=False):
        points = [(100 * s.marks[name], y) for y, s in enumerate(per_class) if name in s.marks]
        axes.scatter(*zip(*points, strict=True), marker=marker, color=color, s=22, zorder=3, label=_plain_text(name))
    if names:
        for text in axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1)).get_texts():
            text.set_parse_math(False)
    _name_rows(axes, [scores.name for scores in per_class])
    axes.set_xlabel("IoU (%)")
    return figure


def confusion_figure(confusions: Sequence[Confusion], *, columns: int = 10) -> Figure:
    """Where predicted foreground lies as a heat map, in per cent: itself, background, the classes most often hit."""
    totals: dict[str, float] = {}
    for confusion in confusions:
        for name, share in confusion.others.items():
            totals[name] = totals.get(name, 0.0) + share
    shown = sorted(totals, key=lambda name: -totals[name])[:columns]
    heads = ["itself", "background", *shown, *(["the rest"] if len(totals) > len(shown) else [])]
    values = np.full((len(confusions), len(heads)), np.nan)
    for row, c in zip(values, confusions, strict=True):
        rest = sum(share for name, share in c.others.items() if name not in shown)
        row[:] = [c.itself, c.background, *(c.others.get(name, 0.0) for name in shown), rest][: len(heads)]
    figure = Figure(figsize=(1.8 + 0.5 * len(heads), 1.2 + 0.27 * len(confusions)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{100 * value:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if value > 0.6 else "#1b1d22")
    labels = [_plain_text(name, 24) for name in heads]
    axes.set_xticks(range(len(heads)), labels, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    _name_rows(axes, [c.name for c in confusions])
    axes.spines[:].set_visible(False)
    return figure


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """Learning curves, those of one chart on shared axes, side by side."""
    charts = list(dict.fromkeys(curve.chart or curve.name for curve in curves))
    figure = Figure(figsize=(3.6 * max(1, len(charts)), 2.6), layout="constrained")
    for axes, chart in zip(figure.subplots(1, max(1, len(charts)), squeeze=False)[0], charts, strict=False):
        drawn = [curve for curve in curves if (curve.chart or curve.name) == chart]
        lines = [_draw(axes, curve) for curve in drawn]
        unit = " (%)" if all(curve.percent for curve in drawn) else ""
        axes.set_title(_plain_text(chart) + unit, fontsize=9, parse_math=False)
        axes.set_xlabel("step")
        if len(drawn) > 1:
            for text in axes.legend(
                lines, [_plain_text(curve.name) for curve in drawn], fontsize=7, frameon=False
            ).get_texts():
                text.set_parse_math(False)
        _plain(axes)
    return figure


def save_figure(path: str | Path, figure: Figure) -> Path:
    """Write a figure as PDF, PNG or SVG by the path's ending, whole or not at all.

    No date goes in: the same figure gives the same file. Raises UsageError for another ending.
    """
    path = Path(path)
    formats = {".pdf": {"CreationDate": None}, ".png": {"Software": None}, ".svg": {"Date": None}}
    if path.suffix.lower() not in formats:
        raise UsageError(f"cannot write a figure as {path.name!r}; end it in {', '.join(formats)}")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=200, metadata=formats[path.suffix.lower()])
    return path


def _draw(axes: Axes, curve: Curve) -> Line2D:
    """One curve, with its range behind it where it was thinned."""
    thinned = thin(curve.steps, np.multiply(curve.values, 100 if curve.percent else 1))
    (line,) = axes.plot(thinned.steps, thinned.values, linewidth=1.2)
    if thinned.low is not None and thinned.high is not None:
        axes.fill_between(thinned.steps, thinned.low, thinned.high, color=line.get_color(), alpha=0.25, linewidth=0)
    return line


def _whisker(axes: Axes, interval: tuple[float, float], y: int) -> None:
    low, high = (100 * bound for bound in interval)
    axes.plot([low, high], [y, y], color="#1b1d22", linewidth=1.2, marker="|", markersize=6)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from the top down, each with its name."""
    axes.set_yticks(range(len(names)), [textwrap.fill(_plain_text(name), 30) for name in names], parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    _plain(axes)


def _plain_text(text: str, width: int = 60) -> str:
    """A name that a font can set: no control or direction characters, and not longer than a figure is wide."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def _plain(axes: Axes) -> None:
    """Leave only the two axes that carry numbers, with small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
