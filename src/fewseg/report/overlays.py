"""Pictures of episodes as arrays: overlays, error colours and heat maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.images import overlay
from fewseg.errors import UsageError
from fewseg.report.contents import OtherPrediction, Panel

Rgb = NDArray[np.uint8]
Color = tuple[int, int, int]

MASK_COLOR: Color = (86, 180, 233)
HIT_COLOR: Color = (86, 180, 233)
FALSE_ALARM_COLOR: Color = (230, 97, 0)
MISS_COLOR: Color = (240, 228, 66)
LEGEND = {"marked, correct": HIT_COLOR, "wrongly marked": FALSE_ALARM_COLOR, "missed": MISS_COLOR}
"""What the colours of a prediction mean whose truth is known; a support's and the truth's mask has the first."""
LINE = 2
"""Width in pixels of outlines."""
COLOR_MAP = "magma"
"""Perceptually uniform and monotone in lightness: it survives colour blindness and a grey print."""


def overlay_array(image: Rgb, mask: NDArray[Any], color: Color = MASK_COLOR) -> Rgb:
    """(H, W, 3) image, greyed but where `mask` (H, W) is 1: there tinted and outlined; 255 (ignore) is outside."""
    inside = np.asarray(mask) == 1
    shown = np.where(inside[..., None], image, _greyed(image, 0.5))
    return np.asarray(overlay(Image.fromarray(shown), inside, color=color, alpha=0.4, line=LINE))


def error_array(image: Rgb, truth: NDArray[Any], prediction: NDArray[Any]) -> Rgb:
    """(H, W, 3) greyed image with hits, false alarms and misses in colour-blind-safe colours.

    `truth` (H, W) {0, 1, 255 ignore: left bare}; `prediction` (H, W) bool. Errors are hatched, for grey print.
    """
    predicted = np.asarray(prediction).astype(bool)
    rows, columns = np.indices(predicted.shape)
    colors = {1: HIT_COLOR, 2: FALSE_ALARM_COLOR, 3: MISS_COLOR}
    labels = np.select([predicted & (truth == 1), predicted & (truth == 0), truth == 1], [1, 2, 3])
    stripes = ((labels == 2) & ((rows + columns) % 8 < 3)) | ((labels == 3) & ((rows - columns) % 8 < 3))
    strength = np.select([labels == 0, labels == 1, stripes], [0.0, 0.5, 0.95], 0.45)[..., None]
    tints = np.array([(0, 0, 0), *colors.values()])[labels]
    shown = Image.fromarray(((1 - strength) * _greyed(image, 0.75) + strength * tints).astype(np.uint8))
    for label, color in colors.items():
        shown = overlay(shown, labels == label, color=color, alpha=0, line=LINE)
    return np.asarray(shown)


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
    smooth = Image.fromarray(values.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    colored = matplotlib.colormaps[COLOR_MAP](np.asarray(smooth).clip(0, 1))[..., :3] * 255
    if image is not None:
        colored = 0.78 * colored + 0.22 * resize_image(image, size).mean(-1, keepdims=True)
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


def _greyed(image: Rgb, amount: float) -> Rgb:
    """The image with that much of it replaced by a paler grey copy, so that colours laid over it stand out."""
    grey = 0.55 * image.mean(-1, keepdims=True, dtype=np.float32) + 70
    return ((1 - amount) * image + amount * grey).astype(np.uint8)


def prediction_array(panel: Panel, prediction: NDArray[Any], size: tuple[int, int]) -> Rgb:
    """A prediction of a panel's query at `size`: error colours where the truth is known, else a plain overlay."""
    image, predicted = resize_image(panel.query_image, size), resize_mask(prediction, size)
    if panel.truth is None:
        return overlay_array(image, predicted)
    return error_array(image, resize_mask(panel.truth, size), predicted)


def panel_pictures(panel: Panel, *, side: int = 320) -> Iterator[tuple[str, str, float | None, Rgb]]:
    """What a panel shows of an episode, as (kind, caption, IoU of a prediction, picture).

    The kinds are support, query, truth, prediction, other.
    """
    for k, (image, mask) in enumerate(zip(panel.support_images, panel.support_masks, strict=True), start=1):
        size = fit(image.shape[:2], side)
        caption = "support" if len(panel.support_images) == 1 else f"support {k}"
        yield "support", caption, None, overlay_array(resize_image(image, size), resize_mask(mask, size))
    size = fit(panel.query_image.shape[:2], side)
    query = resize_image(panel.query_image, size)
    yield "query", "query", None, query
    if panel.truth is not None:
        yield "truth", "truth", None, overlay_array(query, resize_mask(panel.truth, size))
    predictions = [("prediction", OtherPrediction(panel.method, panel.prediction, panel.iou))]
    predictions += [("other", other) for other in panel.others]
    for kind, one in predictions:
        yield kind, one.name, one.iou, prediction_array(panel, one.prediction, size)


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
