"""What annotation tools draw, as masks: a photo with labelled shapes, each drawn when it is needed.

A shape is painted into a mask (H, W) of bool, laid out column by column. What it is drawn from is looked at only then,
so that an odd one stops nothing.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewseg.data.annotations.coco_catalogue import BACKGROUND_NAMES, VOID_NAMES
from fewseg.data.annotations.photos import OtherPhoto, Photos
from fewseg.data.annotations.runs import MOST_PIXELS, OddShape, outline_runs, paint
from fewseg.data.images import read_oriented
from fewseg.data.text import read_text
from fewseg.errors import DataError
from fewseg.labels import IGNORE

Size = tuple[int, int]
"""(H, W) in pixels."""
Mask = NDArray[np.bool_]
Points = Sequence[Sequence[float]]
"""Corners (x, y) in pixels; pixel (0, 0) reaches from 0 to 1."""
LINE, POINT = 10, 5
"""Width of a line and radius of a point in pixels, as LabelMe's own conversion draws them."""
_SLIPS = 0.05, 10
"""How far beside a photo a hand may draw: that part of its side and so many pixels."""
_FARTHEST = 1e6
"""Pixels: beyond it a line's whole numbers overflow."""


def read_json(file: Path) -> Any:
    """What a JSON file holds; DataError where it is none."""
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{file} is no valid JSON ({reason}); it may be cut off: export it again") from error


class Shape(NamedTuple):
    """One annotated region."""

    label: str
    draw: Callable[[Mask], None]
    """Paints the region into a mask; raises whatever a region that is not as its format says leads to."""


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo and the regions that a tool's export has on it."""

    image: Path | Image.Image | None
    """None where the photo was not found."""
    size: Size | None
    """As the export gives it, before or after the photo was turned upright; None: the upright photo's."""
    shapes: Sequence[Shape]

    @property
    def labels(self) -> list[str]:
        """The classes on it, each once; the background and what is to be ignored are none."""
        names = dict.fromkeys(shape.label for shape in self.shapes)
        return [name for name in names if name.lower() not in BACKGROUND_NAMES | VOID_NAMES]

    def mask(self, label: str, photos: Photos) -> NDArray[np.uint8]:
        """All regions of a label (H, W) uint8 {0, 1, 255 ignore}; those that cannot be drawn are counted by `photos`.

        DataError where the photo cannot be read or is not of the size that the export gives.
        """
        size = self._checked_size()
        whole, void = (np.zeros(size, bool, order="F") for _ in range(2))
        for shape in self.shapes:
            target = whole if shape.label == label else void if shape.label.lower() in VOID_NAMES else None
            if target is not None:
                with photos.passing_over("regions that cannot be drawn", f"{shape.label!r} on {self._name}"):
                    shape.draw(target)
        return np.ascontiguousarray(np.where(whole, np.uint8(1), np.where(void, np.uint8(IGNORE), np.uint8(0))))

    @property
    def _name(self) -> str:
        return str(self.image) if isinstance(self.image, Path) else "the photo inside the export"

    def _checked_size(self) -> Size:
        """Before memory is taken for a mask of it."""
        assert self.image is not None
        image, orientation = read_oriented(self.image) if isinstance(self.image, Path) else (self.image, 1)
        upright = image.height, image.width
        if self.size not in (None, upright, upright[::-1] if orientation >= 5 else upright):
            given = f"{self.size[1]} x {self.size[0]} pixels, but is of {image.width} x {image.height}"
            raise DataError(f"{self._name} is said to be of {given}; give the photos that were annotated")
        return self.size or upright


def check_within(points: Points, mask: Mask) -> None:
    """OtherPhoto where a region of an export that says no sizes lies farther beside the photo than a hand slips."""
    x, y = np.abs(np.asarray(points, float).reshape(-1, 2)).max(0).tolist()
    height, width = mask.shape
    if any(far > side + _SLIPS[0] * side + _SLIPS[1] for far, side in ((x, width), (y, height))):
        raise OtherPhoto(
            f"it reaches to {x:g},{y:g}, and the photo is of {width} x {height} pixels; give the photos that were "
            "annotated"
        )


def polygon(points: Points, mask: Mask, *, value: bool = True) -> None:
    """Paint what an outline encloses, as `COCO.annToMask` does."""
    if len(points) < 3:
        raise OddShape("it has fewer than three corners")
    paint(mask.T.reshape(-1), outline_runs(np.asarray(points, float), *mask.shape), value)


def in_pixels(shares: Points, width: float, height: float) -> list[list[float]]:
    """Corners given as shares of a photo's sides, without the noise of the division, which could move a border."""
    return [[round(x * width, 3), round(y * height, 3)] for x, y in shares]


def rectangle(
    left: float, top: float, right: float, bottom: float, *, turned: float = 0.0, about: Sequence[float] | None = None
) -> list[list[float]]:
    """Corners of a box, turned by degrees (clockwise as seen) about a point, by default its centre."""
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return _rotated(corners, about or ((left + right) / 2, (top + bottom) / 2), turned)


def ellipse(cx: float, cy: float, rx: float, ry: float, *, turned: float = 0.0) -> list[list[float]]:
    """A polygon of an ellipse, turned by degrees (clockwise as seen) about its centre."""
    angles = [2 * math.pi * i / 180 for i in range(180)]
    return _rotated([[cx + rx * math.cos(a), cy + ry * math.sin(a)] for a in angles], (cx, cy), turned)


def _rotated(points: Points, about: Sequence[float], degrees: float) -> list[list[float]]:
    """Points turned clockwise as seen (y runs down) about a point."""
    if not degrees:
        return [[float(x), float(y)] for x, y in points]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = [(x - about[0], y - about[1]) for x, y in points]
    return [[about[0] + x * cos - y * sin, about[1] + x * sin + y * cos] for x, y in moved]


def line(points: Points, mask: Mask) -> None:
    """Paint a line of straight pieces."""
    places = np.asarray(points, float).reshape(-1, 2) - 0.5  # pixel (0, 0) has its centre at 0 here
    if not (np.abs(places) < _FARTHEST).all():
        raise OddShape("a corner is no place on a photo")
    left, top = (max(int(side) - LINE, 0) for side in places.min(0))
    right, bottom = (min(int(s) + LINE, most) for s, most in zip(places.max(0), mask.shape[::-1], strict=True))
    if right > left and bottom > top:
        picture = Image.new("1", (right - left, bottom - top))
        ImageDraw.Draw(picture).line([(x - left, y - top) for x, y in places], fill=1, width=LINE, joint="curve")
        mask[top:bottom, left:right] |= np.asarray(picture)


def discs(points: Points, mask: Mask) -> None:
    """Paint points as discs."""
    for x, y in points:
        polygon(ellipse(x, y, POINT, POINT), mask)


def pasted(part: NDArray[Any], left: int, top: int, mask: Mask) -> None:
    """Paint a mask (h, w) at its place in a photo; what reaches over the border is cut off."""
    x0, y0 = max(left, 0), max(top, 0)
    inside = part[y0 - top : max(mask.shape[0] - top, 0), x0 - left : max(mask.shape[1] - left, 0)]
    mask[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] |= inside.astype(bool)


def decoded(text: Any) -> bytes:
    """Bytes from base64."""
    if not isinstance(text, str):
        raise OddShape("its picture is no text in base64")
    return base64.b64decode(text)


def check_pixels(height: int, width: int) -> None:
    """OddShape where a mask of that size would be none, or too large."""
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise OddShape(f"its box is {width} x {height}")
