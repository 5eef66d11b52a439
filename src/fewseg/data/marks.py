"""Turns scribbles, boxes and points on a photo into a mask: a drawing aid, no substitute for a mask.

    box:      the ellipse that touches its four sides (nearer to most objects than the full box)
    scribble: red strokes are the object, blue strokes background; what is between goes to the side that a random
              walker, who takes steps between similar colours more often, meets first
    point:    a disc of 1 % of the longer side, then as a scribble

Where nothing says background, the photo's border does; what says it stands in the border's place. A box with scribbles
or points is background outside. What the user marked is never changed. The walks are those of Grady, "Random Walks for
Image Segmentation", TPAMI 2006, on the photo's Lab colours at 256 pixels at most, with scikit-image's weights and
tolerance. Points and red strokes alone suit objects of one colour on another ground; blue strokes round the object help
most.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFilter import MaxFilter, MinFilter

from fewseg.data.masks import Marking
from fewseg.data.regions import border, border_share
from fewseg.errors import DataError, DataWarning, UsageError

OBJECT, BACKGROUND = 1, 2
_SIDE = 256
"""Longer side in pixels at which random walks are solved."""
_BETA, _BETA_BORDER = 130.0, 30.0
"""How much a difference of colour hinders a walker: scikit-image's default, and less where only the border is known."""
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
"""Of linear sRGB to CIE XYZ, and XYZ of D65's white."""
_MUCH = 0.25
"""Of the photo's border: more of it seldom is the object."""
_LITTLE = 0.25
"""Of a box: what is in it seldom is thinner."""
_LOSS = 40
"""How far beyond the photo's levels around a pixel a JPEG of it moves that pixel's."""


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

    def __str__(self) -> str:
        """What they are, for people."""
        counts = {"box%": self.boxes, "point%": self.points, "point% beside it": self.background}
        said = [
            f"{len(given)} {what.replace('%', '' if len(given) == 1 else 'es' if what == 'box%' else 's')}"
            for what, given in counts.items()
            if given
        ]
        return ", ".join(["strokes"] * (self.scribble is not None) + said)


def marking_from_marks(photo: Image.Image, marks: Marks, name: str) -> Marking:
    """What `mask_from_marks` makes of a photo of that name, and how it was understood; a mask that strokes or points
    beside the object let run along the photo's border is told, and one that leaves most of its boxes free.
    """
    try:
        mask = mask_from_marks(photo, marks)
    except (DataError, UsageError) as error:
        raise type(error)(f"{name}: {error}") from error
    walked = marks.scribble is not None or marks.points or marks.background
    if walked and (share := border_share(mask == 1)) > _MUCH:
        told = f"{name}: what grew from the marks takes {100 * share:.0f} % of the photo's border"
        remedy = "if that is not the object, mark what lies there as beside it, on all sides, or give a mask"
        warnings.warn(DataWarning(f"{told}; {remedy}"), stacklevel=2)
    boxes = sum((right - left) * (bottom - top) for left, top, right, bottom in marks.boxes)
    if walked and boxes and (part := mask.sum() / boxes) < _LITTLE:
        told = f"{name}: what grew from the marks takes {100 * part:.0f} % of the box around it"
        remedy = "if the object is larger, mark more of its parts, or give the box alone, or a mask"
        warnings.warn(DataWarning(f"{told}; {remedy}"), stacklevel=2)
    return Marking(mask, f"grown from {marks}", upright=True)


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
    seeds[border(size) & (seeds == 0)] = BACKGROUND
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


