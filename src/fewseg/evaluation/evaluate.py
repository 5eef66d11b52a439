"""Evaluation: episodes -> Results.

Every episode's intersections and unions are kept, so that any number in the results can be drawn from the rows again.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewseg import registry
from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.episodes.protocols import ABSENT, EvaluationProtocol
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark, for_model
from fewseg.evaluation.plain import score_plainly
from fewseg.evaluation.results import Repeat, Results
from fewseg.evaluation.saved_masks import saving, write_index
from fewseg.evaluation.scoring import Matched, at_labels, score_episodes
from fewseg.features.cache import FeatureCache
from fewseg.metrics.intervals import miou_interval
from fewseg.metrics.iou import (
    COLUMNS,
    base_confusion,
    class_iou,
    episode_counts,
    fb_iou,
    foreground_by_class,
    foreground_wins,
    label_pixels,
    miou,
    winners,
)
from fewseg.metrics.presence import false_at_recall, presence_auc
from fewseg.metrics.references import of_queries, reference_spread
from fewseg.models.base import FewShotSegmenter
from fewseg.models.hub_model import model_options
from fewseg.progress import Silent, counted
from fewseg.runtime.processes import rank_and_world

RECALLS = (0.9, 0.95)
"""Shares of the queries with the class that are to be said to hold it, where false ones are counted."""


@dataclass(frozen=True)
class Rows:
    """Counts of every episode of one repeat, in the list's order; columns as in `fewseg.metrics.iou.COLUMNS`.

    `count` gives those of one episode: all without the first dimension, but `base` is as here.
    """

    table: NDArray[np.int64]
    meta: NDArray[np.int64] | None
    """The same of the meta learner alone, where a method has one."""
    base: NDArray[np.int64] | None
    """(1 + N, 3) pooled intersection, union and truth of the base learner's labels on the queries."""
    foreground_on: NDArray[np.int64]
    """(episodes, 1 + classes) pixels predicted as foreground by what is there, in the query's own size; column 0 is
    background.
    """
    presence: NDArray[np.float64]
    """(episodes, 3) whether the query holds the class, what the model says of that (NaN where it does not), and the
    share of the pixels that it marks.
    """


def evaluate(
    model: FewShotSegmenter,
    benchmark: Benchmark,
    *,
    batch_size: int = 1,
    workers: int = 2,
    cache_gb: float = 2.0,
    file_gb: float = 16.0,
    weights: dict[str, Any] | None = None,
    title: str | None = None,
    masks: Path | None = None,
    plain: bool = False,
    progress: Silent | None = None,
) -> Results:
    """Evaluate a model on a benchmark's episodes.

    `title` names the model on the progress bar; `weights` (their path and hash) are kept in the results. `masks` is a
    folder for the predicted masks (`saved_masks`).

    Encoded images are kept in `cache_gb` of memory, then in a temporary file of at most `file_gb`. The digits depend on
    none of `workers`, `cache_gb`, `file_gb` and the number of processes (torchrun), which share the episodes; with a
    `batch_size` above 1 they agree to rounding.

    `plain` takes none of these: one episode after the other through the method's own `forward` (`score_plainly`), slow,
    to read and to debug. Its counts are the same but for pixels at which rounding decides.

    Raises UsageError for a model from `load_model` that was trained on what is novel in the benchmark; where nothing
    tells of its training, nothing is checked.
    """
    benchmark = for_model(benchmark, model)
    start = time.perf_counter()
    how = {} if plain else {"batch_size": batch_size, "workers": workers}
    rows = count_episodes(
        model if plain else FeatureCache(model.eval(), gigabytes=cache_gb, file_gigabytes=file_gb),
        benchmark,
        **how,
        progress=progress,
        masks=masks,
        title=f"{title or model.name}, {benchmark.shots}-shot, {counted(len(benchmark.lists), 'repeat')}",
    )
    seconds = time.perf_counter() - start
    repeats = [_repeat(found, listed, benchmark) for found, listed in zip(rows, benchmark.lists, strict=True)]
    tables, mious = [found.table for found in rows], np.array([r.miou for r in repeats])
    by_query = [of_queries(table, benchmark.protocol.references) for table in tables]
    interval, kind = miou_interval(by_query, mious, benchmark.protocol.scored(benchmark.fold.novel, tables[0][:, 0]))
    return Results(
        class_names=list(benchmark.source.class_names),
        miou=float(mious.mean()),
        interval=interval,
        interval_kind=kind,
        fb_iou=float(np.mean([r.fb_iou for r in repeats])),
        meta_miou=_mean([r.meta_miou for r in repeats]),
        base_miou=_mean([r.base_miou for r in repeats]),
        base_without_truth=_base_without_truth(rows, benchmark),
        presence=presence_found(rows, benchmark) if ABSENT in benchmark.lists[0].protocol else {},
        references=references_found(tables, benchmark),
        parameters=count_parameters(model),
        tables=tables,
        foreground_on=[found.foreground_on for found in rows],
        **common_fields(model, benchmark, repeats, weights=weights, seconds=seconds),
    )


