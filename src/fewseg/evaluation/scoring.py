"""Scoring: a model's logits for every episode are compared with the truth, at the size that the protocol says."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from fewseg.data.dataset import Sample
from fewseg.data.episodes.protocols import EvaluationProtocol
from fewseg.data.transforms import Pad
from fewseg.episode import Prediction
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.feed import Entry, Feed, Step
from fewseg.features.cache import FeatureCache
from fewseg.models.answers import checked
from fewseg.models.parts.ops import resize_ac, resize_nearest
from fewseg.progress import Silent
from fewseg.runtime.processes import of_all
from fewseg.runtime.threads import in_lanes, lanes_for
from fewseg.storage.opening import Matching

S = TypeVar("S")


@dataclass(frozen=True)
class Matched:
    """One episode's logits and truth at the size that the protocol scores at, on the model's device."""

    entry: Entry
    logits: dict[str, Tensor]
    """(1, C, H, W) `final`, and `meta` and `base` where the method has them."""
    mask: Tensor
    """(H, W) {0, 1, 255}."""
    base_labels: Tensor
    """(H, W): 0 background, 1..N base classes, 255."""
    labels: Tensor
    """(H, W) at the query's own size: all classes, as the source gives them."""
    presence: float | None = None
    """Logit of the class being there at all, where the model says."""
    ways: tuple[Matched, ...] = ()
    """Where base classes and several novel ones are scored in one map: the query's episode of each of these."""


def score_episodes(
    cache: FeatureCache,
    benchmark: Benchmark,
    *,
    score: Callable[[Matched], S],
    batch_size: int = 1,
    workers: int = 2,
    progress: Silent | None = None,
    title: str = "evaluating",
) -> list[list[S]]:
    """`score` of every episode, per list in its order.

    The lists are worked through together: what is encoded for one serves all. Several processes share the work, and
    every one returns all scores.
    """
    model = cache.model.eval()
    model.name_classes(benchmark.source.class_names)
    feed = Feed(cache, benchmark, batch_size=batch_size)

    def scores() -> Generator[tuple[Entry, S], None, None]:
        work = partial(score_step, feed, score)
        for step, scored in in_lanes(work, feed.load(workers=workers), lanes=lanes_for(model.device)):
            feed.done(step)
            yield from scored

    total = sum(len(step.entries) for step in feed.steps)
    with closing(scores()) as running:  # lanes and workers end here, whatever is raised
        own = [((entry.repeat, entry.place), s) for entry, s in (progress or Silent())(running, title, total)]
    found = dict(chain.from_iterable(of_all(own)))
    return [[found[r, e] for e in range(len(listed))] for r, listed in enumerate(benchmark.lists)]


@torch.inference_mode()
def score_step(feed: Feed, score: Callable[[Matched], S], step: Step) -> tuple[Step, list[tuple[Entry, S]]]:
    """Match the episodes of a step at once, and score each."""
    query, support = feed.features(step)
    model, size = feed.cache.model, (feed.image_size, feed.image_size)
    # test classes are novel, and the base learner must not be told which base class a held-out one is
    known = torch.tensor([feed.base_index(entry.spec.class_id) for entry in step.entries], device=model.device)
    answer = model.match(query, support, size=size, base_index=known)
    prediction = checked(answer, model, count=len(step.entries), size=size)
    found = [
        matched(prediction, b, entry, feed.truth(step, entry), feed.protocol, feed.matching)
        for b, entry in enumerate(step.entries)
    ]
    groups = (found[i : i + feed.ways] for i in range(0, len(found), feed.ways))
    scores = chain.from_iterable(score_ways(group, score, feed.protocol) for group in groups)
    return step, list(zip(step.entries, scores, strict=True))


def score_ways(group: Sequence[Matched], score: Callable[[Matched], S], protocol: EvaluationProtocol) -> list[S]:
    """The scores of the episodes of one query whose classes share a map; where base classes do too, one for all."""
    if protocol.labels == "all":
        return [score(replace(group[0], ways=tuple(group)))] * len(group)
    return [score(one) for one in (group if len(group) == 1 else one_map(group))]


