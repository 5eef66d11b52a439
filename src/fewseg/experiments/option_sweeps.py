"""Sweeps over an option of HDMNet, on every fold.

Which temperature distils best (supplement Tab. 2)? Does the last ReLU of the back-end's stages help the meta learner
(supplement Tab. 3)?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fewseg.errors import UsageError
from fewseg.experiments import supplement as published
from fewseg.experiments.lines import Line, fold_lines, lines_table
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import setting_figure
from fewseg.experiments.sweep import Setting, run_sweep
from fewseg.experiments.tables import Table, save
from fewseg.models.parts.backbones import create_backbone
from fewseg.progress import Silent

TEMPERATURES = (0.5, 1.0, 2.0, 5.0)
SHOTS = (1, 5)


@dataclass(frozen=True)
class OptionSweep:
    """What a sweep found."""

    lines: tuple[Line, ...]
    """Settings are (temperature,), or (shots, with | without the last ReLU)."""
    table: Table


def run_temperature(
    plan: Plan,
    *,
    values: Sequence[float] = TEMPERATURES,
    only_table: bool = False,
    progress: Silent | None = None,
) -> OptionSweep:
    """Train and measure every temperature on every fold; write `temperature.csv`, `.json` and the figure."""
    plan.check_option("temperature", "distils nothing, so it has no temperature")
    if not values or min(values) <= 0:
        raise UsageError(f"temperatures are above 0; got {', '.join(map(str, values)) or 'none'}")
    return _sweep(
        plan,
        "temperature",
        [Setting((f"{t:g}",), f"T{t:g}", (f"model.temperature={t}",), key=t) for t in values],
        title="temperature of the distillation (supplement Tab. 2)",
        heads={"T": "temperature"},
        paper=published.TEMPERATURE,
        asked={"values": list(values)},
        only_table=only_table,
        progress=progress,
    )


def run_relu(
    plan: Plan,
    *,
    shots: Sequence[int] = SHOTS,
    only_table: bool = False,
    progress: Silent | None = None,
) -> OptionSweep:
    """Train and measure with and without the last ReLU, by shots and fold; write `relu.csv`, `.json` and the figure.

    Raises UsageError for a back-end whose stages do not end with a ReLU (lite0).
    """
    plan.check_option("last_relu", "has no last_relu to switch")
    try:
        create_backbone(plan.config().model.backbone, last_relu=False)
    except UsageError as error:
        raise UsageError(
            f"{error}; choose model.backbone=resnet50, resnet101, resnet50-ds, resnet101-ds, vgg16 or vgg16_bn, with "
            "model.weights=imagenet or a file"
        ) from error
    if not shots or min(shots) < 1:
        raise UsageError(f"shots are 1 or more; got {', '.join(map(str, shots)) or 'none'}")
    settings = [
        Setting(
            (str(k), "with" if kept else "without"),
            f"{k}shot-{'relu' if kept else 'norelu'}",
            (f"data.shots={k}", f"model.last_relu={str(kept).lower()}"),
            key=(kept, k),
        )
        for k in shots
        for kept in (True, False)
    ]
    return _sweep(
        plan,
        "relu",
        settings,
        title="the back-end's last ReLU (supplement Tab. 3)",
        heads={"shots": "shots", "last ReLU": "last ReLU"},
        paper=published.RELU,
        asked={"shots": list(shots)},
        only_table=only_table,
        progress=progress,
    )


def _sweep(
    plan: Plan,
    name: str,
    settings: Sequence[Setting],
    *,
    title: str,
    heads: dict[str, str],
    paper: Mapping[str, Mapping[Any, published.Folds]],
    asked: dict[str, Any],
    only_table: bool,
    progress: Silent | None,
) -> OptionSweep:
    """Train and measure every setting on every fold, and write the table, the record with what was `asked`, the figure.

    `heads` are the table's columns of a setting, with their names on the figure's axis; `paper` is what the supplement
    reports, by data set and setting.
    """
    source = plan.source("test", progress=progress)
    folds = plan.chosen_folds(source)
    printed, notes = published.beside(paper, source, plan.config().model.backbone)
    found = run_sweep(plan, settings, folds, only_table=only_table, progress=progress or Silent())
    lines = [line for s in settings for line in fold_lines(s.texts, folds, found[s.texts], paper=printed.get(s.key))]
    titled = f"{source.name}: {title}"
    table = lines_table(plan, titled, list(heads), lines, with_published=bool(printed), notes=notes)
    record = plan.record(folds) | asked | {"lines": [asdict(one) for one in lines]}
    save(plan.out, name, table, record, {"": setting_figure(lines, label=", ".join(heads.values()))})
    return OptionSweep(tuple(lines), table)
