"""How sure a number is: Student's t over repeats, and the bootstrap over episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are used
from numpy.typing import NDArray

LEAST = 5
"""Episodes of a class from which on resampling them tells how sure its IoU is; of one, every sample is the same."""


def miou_interval(
    tables: Sequence[NDArray[np.int64]], mious: NDArray[np.float64], classes: Sequence[int]
) -> tuple[tuple[float, float] | None, str]:
    """95 % interval of mIoU, within [0, 1], and what it is: Student's t over repeats (`mious`), or a bootstrap over the
    episodes of one (`tables`, of the scored `classes`).

    None where one repeat has fewer than `LEAST` episodes of some class; the text then says so.
    """
    if len(tables) > 1:
        return bounded_t_interval(mious), f"Student's t over {len(tables)} repeats"
    if (fewest := fewest_episodes(tables[0], classes)) < LEAST:
        return None, f"too few episodes: {fewest} of a class, an interval needs {LEAST}, or several repeats"
    return bootstrap_interval(tables[0], classes), "bootstrap over episodes"


def fewest_episodes(table: NDArray[np.int64], classes: Sequence[int]) -> int:
    """Episodes of the class that has the fewest of those that have any."""
    counts = [int((table[:, 0] == c).sum()) for c in classes]
    return min((count for count in counts if count), default=0)


def two_sided_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p that a difference is none, by bootstrap samples of it: the share on the other side of 0, doubled."""
    return min(1.0, 2 * float(min((differences <= 0).mean(), (differences >= 0).mean())))


def seeds_p_value(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Two-sided p that two methods have the same mean over training seeds: Student's t on the pairs of a seed.

    None for fewer than two pairs, and where all differ by the same.
    """
    differences = np.subtract(ours, theirs)
    if len(differences) < 2 or not (spread := float(differences.std(ddof=1))):
        return None
    t = abs(float(differences.mean())) / (spread / math.sqrt(len(differences)))
    return float(2 * scipy.special.stdtr(len(differences) - 1, -t))


def t_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of repeats by Student's t; needs two of them."""
    mean = float(values.mean())
    half = float(scipy.special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def bounded_t_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The same of shares of 1, within [0, 1]: over two repeats Student's t goes far beyond what an IoU can be."""
    low, high = t_interval(values)
    return max(0.0, low), min(1.0, high)


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
