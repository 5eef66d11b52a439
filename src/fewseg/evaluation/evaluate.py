"""Evaluation: episodes -> Report.

Every episode's intersections and unions are kept, so that any number in a report can be drawn from its rows again.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.episodes.protocols import EvaluationProtocol, get_protocol
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.source import Fold, ImageSource
from fewseg.errors import UsageError
from fewseg.evaluation.results import Repeat, Report
from fewseg.evaluation.scoring import Matched, at_labels, score_episodes
from fewseg.features.cache import FeatureCache
from fewseg.metrics import (
    COLUMNS,
    base_confusion,
    bootstrap_interval,
    class_iou,
    episode_counts,
    fb_iou,
    foreground_by_class,
    foreground_wins,
    miou,
    t_interval,
    winners,
)
from fewseg.models.base import FewShotSegmenter
from fewseg.models.hub_model import model_options
from fewseg.progress import Silent
from fewseg.runtime.memory import keep_freed_memory


@dataclass(frozen=True)
class Rows:
    """Counts of every episode of one repeat, in the list's order; columns as in `fewseg.metrics.COLUMNS`."""

    table: NDArray[np.int64]
    meta: NDArray[np.int64] | None
    """The same of the meta learner alone, where a method has one."""
    base: NDArray[np.int64] | None
    """(1 + N, 2) pooled intersection and union of the base learner's labels on the queries."""
    foreground_on: NDArray[np.int64]
    """(episodes, 1 + classes) pixels predicted as foreground by what is there, in the query's own size; column 0 is
    background.
    """


def evaluate(
    model: FewShotSegmenter,
    source: ImageSource,
    fold: Fold,
    *,
    protocol: str | EvaluationProtocol = "fewseg",
    shots: int | None = None,
    episodes: int | None = None,
    repeats: int | None = None,
    episode_lists: Sequence[EpisodeList] | None = None,
    batch_size: int = 1,
    workers: int = 2,
    cache_gb: float = 2.0,
    file_gb: float = 16.0,
    checkpoint: dict[str, Any] | None = None,
    title: str | None = None,
    progress: Silent | None = None,
) -> Report:
    """Evaluate a model on a fold's novel classes.

    `title` names the model on the progress bar. `episodes` and `repeats` replace the protocol's numbers;
    `episode_lists` replace its draw. `source` is the data set's test subset.

    Encoded images are kept in `cache_gb` of memory, then in a temporary file of at most `file_gb`. The digits depend on
    none of `workers`, `cache_gb`, `file_gb` and the number of processes (torchrun), which share the episodes; with a
    `batch_size` above 1 they agree to rounding.
    """
    progress = progress or Silent()
    keep_freed_memory()
    protocol = get_protocol(protocol, dataset=source.name) if isinstance(protocol, str) else protocol
    if protocol.labels == "all":
        raise UsageError(f"protocol {protocol.name} labels base classes too: fewseg evaluate RUN, evaluate_generalised")
    if episode_lists is None:
        seeds = protocol_seeds(protocol, repeats)
        count = shots if shots is not None else model.shots
        episode_lists = [
            sample_episodes(source, fold, protocol=protocol, seed=seed, shots=count, episodes=episodes)
            for seed in seeds
        ]
    start = time.perf_counter()
    rows = evaluate_lists(
        FeatureCache(model.eval(), gigabytes=cache_gb, file_gigabytes=file_gb),
        source,
        fold,
        episode_lists,
        protocol=protocol,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        title=f"{title or model.name}, {episode_lists[0].shots}-shot, {len(episode_lists)} repeats",
    )
    seconds = time.perf_counter() - start
    return _report(
        model, source, fold, rows, lists=episode_lists, protocol=protocol, checkpoint=checkpoint or {}, seconds=seconds
    )


def _report(
    model: FewShotSegmenter,
    source: ImageSource,
    fold: Fold,
    rows: list[Rows],
    *,
    lists: Sequence[EpisodeList],
    protocol: EvaluationProtocol,
    checkpoint: dict[str, Any],
    seconds: float,
) -> Report:
    """What the rows of every list say, with all that led to them."""
    results = [_repeat(found, listed, fold, source) for found, listed in zip(rows, lists, strict=True)]
    tables = [found.table for found in rows]
    mean, interval, kind = _interval(results, tables, fold)
    return Report(
        method=model.name,
        backbone=str(model_options(model).get("backbone", "none")),
        options=model_options(model),
        source=source.name,
        source_sha256=source.index.sha256,
        class_names=list(source.class_names),
        fold={**asdict(fold), "novel_names": [source.class_names[c - 1] for c in fold.novel]},
        shots=lists[0].shots,
        image_size=protocol.input_size or model.image_size,
        protocol=protocol.as_dict(),
        repeats=results,
        miou=mean,
        interval=interval,
        interval_kind=kind,
        fb_iou=float(np.mean([r.fb_iou for r in results])),
        class_iou={name: float(np.mean([r.class_iou[name] for r in results])) for name in results[0].class_iou},
        meta_miou=_mean([r.meta_miou for r in results]),
        base_miou=_mean([r.base_miou for r in results]),
        parameters=count_parameters(model),
        seconds_per_episode=seconds / max(1, sum(len(t) for t in tables)),
        checkpoint=checkpoint,
        versions=versions(),
        tables=tables,
        foreground_on=[found.foreground_on for found in rows],
    )


