"""The report as one HTML file that loads nothing and runs no scripts: what its template prints, and the writing."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from fewseg.errors import UsageError
from fewseg.files import replacing
from fewseg.report.contents import MAX_MARKS, Confusion, Curve, Interval, Panel, ReportPage, Row, gathered
from fewseg.report.figures import chart_figure, curves_by_chart, is_named, key_of, svg
from fewseg.report.overlays import Rgb, panel_maps, panel_pictures

SIDE = 320
SMALL_SIDE = 220
MAX_HIT = 3
"""Classes named beside a bar of confusions."""
MIN_COLUMNS = 5
"""A card with fewer pictures leaves the rest of its row free instead of blowing them up."""
MAX_COLUMNS = 9
"""Pictures side by side in a card; with more, the maps begin a new row."""


def write_report(path: str | Path, page: ReportPage) -> Path:
    """Write the report as one HTML file, whole or not at all, and return its path."""
    path = Path(path)
    text = render(page)
    with replacing(path) as temporary:
        # File names may hold bytes that are no UTF-8; they are shown as \udcXX instead of failing the whole report.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return path


def render(page: ReportPage) -> str:
    """The report's HTML; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("fewseg.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(page=page, percent=percent, span=span, **_shown(page))
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", text)


def _shown(page: ReportPage) -> dict[str, Any]:
    """What the template needs beside the page itself."""
    marks = list(dict.fromkeys(name for scores in page.per_class for name in scores.marks))
    if len(marks) > MAX_MARKS:
        raise UsageError(f"per-class bars carry marks for {', '.join(marks)}; give at most {MAX_MARKS} names")
    return {
        "headline": _headline(page.rows, page.interval_name),
        "rows_axis": Axis.of([v for row in page.rows for v in (row.miou, *(row.interval or ()))]),
        "classes_axis": Axis.of([v for s in page.per_class for v in (s.iou, *(s.interval or ()), *s.marks.values())]),
        "marks": marks,
        "columns": list(dict.fromkeys(name for row in page.rows for name in row.columns)),
        "splits": gathered((confusion.group, _split(confusion)) for confusion in page.confusions),
        "charts": [_chart(title, curves) for title, curves in curves_by_chart(page.curves).items()],
        "cards": gathered((panel.group, _card(panel)) for panel in page.panels),
        "opening": [_card(panel) for panel in page.opening],
        "judged": any(panel.truth is not None for panel in (*page.opening, *page.panels)),
        "mapped": any(panel.correlations or panel.prior is not None for panel in page.panels),
    }


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal, without the sign; a dash for what was not measured."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def span(interval: Interval | None) -> str:
    """An interval in words; empty for none."""
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


