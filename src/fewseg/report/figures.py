"""Every chart and figure: files for a paper, and the SVG of the page's charts.

matplotlib draws them through `Figure` alone, because pyplot keeps global state.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import ArrayLike

from fewseg.errors import UsageError
from fewseg.files import replacing
from fewseg.report.contents import ClassScores, Confusion, Curve, Interval, Panel, ReportPage, Row, gathered
from fewseg.report.overlays import LEGEND, Rgb, panel_maps, panel_pictures

SERIES = ("#2767ad", "#b8500b", "#0a7a5c", "#94407f")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)))
"""Lines that share a chart differ in their dashes too: a grey print has no colours."""
GREY, RULE, SOFT, INK = "#98a1ad", "#dcdad2", "#565d68", "#1b1d22"
CSS = dict(zip((*SERIES, RULE, SOFT), ("c0", "c1", "c2", "c3", "rule", "soft"), strict=True))
"""The page's variable for each colour of its charts, so that they follow its light and dark modes."""
MARKERS = ("D", "o", "s")
"""Shapes of the marks on per-class bars, as on the page."""
MAX_POINTS = 240


def save_figures(folder: str | Path, page: ReportPage) -> list[Path]:
    """Write every figure of a report into a folder, as PDF and as PNG."""
    figures = page_figures(page).items()
    return [save_figure(Path(folder) / f"{name}{ending}", f) for name, f in figures for ending in (".pdf", ".png")]


def page_figures(page: ReportPage) -> dict[str, Figure]:
    """Every figure of a report by a file name without an ending; parts that the page leaves out have none."""
    found: dict[str, Figure] = {}
    if page.rows:
        found["comparison"] = bars_figure(page.rows)
    if page.per_class:
        found["classes"] = classes_figure(page.per_class)
    groups = gathered((c.group, c) for c in page.confusions).values()
    found |= {f"confusion-{n}": confusion_figure(group) for n, group in enumerate(groups, 1)}
    if curves_by_chart(page.curves):
        found["curves"] = curves_figure(page.curves)
    return found | {f"episode-{n:02}": panel_figure(panel) for n, panel in enumerate(page.panels, 1)}


def save_figure(path: str | Path, figure: Figure) -> Path:
    """Write a figure as PDF, PNG or SVG by the path's ending, whole or not at all.

    No date goes in: the same figure gives the same file. Raises UsageError for another ending.
    """
    path = Path(path)
    formats = {".pdf": {"CreationDate": None}, ".png": {"Software": None}, ".svg": {"Date": None}}
    if path.suffix.lower() not in formats:
        raise UsageError(f"cannot write a figure as {path.name!r}; end it in {', '.join(formats)}")
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "fewseg"}):
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=200, metadata=formats[path.suffix.lower()])
    return path


