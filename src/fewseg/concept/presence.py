"""Presence calibrated on photos with the class and without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewseg.concept.taught import Presence

_STEPS = 200


def calibrated(signs: NDArray[np.float64], there: NDArray[np.bool_]) -> Presence | None:
    """The logistic that tells photos with the class from those without, by the sign (N) of each; None without both.

    Both kinds weigh the same, whatever their numbers, and no photo is wholly certain (Platt, 1999). A slope of 1 is
    taken for granted as much as one photo's weight: a sign is the logit of a probability.
    """
    present, absent = np.count_nonzero(there), np.count_nonzero(~there)
    if not present or not absent:
        return None
    truth = np.where(there, (present + 1) / (present + 2), 1 / (absent + 2))
    weight = np.where(there, 0.5 / present, 0.5 / absent) * len(signs)
    centre = float(signs.mean())
    inputs = np.stack([signs - centre, np.ones_like(signs)], 1)
    prior, trust = np.array([1.0, 0.0]), np.diag([1.0, 1e-3])
    found = prior.copy()
    most = np.linalg.inv((inputs * weight[:, None]).T @ inputs / 4 + trust)  # no curve is steeper: no step is too far
    for _ in range(_STEPS):
        told = 1 / (1 + np.exp(-np.clip(inputs @ found, -30, 30)))
        found = found - most @ (inputs.T @ (weight * (told - truth)) + trust @ (found - prior))
    slope = float(np.clip(found[0], 0, 1e6))
    return Presence(slope, float(np.clip(found[1] - slope * centre, -1e6, 1e6)), int(absent))
