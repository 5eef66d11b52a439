"""Masks as polygons: rings with their holes, and rings joined to one where a format knows no holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Ring = NDArray[np.float64]
"""(n, 2) corners x, y in pixels, the first again at the end; pixel (0, 0) reaches from 0 to 1."""


def polygons(mask: NDArray[Any]) -> Iterator[tuple[list[Ring], int]]:
    """Each connected part (8 neighbours) of a mask (H, W) as polygons, and its number of pixels.

    A part is a list of rings: every outer ring is followed by its holes; outer rings run counter-clockwise in
    (x, y), holes clockwise, as GeoJSON wants it. Lines run midway between the centres of inner and outer pixels, so
    that drawing a polygon by pixel centres gives the mask back exactly.
    """
    parts, _ = ndimage.label(np.asarray(mask, bool), structure=np.ones((3, 3)))  # type: ignore[misc]
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        inside = parts[place] == number
        top, left = place[0].start, place[1].start
        yield [ring + np.array([left, top]) for ring in _rings(inside)], int(inside.sum())


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
        distances, nearest = KDTree(whole).query(ring[:-1])
        start = int(np.argmin(distances))
        at = int(np.asarray(nearest)[start])
        turned = np.roll(ring[:-1], -start, 0)
        whole = np.concatenate([whole[: at + 1], turned, turned[:1], whole[at:]])
    return whole
