"""Generalised few-shot evaluation: base classes and the episode's novel class in one map (BAM; spec peers.md).

query --> final (fused) and base logits at the scoring size
novel where softmax(final) foreground > tau; elsewhere the base learner's class       (`merge_labels`)
labels 0 background, 1..N base classes, N + 1 the episode's class; other novel classes are background
per class the sums of intersections and unions over all episodes --> mIoU over novel, base and all classes
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.checkpoints import write_json
from fewseg.data.dataset import EpisodeDataset, make_loader
from fewseg.data.episodes import EpisodeList
from fewseg.data.protocols import EvaluationProtocol, get_protocol
from fewseg.data.sampling import sample_episodes
from fewseg.data.source import Fold, ImageSource
from fewseg.engine.evaluate import at_truth, input_transform, predict, protocol_seeds, truths_of, versions
from fewseg.engine.features import FeatureCache
from fewseg.engine.memory import keep_freed_memory
from fewseg.episode import Prediction
from fewseg.errors import UsageError
from fewseg.metrics import base_confusion, t_interval
from fewseg.models.base import FewShotSegmenter
from fewseg.progress import Silent

Merge = Literal["final", "base"]
MERGES = ("final", "base")


@dataclass(frozen=True)
class GeneralisedRepeat:
    """The numbers of one repeat; IoUs are shares of 1."""

    seed: int
    episodes: int
    episode_sha256: str
    novel_miou: float
    base_miou: float
    all_miou: float
    class_iou: dict[str, float]
    novel_episodes: int
    """Episodes in which any pixel was labelled as the novel class."""
    largest: float
    """Largest foreground value that `tau` was compared with."""


@dataclass(frozen=True)
class GeneralisedReport:
    """What a generalised evaluation found, and all that is needed to repeat it."""

    method: str
    backbone: str
    source: str
    fold: dict[str, Any]
    shots: int
    image_size: int
    protocol: dict[str, Any]
    tau: float
    merge: str
    repeats: list[GeneralisedRepeat]
    novel_miou: float
    """Mean over repeats, as the next two; no class's background counts in any of them."""
    base_miou: float
    all_miou: float
    intervals: dict[str, tuple[float, float]]
    """95 % by Student's t over repeats, of novel, base and all; empty with one repeat."""
    class_iou: dict[str, float]
    seconds_per_episode: float
    checkpoint: dict[str, Any]
    versions: dict[str, str]

    def save(self, path: Path) -> Path:
        """Write the report as JSON."""
        return write_json(path, asdict(self))


def evaluate_generalised(
    model: FewShotSegmenter,
    source: ImageSource,
    fold: Fold,
    *,
    protocol: str | EvaluationProtocol = "bam-generalised",
    tau: float = 0.9,
    merge: Merge = "final",
    shots: int | None = None,
    episodes: int | None = None,
    repeats: int | None = None,
    episode_lists: Sequence[EpisodeList] | None = None,
    workers: int = 2,
    cache_gb: float = 2.0,
    checkpoint: dict[str, Any] | None = None,
    progress: Silent | None = None,
) -> GeneralisedReport:
    """Evaluate a model with a base learner on base and novel classes together.

    `episodes` and `repeats` replace the protocol's numbers, `episode_lists` its draw. `source` is the test subset.
    Raises UsageError for a model without a base learner and for a protocol that is no generalised one.
    """
    keep_freed_memory()
    protocol = get_protocol(protocol, dataset=source.name) if isinstance(protocol, str) else protocol
    _check(model, source, fold, protocol=protocol, tau=tau, merge=merge)
    if episode_lists is None:
        count = shots if shots is not None else model.shots
        episode_lists = [
            sample_episodes(source, fold, protocol=protocol, seed=seed, shots=count, episodes=episodes)
            for seed in protocol_seeds(protocol, repeats)
        ]
    cache, results, start = FeatureCache(model.eval(), gigabytes=cache_gb), [], time.perf_counter()
    for r, listed in enumerate(episode_lists):
        counter = _Counter(source, fold, tau=tau, merge=merge)
        title = f"{model.name}, {listed.shots}-shot, all classes, repeat {r + 1}/{len(episode_lists)}"
        _count(
            cache,
            source,
            fold,
            listed,
            protocol=protocol,
            counter=counter,
            workers=workers,
            title=title,
            progress=progress,
        )
        results.append(counter.repeat(listed))
    seconds = (time.perf_counter() - start) / max(1, sum(r.episodes for r in results))
    return GeneralisedReport(
        method=model.name,
        backbone=str(getattr(model, "_hub_mixin_config", {}).get("backbone", "none")),
        source=source.name,
        fold={**asdict(fold), "novel_names": [source.class_names[c - 1] for c in fold.novel]},
        shots=episode_lists[0].shots,
        image_size=protocol.input_size or model.image_size,
        protocol=protocol.as_dict(),
        tau=tau,
        merge=merge,
        **_summary(results),
        seconds_per_episode=seconds,
        checkpoint=checkpoint or {},
        versions=versions(),
    )


