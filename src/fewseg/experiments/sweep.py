"""Sweeps: cells that are trained and measured, each in its own directory, and never twice.

A cell is a run directory under OUT/cells, so every tool for runs works on it. A finished cell is left alone, one that
was killed goes on from its last checkpoint. The base learner is trained once per fold, under OUT/foldF, and shared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewseg.build import takes_base_learner
from fewseg.config import Config
from fewseg.errors import FewsegError, StoppedError
from fewseg.evaluation.benchmark import repeat_seeds
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.protocol_files import find_protocol
from fewseg.experiments.at_once import run_jobs
from fewseg.experiments.measured import Measured, load_measured, save_measured
from fewseg.experiments.plan import Plan
from fewseg.progress import Bars, Silent
from fewseg.report.contents import gathered
from fewseg.runtime.heap import keep_freed_memory
from fewseg.storage.opening import open_target
from fewseg.storage.run_directory import RunDirectory
from fewseg.training.loop import ensure_base, train


@dataclass(frozen=True)
class Measure:
    """One evaluation of a cell's model."""

    name: str
    words: tuple[str, ...] = ()
    """Overrides at test time, such as `data.level=simple`."""
    support_mask: bool = True
    """False takes the support mask away from a model that was trained with it."""


@dataclass(frozen=True)
class Cell:
    """One training with its measurements."""

    name: str
    fold: int
    words: tuple[str, ...]
    """Overrides of the plan's configuration."""
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Setting:
    """What is measured on every fold: a line of the table, with the cell and the measurement that it comes from."""

    texts: tuple[str, ...]
    """The line's first cells."""
    cell: str
    """The cell's name after its fold."""
    words: tuple[str, ...] = ()
    """The cell's overrides."""
    measure: Measure = Measure("report")
    key: Any = None
    """Where the paper's values of it stand in a table of `supplement`."""


def run_sweep(
    plan: Plan, settings: Sequence[Setting], folds: Sequence[int], *, only_table: bool, progress: Silent
) -> dict[tuple[str, ...], dict[int, Measured | None]]:
    """Train and measure what is missing of the settings, and return all measurements by a setting's texts and fold.

    `only_table` reads what is there; a measurement that is missing is None. A failure or Ctrl-C stops the sweep and
    keeps what is finished; the same call goes on.
    """
    cells = {
        (name, fold): Cell(f"fold{fold}-{name}", fold, same[0].words, tuple(s.measure for s in same))
        for fold in folds
        for name, same in gathered((s.cell, s) for s in settings).items()
    }
    for cell in cells.values():  # a mistake shows before anything is trained
        repeat_seeds(find_protocol(plan.protocol, dataset=cell_config(plan, cell).data.name), plan.repeats)
    if not only_table:
        run_cells(plan, list(cells.values()), progress=progress)
    found = {key: read_cell(plan, cell) for key, cell in cells.items()}
    return {s.texts: {fold: found[s.cell, fold][s.measure.name] for fold in folds} for s in settings}


def run_cells(plan: Plan, cells: Sequence[Cell], *, progress: Silent) -> None:
    """Train and measure what is missing of the cells, `plan.jobs` at once."""
    missing = [cell for cell in cells if None in read_cell(plan, cell).values()]
    if len(missing) < len(cells):
        progress.log(f"{len(cells) - len(missing)} of {len(cells)} cells are finished already")
    with resumable():
        if min(plan.jobs, len(missing)) <= 1:
            for cell in missing:
                run_cell(plan, cell, progress=progress)
        else:
            first = {cell.fold: cell for cell in reversed(missing) if _own_base(plan, cell)}
            _run_at_once(plan, list(first.values()), base_only=True, progress=progress)
            _run_at_once(plan, missing, base_only=False, progress=progress)


AGAIN = "the same command"
"""What goes on with a training that ended early."""


@contextmanager
def resumable() -> Iterator[None]:
    """A stop, too, says that the same command goes on."""
    stopped = StoppedError(f"stopped; what is finished is kept, and {AGAIN} goes on with the rest")
    try:
        yield
    except KeyboardInterrupt:
        raise stopped from None
    except FewsegError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise stopped from None
        raise


