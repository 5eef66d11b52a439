"""Evaluation: episodes -> Report.

Every episode's intersections and unions are kept, so that any number in a report can be drawn from its rows again.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewseg.checkpoints import write_json
from fewseg.data.dataset import EpisodeDataset, Sample, make_loader
from fewseg.data.episodes import EpisodeList
from fewseg.data.protocols import EvaluationProtocol, get_protocol
from fewseg.data.sampling import sample_episodes
from fewseg.data.source import Fold, ImageSource
from fewseg.data.transforms import Pad, Squeeze, Transform
from fewseg.engine.features import FeatureCache
from fewseg.engine.memory import keep_freed_memory
from fewseg.engine.processes import of_all, own_share
from fewseg.episode import IGNORE, Prediction
from fewseg.errors import UsageError
from fewseg.metrics import FewShotIoU, base_confusion, bootstrap_interval, class_iou, fb_iou, miou
from fewseg.models.base import FewShotSegmenter
from fewseg.models.ops import resize_ac
from fewseg.progress import Silent


@dataclass(frozen=True)
class Rows:
    """Counts of every episode of one repeat, in the list's order; columns as in `fewseg.metrics.COLUMNS`."""

    table: NDArray[np.int64]
    meta: NDArray[np.int64] | None
    """The same of the meta learner alone, where a method has one."""
    base: NDArray[np.int64] | None
    """(1 + N, 2) pooled intersection and union of the base learner's labels on the queries."""


@dataclass(frozen=True)
class Repeat:
    """The numbers of one repeat; IoUs are shares of 1."""

    seed: int
    episodes: int
    episode_sha256: str
    miou: float
    fb_iou: float
    class_iou: dict[str, float]
    meta_miou: float | None = None
    base_miou: float | None = None


@dataclass(frozen=True)
class Report:
    """What an evaluation found, and all that is needed to repeat it."""

    method: str
    backbone: str
    source: str
    fold: dict[str, Any]
    shots: int
    image_size: int
    protocol: dict[str, Any]
    repeats: list[Repeat]
    miou: float
    """Mean over repeats."""
    interval: tuple[float, float]
    """95 %: Student's t over repeats, or a bootstrap over episodes if there is one repeat."""
    interval_kind: str
    fb_iou: float
    class_iou: dict[str, float]
    meta_miou: float | None
    base_miou: float | None
    parameters: dict[str, int]
    seconds_per_episode: float
    checkpoint: dict[str, Any]
    versions: dict[str, str]
    tables: list[NDArray[np.int64]] = field(repr=False, default_factory=list)
    """Per repeat the rows of its episodes; saved as CSV, not in the JSON."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; without the rows."""
        return {k: v for k, v in asdict(self).items() if k != "tables"}

    def save(self, path: Path) -> Path:
        """Write the report as JSON."""
        return write_json(path, self.as_dict())


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
    workers: int = 2,
    cache_gb: float = 2.0,
    checkpoint: dict[str, Any] | None = None,
    title: str | None = None,
    progress: Silent | None = None,
) -> Report:
    """Evaluate a model on a fold's novel classes.

    `title` names the model on the progress bar. `episodes` and `repeats` replace the protocol's numbers;
    `episode_lists` replace its draw. The digits depend on none of `workers`, `cache_gb` and the number of
    processes (torchrun), which share the episodes. `source` is the data set's test subset.
    """
    progress = progress or Silent()
    keep_freed_memory()
    protocol = get_protocol(protocol, dataset=source.name) if isinstance(protocol, str) else protocol
    if episode_lists is None:
        seeds = protocol_seeds(protocol, repeats)
        count = shots if shots is not None else model.shots
        episode_lists = [
            sample_episodes(source, fold, protocol=protocol, seed=seed, shots=count, episodes=episodes)
            for seed in seeds
        ]
    cache = FeatureCache(model.eval(), gigabytes=cache_gb)
    results, tables, start = [], [], time.perf_counter()
    for r, listed in enumerate(episode_lists):
        bar = f"{title or model.name}, {listed.shots}-shot, repeat {r + 1}/{len(episode_lists)}"
        rows = evaluate_episodes(
            cache, source, fold, listed, protocol=protocol, workers=workers, progress=progress, title=bar
        )
        tables.append(rows.table)
        results.append(_repeat(rows, listed, fold, source))
    seconds = (time.perf_counter() - start) / max(1, sum(len(t) for t in tables))
    mean, interval, kind = _interval(results, tables, fold)
    return Report(
        method=model.name,
        backbone=str(getattr(model, "_hub_mixin_config", {}).get("backbone", "none")),
        source=source.name,
        fold={**asdict(fold), "novel_names": [source.class_names[c - 1] for c in fold.novel]},
        shots=episode_lists[0].shots,
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
        seconds_per_episode=seconds,
        checkpoint=checkpoint or {},
        versions=versions(),
        tables=tables,
    )


