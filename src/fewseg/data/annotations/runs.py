"""Run lengths and outlines as pixels, column by column as COCO has them: checked first, then painted.

Every format's polygons are drawn here, as `COCO.annToMask` draws them, so that one outline is one mask whatever file it
came in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

MOST_PIXELS = 178_956_970
"""Of an image: Pillow's own limit, since a mask takes as much memory as a file claims."""
_FARTHEST = 1e9
"""Pixels: what is farther away is no place on a photo."""
_LONGEST = 4e6
"""Pixels of an outline within its photo's surroundings: drawing takes memory with its length."""
_SOME_PIXELS = 2**24
"""Of an image for whose size memory is surely there."""
_MOST_DIGITS = 7
"""Of a compressed number, five bits each: more than a run can be, too few to overflow when they are added."""

_LONGEST_TEXT = 4_000_000
"""Of compressed run lengths: to take them apart takes some 100 bytes a digit."""
Rle = dict[str, Any]
"""pycocotools' own: "size" (height, width) and "counts", its compressed run lengths in bytes."""


class OddShape(ValueError):
    """A shape that cannot be drawn; its text says why in words for the one who brought it."""


def checked_runs(counts: Any, pixels: int) -> NDArray[np.int64]:
    """Lengths of background and foreground in turn, from a list or COCO's compressed text.

    OddShape unless they are lengths that cover exactly so many pixels.
    """
    if isinstance(counts, str):
        if counts[:2] in ("b'", 'b"'):  # bytes that were written as they are printed
            counts = counts[2:-1].replace("\\\\", "\\")
        if len(counts) > min(_LONGEST_TEXT, _MOST_DIGITS * (pixels + 2)):
            raise OddShape("its compressed run lengths are longer than an image needs")
        runs = _decompressed(counts.encode())
    elif isinstance(counts, list) and all(type(n) in (int, float) and 0 <= n <= pixels and n % 1 == 0 for n in counts):
        runs = np.array(counts, np.int64)
    else:
        raise OddShape(f"its run lengths are no whole numbers from 0 to the image's {pixels} pixels")
    if not len(runs) or runs.min() < 0 or runs.max() > pixels:
        raise OddShape("its run lengths are broken")
    if (total := int(runs.sum())) != pixels:
        raise OddShape(f"its run lengths cover {total} pixels, the image has {pixels}")
    return runs


def _decompressed(counts: bytes) -> NDArray[np.int64]:
    """COCO's compressed run lengths: digits of 5 bits with a flag for more, signed, each relative to the last but one.

    pycocotools only decodes to whole masks, which takes most of the time where instances are small.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not len(last) or last[-1] != len(digits) - 1:
        raise OddShape("its compressed run lengths are broken")
    if (last - first).max() >= _MOST_DIGITS:
        raise OddShape("its compressed run lengths hold a number that no image has")
    place = 5 * (np.arange(len(digits)) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((digits & 31) << place, first)
    values -= np.where(digits[last] & 16, 1 << (place[last] + 5), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def outline_runs(corners: Sequence[float] | NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Run lengths of a polygon x, y, x, y, ... in pixels, where pixel (0, 0) reaches from 0 to 1.

    OddShape where it has no place on an image.
    """
    return runs_of(outline_rle(corners, height, width))


def outline_rle(corners: Sequence[float] | NDArray[np.float64], height: int, width: int) -> Rle:
    """The same as pycocotools has it."""
    margin = 1000 + 2 * max(height, width)  # what is near is drawn exactly as pycocotools draws it
    if not _is_near(corners, margin):
        places = _places(corners, margin)
        if len(places) < 3:
            return as_rle(np.array([height * width]), height, width)
        corners = places.ravel().tolist()
    (part,) = rle.frPyObjects([corners], height, width)  # type: ignore
    return part  # type: ignore[return-value]


def _is_near(corners: Any, margin: float) -> bool:
    """Whether nearly any outline needs no further look: a short one of three corners or more, none far away."""
    if not is_outline(corners):
        return False
    low, high = min(corners), max(corners)
    return -margin <= low and high <= margin and len(corners) * (high - low) < _LONGEST


def _places(corners: Sequence[float] | NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """(n, 2) corners that can be drawn; OddShape where there are none."""
    places = np.asarray(corners, float).reshape(-1, 2)
    if not (np.abs(places) < _FARTHEST).all():  # NaN is refused too
        raise OddShape("a corner is no place on a photo")
    if (places < -margin).any() or (places > margin).any():
        places = _clipped(places, margin)
    if np.abs(places - np.roll(places, 1, axis=0)).max(1).sum() > _LONGEST:
        raise OddShape(f"an outline is longer than {_LONGEST:.0f} pixels")
    return places


def as_rle(runs: NDArray[np.int64], height: int, width: int) -> Rle:
    """Checked run lengths as pycocotools has them; those of no pixel, at which its unions stop, are joined."""
    ends, times = np.unique(runs.cumsum(), return_counts=True)
    turns = ends[(times % 2 == 1) & (ends < height * width)]
    joined = np.diff(turns, prepend=0, append=height * width)
    return rle.frPyObjects({"counts": joined.tolist(), "size": [height, width]}, height, width)  # type: ignore


def runs_of(part: Rle) -> NDArray[np.int64]:
    """Run lengths of what pycocotools has."""
    return _decompressed(part["counts"])


def union(parts: Sequence[Rle]) -> Rle:
    """All the pixels of one shape or more of one size."""
    height, width = parts[0]["size"]
    if height * width > _SOME_PIXELS:
        np.empty(1 + height * width, np.uint32)  # pycocotools takes that too, and does not look whether it got it
    return rle.merge(list(parts))  # type: ignore


def area(part: Rle) -> int:
    """Number of pixels."""
    return int(rle.area(part))  # type: ignore


def _clipped(places: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """A polygon cut to the square from -margin to margin, side by side (Sutherland & Hodgman 1974)."""
    for axis in (0, 1):
        for sign in (1, -1):
            before = np.roll(places, 1, axis=0)
            kept = []
            for a, b in zip(before, places, strict=True):
                ahead, behind = margin - sign * b[axis], margin - sign * a[axis]
                if (ahead < 0) != (behind < 0):
                    kept.append(a + (b - a) * (behind / (behind - ahead)))
                if ahead >= 0:
                    kept.append(b)
            places = np.array(kept, float).reshape(-1, 2)
            if not len(places):
                return places
    return places


def paint(flat: NDArray[Any], runs: NDArray[np.int64], value: int) -> None:
    """Set the pixels of run lengths in a mask laid out column by column; the lengths must have been checked."""
    shown = runs[1 : len(runs) // 2 * 2]  # from the first run of foreground to the last: a byte a pixel
    part = flat[runs[0] : runs[0] + shown.sum()]
    part[np.repeat(np.arange(len(shown)) % 2 == 0, shown)] = value


def is_outline(corners: Any) -> bool:
    """Whether this is a list x, y, x, y, ... of three corners or more."""
    if not isinstance(corners, list) or len(corners) < 6 or len(corners) % 2:
        return False
    try:
        return math.isfinite(sum(corners))
    except (TypeError, OverflowError):
        return False
