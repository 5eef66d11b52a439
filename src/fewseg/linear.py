"""`linear`: a linear classifier of positions, trained on a class's supports alone, on features that a model encoded.

In numpy, so that graphs and torch, on every device, answer alike.

After Boudiaf et al., "Few-Shot Segmentation Without Meta-Learning: A Good Transductive Inference Is All You Need?",
CVPR 2021 (RePRI), https://arxiv.org/abs/2012.06166: the first of its terms, the supports' cross-entropy; what it learns
of the query is left out.

    levels of unit length --> a weight for each channel --> scores, resized to the finest level's grid
    sum of the levels + bias --> logistic loss with the supports' shares of foreground + DECAY / 2 |weights|^2
    STEPS of Nesterov's accelerated gradient descent, from the classifier that says the same everywhere
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewseg.labels import IGNORE

Floats: TypeAlias = NDArray[np.float64]
"""Rounding to 32 bits adds up over the steps: engines would differ."""

LINEAR = "linear"
"""The method's name."""
WITH = "+linear"
"""What follows a method's name where its logits and the classifier's are averaged, if there are several supports."""
FINEST = "fine"
"""The finest level among a photo's and a support's features; the others' names end in `_unit`, and they have unit
length already.
"""
DECAY = 1e-4
STEPS = 100
BIAS = "bias"
"""Name of the bias (1,) among the weights of the levels (C,)."""
_POWER_STEPS, _SAFETY = 8, 1.5
"""Of the power iteration that finds how much the loss can bend with the channels, and a factor: with channels and bias
together it bends by less than the sum of both, and accelerated steps stay stable up to 4/3 of what they are made for.
"""


def classifies(method: str) -> bool:
    """Whether a method is this one, alone or with another."""
    return method == LINEAR or method.endswith(WITH)


def learns(method: str, supports: int) -> bool:
    """Whether a classifier is trained on so many supports of a class: beside another method not on one alone, where the
    mean was worse than the other.
    """
    return method == LINEAR or (method.endswith(WITH) and supports > 1)