def cell_folder(plan: Plan, name: str) -> Path:
    """The run directory of the cell of that name."""
    return plan.out / "cells" / name


def cell_config(plan: Plan, cell: Cell) -> Config:
    """The configuration that the cell is trained by; `{fold}` in `base.run` stands for its fold."""
    config = plan.config(*cell.words, f"data.fold={cell.fold}")
    if config.base.run is not None:
        config.base.run = config.base.run.replace("{fold}", str(cell.fold))
    elif takes_base_learner(config):
        config.base.run = str(_base_home(plan, cell).base_learner)
    return config


def _own_base(plan: Plan, cell: Cell) -> bool:
    """Whether the cell takes the sweep's own base learner of its fold."""
    return cell_config(plan, cell).base.run == str(_base_home(plan, cell).base_learner)


def _base_home(plan: Plan, cell: Cell) -> RunDirectory:
    # the configuration of a cell names it: from any directory the same
    return RunDirectory(plan.out.resolve() / f"fold{cell.fold}")


def read_cell(plan: Plan, cell: Cell) -> dict[str, Measured | None]:
    """The cell's measurements that are there and were made for this plan."""
    folder = cell_folder(plan, cell.name)
    run = RunDirectory(folder)
    if run.exists:
        run.check(cell_config(plan, cell), resume=True)
    return {m.name: load_measured(folder, m.name, _asked(plan, m)) for m in cell.measures}


def _asked(plan: Plan, measure: Measure) -> dict[str, Any]:
    """What a measurement depends on, beside the cell's configuration."""
    return asdict(measure) | {"protocol": plan.protocol, "episodes": plan.episodes, "repeats": plan.repeats}


def train_base(plan: Plan, cell: Cell, *, progress: Silent) -> None:
    """Train the base learner of the cell's fold, unless it is there or given."""
    if _own_base(plan, cell):
        config = cell_config(plan, cell)
        config.base.run = None
        ensure_base(config, _base_home(plan, cell), resume=True, again=AGAIN, progress=progress)


def run_cell(plan: Plan, cell: Cell, *, progress: Silent) -> None:
    """Train the cell, if it is not, and take the measurements that are missing."""
    config, folder = cell_config(plan, cell), cell_folder(plan, cell.name)
    progress.log(f"cell {cell.name}")
    run = RunDirectory(folder)
    if not run.is_finished(config):
        train_base(plan, cell, progress=progress)
        train(config, folder, resume=run.exists, again=AGAIN, progress=progress)
    for measure in cell.measures:
        if load_measured(folder, measure.name, _asked(plan, measure)) is not None:
            continue
        opened = open_target(str(folder), measure.words, device=plan.device, support_mask=measure.support_mask)
        results = evaluate(
            opened.model,
            plan.benchmark(opened, progress=progress),
            workers=plan.workers,
            cache_gb=plan.cache_gb,
            weights=opened.weights,
            progress=progress,
            title=f"{cell.name}, {measure.name}",
        )
        save_measured(folder, measure.name, results, _asked(plan, measure))


def _run_at_once(plan: Plan, cells: Sequence[Cell], *, base_only: bool, progress: Silent) -> None:
    """Run cells, or only train their base learners, `plan.jobs` at once."""
    told = {"plan": asdict(plan) | {"out": str(plan.out)}, "base_only": base_only}
    jobs = {f"fold{c.fold}-base" if base_only else c.name: told | {"cell": asdict(c)} for c in cells}
    title = "base learners" if base_only else "cells"
    how: dict[str, Any] = {"module": __spec__.name, "folder": plan.out / "jobs", "at_once": plan.jobs}
    run_jobs(jobs, title=title, progress=progress, **how)


def main() -> None:
    """A process of `_run_at_once`: its only argument is the job's file."""
    keep_freed_memory()
    job = json.loads(Path(sys.argv[1]).read_text())
    plan = Plan(**job["plan"] | {"out": Path(job["plan"]["out"])})
    measures = tuple(Measure(**m) for m in job["cell"]["measures"])  # words and folds are lists now, which do as well
    cell = Cell(**job["cell"] | {"measures": measures})
    try:
        (train_base if job["base_only"] else run_cell)(plan, cell, progress=Bars())
    except FewsegError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
