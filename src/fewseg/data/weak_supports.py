"""Weak supports: boxes, scribbles and points that are made from masks, and the masks that `fewseg segment` makes of
them.

Nothing is drawn by chance: a mask gives the same marks whenever they are made.

    box:      around every connected part of at least a twentieth of the mask
    scribble: along the middle of every such part, over three fifths of its longer side
    point:    the one deepest inside the largest part
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.marks import OBJECT, Marks, mask_from_marks
from fewseg.data.regions import connected

_LEAST, _LONG = 0.05, 0.6


def weak_mask(photo: Image.Image, mask: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """What marks of a kind, made from a mask (H, W) {0, 1, 255}, mean on an RGB photo: (H, W) {0, 1}.

    A mask without foreground, and any with the kind `mask`, stays as it is.
    """
    if kind == "mask" or not (mask == 1).any():
        return mask
    return mask_from_marks(photo, marks_of(mask == 1, kind))


def marks_of(mask: NDArray[np.bool_], kind: str) -> Marks:
    """The marks of a kind that are made from a mask (H, W) with some foreground."""
    parts = [mask & found for found in _large_parts(mask)]
    if kind == "box":
        return Marks(boxes=[_box(part) for part in parts])
    if kind == "point":
        return Marks(points=[_deepest(max(parts, key=np.count_nonzero))])
    scribble = np.zeros(mask.shape, np.uint8)
    for part in parts:
        scribble[_middle(part)] = OBJECT
    return Marks(scribble=scribble)


def _large_parts(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    found = connected(mask)
    least = min(_LEAST * found.pixels.sum(), found.pixels.max())
    return (found.labels == n for n, pixels in enumerate(found.pixels, 1) if pixels >= least)


def _box(part: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = (np.flatnonzero(part.any(axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _deepest(part: NDArray[np.bool_]) -> tuple[float, float]:
    """(x, y) of the pixel that is farthest from all that is not the part, the photo's border included."""
    depth = scipy.ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), part.shape)
    return float(x) + 0.5, float(y) + 0.5


def _middle(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W): in every row (column, where the part is wider than high) the middle of the longest run."""
    left, top, right, bottom = _box(part)
    if right - left > bottom - top:
        return _middle(part.T).T
    line = np.zeros_like(part)
    cut = (1 - _LONG) / 2 * (bottom - top)
    for y in range(int(top + cut), max(int(top + cut) + 1, int(np.ceil(bottom - cut)))):
        edges = np.flatnonzero(np.diff(np.pad(part[y], 1).astype(np.int8)))
        if len(edges):
            starts, ends = edges[::2], edges[1::2]
            longest = int((ends - starts).argmax())
            line[y, (starts[longest] + ends[longest] - 1) // 2] = True
    return line
