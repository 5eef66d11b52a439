"""Several classes' probabilities as one label map in which objects are not torn into two classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fewseg.data.regions import connected
from fewseg.errors import UsageError

HARDLY = 0.2
"""A lead in probability, mean over a piece, that is too small to part it from its neighbour."""


def label_map(
    probabilities: Iterable[NDArray[np.float32]], *, threshold: float = 0.5, min_area: int = 0
) -> NDArray[np.uint8]:
    """Classes' foreground probabilities, each (H, W), as (H, W) uint8 labels: 0 background, 1.. the classes in order.

    A pixel is marked where its most probable class (the first of equals) is above `threshold`. Pieces of two classes
    that touch, where both classes mark both of them on average and one leads in its piece by less than `HARDLY`, are
    one object: it belongs to the class of the higher mean. Connected parts (8 neighbours) of fewer than `min_area`
    pixels become background.
    """
    maps = list(probabilities)
    if not maps:
        raise UsageError("no probabilities were given; a label map needs at least one class")
    best, labels = maps[0].copy(), np.ones(maps[0].shape, np.uint8)
    second = np.zeros_like(best)
    for label, proba in enumerate(maps[1:], start=2):
        wins = proba > best
        second = np.maximum(second, np.minimum(best, proba))
        labels[wins] = label
        best[wins] = proba[wins]
    labels[~(best > threshold)] = 0
    if (second > threshold).any():
        labels = _whole(labels, maps, threshold)
    return without_specks(labels, min_area)


def claimed(
    labels: NDArray[np.uint8], probabilities: Sequence[NDArray[np.float32]], *, threshold: float = 0.5
) -> NDArray[np.int64]:
    """(C, C): of the pixels that labels (H, W) give to one class, how many another one marks too, by its probability
    (H, W) above `threshold`; its own, all that are given to it.
    """
    counts = np.zeros((len(probabilities), len(probabilities)), np.int64)
    for other, proba in enumerate(probabilities):
        counts[:, other] = np.bincount(labels[proba > threshold], minlength=len(counts) + 1)[1:]
    np.fill_diagonal(counts, np.bincount(labels.ravel(), minlength=len(counts) + 1)[1:])
    return counts


def _whole(labels: NDArray[np.uint8], maps: Sequence[NDArray[np.float32]], threshold: float) -> NDArray[np.uint8]:
    """Labels (H, W) whose pieces are joined as `label_map` says, the smallest first."""
    pieces, owners = _pieces(labels)
    count = len(owners)
    size = np.bincount(pieces.ravel(), minlength=count).astype(float)
    total = np.stack([np.bincount(pieces.ravel(), proba.ravel(), minlength=count) for proba in maps], 1)
    root = np.arange(count)

    def top(piece: int) -> int:
        while root[piece] != piece:
            root[piece] = root[root[piece]]
            piece = root[piece]
        return piece

    pairs = _neighbours(pieces)
    for pair in pairs[np.argsort(size[pairs].min(1), kind="stable")].tolist():
        one, other = map(top, pair)
        mine, its = owners[one], owners[other]
        if mine != its:
            means = total[[one, other]][:, [mine, its]] / size[[one, other], None]
            leads = means[0, 0] - means[0, 1], means[1, 1] - means[1, 0]
            if means.min() <= threshold or min(leads) >= HARDLY:
                continue
        size[one] += size[other]
        total[one] += total[other]
        if mine != its and total[one, its] > total[one, mine]:
            owners[one] = its
        root[other] = one
    found = np.array([owners[top(piece)] + 1 for piece in range(count)], np.uint8)
    found[0] = 0
    return found[pieces]


def _pieces(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[int]]:
    """(H, W): the numbers of connected pieces of one class, from 1; and of each number the class, from 0."""
    pieces, owners = np.zeros(labels.shape, np.int32), [-1]
    for label in range(1, int(labels.max()) + 1):
        parts = connected(labels == label)
        inside = parts.labels > 0
        pieces[inside] = parts.labels[inside] + len(owners) - 1
        owners += [label - 1] * len(parts.pixels)
    return pieces, owners


def _neighbours(pieces: NDArray[np.int32]) -> NDArray[np.int64]:
    """(n, 2): pairs of pieces of which a pixel of one lies beside, above or below one of the other."""
    sides = ((pieces[1:], pieces[:-1]), (pieces[:, 1:], pieces[:, :-1]))
    pairs = np.concatenate([np.stack([one[far], other[far]], 1) for one, other in sides for far in [one != other]])
    pairs = np.sort(pairs[(pairs > 0).all(1)].astype(np.int64), 1)
    return np.unique(pairs, axis=0)


def without_specks(
    labels: NDArray[np.uint8], min_area: int, *, goes_on: Sequence[bool] = (False, False, False, False)
) -> NDArray[np.uint8]:
    """Labels (H, W), changed in place: connected parts of fewer than `min_area` pixels become background.

    Where the picture goes on beyond the top, left, bottom or right, parts that reach that side stay.
    """
    for label in np.unique(labels[labels > 0]) if min_area > 1 else ():
        parts = connected(labels == label)
        reached = np.concatenate([parts.boxes[:, :2] == 0, parts.boxes[:, 2:] == labels.shape], 1)
        stays = (reached & np.array(goes_on)).any(1)
        small = np.concatenate([[False], (parts.pixels < min_area) & ~stays])  # 0 is everything else
        labels[small[parts.labels]] = 0
    return labels