def common_fields(
    model: FewShotSegmenter,
    benchmark: Benchmark,
    repeats: Sequence[Any],
    *,
    weights: dict[str, Any] | None,
    seconds: float,
) -> dict[str, Any]:
    """The fields that every kind of evaluation has: which model, on which data, by which rules and versions."""
    source, fold = benchmark.source, benchmark.fold
    names = dict.fromkeys(name for r in repeats for name in r.class_iou)
    drawn = [{spec.class_id for spec in listed.specs} for listed in benchmark.lists]
    return {
        "method": model.name,
        "backbone": str(model_options(model).get("backbone", "none")),
        "options": model_options(model),
        "source": source.name,
        "source_sha256": source.index.sha256,
        "data": _options_of(source),
        "fold": {**asdict(fold), "novel_names": [source.class_names[c - 1] for c in fold.novel]},
        "shots": benchmark.shots,
        "image_size": benchmark.input_size(model.image_size),
        "protocol": benchmark.protocol.as_dict(),
        "repeats": list(repeats),
        "class_iou": {n: float(np.mean([r.class_iou[n] for r in repeats if n in r.class_iou])) for n in names},
        "not_drawn": [source.class_names[c - 1] for c in fold.novel if any(c not in classes for classes in drawn)],
        "seconds_per_episode": seconds / max(1, sum(map(len, benchmark.lists))),
        "weights": weights or {},
        "versions": versions(),
        **origin_fields(benchmark, repeats),
    }


def _options_of(source: Any) -> dict[str, Any]:
    """The options of a data set that are not as it has them, as far as it keeps them under their names, for JSON."""
    usual = registry.options(type(source))
    kept = {key: getattr(source, key) for key in usual if key != "subset" and hasattr(source, key)}
    kept = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in kept.items()}
    plain = str | int | float | list | tuple
    return {key: value for key, value in kept.items() if isinstance(value, plain) and value != usual[key].default}


def origin_fields(benchmark: Benchmark, repeats: Sequence[Any]) -> dict[str, Any]:
    """What the model was trained on, and which test classes it has seen there, by their names."""
    learnt, matching = benchmark.learnt, benchmark.matching
    if learnt is None:
        return {}
    names = [benchmark.source.class_names[c - 1] for c in benchmark.fold.novel]
    seen = learnt.seen(names)
    unseen = [n for n in names if n not in (seen or ()) and any(n in r.class_iou for r in repeats)]
    means = [np.mean([r.class_iou[n] for n in unseen if n in r.class_iou]) for r in repeats] if seen and unseen else []
    return {
        "trained_on": learnt.as_dict(),
        "base_matched": {} if matching is None else asdict(matching),
        "seen": seen,
        "unseen_miou": float(np.mean(means)) if means else None,
    }


def repeat_fields(listed: EpisodeList, ious: Mapping[int, float]) -> dict[str, Any]:
    """The fields that every kind of evaluation has of a repeat, with the IoU of every class by its id."""
    return {
        "seed": listed.seed,
        "episodes": len(listed),
        "episode_sha256": listed.sha256,
        "class_iou": {listed.class_names[c - 1]: float(iou) for c, iou in ious.items()},
    }


def count_episodes(
    cache: FeatureCache | FewShotSegmenter, benchmark: Benchmark, *, masks: Path | None = None, **how: Any
) -> list[Rows]:
    """The counts of every episode, per list; of a model without a cache by `score_plainly`.

    `masks` as for `evaluate`, `how` as for `score_episodes`.
    """
    run: Any = partial(score_episodes if isinstance(cache, FeatureCache) else score_plainly, cache)
    score = episode_score(benchmark)
    if masks is not None:
        score = saving(score, masks, benchmark)
    rows = [_rows(found) for found in run(benchmark, score=score, **how)]
    if masks is not None and rank_and_world()[0] == 0:
        write_index(masks, benchmark, [one.table for one in rows])
    return rows


def episode_score(benchmark: Benchmark) -> Callable[[Matched], Rows]:
    """What counts one episode; UsageError for a protocol that labels base classes too."""
    if benchmark.protocol.labels == "all":
        raise UsageError(
            f"protocol {benchmark.protocol.name} labels base classes too: fewseg evaluate RUN, evaluate_generalised"
        )
    classes = len(benchmark.source.class_names)
    return partial(count, base=len(benchmark.fold.base), classes=classes, protocol=benchmark.protocol)


