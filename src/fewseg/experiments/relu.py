"""Does the last ReLU of the back-end's stages help the meta learner? (supplement Tab. 3: on, off x 1, 5 shots)."""

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
from fewseg.models.parts.backbones import create_backbone
from fewseg.progress import Silent

NAME = "relu"
SHOTS = (1, 5)
_MEASURE = Measure("report")


@dataclass(frozen=True)
class LastRelu:
    """What the sweep found."""

    lines: tuple[Line, ...]
    """Settings (shots, with | without)."""
    table: Table


def run_relu(
    plan: Plan,
    *,
    shots: Sequence[int] = SHOTS,
    only_table: bool = False,
    progress: Silent | None = None,
) -> LastRelu:
    """Train and measure with and without the last ReLU, by shots and fold; write `relu.csv`, `.json` and the figure.

    Raises UsageError for a back-end whose stages do not end with a ReLU (lite0).
    """
    check_backbone(plan)
    if not shots or min(shots) < 1:
        raise UsageError(f"shots are 1 or more; got {', '.join(map(str, shots)) or 'none'}")
    source = plan.source("test", progress=progress)
    folds = plan.chosen_folds(source)
    settings = [(k, kept) for k in shots for kept in (True, False)]
    cells = {(k, kept, fold): _cell(k, kept=kept, fold=fold) for k, kept in settings for fold in folds}
    found = run_sweep(plan, list(cells.values()), only_table=only_table, progress=progress)
    paper = published.RELU.get(source.name, {})
    lines: list[Line] = []
    for k, kept in settings:
        measured = {fold: found[cells[k, kept, fold].name, _MEASURE.name] for fold in folds}
        lines += results.fold_lines(_setting(k, kept=kept), folds, measured.get, paper=paper.get((kept, k)))
    table = Table(
        f"{source.name}: the back-end's last ReLU (supplement Tab. 3)",
        results.columns("shots", "last ReLU", with_published=bool(paper)),
        tuple(one.cells(with_published=bool(paper)) for one in lines),
        results.notes(plan, lines, with_published=bool(paper)),
    )
    record = results.record(plan, folds) | {"shots": list(shots), "lines": [asdict(one) for one in lines]}
    order = [_setting(k, kept=kept) for k, kept in settings]
    figure = figures.setting_figure(lines, order, label="shots, last ReLU")
    save(plan.out, NAME, table, record, {"": figure})
    return LastRelu(tuple(lines), table)


def check_backbone(plan: Plan) -> None:
    """That the method knows the switch and the back-end has such a ReLU."""
    config = plan.config()
    if "last_relu" not in config.model.options:
        raise UsageError(f"{config.model.name} has no last_relu to switch; this experiment is HDMNet's")
    try:
        create_backbone(config.model.backbone, last_relu=False)
    except UsageError as error:
        raise UsageError(
            f"{error}; choose model.backbone=resnet50, resnet101, resnet50-ds, resnet101-ds, vgg16 or vgg16_bn, with "
            "model.weights=imagenet or a file"
        ) from error


def _setting(shots: int, *, kept: bool) -> tuple[str, str]:
    return str(shots), "with" if kept else "without"


def _cell(shots: int, *, kept: bool, fold: int) -> Cell:
    words = (f"data.shots={shots}", f"model.last_relu={str(kept).lower()}")
    return Cell(f"fold{fold}-{shots}shot-{'relu' if kept else 'norelu'}", fold, words, (_MEASURE,))
