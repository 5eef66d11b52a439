"""Leave-one-out over the supports: which setting to take, and the IoU to expect of it.

Each support's object is looked for with the others as supports, in every way that is offered. The way is chosen by
the mean of their IoU, large objects counting for more; what is marked in photos without the class counts against it.

What to expect is the IoU of all pixels together of other photos. Each support is asked how it is found the way that the
others would have chosen: its own choice would flatter. Of so few photos the mean lies far out by chance, and is drawn
towards what is usual, the more the fewer there are and the more they differ (empirical Bayes).

A single support has nothing to be tried on but its own changed copies. Choosing by these was seen to be worse than not
choosing (20 classes of everyday sets), so they only tell what to expect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewseg.concept.finding import moved
from fewseg.concept.taught import Choice, Expected
from fewseg.labels import IGNORE

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
AS_IT_IS = THRESHOLDS.index(0.5)
"""Where nothing is chosen."""


class Way(NamedTuple):
    """How a class may be looked for; see `Choice`."""

    method: str
    tiles: int = 1


FOR_NEGATIVES = 0.01
"""By how much photos without the class must raise the IoU to be matched as background, which costs as supports do."""
MOST_TRIED = 12
"""Supports that are held out in turn, and photos without the class that are looked at, evenly spread."""
FOR_TWICE = 0.005
"""By how much a way's IoU must be higher for each doubling of what it costs."""
_SPREAD, _MORE, _FOUR_OF_FIVE = 0.2, 0.06, 1.28
_USUAL, _USUAL_SPREAD = 0.55, 0.2
"""IoU of classes of everyday sets with five supports, and how much it differs between them."""
_OF_COPIES = (0.08, 0.66, 0.15)
"""The IoU on other photos by that on copies of the support: offset, slope and spread (20 classes of everyday sets)."""
SMOOTH = (0.25, 0.5, 0.25)
"""Weights of neighbouring thresholds: a peak at one of them is chance."""


@dataclass(frozen=True)
class Counts:
    """Of every photo that was looked at (N) and every threshold (T), shares of the photo's pixels."""

    right: NDArray[np.float64]
    """(N, T): marked, and of the object."""
    union: NDArray[np.float64]
    """(N, T): marked or of the object."""

    @property
    def iou(self) -> NDArray[np.float64]:
        """(T,): mean of the photos' IoU, see `weights`."""
        return (weights(self.union) * self.right / np.maximum(self.union, 1e-9)).sum(0)

    @property
    def best(self) -> tuple[int, float]:
        """The number of the best threshold, and the IoU around it."""
        smooth = np.convolve(np.pad(self.iou, 1, mode="edge"), SMOOTH, mode="valid")
        return int(smooth.argmax()), float(smooth.max())


def counted(proba: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(2, T): of every threshold the shares of pixels that are marked rightly, and that are in either; see `Counts`."""
    known = mask != IGNORE
    inside = mask == 1
    above = [_above(proba[where]) for where in (inside, known & ~inside)]
    return np.stack([above[0], np.count_nonzero(inside) + above[1]]) / max(np.count_nonzero(known), 1)


def best(counts: Mapping[Way, Counts]) -> tuple[Way, int]:
    """The way to take, and the number of the threshold; of equals the first."""
    chosen, value = None, -1.0
    for way, found in counts.items():
        at, iou = found.best
        worth = iou - FOR_TWICE * 2 * math.log2(way.tiles)
        if worth > value:
            chosen, value = (way, at), worth
    assert chosen is not None
    return chosen


def weights(union: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of photos (N, ...), by their union, what each counts for: its root, which is between a mean of photos and one of
    pixels, which a large object rules. They sum to 1.
    """
    roots = np.sqrt(np.maximum(union, 1e-9))
    return roots / roots.sum(0)


def unseen(counts: Mapping[Way, Counts]) -> tuple[NDArray[np.float64], list[tuple[Way, int]]]:
    """(2, N): of every photo `right` and `union` by the way and threshold that are best for all the others; which
    these are.
    """
    every = next(iter(counts.values()))
    found, asked = np.empty((2, len(every.right))), []
    for i in range(len(every.right)):
        way, at = best({way: Counts(np.delete(c.right, i, 0), np.delete(c.union, i, 0)) for way, c in counts.items()})
        found[:, i] = counts[way].right[i, at], counts[way].union[i, at]
        asked.append((way, at))
    return found, asked


def expected_unseen(
    counts: Mapping[Way, Counts], marked: NDArray[np.bool_], choice: Choice, sureness: float
) -> Expected:
    """What to expect of a choice, by those photos (N) that are `marked`, each asked as the others would have chosen."""
    (right, union), asked = unseen(counts)
    told = expected(right[marked], union[marked], sureness)
    own = Way(choice.method, choice.tiles)
    at = THRESHOLDS.index(choice.threshold)
    by_choice = counts[own].right[marked, at] / np.maximum(counts[own].union[marked, at], 1e-9)
    settings = (
        replace(
            choice,
            method=way.method,
            threshold=THRESHOLDS[i],
            tiles=way.tiles,
            negatives=choice.negatives if way == own else 0,  # the others were tried without
        )
        for (way, i), marks in zip(asked, marked, strict=True)
        if marks
    )
    return replace(told, by_choice=tuple(by_choice.tolist()), settings=tuple(map(str, settings)))


def expected(right: NDArray[np.float64], union: NDArray[np.float64], sureness: float) -> Expected:
    """What to expect, by those that were tried (N), see `Counts`.

    The interval is meant to hold what many photos would give in four of five cases. So few photos say little of how
    much photos differ: two more are added that differ by `_SPREAD`; `_MORE` is for what choosing adds.
    """
    each, weight = right / np.maximum(union, 1e-9), weights(union)
    mean = float(weight @ each)
    variance = (len(each) * float(weight @ (each - mean) ** 2) + 2 * _SPREAD**2) / (len(each) + 1)
    error = variance * float(weight @ weight) + _MORE**2
    trust = _USUAL_SPREAD**2 / (_USUAL_SPREAD**2 + error)
    mean, half = _USUAL + trust * (mean - _USUAL), _FOUR_OF_FIVE * math.sqrt(trust * error)
    return Expected(mean, max(mean - half, 0.0), min(mean + half, 1.0), tuple(each.tolist()), sureness)


def expected_of_one(each: NDArray[np.float64], sureness: float) -> Expected:
    """What to expect by the IoUs of changed copies of the one support: they say little of other photos."""
    mean = _OF_COPIES[0] + _OF_COPIES[1] * float(each.mean())
    half = _FOUR_OF_FIVE * _OF_COPIES[2]
    return Expected(mean, max(mean - half, 0.0), min(mean + half, 1.0), tuple(each.tolist()), sureness)


def sureness(proba: NDArray[np.float32], threshold: float) -> float:
    """The IoU with the object that a mask would have if `moved` probabilities were true: which photos are in doubt."""
    likely = moved(proba, threshold)
    inside = likely > 0.5
    area = np.count_nonzero(inside)
    return float(likely[inside].sum() / max(area + likely[~inside].sum(), 1e-9)) if area else 0.0


def _above(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T,): how many values are above each threshold."""
    ordered = np.sort(values.ravel())
    return (ordered.size - np.searchsorted(ordered, np.asarray(THRESHOLDS, np.float32), side="right")).astype(
        np.float64
    )
