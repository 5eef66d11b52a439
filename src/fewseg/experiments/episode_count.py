"""How many test episodes are enough? The same model on R draws of n and of 10 n episodes (supplement Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fewseg import registry
from fewseg.data.source import Fold, ImageSource
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import count_episodes
from fewseg.evaluation.protocol_files import find_protocol
from fewseg.evaluation.published import why_not_beside
from fewseg.evaluation.results import NOTHING
from fewseg.experiments import supplement as published
from fewseg.experiments.measured import Interval, bootstrap, scored
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import COLORS, MARKERS
from fewseg.experiments.tables import Table, percent, save
from fewseg.features.cache import FeatureCache
from fewseg.metrics.intervals import bounded_t_interval, deviation_interval
from fewseg.metrics.iou import miou
from fewseg.progress import Silent
from fewseg.report.figures import plain_text, tidy
from fewseg.storage.opening import Opened, open_target

NAME = "episodes"
FACTOR = 10


@dataclass(frozen=True)
class Spread:
    """The mIoU of R repeats of as many episodes each, of one line; shares of 1."""

    line: str
    fold: int
    episodes: int
    """Per repeat."""
    values: tuple[float, ...]
    """By repeat."""
    mean: float
    interval: Interval
    """95 % of the mean, Student's t over repeats."""
    deviation: float
    deviation_interval: Interval
    """95 % of the standard deviation, chi-squared."""
    needed: int
    """Episodes for the asked half-width, from the bootstrap of all episodes of the line."""
    seeds: tuple[int, ...]
    hashes: tuple[str, ...]
    checkpoint: str = ""

    @property
    def range(self) -> float:
        """Largest minus smallest repeat."""
        return max(self.values) - min(self.values)


@dataclass(frozen=True)
class EpisodeNumbers:
    """What the repeats say."""

    spreads: tuple[Spread, ...]
    half_width: float
    """What `needed` is for, as a share of 1."""
    table: Table


def run_episodes(
    plan: Plan,
    *,
    runs: Sequence[str] = (),
    half_width: float = 0.005,
    progress: Silent | None = None,
) -> EpisodeNumbers:
    """Measure `plan.repeats` draws of 10 n episodes, whose first n are the draws of n (`plan.episodes`).

    `runs` are run directories or saved models, each on the fold it was trained for; without them the recipe must be a
    training-free method, measured on every fold. Writes `episodes.csv`, `.json` and the figure into `plan.out`.
    """
    progress = progress or Silent()
    if not 0 < half_width < 1:
        raise UsageError(f"the half-width is {half_width}; give a share above 0 and below 1 (0.005 is 0.5 points)")
    if plan.repeats < 2:
        raise UsageError(f"a spread needs repeats; got {plan.repeats}, give 2 or more")
    measured = [(line, opened, _benchmark(plan, opened, progress=progress)) for line, opened in _opened(plan, runs)]
    spreads = [s for one in measured for s in measure(plan, *one, half_width=half_width, progress=progress)]
    table = _table(plan, measured[0][2].source, spreads, half_width)
    record = plan.record(sorted({s.fold for s in spreads})) | {
        "runs": list(runs),
        "half_width": half_width,
        "seeds": list(spreads[0].seeds),
        "spreads": [asdict(s) | {"range": s.range} for s in spreads],
    }
    save(plan.out, NAME, table, record, {"": repeats_figure(spreads)})
    return EpisodeNumbers(tuple(spreads), half_width, table)


def _opened(plan: Plan, runs: Sequence[str]) -> list[tuple[str, Opened]]:
    """The models by line: the runs, or the training-free method on every fold."""
    if not runs:
        methods = [word for word in plan.words if "=" not in word]
        opened = open_target(methods[-1] if methods else "hdmnet", plan.configuration(), device=plan.device)
        folds = plan.chosen_folds(plan.source("test"))
        return [(f"fold {fold}", replace(opened, config=plan.config(f"data.fold={fold}"))) for fold in folds]
    found: list[tuple[str, Opened]] = []
    for run in runs:
        opened = plan.opened(run)
        if opened.config.data.name != plan.config().data.name:
            raise UsageError(f"{run} is for {opened.config.data.name}, not {plan.dataset}; name its data set")
        line = f"{opened.model.name}, fold {opened.config.data.fold}"
        found.append((f"{line} ({run})" if line in dict(found) else line, opened))
    return found


def _benchmark(plan: Plan, opened: Opened, *, progress: Silent) -> Benchmark:
    """10 n episodes of every repeat, on the model's data."""
    dataset = registry.find("source", opened.config.data.name).name
    episodes = plan.episodes or find_protocol(plan.protocol, dataset=dataset).episodes
    if episodes is None:
        raise UsageError(f"protocol {plan.protocol} goes through a whole list; say how many are drawn: --episodes N")
    return plan.benchmark(opened, seeds=plan.seeds(opened.config), episodes=FACTOR * episodes, progress=progress)


