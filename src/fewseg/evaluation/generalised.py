"""Generalised few-shot evaluation: base classes and the episode's novel class in one map (BAM; docs/networks/peers.md).

query --> final (fused) and base logits at the scoring size
novel where softmax(final) foreground > tau; elsewhere the base learner's class       (`merge_labels`)
labels 0 background, 1..N base classes, N + 1 the episode's class; other novel classes are background
    all-generalised: N + 1, N + 2, ... are all novel classes, of which the surest has a pixel
per class the sums of intersections and unions over all episodes --> mIoU over novel, base and all classes, and the
    harmonic mean of the first two
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.data.episodes.lists import EpisodeList
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark, for_model
from fewseg.evaluation.evaluate import common_fields, repeat_fields
from fewseg.evaluation.results import Evaluation, check_place
from fewseg.evaluation.scoring import Matched, score_episodes
from fewseg.features.cache import FeatureCache
from fewseg.files import write_json
from fewseg.metrics.intervals import bounded_t_interval
from fewseg.metrics.iou import base_confusion, label_pixels, winners
from fewseg.models.base import FewShotSegmenter
from fewseg.progress import counted
from fewseg.storage.opening import check_base_classes

Merge = Literal["final", "base"]
MEANS = ("novel", "base", "all", "harmonic")
"""What there is an mIoU of."""


@dataclass(frozen=True)
class GeneralisedRepeat:
    """The numbers of one repeat; IoUs are shares of 1."""

    seed: int
    episodes: int
    episode_sha256: str
    novel_miou: float
    base_miou: float
    all_miou: float
    harmonic_miou: float
    """Harmonic mean of `novel_miou` and `base_miou`."""
    class_iou: dict[str, float]
    novel_episodes: int
    """Queries in which any pixel was labelled as a novel class."""
    largest: float
    """Largest foreground value that `tau` was compared with."""


@dataclass(frozen=True, kw_only=True)
class GeneralisedResults(Evaluation):
    """What a generalised evaluation found."""

    repeats: list[GeneralisedRepeat]
    tau: float
    merge: str
    novel_miou: float
    """Mean over repeats, as the next three; no class's background counts in any of them."""
    base_miou: float
    all_miou: float
    harmonic_miou: float
    intervals: dict[str, tuple[float, float]]
    """95 % by Student's t over repeats, of novel, base, all and harmonic; empty with one repeat."""

    def save(self, path: Path) -> Path:
        """Write them as JSON. Raises UsageError for another ending, or where something else is there."""
        check_place(path, rows=False)
        return write_json(path, self.as_dict())


def evaluate_generalised(
    model: FewShotSegmenter,
    benchmark: Benchmark,
    *,
    tau: float = 0.9,
    merge: Merge = "final",
    cache_gb: float = 2.0,
    file_gb: float = 16.0,
    weights: dict[str, Any] | None = None,
    **how: Any,
) -> GeneralisedResults:
    """Evaluate a model with a base learner on base and novel classes together; options as for `evaluate`.

    Raises UsageError for a model without a base learner and for a protocol that is no generalised one, and as
    `evaluate` does.
    """
    benchmark = for_model(benchmark, model)
    score = label_score(model, benchmark, tau=tau, merge=merge)
    start = time.perf_counter()
    scores = score_episodes(
        FeatureCache(model.eval(), gigabytes=cache_gb, file_gigabytes=file_gb),
        benchmark,
        score=score,
        title=f"{model.name}, {benchmark.shots}-shot, all classes, {counted(len(benchmark.lists), 'repeat')}",
        **how,
    )
    repeats = [_repeat(found, listed, benchmark) for found, listed in zip(scores, benchmark.lists, strict=True)]
    seconds = time.perf_counter() - start
    values = {name: np.array([getattr(r, f"{name}_miou") for r in repeats]) for name in MEANS}
    return GeneralisedResults(
        tau=tau,
        merge=merge,
        intervals={name: bounded_t_interval(v) for name, v in values.items()} if len(repeats) > 1 else {},
        **{f"{name}_miou": float(v.mean()) for name, v in values.items()},
        **common_fields(model, benchmark, repeats, weights=weights, seconds=seconds),
    )


