"""Episodes in pictures: which to show, and what the models predict on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.lists import EpisodeList, EpisodeSpec
from fewseg.data.episodes.protocols import EvaluationProtocol
from fewseg.data.source import Fold, ImageSource
from fewseg.episode import Prediction
from fewseg.evaluation.benchmark import input_transform
from fewseg.evaluation.scoring import at_labels, at_truth, predict
from fewseg.features.cache import FeatureCache
from fewseg.metrics import episode_counts, episode_iou
from fewseg.report.contents import OtherPrediction, Panel


def choose_episodes(table: NDArray[np.int64], *, each: int = 2) -> dict[str, list[int]]:
    """Positions of the best, median and worst episodes of a table, `each` of them, of different classes where
    possible.
    """
    order = np.argsort(-episode_iou(table), kind="stable")
    middle = np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")
    groups, used = {}, set()
    for name, candidates in (("Best", order), ("Median", order[middle]), ("Worst", order[::-1])):
        chosen: list[int] = []
        for fresh in (True, False):
            for e in candidates.tolist():
                classes = {int(table[c, 0]) for c in chosen}
                if len(chosen) < each and e not in used and not (fresh and int(table[e, 0]) in classes):
                    chosen.append(e)
                    used.add(e)
        groups[name] = chosen
    return groups


@torch.inference_mode()
def episode_panel(
    caches: Mapping[str, FeatureCache],
    source: ImageSource,
    fold: Fold,
    spec: EpisodeSpec,
    *,
    protocol: EvaluationProtocol,
    group: str = "",
) -> Panel:
    """One episode in pictures: the first model's prediction and correlation maps, the others' predictions beside it."""
    support = [source.load(i) for i in spec.support]
    query, _ = source.load(spec.query)
    truth: NDArray[np.uint8] | None = None
    shown: list[tuple[str, NDArray[np.bool_], float, Prediction]] = []
    for name, cache in caches.items():
        transform = input_transform(protocol, cache.model.image_size)
        sample = EpisodeDataset(source, fold, spec_of=lambda _: spec, length=1, transform=transform)[0]
        prediction = predict(cache, sample)
        truth = sample.truth[0]
        logits = at_truth(prediction.logits, truth.shape, protocol)
        mask = at_labels(logits.argmax(1)[0] == 1, truth.shape, protocol)
        counts = episode_counts(mask, torch.from_numpy(truth), spec.class_id)[None].numpy()
        shown.append((name, mask.numpy(), float(episode_iou(counts)[0]), prediction))
    _, mask, iou, prediction = shown[0]
    return Panel(
        source.class_names[spec.class_id - 1],
        tuple(np.asarray(image) for image, _ in support),
        tuple(_binary(labels, spec.class_id) for _, labels in support),
        np.asarray(query),
        mask,
        truth=truth,
        iou=iou,
        caption=f"query {source.index.ids[spec.query]}",
        group=group,
        correlations=tuple(c[0].numpy() for c in prediction.correlations),
        others=tuple(OtherPrediction(name, m, i) for name, m, i, _ in shown[1:]),
    )


def episode_panels(
    caches: Mapping[str, FeatureCache],
    source: ImageSource,
    fold: Fold,
    episodes: EpisodeList,
    table: NDArray[np.int64],
    *,
    protocol: EvaluationProtocol,
    each: int = 2,
) -> tuple[Panel, ...]:
    """Panels of the best, median and worst episodes of a list by the first model's `table`."""
    return tuple(
        episode_panel(caches, source, fold, episodes.specs[e], protocol=protocol, group=group)
        for group, chosen in choose_episodes(table, each=each).items()
        for e in chosen
    )


def _binary(labels: NDArray[np.uint8], class_id: int) -> NDArray[np.uint8]:
    return np.where(labels == 255, 255, labels == class_id).astype(np.uint8)