def evaluate_episodes(
    cache: FeatureCache,
    source: ImageSource,
    fold: Fold,
    episodes: EpisodeList,
    *,
    protocol: EvaluationProtocol,
    batch_size: int = 1,
    workers: int = 2,
    progress: Silent | None = None,
    title: str = "evaluating",
) -> Rows:
    """The counts of every episode of a list; see `evaluate_lists`."""
    (rows,) = evaluate_lists(
        cache,
        source,
        fold,
        [episodes],
        protocol=protocol,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        title=title,
    )
    return rows


def evaluate_lists(
    cache: FeatureCache,
    source: ImageSource,
    fold: Fold,
    lists: Sequence[EpisodeList],
    *,
    protocol: EvaluationProtocol,
    batch_size: int = 1,
    workers: int = 2,
    progress: Silent | None = None,
    title: str = "evaluating",
) -> list[Rows]:
    """The counts of every episode of several lists, which are worked through together: what is encoded for one serves
    all.
    """
    scores = score_episodes(
        cache,
        source,
        fold,
        lists,
        protocol=protocol,
        score=partial(count, base=len(fold.base), classes=len(source.class_names), protocol=protocol),
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        title=title,
    )
    return [_rows(found) for found in scores]


@dataclass(frozen=True)
class Counts:
    """The counts of one episode, on the CPU; see `Rows`."""

    final: Tensor
    meta: Tensor | None
    base: Tensor | None
    foreground_on: NDArray[np.int64]


def count(matched: Matched, *, base: int, classes: int, protocol: EvaluationProtocol) -> Counts:
    """Intersections and unions of an episode, and where its foreground fell, of `classes`, `base` of them base ones."""
    class_id = matched.entry.spec.class_id
    masks = {n: foreground_wins(matched.logits[n])[0] for n in ("final", "meta") if n in matched.logits}
    counts = {n: episode_counts(mask, matched.mask, class_id).cpu() for n, mask in masks.items()}
    labels = matched.logits.get("base")
    pooled = None if labels is None else base_confusion(winners(labels)[0], matched.base_labels, base).cpu()
    on_labels = at_labels(masks["final"], matched.labels.shape, protocol)
    on = foreground_by_class(on_labels, matched.labels, classes)
    return Counts(counts["final"], counts.get("meta"), pooled, on)


def _rows(found: list[Counts]) -> Rows:
    """One list's counts in its order."""
    meta = [c.meta for c in found if c.meta is not None]
    base = [c.base for c in found if c.base is not None]
    return Rows(
        torch.stack([c.final for c in found]).numpy() if found else np.zeros((0, len(COLUMNS)), np.int64),
        torch.stack(meta).numpy() if meta else None,
        torch.stack(base).sum(0).numpy() if base else None,
        np.stack([c.foreground_on for c in found]) if found else np.zeros((0, 1), np.int64),
    )


def protocol_seeds(protocol: EvaluationProtocol, repeats: int | None) -> tuple[int, ...]:
    """The seeds of the first `repeats` repeats (None: all)."""
    if repeats is None:
        return protocol.seeds
    if not 1 <= repeats <= len(protocol.seeds):
        raise UsageError(
            f"protocol {protocol.name!r} has {len(protocol.seeds)} seeds; give 1 to {len(protocol.seeds)} repeats"
        )
    return protocol.seeds[:repeats]


def _repeat(rows: Rows, listed: EpisodeList, fold: Fold, source: ImageSource) -> Repeat:
    ious = class_iou(rows.table, fold.novel)
    base = rows.base
    return Repeat(
        seed=listed.seed,
        episodes=len(listed),
        episode_sha256=listed.sha256,
        miou=miou(rows.table, fold.novel),
        fb_iou=fb_iou(rows.table),
        class_iou={source.class_names[c - 1]: iou for c, iou in ious.items()},
        meta_miou=None if rows.meta is None else miou(rows.meta, fold.novel),
        base_miou=None if base is None else float((base[1:, 0] / np.maximum(base[1:, 1], 1)).mean()),
    )


def _interval(
    results: list[Repeat], tables: list[NDArray[np.int64]], fold: Fold
) -> tuple[float, tuple[float, float], str]:
    values = np.array([r.miou for r in results])
    mean = float(values.mean())
    if len(values) == 1:
        return mean, bootstrap_interval(tables[0], fold.novel), "bootstrap over episodes"
    return mean, t_interval(values), f"Student's t over {len(values)} repeats"


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Numbers of all and of trained parameters."""
    return {
        "all": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("fewseg", "torch", "torchvision", "timm", "numpy", "pillow")
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in packages}