def classifier(support: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """The weights that a class's supports give: features (K, C, h, w) by name, and `mask` (K, H, W) {0, 1, 255}."""
    levels = _levels(support)
    size = levels[FINEST].shape[-2:]
    down, across = (_mean(before, after) for before, after in zip(support["mask"].shape[-2:], size, strict=True))
    inside, known = (
        down @ part.astype(np.float64) @ across.T for part in (support["mask"] == 1, support["mask"] != IGNORE)
    )
    return learnt(levels, inside / np.maximum(known, 1e-12), known)


def lead(
    query: Mapping[str, NDArray[Any]], weights: Mapping[str, Floats], size: tuple[int, int]
) -> NDArray[np.float32]:
    """How far the foreground's logit is above the background's in a photo of features (C, h, w) by name: of `size`."""
    levels = _levels({name: value[None] for name, value in query.items()})
    found = np.full(levels[FINEST].shape[-2:], weights[BIAS].item())
    for name, maps in levels.items():
        found += _resized((weights[name] @ maps[0].reshape(maps.shape[1], -1)).reshape(maps.shape[2:]), found.shape)
    return _resized(found, size).astype(np.float32)


def learnt(levels: Mapping[str, Floats], share: Floats, known: Floats) -> dict[str, Floats]:
    """The weights of every level's channels, and the bias.

    `levels` are maps (K, C, h, w) of K supports, each with sides of its own; `known` and `share` (K, H, W), on the
    finest one's grid, are the share of every position that is labelled, and what of that is foreground.
    """
    maps = _Positions(levels, share.shape)
    labelled = max(float(known.mean()), 1e-6)
    means = {name: value / labelled for name, value in maps.back(known).items() if name != BIAS}
    maps.centre(means)
    start = float(np.clip((share * known).mean() / labelled, 1e-4, 1 - 1e-4))
    weights = {name: np.zeros(values.shape[1]) for name, values in maps.flat.items()}
    weights[BIAS] += np.log(start / (1 - start))
    steepest = maps.back((share - start) * known)
    length = _length(steepest)
    for _ in range(_POWER_STEPS):
        steepest = maps.back(
            known * maps.scores({name: value / max(length, 1e-12) for name, value in steepest.items()})
        )
        length = _length(steepest)
    # of centred levels, the loss bends with the bias alone by `labelled`, often far more than with any channel
    steps = dict.fromkeys(weights, 1 / (_SAFETY * length / 4 + DECAY)) | {BIAS: 4 / (_SAFETY * labelled)}
    ahead = weights
    for number in range(STEPS):
        slope = maps.back((_sigmoid(maps.scores(ahead)) - share) * known)
        moved = {
            name: value - steps[name] * (slope[name] + (DECAY * value if name != BIAS else 0))
            for name, value in ahead.items()
        }
        momentum = number / (number + 3)
        ahead = {name: value + momentum * (value - weights[name]) for name, value in moved.items()}
        weights = moved
    weights[BIAS] = weights[BIAS] - sum(float(weights[name] @ mean) for name, mean in means.items())
    return weights


class _Positions:
    """Levels (K, C, h, w) of different sides, and the bias, as what scores the positions (K, H, W) of one grid.

    By einsum: matrix products would take several threads for what is too small to share.
    """

    def __init__(self, levels: Mapping[str, Floats], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.flat = {name: maps.reshape(*maps.shape[:2], -1) for name, maps in levels.items()}
        self._sides = {name: _sides(maps.shape[-2:], shape[-2:]) for name, maps in levels.items()}
        self.flat[BIAS] = np.ones((shape[0], 1, 1), np.float64)
        self._sides[BIAS] = [np.ones((side, 1), np.float64) for side in shape[-2:]]

    def centre(self, means: Mapping[str, Floats]) -> None:
        self.flat |= {name: self.flat[name] - mean[:, None] for name, mean in means.items()}

    def scores(self, weights: Mapping[str, Floats]) -> Floats:
        found = np.zeros(self.shape)
        for name, (down, across) in self._sides.items():
            maps = np.einsum("c,kcl->kl", weights[name], self.flat[name])
            found += down @ maps.reshape(-1, down.shape[1], across.shape[1]) @ across.T
        return found

    def back(self, values: Floats) -> dict[str, Floats]:
        """The transpose of `scores`, over the number of positions."""
        values = values / values.size
        small = {name: down.T @ values @ across for name, (down, across) in self._sides.items()}
        return {
            name: np.einsum("kcl,kl->c", self.flat[name], maps.reshape(len(maps), -1)) for name, maps in small.items()
        }


def _levels(features: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """The levels (K, C, h, w) to classify, in full precision; those of one size are joined, by their names' order."""
    sizes: dict[str, list[Floats]] = {}
    for name in sorted(name for name in features if name.endswith("_unit")):
        value = features[name].astype(np.float64)
        sizes.setdefault(str(value.shape[-2:]), []).append(value)
    levels = {size: np.concatenate(values, 1) for size, values in sizes.items()}
    finest = features[FINEST].astype(np.float64)
    return levels | {FINEST: finest / np.maximum(np.linalg.norm(finest, axis=1, keepdims=True), 1e-12)}


def _sides(before: tuple[int, ...], after: tuple[int, ...]) -> list[Floats]:
    """Of each side, how much of each position a linear resize takes, as `ops.resize` does: (after, before)."""
    sides = []
    for old, new in zip(before, after, strict=True):
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        sides.append(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(old))).astype(np.float64))
    return sides


def _resized(maps: Floats, size: tuple[int, ...]) -> Floats:
    down, across = _sides(maps.shape[-2:], size)
    return down @ maps @ across.T


def _mean(before: int, after: int) -> Floats:
    """(after, before): of each position of a side that is made smaller, the share of those that it covers."""
    first, last = (np.arange(after) * before // after, -(-(np.arange(after) + 1) * before // after))
    inside = (np.arange(before) >= first[:, None]) & (np.arange(before) < last[:, None])
    return (inside / inside.sum(1, keepdims=True)).astype(np.float64)


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def _length(weights: Mapping[str, Floats]) -> float:
    return float(np.sqrt(sum(float(value @ value) for value in weights.values())))
