"""Episodes to show: the first of the plan's own list, of different classes, never chosen by their result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matplotlib.figure import Figure

from fewseg.data.episodes.lists import EpisodeList, EpisodeSpec
from fewseg.evaluation.benchmark import Benchmark
from fewseg.experiments.plan import Plan
from fewseg.experiments.plots import episode_cells
from fewseg.features.cache import FeatureCache
from fewseg.progress import Silent
from fewseg.report.chosen_episodes import episode_panel
from fewseg.report.contents import Panel, gathered
from fewseg.report.figures import pictures_figure
from fewseg.storage.opening import open_target

SIMPLE, COMPLEX = "simple", "complex"
PICTURES = 3
"""Episodes of each kind of scene in the picture."""


def scene_pictures(
    plan: Plan,
    run: str,
    other: str,
    *,
    take_away: bool,
    levels: Sequence[str],
    progress: Silent,
) -> Iterator[Panel]:
    """`PICTURES` simple and as many complex episodes; `run`'s prediction is the panel's own, `other`'s is beside it.

    Of one level they are told apart by the query: one class in it, or several. `take_away` removes the mask from
    `other` at test time.
    """
    for level in levels:
        words = (f"data.level={level}",) if level else ()
        opened = open_target(run, words, device=plan.device)
        second = open_target(other, words, device=plan.device, support_mask=not take_away)
        benchmark = plan.benchmark(opened, repeats=1, progress=progress)
        caches = {"with mask": FeatureCache(opened.model), "without mask": FeatureCache(second.model)}
        for kind, chosen in _kinds(benchmark, level, split=len(levels) == 1).items():
            for e in progress(chosen, f"drawing {kind} scenes", len(chosen)):
                yield episode_panel(caches, benchmark, e, group=kind)


def scene_figure(scenes: Sequence[Panel]) -> Figure:
    """Simple scenes on the left, complex ones on the right: support, truth, prediction with and without the mask."""
    sides = gathered((scene.group, episode_cells(scene)) for scene in scenes)
    shown = ("support", "truth", "prediction", "other")
    rows = [[cells[kind] for cells in pair for kind in shown] for pair in zip(*sides.values(), strict=False)]
    heads = ("support", "query, truth", "with mask", "without mask")
    titles = [f"{kind}: {head}" if head == heads[0] else head for kind in sides for head in heads]
    return pictures_figure(rows, gap_after=4 if len(sides) == 2 else None, titles=titles, judged=True)


def _kinds(benchmark: Benchmark, level: str, *, split: bool) -> dict[str, list[int]]:
    source, (listed,) = benchmark.source, benchmark.lists
    if not split:
        return {level: different(listed, PICTURES)}

    def kind(spec: EpisodeSpec) -> str:
        classes = source.index.classes_in(spec.query, min_pixels=source.min_pixels)
        return COMPLEX if len(classes) > 1 else SIMPLE

    return {name: different(listed, PICTURES, keep=lambda s, name=name: kind(s) == name) for name in (SIMPLE, COMPLEX)}


def different(listed: EpisodeList, count: int, *, keep: Callable[[EpisodeSpec], bool] = lambda _: True) -> list[int]:
    """Positions of the first `count` episodes that are kept, of different classes as long as there are any."""
    kept = ((spec.class_id, e) for e, spec in enumerate(listed.specs) if keep(spec))
    rounds = sorted((n, e) for same in gathered(kept).values() for n, e in enumerate(same))
    return [e for _, e in rounds[:count]]
