"""Changed copies of a photo: what a single support is tried on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.concept.taught import Example

_CROP = 0.7
"""Of the photo's sides, where the object leaves so much to cut off."""
_COLOURS = ((1.0, 1.0, 1.0, 1.0), (0.75, 1.1, 1.0, 0.9), (1.3, 0.9, 1.0, 1.1), (0.9, 1.0, 0.9, 1.1))
"""Of each copy an exponent of all values, and factors of red, green and blue."""


def copies(example: Example) -> list[Example]:
    """The photo mirrored; mirrored and cropped to one side and the other; and its own corner, each in other colours."""
    cuts = [(0.5, 0.5, 1.0), (0.0, 0.0, _CROP), (1.0, 1.0, _CROP), (0.5, 0.5, _CROP)]
    made = []
    for number, ((down, across, share), colours) in enumerate(zip(cuts, _COLOURS, strict=True)):
        rows, columns = _window(example.mask == 1, down, across, share)
        photo, mask = _coloured(example.photo[rows, columns], colours), example.mask[rows, columns]
        if number < 3:
            photo, mask = photo[:, ::-1], mask[:, ::-1]
        side = max(example.mask.shape)
        size = tuple(round(n * side / max(mask.shape)) for n in mask.shape[::-1])
        photo = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))
        mask = np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize(size, Image.Resampling.NEAREST))
        made.append(Example.of(photo, mask, side=side, name=example.name, meaning=example.meaning))
    return made


def _window(inside: NDArray[np.bool_], down: float, across: float, share: float) -> tuple[slice, slice]:
    """A part of the photo with all of the object: at its upper left for 0 and 0, at its lower right for 1 and 1."""
    found = []
    for axis, where in ((1, down), (0, across)):
        marked, length = np.flatnonzero(inside.any(axis)), inside.shape[1 - axis]
        first, behind = int(marked[0]), int(marked[-1]) + 1
        part = max(round(share * length), behind - first)
        begin = min(max(round(where * (length - part)), behind - part), first)
        found.append(slice(begin, begin + part))
    return found[0], found[1]


def _coloured(photo: NDArray[np.uint8], colours: tuple[float, ...]) -> NDArray[np.uint8]:
    exponent, *factors = colours
    values = (photo / 255) ** exponent * np.array(factors)
    return np.rint(255 * values.clip(0, 1)).astype(np.uint8)
