"""The loop that a paper would print: every episode from the disk to the metric, one after the other.

`fewseg.evaluate(model, benchmark, plain=True)`. Nothing is kept, shared, batched or computed in another way than the
method's file has it, so a breakpoint anywhere shows one episode whole. The scheduled evaluation counts the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.feed import Entry, Need, loaded
from fewseg.evaluation.scoring import Matched, matched, score_ways
from fewseg.models.answers import checked
from fewseg.models.base import FewShotSegmenter
from fewseg.progress import Silent
from fewseg.runtime.processes import rank_and_world

S = TypeVar("S")


@torch.inference_mode()
def score_plainly(
    model: FewShotSegmenter,
    benchmark: Benchmark,
    *,
    score: Callable[[Matched], S],
    progress: Silent | None = None,
    title: str = "evaluating plainly",
) -> list[list[S]]:
    """`score` of every episode, per list in its order. UsageError under torchrun: one process goes through them all."""
    if rank_and_world()[1] > 1:
        raise UsageError("plain=True goes through all episodes in one process; leave torchrun or srun away")
    model, protocol, scores = model.eval(), benchmark.protocol, []
    model.name_classes(benchmark.source.class_names)
    for repeat, listed in enumerate(benchmark.lists):
        dataset, found, scored = benchmark.dataset(model.image_size, repeat=repeat), [], []
        for e, spec in enumerate((progress or Silent())(listed.specs, title, len(listed))):
            episode = dataset[e].episode.to(model.device)  # one query (1, 3, S, S), K supports (1, K, 3, S, S), masks
            answer = model(episode)  # (1, 2, S, S) logits; the query's labels do not reach the parts
            prediction = checked(answer, model, count=1, size=episode.size)
            need = Need(spec.query, spec.class_id, pixels=False, truth=True)
            truth = loaded(dataset, need, protocol).truth or {}  # at the size that the protocol scores at
            on = {name: part.to(model.device) for name, part in truth.items()}
            found.append(matched(prediction, 0, Entry(repeat, e, spec), on, protocol, benchmark.matching))
            if len(found) == benchmark.ways:  # classes of one query that share a map; one, as a rule
                scored += score_ways(found, score, protocol)
                found = []
        scores.append(scored)
    return scores
