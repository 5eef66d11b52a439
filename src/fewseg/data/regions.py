"""Which pixels of a mask hang together, and which lie near it: what scipy.ndimage would say, in numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Parts(NamedTuple):
    """The connected parts (8 neighbours) of a mask, in the order of their first pixels, row by row."""

    labels: NDArray[np.int32]
    """(H, W): 0 beside the mask, 1.. the parts."""
    boxes: NDArray[np.int64]
    """(parts, 4): top, left, bottom and right, the last two behind the part's last pixel."""
    pixels: NDArray[np.int64]
    """(parts,): how many pixels each has."""


def border(size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The outermost pixels of a picture (H, W)."""
    frame = np.ones(size, bool)
    frame[1:-1, 1:-1] = False
    return frame


def border_share(marked: NDArray[np.bool_]) -> float:
    """How much of a picture's border is marked (H, W)."""
    return float(marked[border(marked.shape)].mean())


def connected(mask: NDArray[np.bool_]) -> Parts:
    """The connected parts of a mask (H, W)."""
    edges = np.diff(np.pad(mask, [(0, 0), (1, 1)]).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)  # the runs of each row, in order
    roots, part = np.unique(
        _roots(*_touching(rows, starts, ends, stride=mask.shape[1] + 2), len(rows)), return_inverse=True
    )
    boxes = np.empty((len(roots), 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
    for column, values, extreme in (
        (0, rows, np.minimum),
        (1, starts, np.minimum),
        (2, rows + 1, np.maximum),
        (3, ends, np.maximum),
    ):
        extreme.at(boxes[:, column], part, values)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat((part + 1).astype(np.int32), ends - starts)
    return Parts(labels, boxes, np.bincount(part, ends - starts, len(roots)).astype(np.int64))


def _touching(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], *, stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of runs, by number, that touch from one row to the next, over corners too."""
    above = (rows - 1) * stride
    first = np.searchsorted(rows * stride + ends, above + starts)
    behind = np.searchsorted(rows * stride + starts, above + ends, side="right")
    counts = np.maximum(behind - first, 0)
    lower = np.repeat(np.arange(len(rows)), counts)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts, counts) + first[lower]
    return upper, lower


def _roots(a: NDArray[np.int64], b: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The lowest of the numbers 0..`count` that each is joined with, where a[i] and b[i] are joined."""
    root = np.arange(count)
    while (differ := root[a] != root[b]).any():
        a, b = a[differ], b[differ]
        np.minimum.at(root, np.maximum(root[a], root[b]), np.minimum(root[a], root[b]))
        while not np.array_equal(further := root[root], root):
            root = further
    return root


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Where a mask (H, W) has a pixel within `by` rows and `by` columns."""
    for _ in range(2):  # columns, then, turned, rows
        window, width = np.pad(mask, [(by, by), (0, 0)]), 1
        while width <= 2 * by:  # of every position, whether any of the next `width` is in the mask
            step = min(width, 2 * by + 1 - width)
            window, width = window[:-step] | window[step:], width + step
        mask = window.T
    return mask


def shrunk(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Where a mask (H, W) has every pixel within `by` rows and `by` columns; it has none beyond its border."""
    return ~grown(np.pad(~mask, by, constant_values=True), by)[by:-by, by:-by]
