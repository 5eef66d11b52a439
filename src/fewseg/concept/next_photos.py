"""Which photos to annotate next, and how much that is likely to bring.

A photo is worth more the more doubtful its answer is, and the more it differs from the supports and from those that are
chosen before it. What that brings is an estimate by what more supports brought each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.concept.choosing import MOST_TRIED
from fewseg.concept.finder import Finder
from fewseg.concept.finding import encoded, found, views
from fewseg.concept.taught import Taught, reduced
from fewseg.predictor import Picture, Result, eight_bit, only, pixels_of
from fewseg.runtime.engine import Engine, Pixels

_USUAL, _USUAL_SPREAD = 0.02, 0.02
"""Of IoU for each doubling of the supports, and how much that differs between classes."""
_LEAST_SPREAD = 0.1
"""Of the differences between photos: few may be alike by chance."""
_FOUR_OF_FIVE = 1.28
_SAME, _ALREADY = 24, 1e-4
"""A photo is the one of a concept where no level of 255 differs by more (JPEGs of photos: up to 15), or their features'
means by less (a concept may have no photos).
"""


@dataclass(frozen=True)
class Growth:
    """What a doubling of the supports brings in IoU, with the standard error of that estimate."""

    doubling: float
    error: float

    def of(self, supports: int, more: int) -> tuple[float, float, float]:
        """What so many more supports bring, with the interval that holds it in four of five cases."""
        doublings = math.log2((supports + more) / supports)
        half = _FOUR_OF_FIVE * self.error
        return self.doubling * doublings, (self.doubling - half) * doublings, (self.doubling + half) * doublings


def looked_at(
    finder: Finder, image: Picture, concept: Taught, supports: NDArray[np.float32]
) -> tuple[Result, NDArray[np.float32]] | None:
    """What is found in a photo, and what it is compared by with others; None where the concept holds it.

    The finder is of that one concept, `supports` what `taught_by` tells of it.
    """
    photo = eight_bit(pixels_of(image, finder.pictures))
    if _held(photo, concept):
        return None
    features = described(finder.engine, photo)
    if far(features[None], supports)[0] < _ALREADY:
        return None
    return only(finder.predict_each(photo)), features


def _held(photo: Pixels, concept: Taught) -> bool:
    """Whether a photo is one that a concept keeps, smaller and as a JPEG."""
    kept = [example.photo for example in (*concept.supports, *concept.absent)]
    shown = {side: reduced(photo, side).astype(np.int16) for side in {max(one.shape[:2]) for one in kept}}
    pairs = ((shown[max(one.shape[:2])], one) for one in kept)
    return any(ours.shape == one.shape and int(np.abs(ours - one).max()) <= _SAME for ours, one in pairs)


def described(engine: Engine, photo: Pixels) -> NDArray[np.float32]:
    """(N,): the mean of each of a photo's features; those of a level have a length of 1 together."""
    everything = np.ones((engine.image_size, engine.image_size), np.uint8)
    return _mean_features(engine.kept(engine.encode_support([(photo, everything)])))[0]


def taught_by(finder: Finder, concept: Taught) -> NDArray[np.float32]:
    """(K, N): what photos are compared by, of the supports of a concept."""
    if concept.features:
        return _mean_features(concept.features)
    return np.stack([described(finder.engine, example.photo) for example in concept.supports])


def chosen(
    doubts: NDArray[np.float64], photos: NDArray[np.float32], supports: NDArray[np.float32], count: int
) -> list[tuple[int, float, float]]:
    """The photos to annotate, best first: number, difference, and what it is worth beside the others.

    `doubts` (P,), `photos` (P, N) and `supports` (K, N), which are compared by cosine. A difference is the distance to
    the nearest of supports and chosen photos, as a share of what is usual (the median to the supports), 1 at most.
    """
    nearest = far(photos, supports)
    usual = max(float(np.median(nearest)), 1e-9)
    left, picked = list(range(len(doubts))), []
    while left and len(picked) < count:
        difference = np.clip(nearest / usual, 0, 1)  # of a copy it may be -1e-8
        worth = doubts * difference
        best = max(left, key=lambda i: (worth[i], -i))
        picked.append((best, float(difference[best]), float(worth[best])))
        left.remove(best)
        nearest = np.minimum(nearest, far(photos, photos[best : best + 1]))
    return picked


def growth(engine: Engine, concept: Taught) -> Growth:
    """What more supports are likely to bring, by how much better each is found by the others than by half of them.

    What is usual counts as much as it is certain; nothing else is known of fewer than three supports, or of features.
    """
    count = min(len(concept.supports), MOST_TRIED)
    prior = 1 / _USUAL_SPREAD**2
    if count < 3:
        return Growth(_USUAL, _USUAL_SPREAD)
    taught = [encoded(engine, example, concept.choice.tiles) for example in concept.supports[:MOST_TRIED]]
    few = (count - 1) // 2
    gains = []
    for i, example in enumerate(concept.supports[:count]):
        others = [*taught[i + 1 :], *taught[:i]]
        parts = views(engine, example.photo, concept.choice.tiles)
        all_of_them, half = (
            _iou(found(engine, parts, engine.joined(some), concept.choice.method).proba, example.mask, concept)
            for some in (others, others[:few])
        )
        gains.append(all_of_them - half)
    doublings = math.log2((count - 1) / few)
    spread = max(float(np.std(gains, ddof=1)), _LEAST_SPREAD) / doublings
    trust = count / spread**2
    mean = (prior * _USUAL + trust * float(np.mean(gains)) / doublings) / (prior + trust)
    return Growth(mean, (prior + trust) ** -0.5)


def _iou(proba: NDArray[np.float32], mask: NDArray[np.uint8], concept: Taught) -> float:
    above, marked = (proba > concept.choice.threshold) & (mask <= 1), mask == 1
    return float(np.count_nonzero(above & marked) / max(np.count_nonzero(above | marked), 1))


def _mean_features(kept: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """(K, N) of what an engine keeps of K supports: of each level's maps (1, K, C, h, w) the mean over positions."""
    found = [value[0].astype(np.float32).mean((2, 3)) for _, value in sorted(kept.items()) if value.ndim == 5]
    return np.concatenate([one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-9) for one in found], 1)


def far(photos: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """(P,): from each photo to what is nearest to it, 0 for the same and 2 for the opposite."""
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9) for rows in (photos, others)]
    return 1 - (unit[0] @ unit[1].T).max(1).astype(float)
