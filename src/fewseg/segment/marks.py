"""Turns scribbles, boxes and points on a photo into a mask: a drawing aid, no substitute for a mask.

    box:      the ellipse that touches its four sides (nearer to most objects than the full box)
    scribble: red strokes are the object, blue strokes background; what is between goes to the side that a random
              walker, who takes steps between similar colours more often, meets first
    point:    a disc of 1 % of the longer side, then as a scribble

Where nothing says background, the photo's border does. A box with scribbles or points is background outside. What the
user marked is never changed. The walks are those of Grady, "Random Walks for Image Segmentation", TPAMI 2006, as
scikit-image solves them, on the photo's Lab colours at 256 pixels at most. Points and red strokes alone suit objects
of one colour on another ground; blue strokes round the object help most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.errors import DataError, UsageError

OBJECT, BACKGROUND = 1, 2
_SIDE = 256
"""Longer side in pixels at which random walks are solved."""
_BETA, _BETA_BORDER = 130.0, 30.0
"""How much a difference of colour hinders a walker: scikit-image's default, and less where only the border is known."""


@dataclass(frozen=True)
class Marks:
    """What a user drew on a photo, in its pixels."""

    boxes: Sequence[tuple[float, float, float, float]] = ()
    """(left, top, right, bottom)."""
    points: Sequence[tuple[float, float]] = ()
    """(x, y) on the object."""
    background: Sequence[tuple[float, float]] = ()
    """(x, y) beside the object."""
    scribble: NDArray[np.uint8] | None = None
    """(H, W): 0 nothing, 1 the object, 2 background."""


def mask_from_marks(photo: Image.Image, marks: Marks) -> NDArray[np.uint8]:
    """The mask (H, W) uint8 {0, 1} that marks on an RGB photo mean. DataError where they mark no object."""
    size = (photo.height, photo.width)
    seeds = seeds_of(marks, size)
    if not (seeds == OBJECT).any():
        raise DataError("the marks touch no pixel of the object; draw on it, or give a point or a box inside the photo")
    if marks.scribble is None and not marks.points and not marks.background:
        return (seeds == OBJECT).astype(np.uint8)  # a box says no more than its ellipse
    if (seeds == BACKGROUND).any():
        return _walked(photo, seeds, beta=_BETA)
    frame = np.ones(size, bool)
    frame[1:-1, 1:-1] = False
    seeds[frame & (seeds == 0)] = BACKGROUND
    return _walked(photo, seeds, beta=_BETA_BORDER)


def seeds_of(marks: Marks, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Marks as an (H, W) map: 0 open, 1 object, 2 background; later kinds (box, point, scribble) overrule earlier.

    A box's inside is open where points or strokes mark the object, else its ellipse is the object.
    """
    height, width = size
    marked = marks.points or (marks.scribble is not None and (marks.scribble == OBJECT).any())
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    seeds = np.zeros(size, np.uint8)
    if marks.boxes:
        seeds[:] = BACKGROUND
    for box in marks.boxes:
        left, top, right, bottom = _checked(box, width, height)
        seeds[(x > left) & (x < right) & (y > top) & (y < bottom) & (seeds != OBJECT)] = 0
        across, down = 2 * (x - (left + right) / 2) / (right - left), 2 * (y - (top + bottom) / 2) / (bottom - top)
        if not marked:
            seeds[across**2 + down**2 < 1] = OBJECT
    for value, points in ((OBJECT, marks.points), (BACKGROUND, marks.background)):
        for px, py in points:
            if not (0 <= px < width and 0 <= py < height):
                raise UsageError(f"point {px:g},{py:g} is outside the photo of {width} x {height} pixels")
            seeds[(x - px) ** 2 + (y - py) ** 2 <= max(1.0, 0.01 * max(size)) ** 2] = value
    if marks.scribble is not None:
        if marks.scribble.shape != size:
            given = f"{marks.scribble.shape[1]} x {marks.scribble.shape[0]}"
            raise DataError(f"the scribble is {given} but its photo is {width} x {height} pixels; make them the same")
        seeds = np.where(marks.scribble > 0, marks.scribble, seeds).astype(np.uint8)
    return seeds


def strokes_in(picture: Image.Image) -> NDArray[np.uint8]:
    """(H, W) uint8 of an RGB picture: 1 where strokes are red, 2 where they are blue, 0 elsewhere."""
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.int16), -1, 0)
    strokes = np.zeros(red.shape, np.uint8)
    strokes[(red >= 128) & (red > 2 * np.maximum(green, blue))] = OBJECT
    strokes[(blue >= 128) & (blue > 2 * np.maximum(green, red))] = BACKGROUND
    return strokes


def _checked(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    if not (left < right and top < bottom and right > 0 and bottom > 0 and left < width and top < height):
        raise UsageError(
            f"box {','.join(f'{side:g}' for side in box)} marks nothing in a photo of {width} x {height} pixels; "
            "give LEFT,TOP,RIGHT,BOTTOM in pixels"
        )
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def _walked(photo: Image.Image, seeds: NDArray[np.uint8], *, beta: float) -> NDArray[np.uint8]:
    from skimage.color import rgb2lab
    from skimage.segmentation import random_walker

    height, width = seeds.shape
    scale = min(1.0, _SIDE / max(height, width))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.zeros((h, w), np.int32)
    for value in (BACKGROUND, OBJECT):  # not by resizing: a thin stroke must not vanish
        rows, columns = np.nonzero(seeds == value)
        small[rows * h // height, columns * w // width] = value
    lab = rgb2lab(np.asarray(photo.resize((w, h), Image.Resampling.BOX))) / 100
    # its probabilities may leave [0, 1] a little (conjugate gradients stop early), which the mask does not feel
    sides = random_walker(lab, small, beta=beta, mode="cg_j", channel_axis=-1, return_full_prob=True, prob_tol=1.0)
    fg = Image.fromarray(np.asarray(sides[0], np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    mask = (np.asarray(fg) > 0.5).astype(np.uint8)
    mask[seeds == OBJECT], mask[seeds == BACKGROUND] = 1, 0
    return mask
