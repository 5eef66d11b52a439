"""Masks as polygons: rings with their holes, and rings joined to one where a format knows no holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray

from fewseg.data.regions import Parts, connected

Ring = NDArray[np.float64]
"""(n, 2) corners x, y in pixels, the first again at the end; pixel (0, 0) reaches from 0 to 1."""


def polygons(mask: NDArray[Any], parts: Parts | None = None) -> Iterator[tuple[list[Ring], int]]:
    """Each connected part (8 neighbours) of a mask (H, W), or each of its `parts`, as polygons, and its pixels' number.

    A part is a list of rings: every outer ring is followed by its holes; outer rings run counter-clockwise in
    (x, y), holes clockwise, as GeoJSON wants it. Lines run midway between the centres of inner and outer pixels, so
    that drawing a polygon by pixel centres gives the mask back exactly.
    """
    parts = connected(np.asarray(mask, bool)) if parts is None else parts
    for number, (top, left, bottom, right) in enumerate(parts.boxes.tolist(), start=1):
        inside = parts.labels[top:bottom, left:right] == number
        yield [ring + np.array([left, top]) for ring in _rings(inside)], int(parts.pixels[number - 1])


def _rings(inside: NDArray[np.bool_]) -> list[Ring]:
    height, width = inside.shape
    generator = contourpy.contour_generator(
        np.arange(-1, width + 1) + 0.5,
        np.arange(-1, height + 1) + 0.5,
        np.pad(inside, 1).astype(np.float32),
        name="serial",
        fill_type=contourpy.FillType.OuterOffset,
    )
    filled: Any = generator.filled(0.5, 2.0)
    return [
        _without_straights(ring)
        for corners, starts in zip(*filled, strict=True)
        for ring in np.split(corners, starts[1:-1].tolist())
    ]


def _without_straights(ring: Ring) -> Ring:
    """The ring without corners that lie on a straight line between their neighbours."""
    open_ring = ring[:-1]
    before, after = open_ring - np.roll(open_ring, 1, 0), np.roll(open_ring, -1, 0) - open_ring
    kept = open_ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return np.concatenate([kept, kept[:1]])


def is_hole(ring: Ring) -> bool:
    """Whether a ring of `polygons` runs clockwise, as holes do."""
    x, y = ring.T
    return bool((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() < 0)


def joined(rings: list[Ring]) -> Ring:
    """One ring for a part of `polygons`: each further ring is reached, and left again, over the same shortest line.

    Such a line encloses no area, so that a filled drawing keeps holes and parts that touch at a corner.
    """
    whole = rings[0]
    for ring in rings[1:]:
        start, at = _nearest(ring[:-1], whole)
        turned = np.roll(ring[:-1], -start, 0)
        whole = np.concatenate([whole[: at + 1], turned, turned[:1], whole[at:]])
    return whole


def _nearest(some: Ring, others: Ring) -> tuple[int, int]:
    """Which corner of some is nearest to which of the others, the first of equals."""
    to_box = (np.maximum(0, np.maximum(some.min(0) - others, others - some.max(0))) ** 2).sum(1)
    reach = ((some - others[to_box.argmin()]) ** 2).sum(1).min()
    near = np.flatnonzero(to_box <= reach)  # the rest are farther from the box around some than that
    found = []
    for start in range(0, len(some), 256):  # not all at once: products of two long outlines fill the memory
        far = ((some[start : start + 256, None] - others[near]) ** 2).sum(2)
        place, at = divmod(int(far.argmin()), len(near))
        found.append((far[place, at], start + place, int(near[at])))
    return min(found)[1:]
