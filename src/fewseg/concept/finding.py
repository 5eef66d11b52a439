"""Finding a class in a photo, as a whole or in tiles that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewseg.concept.taught import Example, Presence, Taught, reduced
from fewseg.errors import DataError
from fewseg.linear import WITH, learns
from fewseg.predictor import nearest
from fewseg.runtime.engine import Engine

DETAIL = 2
"""Photos of supports are kept, and photos looked at, with at most this many pixels for each of the model's, a side."""
FILLED = 1 / 3
"""Of a tile: a support whose object covers more of it is not cut."""
OVERLAP = 0.2
"""Of neighbouring tiles, as a share of a photo's side cut into as many parts."""
_MAPS = 5
"""Dimensions of a level's maps (1, K, C, h, w); what is kept with fewer describes a support as a whole."""
_SUREST = 100
"""One pixel in so many is looked at to tell whether the class is there."""


class View(NamedTuple):
    """A part of a photo, encoded."""

    top: int
    left: int
    height: int
    width: int
    query: Any


class Found(NamedTuple):
    """What was found of a class in a photo of (H, W) pixels."""

    proba: NDArray[np.float32]
    """(H, W) foreground probability."""
    sign: float
    """Of the class being there, a logit: see `Presence`."""
    told: float | None
    """The probability of it that the model tells, if it does."""


def views(engine: Engine, photo: NDArray[np.uint8], tiles: int, query: Any = None) -> list[View]:
    """A photo encoded as a whole, or in `tiles` x `tiles` parts; `query` is the whole, where it was encoded before."""
    side = DETAIL * engine.image_size
    if query is not None and tiles == 1 and max(photo.shape[:2]) <= side:
        return [View(0, 0, photo.shape[0], photo.shape[1], query)]
    rows, columns = (_cuts(length, tiles) for length in photo.shape[:2])
    return [
        View(
            top, left, height, width, engine.encode_query(reduced(photo[top : top + height, left : left + width], side))
        )
        for top, height in rows
        for left, width in columns
    ]


def encoded(engine: Engine, example: Example, tiles: int = 1) -> Any:
    """A support, encoded; DataError where nothing of its object is left at the model's size.

    For photos that are looked at in tiles it is cut to the size of one, around the middle of its object: what is
    looked for is then as large as it will be found, and small things are not lost. One that fills more than `FILLED`
    of that stays whole, for what is around it tells what it is not.
    """
    if tiles > 1 and example.marks:
        photo, mask = _around(example, tiles)
        small = nearest(mask, engine.image_size)
        if 0 < (small == 1).mean() <= FILLED:  # the middle of several things may hold none
            return engine.encode_support([(photo, small)])
    photo, small = example.photo, nearest(example.mask, engine.image_size)
    if example.marks and not (small == 1).any():
        side = engine.image_size
        raise DataError(f"{example.name} marks so few pixels that they vanish at {side} x {side}; crop it closer")
    return engine.encode_support([(photo, small)])