def svg(figure: Figure) -> str:
    """A figure as an SVG element to stand in the page: without links, and coloured by the page's variables."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewseg", "svg.fonttype": "none"}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    element = text.getvalue()
    element = re.sub(r' xmlns(:xlink)?="[^"]*"', "", element[element.index("<svg") :])
    for color, name in CSS.items():
        element = element.replace(color, f"var(--{name})")
    return element


def bars_figure(rows: Sequence[Row]) -> Figure:
    """The mIoU of every row of a comparison as a horizontal bar with its interval, in per cent."""
    colors = [SERIES[0] if row.highlight else GREY for row in rows]
    items = [(row.name + " *" * bool(row.seen), row.miou, row.interval) for row in rows]
    return _bars(items, colors, label="mIoU (%)" + ("; *: test classes seen in training" * any(r.seen for r in rows)))


def classes_figure(per_class: Sequence[ClassScores]) -> Figure:
    """The IoU of every class as a horizontal bar with its interval, and marks for what others reach, in per cent."""
    figure = _bars([(s.name, s.iou, s.interval) for s in per_class], [SERIES[0]] * len(per_class), label="IoU (%)")
    (axes,) = figure.axes
    names = list(dict.fromkeys(name for scores in per_class for name in scores.marks))
    for name, marker, color in zip(names, MARKERS, SERIES[1:], strict=False):
        points = [(100 * s.marks[name], y) for y, s in enumerate(per_class) if name in s.marks]
        axes.scatter(*zip(*points, strict=True), marker=marker, color=color, s=22, zorder=3, label=plain_text(name))
    if names:
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _bars(items: Sequence[tuple[str, float, Interval | None]], colors: Sequence[str], *, label: str) -> Figure:
    figure = Figure(figsize=(5.5, 0.75 + 0.33 * len(items)), layout="constrained")
    axes = figure.subplots()
    for y, ((_, value, interval), color) in enumerate(zip(items, colors, strict=True)):
        axes.barh(y, 100 * value, height=0.6, color=color)
        if interval is not None:
            axes.plot([100 * v for v in interval], [y, y], color=INK, linewidth=1.2, marker="|", markersize=6)
    _name_rows(axes, [name for name, _, _ in items])
    tidy(axes, x=label)
    return figure


def confusion_figure(confusions: Sequence[Confusion], *, columns: int = 10) -> Figure:
    """Where predicted foreground lies as a heat map, in per cent.

    Its columns are the class itself, background, the classes that are hit most, and all others together.
    """
    totals: Counter[str] = Counter()
    for confusion in confusions:
        totals.update(confusion.others)
    order = [name for name, _ in totals.most_common()]
    shown, rest = order[:columns], order[columns:]
    heads = ["itself", "background", *shown, *(["the rest"] if rest else [])]
    table = []
    for c in confusions:
        more = [sum(c.others.get(name, 0.0) for name in rest)] if rest else []
        table.append([c.itself, c.background, *(c.others.get(name, 0.0) for name in shown), *more])
    figure = Figure(figsize=(1.8 + 0.5 * len(heads), 1.2 + 0.27 * len(confusions)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(np.array(table)):
        text = "–" if np.isnan(value) else f"{100 * value:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if value > 0.6 else INK)
    labels = [plain_text(name, 24) for name in heads]
    axes.set_xticks(range(len(heads)), labels, rotation=40, ha="right", rotation_mode="anchor")
    _name_rows(axes, [c.name for c in confusions])
    tidy(axes)
    axes.spines[:].set_visible(False)
    return figure


def curves_by_chart(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves by the title of the chart that they share; one without a finite value is left out."""
    drawn = (curve for curve in curves if np.isfinite(np.asarray(curve.values, float)).any())
    return gathered((curve.chart or curve.name, curve) for curve in drawn)


def key_of(curve: Curve, i: int) -> int:
    """Which colour and stroke the i-th curve of a chart has."""
    return (i if curve.place is None else curve.place) % 4


def is_named(curves: Sequence[Curve]) -> bool:
    """Whether a chart says what its curves are."""
    return len(curves) > 1 or any(curve.place is not None for curve in curves)


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """Learning curves, those of one chart on shared axes, side by side."""
    charts = curves_by_chart(curves)
    figure = Figure(figsize=(3.6 * len(charts), 2.6), layout="constrained")
    for axes, (title, drawn) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts.items(), strict=True):
        draw_curves(axes, drawn)
        axes.set_title(plain_text(title) + (" (%)" if all(curve.percent for curve in drawn) else ""), fontsize=9)
        tidy(axes, x="step")
        if is_named(drawn):
            axes.legend(fontsize=7, frameon=False)
    return figure


def chart_figure(curves: Sequence[Curve]) -> Figure:
    """The curves of one chart, without title and legend: the page has them as texts of its own."""
    figure = Figure(figsize=(3.7, 2.3), layout="constrained")
    axes = figure.subplots()
    draw_curves(axes, curves)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(length=0, pad=6, labelsize=9, labelcolor=SOFT)
    axes.grid(axis="y", color=RULE, linewidth=0.8, clip_on=False)
    return figure


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Curves on shared axes: a range behind what was thinned, and a dot on the best value of an IoU."""
    lowest, highest = np.inf, -np.inf
    for i, curve in enumerate(curves):
        steps, values = np.asarray(curve.steps, float), np.multiply(curve.values, 100.0 if curve.percent else 1.0)
        lowest, highest = min(lowest, np.nanmin(values)), max(highest, np.nanmax(values))
        key = key_of(curve, i)
        color, (x, y, bounds) = SERIES[key], thin(steps, values)
        style = {"color": color, "linestyle": DASHES[key], "linewidth": 1.5, "clip_on": False}
        axes.plot(x, y, label=plain_text(curve.name), **style)
        if bounds is not None:
            axes.fill_between(x, *bounds, color=color, alpha=0.22, linewidth=0, clip_on=False)
        if curve.percent:
            best = int(np.nanargmax(values))
            axes.plot(steps[best], values[best], "o", color=color, markersize=5, clip_on=False)
    axes.set_axisbelow(True)
    axes.margins(x=0)
    axes.set_xlim(left=min(0.0, *(step for curve in curves for step in curve.steps)))
    if any(curve.percent for curve in curves) or lowest <= 0.5 * highest:
        axes.set_ylim(bottom=min(0.0, lowest))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def thin(steps: ArrayLike, values: ArrayLike) -> tuple[Any, Any, tuple[Any, Any] | None]:
    """Steps and values of a curve that is short enough to draw, and the range that its points stand for.

    A long curve becomes the means of 240 stretches of its finite values, with their least and greatest ones; a short
    one stays as it is, without a range.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(x) <= MAX_POINTS:
        return x, y, None
    finite = np.isfinite(y)
    stretches = zip(*(np.array_split(a[finite], MAX_POINTS) for a in (x, y)), strict=True)
    rows = [(s.mean(), v.mean(), v.min(), v.max()) for s, v in stretches if len(v)]
    at, mean, low, high = np.array(rows).reshape(-1, 4).T
    return at, mean, (low, high)


