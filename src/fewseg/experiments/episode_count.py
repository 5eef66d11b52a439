"""How many test episodes are enough? The same model on R draws of n and of 10 n episodes (supplement Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import scipy.special
from numpy.typing import NDArray

from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.source import Fold, ImageSource
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import count_episodes
from fewseg.experiments import plots as figures
from fewseg.experiments import supplement as published
from fewseg.experiments import sweep_results as results
from fewseg.experiments.measured import bootstrap
from fewseg.experiments.plan import Plan
from fewseg.experiments.tables import Table, percent, save
from fewseg.features.cache import FeatureCache
from fewseg.metrics import miou
from fewseg.progress import Silent
from fewseg.storage.opening import Opened, open_target, open_test_data

NAME = "episodes"
FACTOR = 10
Interval = tuple[float, float]


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
    spreads: list[Spread] = []
    source = None
    for name, opened in _opened(plan, runs):
        source, fold = open_test_data(opened, progress=progress)
        spreads += measure(plan, name, opened, source, fold, half_width=half_width, progress=progress)
    assert source is not None
    table = _table(plan, source.name, spreads, half_width)
    record = results.record(plan, sorted({s.fold for s in spreads})) | {
        "runs": list(runs),
        "half_width": half_width,
        "seeds": list(spreads[0].seeds),
        "spreads": [asdict(s) | {"range": s.range} for s in spreads],
    }
    series = {s.line: {t.episodes: t.values for t in spreads if t.line == s.line} for s in spreads}
    save(plan.out, NAME, table, record, {"": figures.repeats_figure(series)})
    return EpisodeNumbers(tuple(spreads), half_width, table)


def _opened(plan: Plan, runs: Sequence[str]) -> list[tuple[str, Opened]]:
    """The models by line: the runs, or the training-free method on every fold."""
    if not runs:
        methods = [word for word in plan.words if "=" not in word]
        opened = open_target(methods[-1] if methods else "hdmnet", plan.configuration(), device=plan.device)
        folds = plan.chosen_folds(plan.source("test"))
        return [(f"fold {fold}", replace(opened, config=plan.config(f"data.fold={fold}"))) for fold in folds]
    overrides = [word for word in plan.words if "=" in word]
    found: list[tuple[str, Opened]] = []
    for run in runs:
        opened = open_target(run, overrides, device=plan.device)
        if opened.config.data.name != plan.config().data.name:
            raise UsageError(f"{run} is for {opened.config.data.name}, not {plan.dataset}; name its data set")
        line = f"{opened.model.name}, fold {opened.config.data.fold}"
        found.append((f"{line} ({run})" if line in dict(found) else line, opened))
    return found


def measure(
    plan: Plan,
    line: str,
    opened: Opened,
    source: ImageSource,
    fold: Fold,
    *,
    half_width: float,
    progress: Silent,
) -> list[Spread]:
    """The spreads of n and 10 n episodes; every image is encoded once for all repeats."""
    n = plan.episodes or get_protocol(plan.protocol, dataset=source.name).episodes
    seeds = plan.seeds(opened.config)
    benchmark = Benchmark.draw(
        source, fold, protocol=plan.protocol, shots=opened.config.data.shots, seeds=seeds, episodes=FACTOR * n
    )
    lists = benchmark.lists
    found = count_episodes(
        FeatureCache(opened.model, gigabytes=plan.cache_gb),
        benchmark,
        workers=plan.workers,
        progress=progress,
        title=f"{line}, {len(lists)} repeats",
    )
    tables = [rows.table for rows in found]
    # an episode list depends on its seed alone: the first n of 10 n are the list of n
    hashes = {k: [replace(one, specs=one.specs[:k]).sha256 for one in lists] for k in (n, FACTOR * n)}
    needed = episodes_needed(tables, fold, half_width=half_width)
    return [
        _spread(line, fold, count, tables, needed=needed, seeds=seeds, hashes=hashes[count], checkpoint=_hash(opened))
        for count in (n, FACTOR * n)
    ]


def _hash(opened: Opened) -> str:
    return str(opened.weights.get("sha256", ""))


def _spread(
    line: str, fold: Fold, count: int, tables: Sequence[NDArray[np.int64]], *, hashes: Sequence[str], **others: object
) -> Spread:
    values = np.array([miou(table[:count], fold.novel) for table in tables])
    degrees, mean, deviation = len(values) - 1, float(values.mean()), float(values.std(ddof=1))
    half = float(scipy.special.stdtrit(degrees, 0.975)) * deviation / math.sqrt(len(values))
    bounds = [deviation * math.sqrt(degrees / scipy.special.chdtri(degrees, above)) for above in (0.025, 0.975)]
    return Spread(
        line=line,
        fold=fold.index,
        episodes=count,
        values=tuple(values.tolist()),
        mean=mean,
        interval=(mean - half, mean + half),
        deviation=deviation,
        deviation_interval=(float(bounds[0]), float(bounds[1])),
        hashes=tuple(hashes),
        **others,  # type: ignore[arg-type]
    )


def episodes_needed(tables: Sequence[NDArray[np.int64]], fold: Fold, *, half_width: float) -> int:
    """Episodes whose mIoU has a 95 % interval of that half-width.

    The bootstrap's deviation over all M episodes shrinks as 1 / sqrt(episodes): N = M (1.96 deviation / half-width)^2.
    """
    together = np.concatenate(tables)
    deviation = float(bootstrap([together], fold=fold.index, novel=fold.novel).std())
    return max(len(fold.novel), math.ceil(len(together) * (1.959964 * deviation / half_width) ** 2))


def _table(plan: Plan, dataset: str, spreads: Sequence[Spread], half_width: float) -> Table:
    rows = tuple(
        (
            s.line,
            str(s.episodes),
            str(len(s.values)),
            percent(s.mean),
            *map(percent, s.interval),
            percent(s.deviation),
            *map(percent, s.deviation_interval),
            percent(s.range),
            str(s.needed),
            " ".join(h[:16] for h in s.hashes),
        )
        for s in spreads
    )
    config = plan.config()
    told = [
        f"IoU in %, protocol {plan.protocol}, seeds {' '.join(map(str, spreads[0].seeds))}; low, high: 95 %, of the"
        " mean by Student's t over repeats, of the deviation by chi-squared",
        f"needed: episodes for a half-width of {100 * half_width:g} points (95 %), from the bootstrap of all episodes",
    ]
    if (paper := published.EPISODES.get(config.data.name)) is not None:
        told.append(f"published: {paper}")
    return Table(
        f"{dataset}: repeats of n and {FACTOR} n test episodes (supplement Fig. 2)",
        (
            "line",
            "episodes",
            "repeats",
            "mean mIoU",
            "low",
            "high",
            "deviation",
            "dev. low",
            "dev. high",
            "range",
            "needed",
            "episode SHA-256",
        ),
        rows,
        tuple(told),
    )
