"""Trackers that come along: callbacks by the names `csv`, `wandb` and `mlflow`, for `train.callbacks=[NAME]`."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fewseg.callback import Callback
from fewseg.errors import UsageError
from fewseg.files import write_csv

HEADER = ("batches", "what", "value")


class Tracker(Callback):
    """Keeps an epoch's scores as it keeps the numbers of a line."""

    def epoch(self, batches: int, epoch: int, scores: Mapping[str, float], model: Any) -> None:
        self.step(batches, {"epoch": epoch} | {f"val/{name}": value for name, value in scores.items()})


class CsvLog(Tracker):
    """RUN/metrics.csv: a row for every number of every line and epoch, after how many batches."""

    name = "csv"

    def start(self, run: Path, config: Mapping[str, Any], *, batches: int) -> None:
        path, known = run / "metrics.csv", list[list[str]]()
        if path.exists():  # what was done after the checkpoint is done again
            with path.open(newline="") as file:
                known = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= batches]
        self.file = write_csv(path, [HEADER, *known]).open("a", newline="")

    def step(self, batches: int, values: Mapping[str, float]) -> None:
        csv.writer(self.file, lineterminator="\n").writerows((batches, name, value) for name, value in values.items())
        self.file.flush()

    def end(self, batches: int, error: BaseException | None) -> None:
        self.file.close()


class Wandb(Tracker):
    """A run of Weights & Biases, in its project `fewseg` (or WANDB_PROJECT's), under the run directory's name."""

    name = "wandb"

    def __init__(self) -> None:
        self.library = _library("wandb")

    def start(self, run: Path, config: Mapping[str, Any], *, batches: int) -> None:
        known = run / "wandb-id"
        wanted = known.read_text() if known.exists() else None
        project = os.environ.get("WANDB_PROJECT", "fewseg")
        self.run = self.library.init(project=project, name=run.name, id=wanted, config=dict(config), resume="allow")
        known.write_text(self.run.id)

    def step(self, batches: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=batches)

    def end(self, batches: int, error: BaseException | None) -> None:
        self.run.finish(exit_code=0 if error is None else 1)


class MLflow(Tracker):
    """A run of MLflow, where MLFLOW_TRACKING_URI says, under the run directory's name."""

    name = "mlflow"

    def __init__(self) -> None:
        self.library = _library("mlflow")

    def start(self, run: Path, config: Mapping[str, Any], *, batches: int) -> None:
        known = run / "mlflow-id"
        wanted = known.read_text() if known.exists() else None
        known.write_text(self.library.start_run(run_id=wanted, run_name=run.name).info.run_id)
        self.library.log_params({f"{group}.{key}": one for group, keys in config.items() for key, one in keys.items()})

    def step(self, batches: int, values: Mapping[str, float]) -> None:
        self.library.log_metrics(dict(values), step=batches)

    def end(self, batches: int, error: BaseException | None) -> None:
        self.library.end_run("FINISHED" if error is None else "FAILED")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(f"this needs {name}, which is not installed; install it with: pip install {name}") from error


TRACKERS: dict[str, type[Callback]] = {cls.name: cls for cls in (CsvLog, Wandb, MLflow)}
"""By name."""
