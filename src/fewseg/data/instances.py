"""Single objects of a mask: its connected parts, those that touch cut apart where they are narrow.

Of each part the distance of every pixel to its edge is taken. From the innermost pixels outwards, regions grow as on a
map whose water falls (Beucher and Lantuejoul, 1979); where two meet, they stay apart if the neck is narrow beside both
of them. So are cells, fruits and stones told apart; a body has necks too, but its limbs do not bulge on all sides, so
that a cut is taken only where it leaves bulging pieces. In numpy alone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fewseg.data.regions import Parts, connected

NECK = 0.75
"""Two stay apart where their neck is less than this wide, as a share of the narrower one's greatest width."""
ALIKE = 0.4
"""What is less than this wide beside the one that it hangs on is a limb of that one."""
BULGING = 0.85
"""The share of the area around which a thread could be drawn tight that pieces fill, or the part is left whole."""
_LEAST = 2.0
"""Pixels from the edge to the middle of what may be an object of its own."""
_SIDE = 256
"""Larger parts are looked at with fewer pixels: what touches is as wide as the objects are."""
_LEVELS = 64


def instances(mask: NDArray[np.bool_]) -> Parts:
    """The objects of a mask (H, W): connected parts (8 neighbours), those that touch cut apart; see `Parts`."""
    parts = connected(mask)
    labels, boxes, pixels = parts.labels.copy(), [], []
    for number, (top, left, bottom, right) in enumerate(parts.boxes.tolist(), start=1):
        rows, columns = slice(top, bottom), slice(left, right)
        inside = parts.labels[rows, columns] == number
        pieces = _pieces(inside)
        for piece in range(1, int(pieces.max()) + 1):
            own = pieces == piece
            boxes.append(_box(own) + np.array([top, left, top, left]))
            pixels.append(np.count_nonzero(own))
            labels[rows, columns][own] = len(boxes)
    return Parts(labels, np.array(boxes, np.int64).reshape(-1, 4), np.array(pixels, np.int64))


def distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(H, W): how far each pixel's centre is from the nearest one outside; what is beyond the border is outside."""
    inside = np.pad(mask, 1)
    rows = np.arange(inside.shape[0], dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(inside, -1, rows), axis=0)
    below = np.minimum.accumulate(np.where(inside, len(rows), rows)[::-1], axis=0)[::-1]
    straight = np.minimum(rows - above, below - rows).astype(np.float32) ** 2
    nearest = straight.copy()
    reach = int(np.sqrt(straight.max(initial=0)))
    for aside in range(1, min(reach, inside.shape[1] - 1) + 1):
        nearest[:, aside:] = np.minimum(nearest[:, aside:], straight[:, :-aside] + aside**2)
        nearest[:, :-aside] = np.minimum(nearest[:, :-aside], straight[:, aside:] + aside**2)
    return np.sqrt(nearest)[1:-1, 1:-1]


def _pieces(inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(H, W): 0 outside one connected part, and the numbers of its objects, from 1."""
    step = -(-max(inside.shape) // _SIDE)
    small = inside[::step, ::step]
    depth = distance(small)
    if depth.max(initial=0) < _LEAST:
        return inside.astype(np.int32)
    found = _flooded(depth)
    if found.max() < 2 or _bulge(found) < BULGING:
        return inside.astype(np.int32)
    shape = inside.shape
    spread = found.repeat(step, 0).repeat(step, 1)[: shape[0], : shape[1]]
    grown = _grown(np.where(inside, spread, 0), inside)
    return (np.searchsorted(np.unique(grown[inside]), grown).astype(np.int32) + 1) * inside


def _flooded(depth: NDArray[np.float32]) -> NDArray[np.int32]:
    """The objects of a part by the depth of its pixels (H, W), 0 outside; some pixels may be left at 0."""
    labels = np.zeros(depth.shape, np.int32)
    peaks = [0.0]
    top = float(depth.max())
    for level in np.linspace(top, min(1.0, top), min(_LEVELS, 2 * int(np.ceil(top)) + 1)):
        shore = connected(depth >= level)
        for number, (upper, left, lower, right) in enumerate(shore.boxes.tolist(), start=1):
            rows, columns = slice(upper, lower), slice(left, right)
            pool = shore.labels[rows, columns] == number
            known = np.unique(labels[rows, columns][pool])
            known = known[known > 0]
            if not len(known):
                if level >= _LEAST:
                    peaks.append(float(depth[rows, columns][pool].max()))
                    labels[rows, columns][pool] = len(peaks) - 1
                continue
            deepest = max(known, key=lambda one: peaks[one])
            kept = [one for one in known if one == deepest or _stays(peaks[one], peaks[deepest], level)]
            window = labels[rows, columns]
            lost = pool & np.isin(window, np.setdiff1d(known, kept))
            labels[rows, columns] = _grown(np.where(lost, 0, window), pool)
    return labels


def _stays(peak: float, deepest: float, neck: float) -> bool:
    return neck < NECK * peak and peak >= ALIKE * deepest


def _bulge(labels: NDArray[np.int32]) -> float:
    """How much of their convex hulls the pieces fill, all together."""
    area = hulls = 0.0
    for number in range(1, int(labels.max()) + 1):
        own = labels == number
        if own.any():
            area += np.count_nonzero(own)
            hulls += _hull_area(own)
    return area / hulls


def _hull_area(own: NDArray[np.bool_]) -> float:
    """Area of the convex hull of a mask's pixels (H, W), as squares; from the ends of its rows (Andrew, 1979)."""
    rows = np.flatnonzero(own.any(1))
    left, right = own[rows].argmax(1), own.shape[1] - own[rows, ::-1].argmax(1)
    area = 0.0
    for edge, sign in ((left, -1), (right, 1)):
        corners = [(y + below, sign * int(x)) for y, x in zip(rows.tolist(), edge, strict=True) for below in (0, 1)]
        chain: list[tuple[int, int]] = []
        for y, x in corners:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], (y, x)) >= 0:
                chain.pop()
            chain.append((y, x))
        area += sum((a[1] + b[1]) / 2 * (b[0] - a[0]) for a, b in pairwise(chain))
    return area


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _grown(labels: NDArray[np.int32], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels (H, W) that grow, by a pixel at a time, into what of `inside` has none."""
    labels = labels.copy()
    while (bare := inside & (labels == 0)).any():
        padded = np.pad(labels, 1)
        around = [padded[1 + y : padded.shape[0] - 1 + y, 1 + x : padded.shape[1] - 1 + x] for y, x in _AROUND]
        reached = np.maximum.reduce(around) * bare
        if not reached.any():
            break
        labels += reached
    return labels


_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def _box(own: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Top, left, bottom and right, the last two behind the last pixel."""
    rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