def measure(
    plan: Plan, line: str, opened: Opened, benchmark: Benchmark, *, half_width: float, progress: Silent
) -> Iterator[Spread]:
    """The spreads of n and 10 n episodes; every image is encoded once for all repeats."""
    fold, lists = benchmark.fold, benchmark.lists
    cache = FeatureCache(opened.model, gigabytes=plan.cache_gb)
    title = f"{line}, {len(lists)} repeats"
    found = count_episodes(cache, benchmark, workers=plan.workers, progress=progress, title=title)
    tables = [rows.table for rows in found]
    drawn_only = benchmark.protocol.undrawn == "left out"
    needed = episodes_needed(tables, fold, half_width=half_width, drawn_only=drawn_only)
    for n in (len(lists[0]) // FACTOR, len(lists[0])):
        values = np.array([miou(t[:n], scored(t[:n], fold.novel, drawn_only=drawn_only)) for t in tables])
        yield Spread(
            line=line,
            fold=fold.index,
            episodes=n,
            values=tuple(values.tolist()),
            mean=float(values.mean()),
            interval=bounded_t_interval(values),
            deviation=float(values.std(ddof=1)),
            deviation_interval=deviation_interval(values),
            needed=needed,
            seeds=tuple(one.seed for one in lists),
            # an episode list depends on its seed alone: the first n of 10 n are the list of n
            hashes=tuple(replace(one, specs=one.specs[:n]).sha256 for one in lists),
            checkpoint=str(opened.weights.get("sha256", "")),
        )


def episodes_needed(
    tables: Sequence[NDArray[np.int64]], fold: Fold, *, half_width: float, drawn_only: bool = False
) -> int:
    """Episodes whose mIoU has a 95 % interval of that half-width.

    The bootstrap's deviation over all M episodes shrinks as 1 / sqrt(episodes): N = M (1.96 deviation / half-width)^2.
    """
    together = np.concatenate(tables)
    deviation = float(bootstrap([together], fold=fold.index, novel=fold.novel, drawn_only=drawn_only).std())
    return max(len(fold.novel), math.ceil(len(together) * (1.959964 * deviation / half_width) ** 2))


def repeats_figure(spreads: Sequence[Spread]) -> Figure:
    """The mIoU of every repeat by line (fold or run), one chart per number of episodes, on one scale."""
    counts, names = sorted({s.episodes for s in spreads}), list(dict.fromkeys(s.line for s in spreads))
    figure = Figure(figsize=(3.3 * len(counts) + 1.0, 2.8), layout="constrained")
    charts = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for one in spreads:
        i = names.index(one.line) % len(COLORS)
        style = {"marker": MARKERS[i], "color": COLORS[i], "markersize": 3.5, "linewidth": 1.0}
        values = [100 * v for v in one.values]
        axes = charts[counts.index(one.episodes)]
        axes.plot(range(1, len(values) + 1), values, label=plain_text(one.line), **style)
    for axes, n in zip(charts, counts, strict=True):
        axes.set_title(f"{n} episodes", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes, x="repeat", y="mIoU (%)" if axes is charts[0] else "")
    figure.legend(*charts[0].get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside right center")
    return figure


def _table(plan: Plan, source: ImageSource, spreads: Sequence[Spread], half_width: float) -> Table:
    percents = ("mean mIoU", "low", "high", "deviation", "dev. low", "dev. high", "range")
    heads = ("line", "episodes", "repeats", *percents, "needed", "episode SHA-256")
    rows = []
    for s in spreads:
        shares = (s.mean, *s.interval, s.deviation, *s.deviation_interval, s.range)
        hashes = " ".join(h[:16] for h in s.hashes)
        rows.append((s.line, str(s.episodes), str(len(s.values)), *map(percent, shares), str(s.needed), hashes))
    told = [
        f"IoU in %, protocol {plan.protocol}, seeds {' '.join(map(str, spreads[0].seeds))}; low, high: 95 %, of the"
        " mean by Student's t over repeats, of the deviation by chi-squared",
        *(f"warning: {s.line}: {NOTHING}" for s in spreads if not any(s.values)),
        f"needed: episodes for a half-width of {100 * half_width:g} points (95 %), from the bootstrap of all episodes",
    ]
    if (paper := published.EPISODES.get(source.name)) is not None:
        refused = why_not_beside(source)
        told.append(f"published: not shown, since {refused}" if refused else f"published: {paper}")
    title = f"{source.name}: repeats of n and {FACTOR} n test episodes (supplement Fig. 2)"
    return Table(title, heads, tuple(rows), tuple(told))