def count(matched: Matched, *, base: int, classes: int, protocol: EvaluationProtocol) -> Rows:
    """Intersections and unions of an episode, and where its foreground fell, of `classes`, `base` of them base ones."""
    class_id = matched.entry.spec.class_id
    masks = {n: foreground_wins(matched.logits[n])[0] for n in ("final", "meta") if n in matched.logits}
    counts = {n: episode_counts(mask, matched.mask, class_id).cpu().numpy() for n, mask in masks.items()}
    labels = matched.logits.get("base")
    pooled = None
    if labels is not None:
        found = base_confusion(winners(labels)[0], matched.base_labels, base).cpu().numpy()
        pooled = np.column_stack([found, label_pixels(matched.base_labels, base)])
    on = foreground_by_class(at_labels(masks["final"], matched.labels.shape, protocol), matched.labels, classes)
    said = np.nan if matched.presence is None else matched.presence
    holds, marked = (matched.mask == 1).any(), masks["final"].float().mean()
    return Rows(counts["final"], counts.get("meta"), pooled, on, np.array([float(holds), said, float(marked)]))


def _rows(found: list[Rows]) -> Rows:
    """One list's counts in its order."""
    meta = [c.meta for c in found if c.meta is not None]
    base = [c.base for c in found if c.base is not None]
    return Rows(
        np.stack([c.table for c in found]) if found else np.zeros((0, len(COLUMNS)), np.int64),
        np.stack(meta) if meta else None,
        np.sum(base, axis=0) if base else None,
        np.stack([c.foreground_on for c in found]) if found else np.zeros((0, 1), np.int64),
        np.stack([c.presence for c in found]) if found else np.zeros((0, 3)),
    )


def _repeat(rows: Rows, listed: EpisodeList, benchmark: Benchmark) -> Repeat:
    scored = benchmark.protocol.scored(benchmark.fold.novel, rows.table[:, 0])
    return Repeat(
        miou=miou(rows.table, scored),
        fb_iou=fb_iou(rows.table),
        meta_miou=None if rows.meta is None else miou(rows.meta, scored),
        base_miou=None if rows.base is None or len(rows.base) == 1 else base_miou(rows.base),
        **repeat_fields(listed, class_iou(rows.table, scored)),
    )


def base_miou(pooled: NDArray[np.int64]) -> float:
    """The base learner's mean IoU over the base classes that some query holds, as BAM and HDMNet count it; `pooled` as
    `Rows.base`.
    """
    intersection, union, truth = pooled[1:].T
    return float((intersection[truth > 0] / union[truth > 0]).mean()) if truth.any() else 0.0


def _base_without_truth(rows: Sequence[Rows], benchmark: Benchmark) -> list[str]:
    """Names of the base classes that no query of some repeat holds; empty for a method without base learner."""
    absent = [found.base[1:, 2] == 0 for found in rows if found.base is not None]
    names = [benchmark.source.class_names[c - 1] for c in benchmark.fold.base]
    return [name for n, name in enumerate(names) if any(one[n] for one in absent)]


def presence_found(rows: Sequence[Rows], benchmark: Benchmark) -> dict[str, Any]:
    """How well a model tells queries that hold the class from those that do not, all repeats together.

    By what it says of that where it does, else by the share of pixels that it marks.
    """
    found, table = np.concatenate([one.presence for one in rows]), np.concatenate([one.table for one in rows])
    present, said = found[:, 0] == 1, found[:, 1]
    told = bool(len(said)) and not np.isnan(said).any()
    scores, holding = (said if told else found[:, 2]), table[present]
    shares = {
        "auc": presence_auc(scores, present),
        "marked": float((found[~present, 2] > 0).mean()) if (~present).any() else math.nan,
        "miou_holding": miou(holding, benchmark.protocol.scored(benchmark.fold.novel, holding[:, 0])),
        **{f"false_at_{round(100 * r)}": false_at_recall(scores, present, r) for r in RECALLS},
    }
    counts = {"by": "presence" if told else "mask", "holding": int(present.sum()), "lacking": int((~present).sum())}
    return counts | {key: None if math.isnan(value) else value for key, value in shares.items()}


def references_found(tables: Sequence[NDArray[np.int64]], benchmark: Benchmark) -> dict[str, Any]:
    """How much depends on which supports a query has, where it has several draws of them; means over the repeats."""
    if (draws := benchmark.protocol.references) == 1:
        return {}
    scored = [benchmark.protocol.scored(benchmark.fold.novel, table[:, 0]) for table in tables]
    found = [reference_spread(table, draws, classes) for table, classes in zip(tables, scored, strict=True)]
    return {"draws": draws} | {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Numbers of all and of trained parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"all": sum(p.numel() for p in model.parameters()), "trained": trained}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("fewseg", "torch", "torchvision", "timm", "numpy", "pillow")
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in packages}
