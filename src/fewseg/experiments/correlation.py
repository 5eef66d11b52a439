"""What the correlation maps look like, with and without distillation (supplement Figs. 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import scipy.stats
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.scoring import predict
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import episode_cells
from fewseg.experiments.shown_episodes import different
from fewseg.experiments.sweep import Setting, cell_folder, run_sweep
from fewseg.experiments.tables import Table, percent, save
from fewseg.features.cache import FeatureCache
from fewseg.metrics.intervals import percentile_interval, resample
from fewseg.models.parts.ops import resize
from fewseg.progress import Silent
from fewseg.report.chosen_episodes import episode_panel
from fewseg.report.contents import Panel
from fewseg.report.figures import pictures_figure
from fewseg.report.overlays import panel_maps
from fewseg.storage.opening import Opened, open_target

NAME = "correlation"
ROWS = 4
SAMPLES = 100
"""Episodes of the table."""
NAMES = ("distilled", "not distilled")


@dataclass(frozen=True)
class StageScore:
    """How well a stage's map alone tells foreground from background: the mean over episodes of the area under the ROC.

    0.5 is chance, 1 a map that is higher on all of the foreground than anywhere else.
    """

    model: str
    stage: int
    """3 is the coarsest."""
    area: float
    interval: tuple[float, float]
    """95 %, bootstrap over episodes."""
    episodes: int


@dataclass(frozen=True)
class Correlations:
    """What the experiment drew and measured."""

    rows: tuple[dict[str, Panel], ...]
    """Every episode as the models see it, by the model's name."""
    scores: tuple[StageScore, ...]
    episode_sha256: str
    table: Table


def run_correlation(
    plan: Plan, *, runs: Sequence[str] = (), rows: int = ROWS, progress: Silent | None = None
) -> Correlations:
    """Draw `rows` episodes and write `correlation.csv`, `.json` and the figure into `plan.out`.

    `runs` are one run, or two: with distillation and without. Without them both are trained (cells of a sweep) on the
    first of the folds.
    """
    progress = progress or Silent()
    if len(runs) > 2:
        raise UsageError(f"{len(runs)} runs were given; give one, or two: with distillation and without")
    opened = _opened(plan, runs, progress=progress)
    first = next(iter(opened.values()))
    benchmark = plan.benchmark(first, episodes=plan.episodes or SAMPLES, repeats=1, progress=progress)
    name, fold, (listed,) = benchmark.source.name, benchmark.fold.index, benchmark.lists
    caches = {model: FeatureCache(one.model, gigabytes=plan.cache_gb) for model, one in opened.items()}
    chosen = different(listed, rows)
    drawn = [
        {model: episode_panel({model: cache}, benchmark, e) for model, cache in caches.items()}
        for e in progress(chosen, "drawing episodes", len(chosen))
    ]
    if not all(panel.correlations for panel in drawn[0].values()):
        raise UsageError(f"{first.model.name} has no correlation maps to draw; this experiment is HDMNet's")
    scores = [score for named in caches.items() for score in stage_scores(*named, benchmark, progress=progress)]
    table = _table(plan, name, fold, scores, listed.sha256)
    record = plan.record([fold]) | {
        "episode_sha256": listed.sha256,
        "scores": [asdict(score) for score in scores],
        "checkpoints": {name: one.weights for name, one in opened.items()},
        "pictures": [next(iter(row.values())).caption for row in drawn],
    }
    save(plan.out, NAME, table, record, {"": correlation_figure(drawn)})
    return Correlations(tuple(drawn), tuple(scores), listed.sha256, table)


def _opened(plan: Plan, runs: Sequence[str], *, progress: Silent) -> dict[str, Opened]:
    """The models by name: those of the runs, or both trained here."""
    if runs:
        opened = [plan.opened(run) for run in runs]
        names = NAMES if len(runs) == 2 else (opened[0].model.name,)
        return dict(zip(names, opened, strict=True))
    plan.check_option("distill", "distils nothing")
    fold = plan.chosen_folds(plan.source("test", progress=progress))[0]
    settings = [Setting((NAMES[0],), "distilled"), Setting((NAMES[1],), "not-distilled", ("model.distill=false",))]
    run_sweep(plan, settings, [fold], only_table=False, progress=progress)
    folders = {s.texts[0]: cell_folder(plan, f"fold{fold}-{s.cell}") for s in settings}
    return {name: open_target(str(folder), (), device=plan.device) for name, folder in folders.items()}


@torch.inference_mode()
def stage_scores(name: str, cache: FeatureCache, benchmark: Benchmark, *, progress: Silent) -> list[StageScore]:
    """The score of every stage, coarse to fine, over the episodes of a benchmark's first repeat."""
    data, areas = benchmark.dataset(cache.model.image_size), list[list[float]]()
    for e in progress(range(len(data)), f"maps, {name}", len(data)):
        sample = data[e]
        truth = sample.episode.truth
        maps = predict(cache, sample).correlations
        areas.append([roc_area(resize(m[:, None], truth.shape[-2:])[0, 0].numpy(), truth[0].numpy()) for m in maps])
    table = np.array(areas)  # (episodes, stages)
    samples = resample(np.random.default_rng(0), len(table), draws=1000) / len(table) @ table  # (draws, stages)
    stages = table.shape[1]
    return [
        StageScore(name, stages - s, float(table[:, s].mean()), percentile_interval(samples[:, s]), len(table))
        for s in range(stages)
    ]


def roc_area(values: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """Area under the ROC curve of a map (H, W) against a mask {0, 1, 255 left out}; 0.5 where it has one side only."""
    foreground, background = (values[truth == side].astype(float) for side in (1, 0))  # ranks keep the values' type
    if not len(foreground) or not len(background):
        return 0.5
    larger = scipy.stats.mannwhitneyu(foreground, background, method="asymptotic").statistic  # pairs; ties count half
    return float(larger / (len(foreground) * len(background)))


def correlation_figure(rows: Sequence[dict[str, Panel]]) -> Figure:
    """One row per episode: support, query, the correlation maps of stages 3 to 1 of every model, its prediction."""
    cells, titles = [], ["support", "query, truth"]
    for row in rows:
        shared = episode_cells(next(iter(row.values())))
        cells.append([shared["support"], shared["truth"]])
        for panel in row.values():
            cells[-1] += [*(("", picture) for _, _, picture in panel_maps(panel)), episode_cells(panel)["prediction"]]
    for name, panel in rows[0].items():
        stages = len(panel.correlations)
        titles += [f"stage {stages - i}" + (f"\n{name}" if i == 0 else "") for i in range(stages)] + ["prediction"]
    return pictures_figure(cells, titles=titles, judged=True)


def _table(plan: Plan, dataset: str, fold: int, scores: Sequence[StageScore], sha256: str) -> Table:
    rows = tuple(
        (s.model, str(s.stage), percent(s.area), *map(percent, s.interval), str(s.episodes), sha256[:16])
        for s in scores
    )
    return Table(
        f"{dataset} fold {fold}: how well each stage's correlation map finds the class (supplement Figs. 5, 6)",
        ("model", "stage", "ROC area, %", "low", "high", "episodes", "episode SHA-256"),
        rows,
        (
            f"protocol {plan.protocol}; 50 % is chance; low, high: 95 % bootstrap over episodes of one training;"
            " the pictures are the list's first episodes of different classes",
        ),
    )
