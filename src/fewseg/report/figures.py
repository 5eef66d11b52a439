"""Pictures of episodes: overlays, error colours and heat maps as arrays, and matplotlib figures for a paper.

Everything here is a pure function of arrays; matplotlib is used through `Figure` alone: pyplot keeps global state.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from fewseg.data.images import replacing
from fewseg.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from fewseg.report.page import Curve, Panel, Row

Rgb = NDArray[np.uint8]
Color = tuple[int, int, int]

IGNORE = 255
MASK_COLOR: Color = (86, 180, 233)
HIT_COLOR: Color = (86, 180, 233)
FALSE_ALARM_COLOR: Color = (230, 97, 0)
MISS_COLOR: Color = (240, 228, 66)
MAX_POINTS = 240
COLOR_MAP = "magma"
"""Perceptually uniform and monotone in lightness: it survives colour blindness and a grey print."""


def overlay_array(image: Rgb, mask: NDArray[Any], color: Color = MASK_COLOR) -> Rgb:
    """(H, W, 3) image, greyed but where `mask` (H, W) is 1: there tinted and outlined; 255 (ignore) is outside."""
    inside = np.asarray(mask) == 1
    shown = _greyed(image, 0.5)
    shown[inside] = 0.6 * image[inside] + 0.4 * np.asarray(color, np.float32)
    return _outline(shown, inside, color)


def error_array(image: Rgb, truth: NDArray[Any], prediction: NDArray[Any]) -> Rgb:
    """(H, W, 3) greyed image with hits, false alarms and misses in colour-blind-safe colours.

    `truth` (H, W) {0, 1, 255 ignore: left bare}; `prediction` (H, W) bool. Errors are hatched, for grey print.
    """
    shown = _greyed(image, 0.75)
    predicted = np.asarray(prediction).astype(bool)
    rows, columns = np.indices(predicted.shape)
    for region, color, stripe in (
        (predicted & (truth == 1), HIT_COLOR, None),
        (predicted & (truth == 0), FALSE_ALARM_COLOR, (rows + columns) % 8 < 3),
        (~predicted & (truth == 1), MISS_COLOR, (rows - columns) % 8 < 3),
    ):
        strength = np.full(predicted.shape, 0.5, np.float32) if stripe is None else np.where(stripe, 0.95, 0.45)
        weight = (strength * region)[..., None]
        shown = (1 - weight) * shown + weight * np.asarray(color, np.float32)
        shown = _outline(shown, region, color).astype(np.float32)
    return shown.astype(np.uint8)


def heat(array: NDArray[Any], size: tuple[int, int], *, image: Rgb | None = None) -> Rgb:
    """(H, W, 3) picture at `size` (H, W) of a 2-D map, stretched to its own minimum and maximum.

    With an `image` (H, W, 3), it shines through in grey. Raises UsageError for what is no 2-D map.
    """
    values = np.nan_to_num(np.asarray(array, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 2 or values.size == 0:
        raise UsageError(f"a heat map is a non-empty 2-D array, not one of shape {values.shape}")
    low, high = float(values.min()), float(values.max())
    # A constant map says nothing; it becomes all dark instead of noise blown up to full contrast.
    values = (values - low) / (high - low) if high - low > 1e-12 else np.zeros_like(values)
    smooth = np.asarray(
        Image.fromarray(values.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    )
    colored = matplotlib.colormaps[COLOR_MAP](smooth.clip(0, 1))[..., :3] * 255
    if image is not None:
        grey = resize_image(image, size).mean(-1, keepdims=True)
        colored = 0.78 * colored + 0.22 * grey
    return colored.astype(np.uint8)


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(H, W) shrunk, never enlarged, so that the longer side is at most `side` pixels."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image: Rgb, size: tuple[int, int]) -> Rgb:
    """An (H, W, 3) image at `size` (H, W)."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def resize_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An (H, W) mask {0, 1, 255} or bool at `size` (H, W), nearest neighbour."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _greyed(image: Rgb, amount: float) -> NDArray[np.float32]:
    """The image with that much of it replaced by a paler grey copy, so that colours laid over it stand out."""
    grey = 0.55 * image.mean(-1, keepdims=True, dtype=np.float32) + 70
    return (1 - amount) * image.astype(np.float32) + amount * grey


def _outline(image: NDArray[Any], region: NDArray[np.bool_], color: Color) -> Rgb:
    """The image with the inner edge of a region, two pixels wide, in `color`, and a white hairline outside it."""
    shown = image.copy()
    shown[_dilate(region) & ~region] = 255
    shown[region & _dilate(_dilate(~region))] = color
    return shown.clip(0, 255).astype(np.uint8)