def panel_figure(panel: Panel) -> Figure:
    """One episode as a figure for a paper: pictures in the first row, prior and correlation maps in the second."""
    pictures = [(caption, picture) for _, caption, _, picture in panel_pictures(panel, side=480)]
    maps = [(caption, picture) for caption, _, picture in panel_maps(panel, side=480)]
    return pictures_figure([pictures, maps] if maps else [pictures], judged=panel.truth is not None)


def pictures_figure(
    rows: Sequence[Sequence[tuple[str, Rgb]]],
    *,
    gap_after: int | None = None,
    titles: Sequence[str] = (),
    judged: bool = False,
) -> Figure:
    """Pictures in rows, each with a short text below it; `titles` head the columns.

    After column `gap_after` there is a gap. A line below all tells the colours of predictions that are `judged`.
    """
    widths = [1.0] * max(map(len, rows))
    if gap_after is not None:
        widths.insert(gap_after, 0.12)
    cells = [[(textwrap.fill(plain_text(text), 24), _no_higher_than_wide(p)) for text, p in row] for row in rows]
    heights = [
        max(p.shape[0] / p.shape[1] for _, p in row) + 0.07 + 0.07 * max(1 + text.count("\n") for text, _ in row)
        for row in cells
    ]
    below = 0.25 if judged else 0.0
    figure = Figure(figsize=(1.5 * sum(widths), 1.5 * sum(heights) + 0.3 + below))
    places = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights)
    for axes in places.flat:
        axes.set_axis_off()
    inches = figure.get_size_inches()[1]
    bottom, top = 0.005 + below / inches, 1 - 0.3 / inches
    figure.subplots_adjust(left=0.005, right=0.995, bottom=bottom, top=top, wspace=0.04, hspace=0.0)
    if judged:
        patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*color), label=name) for name, color in LEGEND.items()]
        figure.legend(handles=patches, fontsize=6.5, frameon=False, ncols=len(patches), loc="lower center")
    below_picture = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 6.5}
    for r, row in enumerate(cells):
        for c, (text, picture) in enumerate(row):
            axes = places[r, c + (gap_after is not None and c >= gap_after)]
            axes.imshow(picture)
            axes.set_anchor("N")
            axes.annotate(text, (0.5, 0), (0, -2), "axes fraction", **below_picture)
            if r == 0 and titles:
                axes.set_title(titles[c], fontsize=7.5, pad=3)
    return figure


def _no_higher_than_wide(picture: Rgb) -> Rgb:
    """The picture with white beside it if it is higher than wide, so that it does not stretch its row."""
    missing = max(0, picture.shape[0] - picture.shape[1])
    return np.pad(picture, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)


def tidy(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Leave only the two axes that carry numbers, with small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)


def plain_text(text: str, width: int = 60) -> str:
    """A name that a font can set: no control characters, no formulas, and not longer than a figure is wide."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    clean = clean if len(clean) <= width else clean[: width - 1] + "…"
    return clean.replace("$", r"\$")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from the top down, each with its name."""
    axes.set_yticks(range(len(names)), [textwrap.fill(plain_text(name), 30) for name in names])
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
