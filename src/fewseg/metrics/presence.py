"""Whether a class is there at all: how well scores of queries that hold it and of queries that do not come apart."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray


def presence_auc(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a query with the class has the higher score than one without it.

    Equal scores count half. NaN where there are none of either.
    """
    holding, lacking = int(present.sum()), int((~present).sum())
    if not holding or not lacking:
        return float("nan")
    ranks = scipy.stats.rankdata(scores)
    return float((ranks[present].sum() - holding * (holding + 1) / 2) / (holding * lacking))


def false_at_recall(scores: NDArray[np.float64], present: NDArray[np.bool_], recall: float) -> float:
    """Share of the queries without the class that are said to hold it, at the highest threshold at which at least
    `recall` of those with it are. NaN where there are none of either.
    """
    holding = np.sort(scores[present])[::-1]
    if not len(holding) or present.all():
        return float("nan")
    threshold = holding[int(np.ceil(recall * len(holding) - 1e-9)) - 1]
    return float((scores[~present] >= threshold).mean())