def one_map(group: Sequence[Matched]) -> list[Matched]:
    """The episodes of one query with every pixel left to one class: that whose foreground leads its background by
    most, if any does.

    Methods of two classes are made N-way ones so: each class is looked for on its own, and the surest wins.
    """
    logits = [dict(one.logits) for one in group]
    for name in ("final", "meta"):
        if name in group[0].logits:
            maps = torch.cat([one.logits[name] for one in group])  # (N, 2, H, W)
            winner = (maps[:, 1] - maps[:, 0]).argmax(0)
            for w, own in enumerate(logits):
                background, foreground = maps[w]
                own[name] = torch.stack([background, foreground.where(winner == w, background)])[None]
    return [replace(one, logits=own) for one, own in zip(group, logits, strict=True)]


def matched(
    prediction: Prediction,
    b: int,
    entry: Entry,
    truth: Mapping[str, Tensor],
    protocol: EvaluationProtocol,
    matching: Matching | None,
) -> Matched:
    """Episode number `b` of a batch beside its truth (`feed.Loaded.truth`), at the size that the protocol scores at."""
    maps = {"final": prediction.logits} | {n: prediction.aux[n] for n in ("meta", "base") if n in prediction.aux}
    logits = {n: at_truth(m[b : b + 1].float(), truth["labels"].shape, protocol) for n, m in maps.items()}
    if "base" in logits and matching is not None:
        logits["base"] = matched_logits(logits["base"], matching.channels)
    mask, base_labels = truth["scored"]
    there = None if prediction.presence is None else float(prediction.presence[b])
    return Matched(entry, logits, mask, base_labels, truth["labels"], there)


def matched_logits(base: Tensor, channels: Sequence[int]) -> Tensor:
    """A base learner's logits (1, 1 + N, H, W) as those (1, 1 + n, H, W) of the n of its classes that the data has.

    Its other classes are background here: that one's logit is the largest of theirs and its own.
    """
    others = [c for c in range(base.shape[1]) if c not in set(channels)]  # with 0, the background's own
    return torch.cat([base[:, others].amax(1, keepdim=True), base[:, list(channels)]], 1)


def predict(cache: FeatureCache, sample: Sample) -> Prediction:
    """The prediction of a sample of one episode, with whatever of it is cached; on the CPU."""
    spec, device = sample.specs[0], cache.model.device
    episode = sample.episode.to(device)
    query = cache.query(spec.query, episode.query_image)
    keys = [(i, spec.class_id) for i in spec.support]
    support = cache.support(keys, episode.support_images, episode.support_masks, episode.class_id)
    answer = cache.model.match(query, support, size=episode.size, base_index=episode.base_index)
    prediction = checked(answer, cache.model, count=1, size=episode.size)
    return prediction.map(lambda t: t.float().cpu())


def at_truth(logits: Tensor, size: Sequence[int], protocol: EvaluationProtocol) -> Tensor:
    """(1, C, S, S) at the size that the protocol scores a query of (H, W) at."""
    height, width = size
    if protocol.scored_at == "input":
        return logits
    if protocol.scored_at == "padded_square":
        side = max(height, width)
        return resize_ac(logits, (side, side))
    if protocol.scored_at == "cropped":
        rows, columns = Pad(logits.shape[-1]).content(height, width)
        logits = logits[..., :rows, :columns]
    return resize_ac(logits, (height, width))


def at_labels(mask: Tensor, size: Sequence[int], protocol: EvaluationProtocol) -> Tensor:
    """A mask (S, S) at the size that the protocol scores at, in the query's own size (H, W)."""
    height, width = size
    if protocol.scored_at == "input":
        side = max(height, width)
        shown = (side, side) if protocol.resize == "pad" else (height, width)
        mask = resize_nearest(mask[None, None], shown)[0, 0] == 1
    return mask[:height, :width]
