"""Which temperature distils best? (supplement Tab. 2: T = 0.5, 1, 2, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fewseg.errors import UsageError
from fewseg.experiments import plots as figures
from fewseg.experiments import supplement as published
from fewseg.experiments import sweep_results as results
from fewseg.experiments.plan import Plan
from fewseg.experiments.sweep import Cell, Measure, run_sweep
from fewseg.experiments.sweep_results import Line
from fewseg.experiments.tables import Table, save
from fewseg.progress import Silent

NAME = "temperature"
VALUES = (0.5, 1.0, 2.0, 5.0)
_MEASURE = Measure("report")


@dataclass(frozen=True)
class Temperatures:
    """What the sweep found."""

    lines: tuple[Line, ...]
    """Settings (temperature,)."""
    table: Table


def run_temperature(
    plan: Plan,
    *,
    values: Sequence[float] = VALUES,
    only_table: bool = False,
    progress: Silent | None = None,
) -> Temperatures:
    """Train and measure every temperature on every fold; write `temperature.csv`, `.json` and the figure."""
    config = plan.config()
    if "temperature" not in config.model.options:
        raise UsageError(f"{config.model.name} distils nothing, so it has no temperature; this experiment is HDMNet's")
    if not values or min(values) <= 0:
        raise UsageError(f"temperatures are above 0; got {', '.join(map(str, values)) or 'none'}")
    source = plan.source("test", progress=progress)
    folds = plan.chosen_folds(source)
    cells = {
        (value, fold): Cell(f"fold{fold}-T{value:g}", fold, (f"model.temperature={value}",), (_MEASURE,))
        for value in values
        for fold in folds
    }
    found = run_sweep(plan, list(cells.values()), only_table=only_table, progress=progress)
    paper = published.TEMPERATURE.get(source.name, {})
    lines: list[Line] = []
    for value in values:
        measured = {fold: found[cells[value, fold].name, _MEASURE.name] for fold in folds}
        lines += results.fold_lines((f"{value:g}",), folds, measured.get, paper=paper.get(value))
    table = Table(
        f"{source.name}: temperature of the distillation (supplement Tab. 2)",
        results.columns("T", with_published=bool(paper)),
        tuple(one.cells(with_published=bool(paper)) for one in lines),
        results.notes(plan, lines, with_published=bool(paper)),
    )
    record = results.record(plan, folds) | {"values": list(values), "lines": [asdict(one) for one in lines]}
    figure = figures.setting_figure(lines, [(f"{v:g}",) for v in values], label="temperature")
    save(plan.out, NAME, table, record, {"": figure})
    return Temperatures(tuple(lines), table)
