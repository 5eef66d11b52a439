"""An evaluation as a cell's directory keeps it: its numbers as JSON, the counts of its episodes as CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.errors import DataError
from fewseg.evaluation.results import Results
from fewseg.files import write_csv, write_json
from fewseg.metrics.intervals import LEAST, bootstrap_miou, fewest_episodes, percentile_interval
from fewseg.metrics.iou import COLUMNS, miou

Interval = tuple[float, float]
DRAWS = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The counts of one evaluation, and its numbers; IoUs are shares of 1."""

    fold: int
    novel: tuple[int, ...]
    seeds: tuple[int, ...]
    hashes: tuple[str, ...]
    """SHA-256 of every repeat's episodes."""
    checkpoint: str
    """SHA-256 of the weights."""
    tables: tuple[NDArray[np.int64], ...]
    """Per repeat (episodes, 5) counts; columns as in `fewseg.metrics.iou.COLUMNS`."""
    drawn_only: bool = False
    """Whether a class without episodes is left out, as the protocol says; else its IoU is 0."""

    @property
    def episodes(self) -> int:
        """In all repeats."""
        return sum(map(len, self.tables))

    @property
    def miou(self) -> float:
        """Mean over repeats."""
        return float(np.mean([miou(t, scored(t, self.novel, drawn_only=self.drawn_only)) for t in self.tables]))

    @property
    def enough(self) -> bool:
        """Whether resampling its episodes tells how sure its mIoU is."""
        return fewest_episodes(np.concatenate(self.tables), self.novel) >= LEAST

    @cached_property
    def samples(self) -> NDArray[np.float64]:
        """Bootstrap samples of the mean, from resampling episodes within classes."""
        return bootstrap(self.tables, fold=self.fold, novel=self.novel, drawn_only=self.drawn_only)


def scored(table: NDArray[np.int64], novel: Sequence[int], *, drawn_only: bool) -> tuple[int, ...]:
    """The classes that the mean over a table's episodes is over."""
    return tuple(c for c in novel if not drawn_only or (table[:, 0] == c).any())


def bootstrap(
    tables: Sequence[NDArray[np.int64]], *, fold: int, novel: Sequence[int], drawn_only: bool = False
) -> NDArray[np.float64]:
    """(DRAWS,) mIoU, mean over repeats, of resampled episodes.

    The same folds and repeats resample the same episodes, so that two evaluations of the same episodes are paired;
    different ones are independent.
    """
    samples = [
        bootstrap_miou(table, scored(table, novel, drawn_only=drawn_only), draws=DRAWS, seed=1000 * fold + r)
        for r, table in enumerate(tables)
    ]
    return np.mean(samples, axis=0)


def drop(first: Sequence[Measured], second: Sequence[Measured]) -> tuple[float, Interval | None]:
    """Mean over pairs (folds) of the mIoU of `first` minus that of `second`, as a share of 1, and its 95 % interval;
    None where a class has too few episodes for one, and where neither finds anything.

    The interval is paired: both are resampled alike. Raises DataError if a pair did not see the same episodes.
    """
    pairs = list(zip(first, second, strict=True))
    for a, b in pairs:
        if a.hashes != b.hashes:
            raise DataError(f"fold {a.fold}: the two were measured on different episodes; measure them again")
    samples = np.mean([a.samples - b.samples for a, b in pairs], axis=0)
    enough = all(a.enough for a in first) and any(one.miou for one in (*first, *second))
    return float(np.mean([a.miou - b.miou for a, b in pairs])), percentile_interval(samples) if enough else None


def mean_of(folds: Sequence[Measured]) -> tuple[float, Interval | None]:
    """Mean mIoU over folds, with its 95 % interval; None where a class has too few episodes, or nothing is found."""
    samples = np.mean([measured.samples for measured in folds], axis=0)
    enough = all(measured.enough for measured in folds) and any(measured.miou for measured in folds)
    return float(np.mean([measured.miou for measured in folds])), percentile_interval(samples) if enough else None


def save_measured(folder: Path, name: str, results: Results, asked: dict[str, Any]) -> None:
    """Write NAME.csv, then NAME.json, which says that the measurement is whole; `asked` is what it was made for."""
    rows = [[r, *row] for r, table in enumerate(results.tables) for row in table.tolist()]
    write_csv(folder / f"{name}.csv", [("repeat", *COLUMNS), *rows])
    write_json(folder / f"{name}.json", {"asked": asked, "report": results.as_dict()})


def load_measured(folder: Path, name: str, asked: dict[str, Any]) -> Measured | None:
    """What `save_measured` wrote; None where it is not there, or was made for something else."""
    try:
        content = json.loads((folder / f"{name}.json").read_text())
        rows = np.loadtxt(folder / f"{name}.csv", np.int64, delimiter=",", skiprows=1, ndmin=2)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / name} is damaged ({error}); remove {name}.json there to measure again") from error
    if content["asked"] != json.loads(json.dumps(asked)):
        return None
    return _measured(
        content["report"], tuple(rows[rows[:, 0] == r, 1:] for r in range(len(content["report"]["repeats"])))
    )


def measured_of(results: Results) -> Measured:
    """The counts of an evaluation, a row a query."""
    return _measured(results.as_dict(), tuple(results.independent))


def _measured(results: dict[str, Any], tables: tuple[NDArray[np.int64], ...]) -> Measured:
    return Measured(
        tables=tables,
        fold=results["fold"]["index"],
        novel=tuple(results["fold"]["novel"]),
        seeds=tuple(r["seed"] for r in results["repeats"]),
        hashes=tuple(r["episode_sha256"] for r in results["repeats"]),
        checkpoint=results["checkpoint"].get("sha256", ""),
        drawn_only=results.get("protocol", {}).get("undrawn") == "left out",
    )
