"""An evaluation as a cell's directory keeps it: its numbers as JSON, the counts of its episodes as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.errors import DataError
from fewseg.evaluation.results import Results
from fewseg.files import replacing, write_json
from fewseg.metrics.intervals import bootstrap_miou, percentile_interval
from fewseg.metrics.iou import COLUMNS, miou

Interval = tuple[float, float]
DRAWS = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Measured:
    """The numbers of one evaluation; IoUs are shares of 1."""

    miou: float
    """Mean over repeats."""
    interval: Interval
    """95 %, from resampling episodes within classes."""
    fold: int
    novel: tuple[int, ...]
    seeds: tuple[int, ...]
    hashes: tuple[str, ...]
    """SHA-256 of every repeat's episodes."""
    episodes: int
    """In all repeats."""
    checkpoint: str
    """SHA-256 of the weights."""
    tables: tuple[NDArray[np.int64], ...]
    """Per repeat (episodes, 5) counts; columns as in `fewseg.metrics.iou.COLUMNS`."""


def from_tables(tables: Sequence[NDArray[np.int64]], *, fold: int, novel: Sequence[int], **others: Any) -> Measured:
    """Mean and interval of the counts of an evaluation."""
    return Measured(
        float(np.mean([miou(table, novel) for table in tables])),
        percentile_interval(bootstrap(tables, fold=fold, novel=novel)),
        fold=fold,
        novel=tuple(novel),
        episodes=sum(map(len, tables)),
        tables=tuple(tables),
        **others,
    )


def bootstrap(tables: Sequence[NDArray[np.int64]], *, fold: int, novel: Sequence[int]) -> NDArray[np.float64]:
    """(DRAWS,) mIoU, mean over repeats, of resampled episodes.

    The same folds and repeats resample the same episodes, so that two evaluations of the same episodes are paired;
    different ones are independent.
    """
    return np.mean(
        [bootstrap_miou(table, novel, draws=DRAWS, seed=1000 * fold + r) for r, table in enumerate(tables)], axis=0
    )


def samples_of(measured: Measured) -> NDArray[np.float64]:
    """The bootstrap samples of an evaluation."""
    return bootstrap(measured.tables, fold=measured.fold, novel=measured.novel)


def drop(first: Sequence[Measured], second: Sequence[Measured]) -> tuple[float, Interval]:
    """Mean over pairs (folds) of the mIoU of `first` minus that of `second`, as a share of 1, and its 95 % interval.

    The interval is paired: both are resampled alike. Raises DataError if a pair did not see the same episodes.
    """
    pairs = list(zip(first, second, strict=True))
    for a, b in pairs:
        if a.hashes != b.hashes:
            raise DataError(f"fold {a.fold}: the two were measured on different episodes; measure them again")
    samples = np.mean([samples_of(a) - samples_of(b) for a, b in pairs], axis=0)
    return float(np.mean([a.miou - b.miou for a, b in pairs])), percentile_interval(samples)


def mean_of(folds: Sequence[Measured]) -> tuple[float, Interval]:
    """Mean mIoU over folds, with its 95 % interval."""
    samples = np.mean([samples_of(measured) for measured in folds], axis=0)
    return float(np.mean([measured.miou for measured in folds])), percentile_interval(samples)


def save_measured(folder: Path, name: str, results: Results, asked: dict[str, Any]) -> None:
    """Write NAME.csv, then NAME.json, which says that the measurement is whole; `asked` is what it was made for."""
    with replacing(folder / f"{name}.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("repeat", *COLUMNS))
        for r, table in enumerate(results.tables):
            writer.writerows([r, *row] for row in table.tolist())
    write_json(folder / f"{name}.json", {"asked": asked, "report": results.as_dict()})


def load_measured(folder: Path, name: str, asked: dict[str, Any]) -> Measured | None:
    """What `save_measured` wrote; None where it is not there, or was made for something else."""
    try:
        content = json.loads((folder / f"{name}.json").read_text())
        with open(folder / f"{name}.csv", newline="") as file:
            rows = np.array([[int(cell) for cell in row] for row in list(csv.reader(file))[1:]], np.int64)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / name} is damaged ({error}); remove {name}.json there to measure again") from error
    if content["asked"] != json.loads(json.dumps(asked)):
        return None
    results = content["report"]
    return from_tables(
        [rows[rows[:, 0] == r, 1:] for r in range(len(results["repeats"]))],
        fold=results["fold"]["index"],
        novel=results["fold"]["novel"],
        seeds=tuple(r["seed"] for r in results["repeats"]),
        hashes=tuple(r["episode_sha256"] for r in results["repeats"]),
        checkpoint=results["checkpoint"].get("sha256", ""),
    )
