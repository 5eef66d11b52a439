"""How sure a number is: Student's t over repeats, and the bootstrap over episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are used
from numpy.typing import NDArray


def t_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of repeats by Student's t; needs two of them."""
    mean = float(values.mean())
    half = float(scipy.special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def deviation_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the standard deviation of repeats by chi-squared; needs two of them."""
    degrees, deviation = len(values) - 1, float(values.std(ddof=1))
    low, high = (deviation * math.sqrt(degrees / scipy.special.chdtri(degrees, above)) for above in (0.025, 0.975))
    return float(low), float(high)


def percentile_interval(
    samples: NDArray[np.float64], *, low: float = 0.025, high: float = 0.975
) -> tuple[float, float]:
    """What lies between two quantiles of bootstrap samples, 95 % of them by default."""
    below, above = np.quantile(samples, [low, high])
    return float(below), float(above)


def resample(rng: np.random.Generator, count: int, *, draws: int) -> NDArray[np.int64]:
    """(draws, count) how often each of `count` episodes is drawn when as many are drawn with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)


def bootstrap_miou(
    table: NDArray[np.int64], classes: Sequence[int], *, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """(draws,) mIoU of episodes that are resampled within their classes.

    The same seed draws the same episodes, so that the samples of two tables can be paired.
    """
    rng = np.random.default_rng(seed)
    ious = np.zeros((draws, len(classes)))
    for column, c in enumerate(classes):
        rows = table[table[:, 0] == c, 1:3]
        if len(rows):
            sums = resample(rng, len(rows), draws=draws) @ rows
            ious[:, column] = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return ious.mean(1)


def bootstrap_interval(
    table: NDArray[np.int64], classes: Sequence[int], *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of mIoU from resampling episodes, within classes."""
    samples = bootstrap_miou(table, classes, draws=draws, seed=seed)
    return percentile_interval(samples, low=(1 - level) / 2, high=(1 + level) / 2)
