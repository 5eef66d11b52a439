"""How much a query's score depends on which supports it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewseg.metrics.iou import episode_iou, miou


def reference_spread(table: NDArray[np.int64], draws: int, classes: Sequence[int]) -> dict[str, float]:
    """Of a table whose every `draws` rows are of one query with other supports, as shares of 1.

    `query_sd`: standard deviation of a query's IoU over its supports, mean over queries. `lowest`, `highest`: mIoU of a
    list with one draw a query. `worst`, `best`: mIoU where every query has the supports that serve it worst and best,
    which nobody can choose without the truth.
    """
    ious = episode_iou(table).reshape(-1, draws)
    lists = [miou(table[r::draws], classes) for r in range(draws)]
    first = draws * np.arange(len(ious))
    worst, best = (miou(table[first + chosen], classes) for chosen in (ious.argmin(1), ious.argmax(1)))
    spread = float(ious.std(1, ddof=1).mean())
    return {"query_sd": spread, "lowest": min(lists), "highest": max(lists), "worst": worst, "best": best}


def of_queries(table: NDArray[np.int64], draws: int) -> NDArray[np.int64]:
    """The table with a row a query, its `draws` rows added up: they are no independent episodes to resample."""
    summed = table.reshape(-1, draws, table.shape[1]).sum(1)
    summed[:, 0] = table[::draws, 0]
    return summed
