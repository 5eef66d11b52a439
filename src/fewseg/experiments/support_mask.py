"""Does the support mask matter? HDMNet with and without it (supplement Tab. 1 and Fig. 4).

Without it every support pixel counts as foreground, in training and in evaluation, or (`at_test_only`) only when a
model that was trained with it is measured. A data set with levels (scenes), trained on mixed ones, is measured on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure

from fewseg.errors import UsageError
from fewseg.experiments import supplement as published
from fewseg.experiments.lines import Line, fold_lines, lines_table
from fewseg.experiments.measured import Measured
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import COLORS, point
from fewseg.experiments.shown_episodes import scene_figure, scene_pictures
from fewseg.experiments.sweep import Cell, Measure, Results, cell_folder, run_sweep
from fewseg.experiments.tables import Table, save
from fewseg.progress import Silent
from fewseg.report.contents import Panel
from fewseg.report.figures import plain_text, tidy

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
    scenes: tuple[Panel, ...]
    """The episodes of the picture, in the groups simple and complex; empty while a model is missing."""

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
    cells = [cell for fold in folds for cell in _cells(fold, levels, at_test_only=at_test_only)]
    found = run_sweep(plan, cells, only_table=only_table, progress=progress)
    lines, drops = _lines(source.name, folds, levels, found, at_test_only=at_test_only)
    how = "removed at test time only" if at_test_only else "removed in training and test"
    table = lines_table(
        plan,
        f"{source.name}: the support mask, {how} (supplement Tab. 1)",
        ("level", "support mask"),
        (*lines, *drops),
        with_published=source.name in published.SUPPORT_MASK,
        note="drop: paired bootstrap over the same episodes",
    )
    drawn, scenes = {"": drop_figure(lines, drops)}, ()
    if all(one.miou is not None for one in lines):
        first = [str(cell_folder(plan, cell)) for cell in cells if cell.fold == folds[0]]
        scenes = scene_pictures(
            plan, first[0], first[-1], take_away=at_test_only, levels=levels, count=PICTURES, progress=progress
        )
        drawn["scenes"] = scene_figure(scenes)
    record = plan.record(folds) | {
        "at_test_only": at_test_only,
        "lines": [asdict(one) for one in (*lines, *drops)],
        "pictures": [
            {
                "kind": scene.group,
                "class": scene.class_name,
                "episode": scene.caption,
                "iou_with": scene.iou,
                "iou_without": scene.others[0].iou,
            }
            for scene in scenes
        ],
    }
    save(plan.out, f"{NAME}-at-test" if at_test_only else NAME, table, record, drawn)
    return SupportMask(tuple(lines), tuple(drops), table, scenes)


def test_levels(plan: Plan) -> tuple[str, ...]:
    """The data set's levels to measure on: simple and complex where it was trained on both, else one without a name."""
    options = plan.config().data.options
    return ("simple", "complex") if options.get("level") == "mixed" else (options.get("level", ""),)


def _cells(fold: int, levels: Sequence[str], *, at_test_only: bool) -> list[Cell]:
    """What is trained on a fold, and measured."""
    if at_test_only:
        measures = tuple(_measure(level, mask=mask) for level in levels for mask in (True, False))
        return [Cell(f"fold{fold}-{WITH}", fold, (), measures)]
    measures = tuple(_measure(level) for level in levels)
    without = Cell(f"fold{fold}-{WITHOUT}", fold, ("model.support_mask=false",), measures)
    return [Cell(f"fold{fold}-{WITH}", fold, (), measures), without]


def _measure(level: str, *, mask: bool = True) -> Measure:
    name = "-".join(part for part in ("report", level, "" if mask else "mask-removed") if part)
    return Measure(name, (f"data.level={level}",) if level else (), mask)


def _lines(
    dataset: str, folds: Sequence[int], levels: Sequence[str], found: Results, *, at_test_only: bool
) -> tuple[list[Line], list[Line]]:
    """The lines of every level with the mask and without it, and those of the drops."""
    paper = published.SUPPORT_MASK.get(dataset, {})
    lines, drops = [], []
    for level in levels:
        by_mask: dict[bool, dict[int, Measured | None]] = {}
        for mask, name in ((True, WITH), (False, WITHOUT)):
            cell = WITH if at_test_only else name
            measure = _measure(level, mask=mask or not at_test_only)
            by_mask[mask] = {fold: found[f"fold{fold}-{cell}", measure.name] for fold in folds}
            # the paper trains without the mask too
            values = paper.get(mask) if mask or not at_test_only else None
            lines += fold_lines((level, name), folds, by_mask[mask], paper=values)
        drops += fold_lines((level, "drop"), folds, by_mask[True], by_mask[False])
    return lines, drops


def drop_figure(lines: Sequence[Line], drops: Sequence[Line]) -> Figure:
    """With and without the support mask, by level and fold, and the drop with its paired interval."""
    groups = [(one.setting[0], one.fold) for one in drops]
    figure = Figure(figsize=(5.4 + 0.7 * len(groups), 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = {WITH: (-0.12, COLORS[0], "o"), WITHOUT: (0.12, COLORS[5], "s")}
    for one in lines:
        level, name = one.setting
        x, (shift, color, marker) = groups.index((level, one.fold)), styles[name]
        label = f"{name} support mask" if x == 0 else ""
        point(left, x + shift, one, color=color, marker=marker, label=label)
    for x, one in enumerate(drops):
        point(right, x, one, color="#000000", marker="D")
    labels = [f"{plain_text(level)}\n{'mean' if fold is None else f'fold {fold}'}".strip() for level, fold in groups]
    for axes, text in ((left, "mIoU (%)"), (right, "drop (mIoU points)")):
        axes.set_xticks(range(len(groups)), labels)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_ylim(min(0, axes.get_ylim()[0]), max(1, axes.get_ylim()[1]))  # models that find nothing: no scale
        tidy(axes, y=text)
    right.axhline(0, color="#9aa3af", linewidth=0.8, zorder=1)
    if left.get_legend_handles_labels()[0]:
        figure.legend(*left.get_legend_handles_labels(), fontsize=7, frameon=False, ncols=2, loc="outside upper center")
    return figure
