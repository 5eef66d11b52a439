"""From the report's data to what the template prints: formatted numbers, positions in per cent, data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fewseg.errors import UsageError
from fewseg.report import figures

if TYPE_CHECKING:
    from fewseg.report.page import ClassScores, Curve, Interval, Panel, ReportPage, Row

MAX_MARKS = 3
"""Marks have shapes as well as colours, and there are three shapes that stay apart at this size."""
SIDE = 320
SMALL_SIDE = 220
MIN_COLUMNS = 5
"""A card with fewer pictures leaves the rest of its row free instead of blowing them up."""
MAX_COLUMNS = 9
"""Pictures side by side in a card; with more, the maps begin a new row."""


@dataclass(frozen=True)
class Tick:
    """A label at a position (0 to 100 % of the axis)."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A bar with its interval and marks, in per cent of the axis."""

    name: str
    value: str
    interval: str
    length: float
    low: float | None
    high: float | None
    item: Any
    marks: tuple[tuple[int, str, float, str], ...] = ()
    """(index of shape and colour, name, position, value)."""


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` with ticks."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Position of a value in per cent of the axis."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Line:
    """One drawn curve: SVG paths in a 100 x 100 box, y downwards."""

    name: str
    words: str
    """The curve in words."""
    path: str
    band: str
    best: tuple[float, float] | None
    """Position (x, y) in per cent from the left and from the bottom."""


@dataclass(frozen=True)
class Chart:
    """Curves on shared axes."""

    title: str
    summary: str
    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    banded: bool


@dataclass(frozen=True)
class Tile:
    """One picture of a card."""

    kind: str
    caption: str
    detail: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """One episode: its pictures, then its maps."""

    panel: Panel
    iou: str
    tiles: tuple[Tile, ...]
    columns: int
    """Pictures in a row on a wide screen."""
    layout: str
    """CSS classes: what the narrower layouts need to know about the number of pictures."""


@dataclass(frozen=True)
class View:
    """What the template needs beside the page itself."""

    headline: tuple[tuple[str, str, str], ...]
    """(number, what it is, detail)."""
    rows: tuple[Bar, ...]
    rows_axis: Axis | None
    classes: tuple[Bar, ...]
    classes_axis: Axis | None
    marks: tuple[str, ...]
    charts: tuple[Chart, ...]
    groups: tuple[tuple[str, tuple[Card, ...]], ...]
    judged: bool
    """Some panel has a truth, so that error colours need their legend."""
    mapped: bool
    """Some panel has maps, so that the colour scale needs its legend."""


def build(page: ReportPage) -> View:
    """Everything that the template prints beside the plain texts of the page."""
    marks = tuple(dict.fromkeys(name for scores in page.per_class for name in scores.marks))
    if len(marks) > MAX_MARKS:
        raise UsageError(f"per-class bars carry marks for {', '.join(marks)}; give at most {MAX_MARKS} names")
    rows_axis = _iou_axis([v for row in page.rows for v in (row.miou, *(row.interval or ()))])
    classes_axis = _iou_axis([v for s in page.per_class for v in (s.iou, *(s.interval or ()), *s.marks.values())])
    return View(
        headline=_headline(page.rows, page.interval_name),
        rows=tuple(_bar(row, row.miou, row.interval, rows_axis) for row in page.rows),
        rows_axis=rows_axis if page.rows else None,
        classes=tuple(
            _bar(s, s.iou, s.interval, classes_axis, marks=_marks(s, marks, classes_axis)) for s in page.per_class
        ),
        classes_axis=classes_axis if page.per_class else None,
        marks=marks,
        charts=_charts(page.curves),
        groups=_groups(page.panels),
        judged=any(panel.truth is not None for panel in page.panels),
        mapped=any(panel.correlations or panel.prior is not None for panel in page.panels),
    )


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal, without the sign; a dash for what was not measured."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


def _headline(rows: Sequence[Row], interval_name: str) -> tuple[tuple[str, str, str], ...]:
    main = next((row for row in rows if row.highlight), None)
    if main is None:
        return ()
    detail = f"{interval_name} {_span(main.interval)}" if main.interval else main.name
    tiles = [(f"{percent(main.miou)} %", "mIoU on novel classes", detail)]
    if main.fb_iou is not None:
        tiles.append((f"{percent(main.fb_iou)} %", "FB-IoU", "foreground and background, all classes pooled"))
    others = [row for row in rows if not row.highlight and not math.isnan(row.miou)]
    if others and not math.isnan(main.miou):
        best = max(others, key=lambda row: row.miou)
        gap = 100 * (main.miou - best.miou)
        tiles.append((f"{gap:+.1f}".replace("-", "−"), "points of mIoU", f"against the best other row, {best.name}"))
    return tuple(tiles)


def _bar(item: Any, value: float, interval: Interval | None, axis: Axis, *, marks: tuple[Any, ...] = ()) -> Bar:
    low, high = (axis.at(100 * bound) for bound in interval) if interval else (None, None)
    length = 0.0 if math.isnan(value) else axis.at(100 * value)
    return Bar(item.name, percent(value), _span(interval), length, low, high, item, marks)


def _marks(scores: ClassScores, names: Sequence[str], axis: Axis) -> tuple[tuple[int, str, float, str], ...]:
    given = [(i, name, scores.marks[name]) for i, name in enumerate(names) if name in scores.marks]
    return tuple((i, name, axis.at(100 * v), percent(v)) for i, name, v in given if not math.isnan(v))


def _iou_axis(values: Sequence[float]) -> Axis:
    """From 0 to the next full ten above the largest value, so that bars are honest and still fill the space."""
    top = max((100 * v for v in values if not math.isnan(v)), default=0.0)
    high = min(100, max(10, 10 * math.ceil(top / 10 - 1e-9)))
    return _axis(0, high)


def _axis(low: float, high: float, *, widen: bool = False) -> Axis:
    """An axis with three to six round ticks; `widen` moves both ends outwards to a tick."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if widen:
        low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    first = math.ceil(low / step - 1e-9)
    values = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
    ticks = tuple(Tick(round(100 * (v - low) / (high - low), 2), f"{v:,.10g}".replace("-", "−")) for v in values)
    return Axis(low, high, ticks)


def _charts(curves: Sequence[Curve]) -> tuple[Chart, ...]:
    grouped: dict[str, list[Curve]] = {}
    for curve in curves:
        if np.isfinite(np.asarray(curve.values, float)).any():
            grouped.setdefault(curve.chart or curve.name, []).append(curve)
    return tuple(_chart(title, drawn) for title, drawn in grouped.items())


def _chart(title: str, curves: Sequence[Curve]) -> Chart:
    series = [(c, np.asarray(c.steps, float), np.asarray(c.values, float) * (100 if c.percent else 1)) for c in curves]
    values = np.concatenate([v[np.isfinite(v)] for _, _, v in series])
    steps = np.concatenate([s for _, s, _ in series])
    x = _axis(min(0.0, float(steps.min())), float(steps.max()))
    y = _axis(min(0.0, float(values.min())), float(values.max()), widen=True)
    if not any(c.percent for c in curves) and values.min() > 0.5 * values.max():
        y = _axis(float(values.min()), float(values.max()), widen=True)
    lines = tuple(_line(c, s, v, x=x, y=y) for c, s, v in series)
    summary = "; ".join(f"{line.name}: {line.words}" for line in lines)
    shown = f"{title} (%)" if all(c.percent for c in curves) else title
    return Chart(shown, summary, lines, x, y, any(line.band for line in lines))


def _line(curve: Curve, steps: Any, values: Any, *, x: Axis, y: Axis) -> Line:
    best = int(np.nanargmax(values)) if curve.percent else None
    marker = None if best is None else (x.at(steps[best]), y.at(values[best]))
    thinned = figures.thin(steps, values)
    points = list(zip(thinned.steps, thinned.values, strict=True))
    band = ""
    if thinned.low is not None and thinned.high is not None:
        upper, lower = (list(zip(thinned.steps, bound, strict=True)) for bound in (thinned.high, thinned.low))
        band = _path(upper + lower[::-1], x, y) + "Z"
    return Line(curve.name, _describe(curve, steps, values), _path(points, x, y), band, marker)


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """SVG path data; a point without a finite value leaves a gap."""
    parts, pen = [], "M"
    for step, value in points:
        if not math.isfinite(value):
            pen = "M"
            continue
        parts.append(f"{pen}{x.at(step):g} {100 - y.at(value):.2f}")
        pen = "L"
    return "".join(parts)


def _describe(curve: Curve, steps: Any, values: Any) -> str:
    """A curve in words, for those who do not see it."""
    finite = np.flatnonzero(np.isfinite(values))
    first, last = finite[0], finite[-1]
    shown = (lambda v: f"{v:.1f} %") if curve.percent else (lambda v: f"{v:.4g}")
    start, end = (f"{shown(values[i])} at step {steps[i]:,.0f}" for i in (first, last))
    if not curve.percent or first == last:
        return f"from {start} to {end}" if first != last else end
    best = int(np.nanargmax(values))
    tail = "its best" if best == last else f"best {shown(values[best])} at step {steps[best]:,.0f}"
    return f"from {start} to {end}, {tail}"


def _groups(panels: Sequence[Panel]) -> tuple[tuple[str, tuple[Card, ...]], ...]:
    grouped: dict[str, list[Card]] = {}
    for panel in panels:
        grouped.setdefault(panel.group, []).append(_card(panel))
    return tuple((group, tuple(cards)) for group, cards in grouped.items())


def _card(panel: Panel) -> Card:
    shots = len(panel.support_images)
    side = SIDE if shots == 1 else SMALL_SIDE
    pictures = figures.panel_pictures(panel, side=side)
    ious = [None] * (len(pictures) - len(panel.others)) + [other.iou for other in panel.others]
    ious[shots + (1 if panel.truth is None else 2)] = panel.iou
    tiles = [_picture_tile(panel.class_name, *item, iou=iou) for item, iou in zip(pictures, ious, strict=True)]
    maps = [_map_tile(panel, *item) for item in figures.panel_maps(panel, side=SMALL_SIDE)]
    n, m = len(tiles), len(maps)
    stacked = m > 0 and n + m > MAX_COLUMNS
    columns = max(MIN_COLUMNS, n, m) if stacked else max(MIN_COLUMNS, n + m)
    classes = {"stacked": stacked, "shots": shots > 1, "few": n <= 4, "quad": m == 4}
    layout = "".join(f" {name}" for name, holds in classes.items() if holds)
    return Card(panel, percent(panel.iou), (*tiles, *maps), columns, layout)


def _picture_tile(class_name: str, kind: str, caption: str, picture: figures.Rgb, *, iou: float | None) -> Tile:
    alt = {
        "support": f"{caption.capitalize()}: image with the mask of {class_name} outlined",
        "query": f"Query image for {class_name}",
        "truth": f"Query with the true mask of {class_name}",
        "prediction": f"Query with the predicted mask of {class_name}",
        "other": f"Query with the mask of {class_name} predicted by {caption}",
    }[kind]
    detail = "" if iou is None else f"{percent(iou)} %"
    return _tile(kind, caption, detail, f"{alt}, IoU {detail}" if detail else alt, picture)


def _map_tile(panel: Panel, caption: str, array: Any, picture: figures.Rgb) -> Tile:
    finite = array[np.isfinite(array)]
    span = f", {finite.min():.2f} to {finite.max():.2f}" if finite.size else ""
    what = "Prior map" if caption == "prior" else f"Correlation map of {caption}"
    alt = f"{what} for {panel.class_name}, {array.shape[0]} by {array.shape[1]}{span}"
    return _tile("map", caption, f"{array.shape[0]}×{array.shape[1]}{span}", alt, picture)


def _tile(kind: str, caption: str, detail: str, alt: str, picture: figures.Rgb) -> Tile:
    height, width = picture.shape[:2]
    return Tile(kind, caption, detail, alt, data_uri(picture), width, height)


def data_uri(picture: figures.Rgb) -> str:
    """An (H, W, 3) picture as a JPEG data URI."""
    buffer = io.BytesIO()
    # Full colour resolution: the outlines of masks are two pixels wide.
    Image.fromarray(picture).save(buffer, "JPEG", quality=82, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