def strokes_in(picture: Image.Image, photo: Image.Image | None = None) -> NDArray[np.uint8]:
    """(H, W) uint8 of an RGB picture: 1 where strokes are red, 2 where they are blue, 0 elsewhere.

    Where the picture is the `photo` itself with strokes painted on it, what is red or blue in the photo is no stroke.
    """
    drawn = np.asarray(picture.convert("RGB")).astype(np.int16)
    red, green, blue = np.moveaxis(drawn, -1, 0)
    strokes = np.zeros(red.shape, np.uint8)
    strokes[(red >= 128) & (red > 2 * np.maximum(green, blue))] = OBJECT
    strokes[(blue >= 128) & (blue > 2 * np.maximum(green, red))] = BACKGROUND
    if photo is not None and photo.size == picture.size and strokes.any():
        low, high = (np.asarray(photo.filter(kind(5))).astype(np.int16) for kind in (MinFilter, MaxFilter))
        as_in_photo = np.all((drawn >= low - _LOSS) & (drawn <= high + _LOSS), axis=2)
        if as_in_photo[strokes == 0].mean() > 0.9:
            strokes[as_in_photo] = 0
    return strokes


def _checked(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    if not (left < right and top < bottom and right > 0 and bottom > 0 and left < width and top < height):
        raise UsageError(
            f"box {','.join(f'{side:g}' for side in box)} marks nothing in a photo of {width} x {height} pixels; "
            "give LEFT,TOP,RIGHT,BOTTOM in pixels"
        )
    cut = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if max(abs(given - kept) for given, kept in zip(box, cut, strict=True)) > 1:  # annotation tools round up
        told = f"box {','.join(f'{side:g}' for side in box)} reaches beyond the photo of {width} x {height} pixels"
        warnings.warn(DataWarning(f"{told}: what lies in it is taken"), stacklevel=2)
    return cut


def _walked(photo: Image.Image, seeds: NDArray[np.uint8], *, beta: float) -> NDArray[np.uint8]:
    height, width = seeds.shape
    scale = min(1.0, _SIDE / max(height, width))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.zeros((h, w), np.int32)
    for value in (BACKGROUND, OBJECT):  # not by resizing: a thin stroke must not vanish
        rows, columns = np.nonzero(seeds == value)
        small[rows * h // height, columns * w // width] = value
    chance = _met_first(_lab(photo.resize((w, h), Image.Resampling.BOX)), small, beta=beta)
    fg = Image.fromarray(chance.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    mask = (np.asarray(fg) > 0.5).astype(np.uint8)
    mask[seeds == OBJECT], mask[seeds == BACKGROUND] = 1, 0
    return mask


def _met_first(colors: NDArray[np.float64], seeds: NDArray[np.int32], *, beta: float) -> NDArray[np.float64]:
    """The chance that a walker from a pixel of `colors` (H, W, 3) meets the object's seeds before the background's.

    It is the mean of the neighbours' chances, weighted by likeness: equations that conjugate gradients solve.
    """
    scale = beta / (10 * max(float(colors.std()), 1e-9) * 3**0.5)
    down, right = (np.exp(-scale * (np.diff(colors, axis=axis) ** 2).sum(2)) + 1e-10 for axis in (0, 1))

    def neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.zeros(seeds.shape)
        sums[1:] += down * values[:-1]
        sums[:-1] += down * values[1:]
        sums[:, 1:] += right * values[:, :-1]
        sums[:, :-1] += right * values[:, 1:]
        return sums

    weights = neighbours(np.ones(seeds.shape))
    open_ = (seeds == 0).astype(float)
    chance = np.zeros(seeds.shape)
    rest = open_ * neighbours((seeds == OBJECT).astype(float))
    enough, step, former = 1e-6 * (rest**2).sum(), chance, 1.0
    for _ in range(10 * seeds.size):
        if not (rest**2).sum() > enough:
            break
        scaled = rest / weights
        product = (rest * scaled).sum()
        step = scaled + product / former * step
        change = open_ * (weights * step - neighbours(step))
        length = product / (step * change).sum()
        chance, rest, former = chance + length * step, rest - length * change, product
    return np.where(seeds == 0, chance, seeds == OBJECT)


def _lab(photo: Image.Image) -> NDArray[np.float64]:
    """CIE Lab of an RGB photo, (H, W, 3), in hundredths."""
    srgb = np.asarray(photo) / 255
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    xyz = linear @ np.array(_TO_XYZ).T / _WHITE
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], -1)