def _summary(results: list[GeneralisedRepeat]) -> dict[str, Any]:
    """The report's fields that come from its repeats."""
    values = {name: np.array([getattr(r, f"{name}_miou") for r in results]) for name in ("novel", "base", "all")}
    return {
        "repeats": results,
        "intervals": {name: t_interval(v) for name, v in values.items()} if len(results) > 1 else {},
        "class_iou": {name: float(np.mean([r.class_iou[name] for r in results])) for name in results[0].class_iou},
    } | {f"{name}_miou": float(v.mean()) for name, v in values.items()}


def _check(
    model: FewShotSegmenter, source: ImageSource, fold: Fold, *, protocol: EvaluationProtocol, tau: float, merge: str
) -> None:
    head = getattr(model, "base", None)
    if head is None:
        raise UsageError(
            f"{model.name} labels no base classes; a generalised protocol needs a method with a base learner: "
            "bam, or hdmnet with one"
        )
    known = head.classifier.out_channels - 1
    if known != len(fold.base):
        raise UsageError(
            f"the model's base learner knows {known} classes, but fold {fold.index} of {source.name} has "
            f"{len(fold.base)}; evaluate it on the data set and fold it was trained on"
        )
    if protocol.labels != "all":
        raise UsageError(
            f"protocol {protocol.name} is no generalised one; choose fewseg-generalised or bam-generalised"
        )
    if merge not in MERGES:
        raise UsageError(f"merge={merge!r}; choose {' or '.join(MERGES)}")
    if not 0 <= tau < 1:
        raise UsageError(f"tau={tau} is no probability; give 0 up to (not with) 1")


def merge_labels(prediction: Prediction, *, tau: float = 0.9, merge: Merge = "final") -> Tensor:
    """Base and novel classes in one map (B, H, W): 0 background, 1..N base classes, N + 1 the novel class.

    Novel is where the foreground's softmax exceeds `tau`; elsewhere the base learner decides. With `merge="base"` the
    novel class is let in only where the base learner says background.
    """
    base = prediction.aux["base"]
    labels = base.argmax(1)
    novel = novel_probability(prediction) > tau
    if merge == "base":
        novel &= labels == 0
    return labels.masked_fill(novel, base.shape[1])


def novel_probability(prediction: Prediction) -> Tensor:
    """(B, H, W): what `tau` is compared with. The softmax is applied to the fused values once more: released."""
    return prediction.logits.softmax(1)[:, 1]


class _Counter:
    """Intersections and unions of one repeat, by class id."""

    def __init__(self, source: ImageSource, fold: Fold, *, tau: float, merge: Merge) -> None:
        self.source, self.fold, self.tau = source, fold, tau
        self.merge: Merge = merge
        self.sums: NDArray[np.int64] = np.zeros((1 + len(source.class_names), 2), np.int64)
        self.novel_episodes, self.largest = 0, 0.0

    def add(self, prediction: Prediction, mask: Tensor, base_labels: Tensor, class_id: int) -> None:
        """One episode at the scoring size: prediction of a batch of one, mask and base labels (H, W)."""
        novel = len(self.fold.base) + 1
        truth = base_labels.masked_fill(mask == 1, novel)
        labels = merge_labels(prediction, tau=self.tau, merge=self.merge)[0]
        counts = base_confusion(labels, truth, novel).numpy()
        self.sums[[*self.fold.base, class_id]] += counts[1:]
        self.novel_episodes += int((labels == novel).any())
        self.largest = max(self.largest, novel_probability(prediction).max().item())

    def repeat(self, listed: EpisodeList) -> GeneralisedRepeat:
        """The IoUs of the episodes so far."""
        ious = self.sums[:, 0] / np.maximum(self.sums[:, 1], 1)
        novel, base = list(self.fold.novel), list(self.fold.base)
        return GeneralisedRepeat(
            seed=listed.seed,
            episodes=len(listed),
            episode_sha256=listed.sha256,
            novel_miou=float(ious[novel].mean()),
            base_miou=float(ious[base].mean()),
            all_miou=float(ious[novel + base].mean()),
            class_iou={self.source.class_names[c - 1]: float(ious[c]) for c in novel + base},
            novel_episodes=self.novel_episodes,
            largest=self.largest,
        )


@torch.inference_mode()
def _count(
    cache: FeatureCache,
    source: ImageSource,
    fold: Fold,
    listed: EpisodeList,
    *,
    protocol: EvaluationProtocol,
    counter: _Counter,
    workers: int,
    title: str,
    progress: Silent | None,
) -> None:
    """Count every episode of a list."""
    # neighbours share supports' classes and queries, so that the cache hits; sums know no order
    order = sorted(range(len(listed)), key=lambda e: (listed.specs[e].class_id, listed.specs[e].query, e))
    dataset = EpisodeDataset(
        source,
        fold,
        spec_of=lambda e: listed.specs[e],
        length=len(listed),
        transform=input_transform(protocol, cache.model.image_size),
    )
    loader = make_loader(dataset, [[e] for e in order], workers=workers)
    for sample in (progress or Silent())(loader, title, len(order)):
        prediction = predict(cache, sample)
        aux = {"base": at_truth(prediction.aux["base"], sample, protocol)}
        scored = Prediction(at_truth(prediction.logits, sample, protocol), aux)
        counter.add(scored, *truths_of(sample, protocol), sample.specs[0].class_id)