def _dilate(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region grown by one pixel along rows and columns; nothing grows in from outside the image."""
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    grown[:, 1:] |= region[:, :-1]
    grown[:, :-1] |= region[:, 1:]
    return grown


def prediction_array(panel: Panel, prediction: NDArray[Any], size: tuple[int, int]) -> Rgb:
    """A prediction of a panel's query at `size`: error colours where the truth is known, else a plain overlay."""
    image, predicted = resize_image(panel.query_image, size), resize_mask(prediction, size)
    if panel.truth is None:
        return overlay_array(image, predicted)
    return error_array(image, resize_mask(panel.truth, size), predicted)


def panel_pictures(panel: Panel, *, side: int = 320) -> list[tuple[str, str, Rgb]]:
    """What a panel shows of an episode, as (kind, caption, picture): support, query, truth, prediction, other."""
    pictures: list[tuple[str, str, Rgb]] = []
    shots = len(panel.support_images)
    for k, (image, mask) in enumerate(zip(panel.support_images, panel.support_masks, strict=True)):
        size = fit(image.shape[:2], side)
        caption = "support" if shots == 1 else f"support {k + 1}"
        pictures.append(("support", caption, overlay_array(resize_image(image, size), resize_mask(mask, size))))
    size = fit(panel.query_image.shape[:2], side)
    query = resize_image(panel.query_image, size)
    pictures.append(("query", "query", query))
    if panel.truth is not None:
        pictures.append(("truth", "truth", overlay_array(query, resize_mask(panel.truth, size))))
    pictures.append(("prediction", "prediction", prediction_array(panel, panel.prediction, size)))
    pictures += [("other", other.name, prediction_array(panel, other.prediction, size)) for other in panel.others]
    return pictures


def panel_maps(panel: Panel, *, side: int = 320) -> list[tuple[str, NDArray[Any], Rgb]]:
    """The prior and the correlation maps of a panel, coarse to fine, as (caption, map, picture)."""
    size = fit(panel.query_image.shape[:2], side)
    query = resize_image(panel.query_image, size)
    named = [] if panel.prior is None else [("prior", panel.prior)]
    stages = len(panel.correlations)
    for i, correlation in enumerate(panel.correlations):
        end = " (coarse)" if i == 0 else " (fine)" if i == stages - 1 else ""
        named.append((f"stage {stages - i}{end if stages > 1 else ''}", correlation))
    return [(caption, array, heat(array, size, image=query)) for caption, array in named]


@dataclass(frozen=True)
class Thinned:
    """A curve short enough to draw; where it was shortened, `low` and `high` bound what each point stands for."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def thin(steps: ArrayLike, values: ArrayLike) -> Thinned:
    """The mean and range of 240 stretches of a long curve, finite values only; a short one as it is."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(x) <= MAX_POINTS:
        return Thinned(x, y)
    finite = np.isfinite(y)
    pairs = list(zip(*(np.array_split(a[finite], MAX_POINTS) for a in (x, y)), strict=True))
    pairs = [(s, v) for s, v in pairs if len(v)]
    stack = np.array([(s.mean(), v.mean(), v.min(), v.max()) for s, v in pairs]).reshape(-1, 4)
    return Thinned(*stack.T)


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
            axes.set_title(caption, fontsize=8, parse_math=False)
    return figure


def bars_figure(rows: Sequence[Row]) -> Figure:
    """The mIoU of every row of a comparison as a horizontal bar with its interval, in per cent."""
    figure = Figure(figsize=(5.5, 0.6 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        axes.barh(y, 100 * row.miou, height=0.6, color="#2f6fb5" if row.highlight else "#9aa3af")
        if row.interval is not None:
            low, high = (100 * bound for bound in row.interval)
            axes.plot([low, high], [y, y], color="#1b1d22", linewidth=1.2, marker="|", markersize=6)
    axes.set_yticks(range(len(rows)), [textwrap.fill(row.name, 30) for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("mIoU (%)")
    _plain(axes)
    return figure


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """Learning curves, those of one chart on shared axes, side by side."""
    charts = list(dict.fromkeys(curve.chart or curve.name for curve in curves))
    figure = Figure(figsize=(3.6 * max(1, len(charts)), 2.6), layout="constrained")
    for axes, chart in zip(figure.subplots(1, max(1, len(charts)), squeeze=False)[0], charts, strict=False):
        drawn = [curve for curve in curves if (curve.chart or curve.name) == chart]
        lines = [_draw(axes, curve) for curve in drawn]
        unit = " (%)" if all(curve.percent for curve in drawn) else ""
        axes.set_title(chart + unit, fontsize=9, parse_math=False)
        axes.set_xlabel("step")
        if len(drawn) > 1:
            for text in axes.legend(lines, [curve.name for curve in drawn], fontsize=7, frameon=False).get_texts():
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


def _plain(axes: Axes) -> None:
    """Leave only the two axes that carry numbers, with small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