def label_score(
    model: FewShotSegmenter, benchmark: Benchmark, *, tau: float = 0.9, merge: Merge = "final"
) -> Callable[[Matched], LabelCounts]:
    """What counts one episode; UsageError as for `evaluate_generalised`."""
    if getattr(model, "base", None) is None:
        raise UsageError(
            f"{model.name} labels no base classes; a generalised protocol needs a method with a base learner: "
            "bam, or hdmnet with one"
        )
    if benchmark.matching is None:
        check_base_classes(model, benchmark.source, benchmark.fold)
    if not benchmark.fold.base:
        raise UsageError(
            f"fold {benchmark.fold.index} of {benchmark.source.name} has no base class that {model.name} knows by "
            "name, so there is no map of base and novel classes to score"
        )
    if benchmark.protocol.labels != "all":
        raise UsageError(
            f"protocol {benchmark.protocol.name} is no generalised one; choose fewseg-generalised or bam-generalised"
        )
    if merge not in get_args(Merge):
        raise UsageError(f"merge={merge!r}; choose {' or '.join(get_args(Merge))}")
    if not 0 <= tau < 1:
        raise UsageError(f"tau={tau} is no probability; give 0 up to (not with) 1")
    return partial(count_labels, tau=tau, merge=merge)


@dataclass(frozen=True)
class LabelCounts:
    """One episode's counts, on the CPU."""

    pixels: NDArray[np.int64]
    """(N + W, 3) intersection, union and truth of the base classes, and last of the W novel classes in the map."""
    found: bool
    """Whether any pixel was labelled as a novel class."""
    largest: float
    """Largest foreground value."""


def count_labels(matched: Matched, *, tau: float, merge: Merge) -> LabelCounts:
    """Intersections and unions of one query, base and novel classes in one map."""
    ways = matched.ways or (matched,)
    base = matched.logits["base"]
    foreground = torch.cat([novel_probability(one.logits["final"]) for one in ways])[None]  # (1, W, H, W)
    labels = merge_labels(base, foreground, tau=tau, merge=merge)[0]
    novel, truth = base.shape[1], matched.base_labels
    for w, one in enumerate(ways):
        truth = truth.masked_fill(one.mask == 1, novel + w)
    last = novel + len(ways) - 1
    counts = np.column_stack([base_confusion(labels, truth, last).cpu().numpy(), label_pixels(truth, last)])
    return LabelCounts(counts[1:], bool((labels >= novel).any()), float(foreground.max()))


def merge_labels(base: Tensor, foreground: Tensor, *, tau: float = 0.9, merge: Merge = "final") -> Tensor:
    """Base and novel classes in one map (B, H, W): 0 background, 1..N base classes, N + 1.. the W novel ones.

    Novel is where the largest of the `foreground` (B, W, H, W) exceeds `tau`; elsewhere the base learner's logits
    (B, 1 + N, H, W) decide. With `merge="base"` novel classes are let in only where the base learner says background.
    """
    labels = winners(base).long()
    largest, which = foreground.max(1)
    novel = largest > tau
    if merge == "base":
        novel &= labels == 0
    return labels.where(~novel, base.shape[1] + which)


def novel_probability(final: Tensor) -> Tensor:
    """(B, H, W): what `tau` is compared with. The softmax is applied to the fused values once more: released."""
    return final.softmax(1)[:, 1]


def _repeat(scores: Sequence[LabelCounts], listed: EpisodeList, benchmark: Benchmark) -> GeneralisedRepeat:
    """The IoUs of one list's episodes."""
    base, ways = list(benchmark.fold.base), benchmark.ways
    sums: NDArray[np.int64] = np.zeros((1 + len(listed.class_names), 3), np.int64)
    for q, counts in enumerate(scores[::ways]):  # a query's classes have one score
        sums[[*base, *(spec.class_id for spec in listed.specs[q * ways : (q + 1) * ways])]] += counts.pixels
    ious = sums[:, 0] / np.maximum(sums[:, 1], 1)
    novel = list(benchmark.protocol.scored(benchmark.fold.novel, {spec.class_id for spec in listed.specs}))
    if benchmark.protocol.base_without_truth == "left out":
        base = [c for c in base if sums[c, 2]]
    of_novel, of_base = float(ious[novel].mean()), float(ious[base].mean())
    return GeneralisedRepeat(
        novel_miou=of_novel,
        base_miou=of_base,
        harmonic_miou=2 * of_novel * of_base / max(of_novel + of_base, 1e-12),
        all_miou=float(ious[novel + base].mean()),
        novel_episodes=sum(counts.found for counts in scores[::ways]),
        largest=max(counts.largest for counts in scores),
        **repeat_fields(listed, {c: ious[c] for c in novel + base}),
    )