def _around(example: Example, tiles: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The part of a photo and its mask that is as large as a tile, and has the middle of the object in its own."""
    middle = [round(float(at.mean())) for at in np.nonzero(example.mask == 1)]
    cuts = []
    for length, at in zip(example.mask.shape, middle, strict=True):
        part = _cuts(length, tiles)[0][1]
        begin = min(max(at - part // 2, 0), length - part)
        cuts.append(slice(begin, begin + part))
    return example.photo[tuple(cuts)], example.mask[tuple(cuts)]


def against(engine: Engine, supports: Sequence[Any], negatives: Sequence[Any]) -> Any:
    """Encoded supports together, with photos without the class as further background.

    What describes the object of a support by one vector is, of photos without it, that of the supports' mean.
    """
    if not negatives:
        return engine.joined(supports)
    positive, negative = (engine.kept(engine.joined(some)) for some in (supports, negatives))
    for name, value in negative.items():
        if value.ndim < _MAPS and name != "background" and np.issubdtype(value.dtype, np.floating):
            mean = positive[name].mean(1, keepdims=True, dtype=value.dtype)
            negative[name] = np.broadcast_to(mean, value.shape)
    both = {name: np.concatenate([value, negative[name]], 1) for name, value in positive.items()}
    return engine.restored(both)


def found(engine: Engine, parts: Sequence[View], support: Any, method: str) -> Found:
    """What of a class is found in a photo's parts; where they overlap, the mean, weighted towards their middles."""
    height, width = max(v.top + v.height for v in parts), max(v.left + v.width for v in parts)
    answers = [engine.match(v.query, support, size=(v.height, v.width), method=method) for v in parts]
    if len(parts) == 1:
        proba = answers[0].proba
    else:
        proba, weight = np.zeros((2, height, width), np.float32)
        for view, answer in zip(parts, answers, strict=True):
            rows, columns = slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)
            share = _ramp(view.top, view.height, height)[:, None] * _ramp(view.left, view.width, width)
            proba[rows, columns] += share * answer.proba
            weight[rows, columns] += share
        proba /= weight
    told = max((answer.presence for answer in answers if answer.presence is not None), default=None)
    return Found(proba, logit(surest(proba) if told is None else told), told)


def taught_supports(engine: Engine, concept: Taught) -> Any:
    """The supports of a concept, encoded, with the photos without the class that it chose; of copies: pixels that are
    decoded here stay with no concept.
    """
    negatives, tiles = concept.absent[: concept.choice.negatives], concept.choice.tiles
    both = (concept.supports, negatives)
    return against(engine, *([encoded(engine, replace(example), tiles) for example in some] for some in both))


def methods_to_try(engine: Engine, supports: int) -> tuple[str, ...]:
    """The methods among which to choose of so many supports: the engine's own, and that with the linear classifier,
    with which choosing was better than with `dense` and `prototype`; or the one that was asked for.
    """
    own, *others = engine.methods
    if engine.method != own:
        untrained = engine.method == own + WITH and not learns(engine.method, supports)
        return (own if untrained else engine.method,)
    return (own, *(name for name in others if name == own + WITH))


def probability(presence: Presence, sign: float) -> float:
    """The probability that the class is there, of a `Found.sign`."""
    return 1 / (1 + float(np.exp(-np.clip(presence.slope * sign + presence.offset, -30, 30))))


def moved(proba: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Probabilities of which those above `threshold` are above 0.5, so that classes of other thresholds compare."""
    threshold = min(max(threshold, 1e-6), 1 - 1e-6)
    for_it, against = proba * (1 - threshold), (1 - proba) * threshold
    return np.divide(for_it, for_it + against, dtype=np.float32)


def logit(share: float) -> float:
    """Of a probability, kept finite."""
    bounded = min(max(share, 1e-6), 1 - 1e-6)
    return float(np.log(bounded / (1 - bounded)))


def surest(proba: NDArray[np.float32]) -> float:
    """The mean probability of the surest pixels."""
    count = max(1, proba.size // _SUREST)
    return float(np.partition(proba.ravel(), proba.size - count)[-count:].mean())


def _cuts(length: int, tiles: int) -> list[tuple[int, int]]:
    """Begin and length of each of `tiles` parts that overlap."""
    tiles = min(tiles, length)
    part = min(length, -(-int(length * (1 + OVERLAP * (tiles - 1))) // tiles))
    return [(round(i * (length - part) / max(tiles - 1, 1)), part) for i in range(tiles)]


def _ramp(begin: int, length: int, whole: int) -> NDArray[np.float32]:
    """Weights of a part's rows: less towards an edge inside the photo."""
    edge = max(1, round(OVERLAP / (1 + OVERLAP) * length))
    weights = np.ones(length, np.float32)
    slope = np.minimum((np.arange(length, dtype=np.float32) + 1) / (edge + 1), 1)
    weights[:] = np.minimum(slope if begin > 0 else 1, slope[::-1] if begin + length < whole else 1)
    return weights
