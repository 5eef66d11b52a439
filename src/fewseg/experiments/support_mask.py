"""Does the support mask matter? HDMNet with and without it (supplement Tab. 1 and Fig. 4).

Without it every support pixel counts as foreground, in training and in evaluation, or (`at_test_only`) only when a
model that was trained with it is measured. A data set with levels (scenes), trained on mixed ones, is measured on each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fewseg.errors import UsageError
from fewseg.experiments import plots as figures
from fewseg.experiments import supplement as published
from fewseg.experiments import sweep_results as results
from fewseg.experiments.measured import Measured, drop
from fewseg.experiments.plan import Plan
from fewseg.experiments.shown_episodes import Scene, scene_pictures
from fewseg.experiments.sweep import Cell, Measure, Results, cell_folder, run_sweep
from fewseg.experiments.sweep_results import Line
from fewseg.experiments.tables import Table, save
from fewseg.progress import Silent

NAME = "support-mask"
WITH, WITHOUT = "with", "without"
PICTURES = 3
"""Episodes of each kind of scene in the picture."""


@dataclass(frozen=True)
class SupportMask:
    """What the experiment found."""

    lines: tuple[Line, ...]
    """Settings (level, with | without)."""
    drops: tuple[Line, ...]
    """Settings (level, drop); the interval is paired: both are measured on the same episodes."""
    table: Table
    scenes: tuple[Scene, ...]
    """The episodes of the picture: simple ones, then complex ones; empty while a model is missing."""

    def drop(self, level: str = "", fold: int | None = None) -> Line:
        """The drop on a level and fold (None: the mean, or the only fold)."""
        found = [d for d in self.drops if level in ("", d.setting[0]) and fold == d.fold]
        return found[0] if found else next(d for d in self.drops if level in ("", d.setting[0]))


def run_support_mask(
    plan: Plan, *, at_test_only: bool = False, only_table: bool = False, progress: Silent | None = None
) -> SupportMask:
    """Train, measure and write `support-mask.csv`, `.json` and the figures (`support-mask-at-test...`) into `out`."""
    progress = progress or Silent()
    config = plan.config()
    if "support_mask" not in config.model.options:
        raise UsageError(f"{config.model.name} has no support_mask to take away; this experiment is HDMNet's")
    source = plan.source("test", progress=progress)
    folds, levels = plan.chosen_folds(source), test_levels(plan)
    cells = {fold: _cells(fold, levels, at_test_only=at_test_only) for fold in folds}
    found = run_sweep(plan, [c for pair in cells.values() for c in pair], only_table=only_table, progress=progress)
    lines, drops = _lines(source.name, folds, levels, found, at_test_only=at_test_only)
    table = _table(plan, source.name, lines, drops, at_test_only=at_test_only)
    scenes = () if any(one.miou is None for one in lines) else _scenes(plan, cells, levels, at_test_only, progress)
    result = SupportMask(tuple(lines), tuple(drops), table, scenes)
    drawn = {"": figures.drop_figure(lines, drops)}
    if scenes:
        drawn["scenes"] = figures.scene_figure(scenes)
    record = results.record(plan, folds) | {
        "at_test_only": at_test_only,
        "lines": [asdict(one) for one in (*lines, *drops)],
        "pictures": [scene.as_dict() for scene in scenes],
    }
    save(plan.out, f"{NAME}-at-test" if at_test_only else NAME, table, record, drawn)
    return result


def test_levels(plan: Plan) -> tuple[str, ...]:
    """The data set's levels to measure on: simple and complex where it was trained on both, else one without a name."""
    options = plan.config().data.options
    return ("simple", "complex") if options.get("level") == "mixed" else (options.get("level", ""),)


def _cells(fold: int, levels: Sequence[str], *, at_test_only: bool) -> list[Cell]:
    if at_test_only:
        measures = tuple(m for level in levels for m in (_measure(level), _measure(level, mask=False)))
        return [Cell(f"fold{fold}-{WITH}", fold, (), measures)]
    measures = tuple(_measure(level) for level in levels)
    return [
        Cell(f"fold{fold}-{WITH}", fold, (), measures),
        Cell(f"fold{fold}-{WITHOUT}", fold, ("model.support_mask=false",), measures),
    ]


def _measure(level: str, *, mask: bool = True) -> Measure:
    name = "-".join(part for part in ("report", level, "" if mask else "mask-removed") if part)
    return Measure(name, (f"data.level={level}",) if level else (), mask)


def _find(found: Results, fold: int, level: str, *, mask: bool, at_test_only: bool) -> Measured | None:
    if at_test_only:
        return found[f"fold{fold}-{WITH}", _measure(level, mask=mask).name]
    return found[f"fold{fold}-{WITH if mask else WITHOUT}", _measure(level).name]


def _lines(
    dataset: str, folds: Sequence[int], levels: Sequence[str], found: Results, *, at_test_only: bool
) -> tuple[list[Line], list[Line]]:
    paper = published.SUPPORT_MASK.get(dataset, {})
    lines, drops = [], []
    for level in levels:
        by_mask = {
            mask: {fold: _find(found, fold, level, mask=mask, at_test_only=at_test_only) for fold in folds}
            for mask in (True, False)
        }
        for mask, name in ((True, WITH), (False, WITHOUT)):
            # the paper trains without the mask too
            values = paper.get(mask) if mask or not at_test_only else None
            lines += results.fold_lines((level, name), folds, by_mask[mask].get, paper=values)
        for group in [[fold] for fold in folds] + ([list(folds)] if len(folds) > 1 else []):
            drops.append(_drop(level, group, by_mask))
    return lines, drops


def _drop(level: str, folds: Sequence[int], by_mask: Mapping[bool, Mapping[int, Measured | None]]) -> Line:
    pairs = [(a, b) for f in folds if (a := by_mask[True][f]) and (b := by_mask[False][f])]
    fold = folds[0] if len(folds) == 1 else None
    if len(pairs) < len(folds):
        return Line((level, "drop"), fold, None)
    difference = drop([a for a, _ in pairs], [b for _, b in pairs])
    hashes = pairs[0][0].hashes if fold is not None else ()
    count = sum(a.episodes for a, _ in pairs)
    return Line((level, "drop"), fold, difference.drop, difference.interval, hashes=hashes, episodes=count)


def _table(plan: Plan, dataset: str, lines: list[Line], drops: list[Line], *, at_test_only: bool) -> Table:
    shown = dataset in published.SUPPORT_MASK
    how = "removed at test time only" if at_test_only else "removed in training and test"
    return Table(
        f"{dataset}: the support mask, {how} (supplement Tab. 1)",
        results.columns("level", "support mask", with_published=shown),
        tuple(one.cells(with_published=shown) for one in (*lines, *drops)),
        (*results.notes(plan, lines, with_published=shown), "drop: paired bootstrap over the same episodes"),
    )


def _scenes(
    plan: Plan, cells: dict[int, list[Cell]], levels: Sequence[str], at_test_only: bool, progress: Silent
) -> tuple[Scene, ...]:
    """Episodes of the first fold: by level, or simple (one class in the query) and complex (several) ones."""
    pair = cells[next(iter(cells))]
    runs = [str(cell_folder(plan, cell)) for cell in pair]
    return scene_pictures(
        plan, runs[0], runs[-1], take_away=at_test_only, levels=levels, count=PICTURES, progress=progress
    )