@dataclass(frozen=True)
class Axis:
    """The axis of a table's bars: from 0 to `high` per cent, with a tick every `step`.

    A bar is a cell of its row, so that it moves with its numbers where the page is narrow; a drawn figure cannot.
    """

    high: float
    step: float

    @classmethod
    def of(cls, shares: Sequence[float]) -> Axis:
        """Up to the next full ten above the largest share of 1, so that bars are honest and still fill the space."""
        top = max((100 * v for v in shares if not math.isnan(v)), default=0.0)
        high = min(100, max(10, 10 * math.ceil(top / 10 - 1e-9)))
        return cls(high, next(step for step in (2.5, 5, 10, 20, 25) if step >= high / 4))

    def at(self, share: float) -> float:
        """Position of a share of 1 in per cent of the axis; 0 for what was not measured."""
        return 0.0 if math.isnan(share) else round(100 * (100 * share) / self.high, 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(position in per cent of the axis, label)."""
        values = np.arange(0, self.high + 1e-9, self.step)
        return [(round(100 * v / self.high, 2), f"{v:g}") for v in values]


def _and(*texts: str) -> str:
    return ", ".join(filter(None, texts))


def _headline(rows: Sequence[Row], interval_name: str) -> list[tuple[str, str, str]]:
    """(number, what it is, detail) of the tiles at the head of the page."""
    main = next((row for row in rows if row.highlight), None)
    if main is None:
        return []
    detail = f"{interval_name} {span(main.interval)}" if main.interval else main.name
    tiles = [(f"{percent(main.miou)} %", "mIoU on novel classes", _and(detail, main.seen))]
    if main.fb_iou is not None:
        tiles.append((f"{percent(main.fb_iou)} %", "FB-IoU", "foreground and background, all classes pooled"))
    others = [row for row in rows if not row.highlight and not math.isnan(row.miou) and row.shots == main.shots]
    if others and not math.isnan(main.miou):
        best = max(others, key=lambda row: row.miou)
        gap = 100 * (main.miou - best.miou)
        tiles.append(
            (
                f"{gap:+.1f}".replace("-", "−"),
                "points of mIoU",
                _and(f"against the best other row, {best.name}", best.seen),
            )
        )
    return tiles


def _split(confusion: Confusion) -> dict[str, Any]:
    """A bar of three parts (kind, value, length in per cent), and the classes hit most often."""
    hit = sorted(((v, name) for name, v in confusion.others.items() if v > 0), key=lambda pair: -pair[0])
    shares = {"itself": confusion.itself, "others": sum(v for v, _ in hit), "background": confusion.background}
    if math.isnan(confusion.itself):
        shares = dict.fromkeys(shares, math.nan)
    return {
        "name": confusion.name,
        "parts": [(kind, percent(v), 0.0 if math.isnan(v) else round(100 * v, 2)) for kind, v in shares.items()],
        "top": [(name, percent(v)) for v, name in hit[:MAX_HIT]],
        "rest": max(0, len(hit) - MAX_HIT),
    }


def _chart(title: str, curves: Sequence[Curve]) -> dict[str, Any]:
    figure = chart_figure(curves)
    return {
        "title": f"{title} (%)" if all(curve.percent for curve in curves) else title,
        "svg": svg(figure),
        "banded": bool(figure.axes[0].collections),
        "named": is_named(curves),
        "words": [(curve.name, _describe(curve), key_of(curve, i)) for i, curve in enumerate(curves)],
    }


def _describe(curve: Curve) -> str:
    """A curve in words, for those who do not see it."""
    values = np.asarray(curve.values, float)
    finite = np.flatnonzero(np.isfinite(values))
    first, last = finite[0], finite[-1]

    def point(i: int) -> str:
        value = f"{100 * values[i]:.1f} %" if curve.percent else f"{values[i]:.4g}"
        return f"{value} at step {curve.steps[i]:,.0f}"

    if first == last:
        return point(last)
    told = f"from {point(first)} to {point(last)}"
    if not curve.percent:
        return told
    best = int(np.nanargmax(values))
    return f"{told}, its best" if best == last else f"{told}, best {point(best)}"


def _card(panel: Panel) -> dict[str, Any]:
    """One episode: its pictures, then its maps, and what the narrow layouts need to know about their number."""
    shots = len(panel.support_images)
    shown = panel_pictures(panel, side=SIDE if shots == 1 else SMALL_SIDE)
    tiles = [_picture_tile(panel.class_name, *item) for item in shown]
    maps = [_map_tile(panel.class_name, *item) for item in panel_maps(panel, side=SMALL_SIDE)]
    n, m = len(tiles), len(maps)
    stacked = m > 0 and n + m > MAX_COLUMNS
    layout = {"stacked": stacked, "shots": shots > 1, "few": n <= 4, "quad": m == 4, "many": n + m > 8}
    return {
        "panel": panel,
        "tiles": tiles + maps,
        "columns": max(MIN_COLUMNS, n, m) if stacked else max(MIN_COLUMNS, n + m),
        "layout": "".join(f" {name}" for name, holds in layout.items() if holds),
    }


def _picture_tile(class_name: str, kind: str, caption: str, iou: float | None, picture: Rgb) -> dict[str, Any]:
    alt = {
        "support": f"{caption.capitalize()}: image with the mask of {class_name} outlined",
        "query": f"Query image for {class_name}",
        "truth": f"Query with the true mask of {class_name}",
        "prediction": f"Query with the predicted mask of {class_name}",
        "other": f"Query with the mask of {class_name} predicted by {caption}",
    }[kind]
    detail = "" if iou is None else f"{percent(iou)} %"
    alt = f"{alt}, IoU {detail}" if detail else alt
    return {"kind": kind, "caption": caption, "detail": detail, "alt": alt} | _embedded(picture)


def _map_tile(class_name: str, caption: str, array: Any, picture: Rgb) -> dict[str, Any]:
    finite = array[np.isfinite(array)]
    values = f", {finite.min():.2f} to {finite.max():.2f}" if finite.size else ""
    what = "Prior map" if caption == "prior" else f"Correlation map of {caption}"
    height, width = array.shape
    alt = f"{what} for {class_name}, {height} by {width}{values}"
    return {"kind": "map", "caption": caption, "detail": f"{height}×{width}{values}", "alt": alt} | _embedded(picture)


def _embedded(picture: Rgb) -> dict[str, Any]:
    """One picture of a card, as a JPEG in the page itself, and its size."""
    buffer = io.BytesIO()
    # Full colour resolution: the outlines of masks are two pixels wide.
    Image.fromarray(picture).save(buffer, "JPEG", quality=82, subsampling=0, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"uri": uri, "width": picture.shape[1], "height": picture.shape[0]}
