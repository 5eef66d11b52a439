"""Does the support mask matter? HDMNet with and without it (supplement Tab. 1 and Fig. 4).

Without it every support pixel counts as foreground, in training and in evaluation, or (`at_test_only`) only when a
model that was trained with it is measured. A data set with levels (scenes), trained on mixed ones, is measured on each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from matplotlib.figure import Figure

from fewseg.experiments import supplement as published
from fewseg.experiments.lines import Line, fold_lines, lines_table
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import COLORS, point, say_nothing_found
from fewseg.experiments.shown_episodes import scene_figure, scene_pictures
from fewseg.experiments.sweep import Measure, Setting, cell_folder, run_sweep
from fewseg.experiments.tables import Table, save
from fewseg.progress import Silent
from fewseg.report.contents import Panel
from fewseg.report.figures import plain_text, tidy

NAME = "support-mask"
WITH, WITHOUT = "with", "without"


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
    plan.check_option("support_mask", "has no support_mask to take away")
    source = plan.source("test", progress=progress)
    folds, levels = plan.chosen_folds(source), test_levels(plan)
    settings = list(mask_settings(levels, at_test_only=at_test_only))
    paper, notes = published.beside(published.SUPPORT_MASK, source, plan.config().model.backbone)
    found = run_sweep(plan, settings, folds, only_table=only_table, progress=progress)
    lines = [line for s in settings for line in fold_lines(s.texts, folds, found[s.texts], paper=paper.get(s.key))]
    ways = {level: (found[level, WITH], found[level, WITHOUT]) for level in levels}
    drops = [line for level, two in ways.items() for line in fold_lines((level, "drop"), folds, *two)]
    how = "removed at test time only" if at_test_only else "removed in training and test"
    table = lines_table(
        plan,
        f"{source.name}: the support mask, {how} (supplement Tab. 1)",
        ("level", "support mask"),
        (*lines, *drops),
        with_published=bool(paper),
        notes=(*notes, "drop: paired bootstrap over the same episodes"),
    )
    drawn, scenes = {"": drop_figure(lines, drops)}, ()
    if all(one.miou is not None for one in lines):
        runs = [str(cell_folder(plan, f"fold{folds[0]}-{s.cell}")) for s in settings[:2]]
        scenes = tuple(scene_pictures(plan, *runs, take_away=at_test_only, levels=levels, progress=progress))
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


def mask_settings(levels: Sequence[str], *, at_test_only: bool) -> Iterator[Setting]:
    """With the mask and without it, on every level."""
    for level in levels:
        measure = Measure(f"report-{level}" if level else "report", (f"data.level={level}",) if level else ())
        removed = replace(measure, name=f"{measure.name}-mask-removed", support_mask=False)
        yield Setting((level, WITH), WITH, measure=measure, key=True)
        if at_test_only:  # the paper trains without the mask: it has no values of this
            yield Setting((level, WITHOUT), WITH, measure=removed)
        else:
            yield Setting((level, WITHOUT), WITHOUT, ("model.support_mask=false",), measure, key=False)


def drop_figure(lines: Sequence[Line], drops: Sequence[Line]) -> Figure:
    """With and without the support mask, by level and fold, and the drop with its paired interval."""
    groups = [(one.setting[0], one.fold) for one in drops]
    figure = Figure(figsize=(5.4 + 0.7 * len(groups), 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = {WITH: (-0.12, COLORS[0], "o"), WITHOUT: (0.12, COLORS[5], "s")}
    for one in lines:
        level, name = one.setting
        x, (shift, color, marker) = groups.index((level, one.fold)), styles[name]
        point(left, x + shift, one, color=color, marker=marker, label=f"{name} support mask" if x == 0 else "")
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
    say_nothing_found(figure, lines)
    return figure