@torch.inference_mode()
def evaluate_episodes(
    cache: FeatureCache,
    source: ImageSource,
    fold: Fold,
    episodes: EpisodeList,
    *,
    protocol: EvaluationProtocol,
    workers: int = 2,
    progress: Silent | None = None,
    title: str = "evaluating",
) -> Rows:
    """The counts of every episode of a list."""
    model = cache.model.eval()
    metric, meta_metric = FewShotIoU(fold.novel), FewShotIoU(fold.novel)
    # neighbours share supports' classes and queries, so that the cache hits; the rows are put back in the list's order
    order = sorted(range(len(episodes)), key=lambda e: (episodes.specs[e].class_id, episodes.specs[e].query, e))
    dataset = EpisodeDataset(
        source,
        fold,
        spec_of=lambda e: episodes.specs[e],
        length=len(episodes),
        transform=input_transform(protocol, model.image_size),
    )
    own = own_share(order)
    loader = make_loader(dataset, [[e] for e in own], workers=workers)
    base: Tensor | None = None
    for sample in (progress or Silent())(loader, title, len(own)):
        prediction = predict(cache, sample)
        truth, base_truth = _truths(sample, protocol)
        class_id = sample.specs[0].class_id
        metric.update(at_truth(prediction.logits, sample, protocol).argmax(1)[0] == 1, truth, class_id)
        if "meta" in prediction.aux:
            meta_metric.update(at_truth(prediction.aux["meta"], sample, protocol).argmax(1)[0] == 1, truth, class_id)
        if "base" in prediction.aux:
            labels = at_truth(prediction.aux["base"], sample, protocol).argmax(1)[0]
            counts = base_confusion(labels, base_truth, len(fold.base))
            base = counts if base is None else base + counts
    back = np.argsort(order)
    tables, metas, bases = zip(*of_all((metric.table(), meta_metric.table(), base)), strict=True)
    meta, pooled = np.concatenate(metas), [counts.numpy() for counts in bases if counts is not None]
    return Rows(
        np.concatenate(tables)[back], meta[back] if len(meta) else None, np.sum(pooled, axis=0) if pooled else None
    )


def predict(cache: FeatureCache, sample: Sample) -> Prediction:
    """The prediction of a sample of one episode, with whatever of it is cached; on the CPU."""
    spec, device = sample.specs[0], cache.model.device
    episode = sample.episode.to(device)
    query = cache.query(spec.query, episode.query_image)
    keys = [(i, spec.class_id) for i in spec.support]
    support = cache.support(keys, episode.support_images, episode.support_masks)
    # test classes are novel, and the base learner must not be told which base class a held-out one is
    prediction = cache.model.match(query, support, size=episode.size, base_index=episode.base_index)
    return Prediction(
        prediction.logits.float().cpu(),
        {name: value.float().cpu() for name, value in prediction.aux.items()},
        tuple(c.float().cpu() for c in prediction.correlations),
    )


def input_transform(protocol: EvaluationProtocol, image_size: int) -> Transform:
    """How the protocol brings an image to the model's input."""
    size = protocol.input_size or image_size
    return Pad(size) if protocol.resize == "pad" else Squeeze(size, antialias=protocol.antialias)


def at_truth(logits: Tensor, sample: Sample, protocol: EvaluationProtocol) -> Tensor:
    """(1, C, S, S) at the size that the protocol scores at."""
    if protocol.scored_at == "input":
        return logits
    height, width = sample.truth[0].shape
    if protocol.scored_at == "padded_square":
        return resize_ac(logits, (max(height, width),) * 2)
    return resize_ac(logits, (height, width))


def _truths(sample: Sample, protocol: EvaluationProtocol) -> tuple[Tensor, Tensor]:
    """Query mask and base labels at the size that the protocol scores at."""
    episode = sample.episode
    if protocol.scored_at == "input" and episode.query_mask is not None and episode.query_base_mask is not None:
        return episode.query_mask[0], episode.query_base_mask[0]
    truth, base = torch.from_numpy(sample.truth[0]), torch.from_numpy(sample.base_truth[0])
    if protocol.scored_at == "padded_square":
        height, width = truth.shape
        side = max(height, width)
        padding = (0, side - width, 0, side - height)
        return F.pad(truth, padding, value=IGNORE), F.pad(base, padding, value=IGNORE)
    return truth, base


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
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, (mean - half, mean + half), f"Student's t over {len(values)} repeats"


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
