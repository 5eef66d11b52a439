"""From the report's data to what the template prints: formatted numbers, positions in per cent, data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from fewseg.errors import UsageError
from fewseg.report import overlays as pictures
from fewseg.report.charts import Axis, Chart, charts, iou_axis

if TYPE_CHECKING:
    from fewseg.report.contents import ClassScores, Confusion, Interval, Panel, ReportPage, Row

T = TypeVar("T")

MAX_MARKS = 3
"""Marks have shapes as well as colours, and there are three shapes that stay apart at this size."""
SIDE = 320
SMALL_SIDE = 220
MAX_HIT = 3
"""Classes named beside a bar of confusions."""
MIN_COLUMNS = 5
"""A card with fewer pictures leaves the rest of its row free instead of blowing them up."""
MAX_COLUMNS = 9
"""Pictures side by side in a card; with more, the maps begin a new row."""


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
class Split:
    """Where a predicted foreground lies: three parts of a bar, in per cent of it, and the classes most often hit."""

    name: str
    parts: tuple[tuple[str, str, float], ...]
    """(kind, value, length): itself, others, background."""
    top: tuple[tuple[str, str], ...]
    """(class, value) of the largest shares among the others."""
    rest: int
    """How many more classes were hit."""


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
    columns: tuple[str, ...]
    """Headings of the further columns of the comparison."""
    splits: tuple[tuple[str, tuple[Split, ...]], ...]
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
    rows_axis = iou_axis([v for row in page.rows for v in (row.miou, *(row.interval or ()))])
    classes_axis = iou_axis([v for s in page.per_class for v in (s.iou, *(s.interval or ()), *s.marks.values())])
    return View(
        headline=_headline(page.rows, page.interval_name),
        rows=tuple(_bar(row, row.miou, row.interval, rows_axis) for row in page.rows),
        rows_axis=rows_axis if page.rows else None,
        classes=tuple(
            _bar(s, s.iou, s.interval, classes_axis, marks=_marks(s, marks, classes_axis)) for s in page.per_class
        ),
        classes_axis=classes_axis if page.per_class else None,
        marks=marks,
        columns=tuple(dict.fromkeys(name for row in page.rows for name in row.columns)),
        splits=_gathered((confusion.group, _split(confusion)) for confusion in page.confusions),
        charts=charts(page.curves),
        groups=_gathered((panel.group, _card(panel)) for panel in page.panels),
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


def _gathered(items: Iterable[tuple[str, T]]) -> tuple[tuple[str, tuple[T, ...]], ...]:
    """Items under their headings, in order of appearance."""
    grouped: dict[str, list[T]] = {}
    for group, item in items:
        grouped.setdefault(group, []).append(item)
    return tuple((group, tuple(members)) for group, members in grouped.items())


def _split(confusion: Confusion) -> Split:
    hit = sorted(((v, name) for name, v in confusion.others.items() if v > 0), key=lambda pair: -pair[0])
    shares = {"itself": confusion.itself, "others": sum(v for v, _ in hit), "background": confusion.background}
    if math.isnan(confusion.itself):
        shares = dict.fromkeys(shares, math.nan)
    parts = tuple((kind, percent(v), 0.0 if math.isnan(v) else round(100 * v, 2)) for kind, v in shares.items())
    top = tuple((name, percent(v)) for v, name in hit[:MAX_HIT])
    return Split(confusion.name, parts, top, len(hit) - len(top))


def _card(panel: Panel) -> Card:
    shots = len(panel.support_images)
    side = SIDE if shots == 1 else SMALL_SIDE
    shown = pictures.panel_pictures(panel, side=side)
    ious = [None] * (len(shown) - len(panel.others)) + [other.iou for other in panel.others]
    ious[shots + (1 if panel.truth is None else 2)] = panel.iou
    tiles = [_picture_tile(panel.class_name, *item, iou=iou) for item, iou in zip(shown, ious, strict=True)]
    maps = [_map_tile(panel, *item) for item in pictures.panel_maps(panel, side=SMALL_SIDE)]
    n, m = len(tiles), len(maps)
    stacked = m > 0 and n + m > MAX_COLUMNS
    columns = max(MIN_COLUMNS, n, m) if stacked else max(MIN_COLUMNS, n + m)
    classes = {"stacked": stacked, "shots": shots > 1, "few": n <= 4, "quad": m == 4, "many": n + m > 8}
    layout = "".join(f" {name}" for name, holds in classes.items() if holds)
    return Card(panel, percent(panel.iou), (*tiles, *maps), columns, layout)


def _picture_tile(class_name: str, kind: str, caption: str, picture: pictures.Rgb, *, iou: float | None) -> Tile:
    alt = {
        "support": f"{caption.capitalize()}: image with the mask of {class_name} outlined",
        "query": f"Query image for {class_name}",
        "truth": f"Query with the true mask of {class_name}",
        "prediction": f"Query with the predicted mask of {class_name}",
        "other": f"Query with the mask of {class_name} predicted by {caption}",
    }[kind]
    detail = "" if iou is None else f"{percent(iou)} %"
    return _tile(kind, caption, detail, f"{alt}, IoU {detail}" if detail else alt, picture)


def _map_tile(panel: Panel, caption: str, array: Any, picture: pictures.Rgb) -> Tile:
    finite = array[np.isfinite(array)]
    span = f", {finite.min():.2f} to {finite.max():.2f}" if finite.size else ""
    what = "Prior map" if caption == "prior" else f"Correlation map of {caption}"
    alt = f"{what} for {panel.class_name}, {array.shape[0]} by {array.shape[1]}{span}"
    return _tile("map", caption, f"{array.shape[0]}×{array.shape[1]}{span}", alt, picture)


def _tile(kind: str, caption: str, detail: str, alt: str, picture: pictures.Rgb) -> Tile:
    height, width = picture.shape[:2]
    return Tile(kind, caption, detail, alt, data_uri(picture), width, height)


def data_uri(picture: pictures.Rgb) -> str:
    """An (H, W, 3) picture as a JPEG data URI."""
    buffer = io.BytesIO()
    # Full colour resolution: the outlines of masks are two pixels wide.
    Image.fromarray(picture).save(buffer, "JPEG", quality=82, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
