"""Episodes in pictures: which to show, and what the models predict on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from fewseg.data.source import mask_of
from fewseg.episode import Prediction
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.scoring import at_labels, at_truth, predict
from fewseg.features.cache import FeatureCache
from fewseg.metrics.iou import episode_counts, episode_iou
from fewseg.report.contents import OtherPrediction, Panel


def choose_episodes(table: NDArray[np.int64], *, each: int = 2) -> dict[str, list[int]]:
    """Positions in a table of the `each` best, median and worst episodes, of different classes where possible."""
    order = np.argsort(-episode_iou(table), kind="stable")
    middle = np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")
    groups, used = {}, set()
    for name, candidates in (("Best", order), ("Median", order[middle]), ("Worst", order[::-1])):
        chosen: list[int] = []
        for fresh, e in product((True, False), candidates.tolist()):
            repeated = table[e, 0] in table[chosen, 0]
            if len(chosen) < each and e not in used and not (fresh and repeated):
                chosen.append(e)
                used.add(e)
        groups[name] = chosen
    return groups


@torch.inference_mode()
def episode_panel(caches: Mapping[str, FeatureCache], benchmark: Benchmark, e: int, *, group: str = "") -> Panel:
    """Episode `e` of the first repeat in pictures: the first model's prediction and correlation maps, then what the
    other models predict.
    """
    source, protocol, spec = benchmark.source, benchmark.protocol, benchmark.lists[0].specs[e]
    support = [source.load(i) for i in spec.support]
    query, labels = source.load(spec.query)
    truth = mask_of(source, spec.query, spec.class_id, labels)
    shown: list[tuple[OtherPrediction, Prediction]] = []
    for name, cache in caches.items():
        prediction = predict(cache, benchmark.dataset(cache.model.image_size)[e])
        logits = at_truth(prediction.logits, truth.shape, protocol)
        mask = at_labels(logits.argmax(1)[0] == 1, truth.shape, protocol)
        counts = episode_counts(mask, torch.from_numpy(truth), spec.class_id)[None].numpy()
        shown.append((OtherPrediction(name, mask.numpy(), float(episode_iou(counts)[0])), prediction))
    main, prediction = shown[0]
    return Panel(
        source.class_names[spec.class_id - 1],
        tuple(np.asarray(image) for image, _ in support),
        tuple(mask_of(source, i, spec.class_id, found[1]) for i, found in zip(spec.support, support, strict=True)),
        np.asarray(query),
        main.prediction,
        method=main.name,
        truth=truth,
        iou=main.iou,
        caption=f"query {source.index.ids[spec.query]}",
        group=group,
        correlations=tuple(c[0].numpy() for c in prediction.correlations),
        others=tuple(other for other, _ in shown[1:]),
    )


def episode_panels(
    caches: Mapping[str, FeatureCache], benchmark: Benchmark, table: NDArray[np.int64], *, each: int = 2
) -> tuple[Panel, ...]:
    """Panels of the best, median and worst episodes of the first repeat by the first model's `table`."""
    return tuple(
        episode_panel(caches, benchmark, e, group=group)
        for group, chosen in choose_episodes(table, each=each).items()
        for e in chosen
    )


def middle_panels(
    caches: Mapping[str, FeatureCache], benchmark: Benchmark, table: NDArray[np.int64]
) -> tuple[Panel, ...]:
    """Of the classes with the highest, the middle and the lowest mean IoU, the episode in the middle of its class."""
    ious = episode_iou(table)
    places = [np.flatnonzero(table[:, 0] == c) for c in np.unique(table[:, 0])]
    places.sort(key=lambda of_class: -ious[of_class].mean())
    chosen = [places[i] for i in sorted({0, len(places) // 2, len(places) - 1})]
    middles = [int(of_class[np.argsort(ious[of_class], kind="stable")[len(of_class) // 2]]) for of_class in chosen]
    return tuple(replace(episode_panel(caches, benchmark, e), correlations=()) for e in middles)
