"""Frozen features computed once: of every query image, and of every support image with its class.

Extracted features are a pure function of the image (and mask), so an evaluation or a training on cached ones gives
the same numbers. Every image is extracted on its own, never in a batch, so that the numbers do not depend on what it
met in a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewseg.data.dataset import EpisodeDataset, GlobalSampler, make_loader
from fewseg.data.sampling import TrainingEpisodes
from fewseg.data.transforms import sample_seed
from fewseg.episode import Episode
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.progress import Silent


class FeatureCache:
    """Encoded queries and supports of a model, kept in memory up to a budget; the least recently used go first.

    `gigabytes` 0 keeps nothing. The result is the same as without it.
    """

    def __init__(self, model: FewShotSegmenter, *, gigabytes: float = 2.0) -> None:
        self.model = model
        self.budget = int(gigabytes * 1e9)
        self.used = 0
        self._kept: OrderedDict[Hashable, Features] = OrderedDict()

    def query(self, key: Hashable, image: Tensor) -> Features:
        """Encoded query (1, 3, H, W)."""
        return self._get(("query", key), lambda: self.model.encode_query(image))

    def support(self, keys: Sequence[Hashable], images: Tensor, masks: Tensor) -> Features:
        """Encoded supports (1, K, 3, H, W) with masks (1, K, H, W), each shot under its own key."""
        shots = [
            self._get(
                ("support", key), lambda k=k: self.model.encode_support(images[:, k : k + 1], masks[:, k : k + 1])
            )
            for k, key in enumerate(keys)
        ]
        return stack(shots, 1)

    def _get(self, key: Hashable, compute: Callable[[], Features]) -> Features:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        features = compute()
        size = nbytes(features)
        if size <= self.budget:
            self._kept[key] = features
            self.used += size
        while self.used > self.budget:
            _, oldest = self._kept.popitem(last=False)
            self.used -= nbytes(oldest)
        return features


def nbytes(features: Features) -> int:
    """Bytes that the tensors take."""
    return sum(f.numel() * f.element_size() for f in features.values())


def stack(features: Sequence[Features], dim: int) -> Features:
    """The same names, tensors concatenated along B (0) or K (1)."""
    return {name: torch.cat([f[name] for f in features], dim) for name in features[0]}


@dataclass(frozen=True)
class FeatureBatch:
    """A batch of episodes as extracted features; `labels` is an Episode whose images are empty."""

    query: Features
    support: Features
    labels: Episode


class TrainingFeatures:
    """Extracted features of a training set, as they are and flipped; every episode flips its images at random."""

    def __init__(self, model: FewShotSegmenter, dataset: EpisodeDataset, episodes: TrainingEpisodes) -> None:
        self.model, self.dataset, self.episodes = model, dataset, episodes
        self._query: dict[tuple[int, int], Features] = {}
        self._support: dict[tuple[int, int, int], Features] = {}
        self._labels: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def fill(self, sampler: GlobalSampler, *, workers: int, progress: Silent) -> None:
        """Extract all that the sampler's episodes will ask for."""
        wanted: dict[tuple[int, int, int], set[str]] = {}
        for g in (g for numbers in sampler for g in numbers):
            spec, flips = self.episodes.spec(g), self._flips(g)
            for slot, (i, flip) in enumerate(zip((spec.query, *spec.support), flips, strict=True)):
                wanted.setdefault((i, spec.class_id, flip), set()).add("support" if slot else "query")
        images = _Images(self.dataset, sorted(wanted))  # by image: a source may keep what it read or drew last
        loader = make_loader(images, [[n] for n in range(len(images))], workers=workers)
        device, was_training = self.model.device, self.model.training
        self.model.eval()
        for key, image, maps in progress(loader, "extracting features", len(images)):
            i, _, flip = key
            pixels, labels = image.to(device), maps.to(device)
            if "query" in wanted[key]:
                self._labels[key] = (maps[:, 0], maps[:, 1])
                if (i, flip) not in self._query:
                    self._query[i, flip] = _cpu(self.model.extract_query(pixels))
            if "support" in wanted[key]:
                self._support[key] = _cpu(self.model.extract_support(pixels[:, None], labels[:, None, 0]))
        self.model.train(was_training)

    def batches(self, sampler: GlobalSampler) -> Iterator[FeatureBatch]:
        """The sampler's batches from the cache."""
        for numbers in sampler:
            yield self._batch(numbers)

    def _batch(self, numbers: Iterable[int]) -> FeatureBatch:
        queries, supports, masks, base_masks, classes = [], [], [], [], []
        for g in numbers:
            spec, flips = self.episodes.spec(g), self._flips(g)
            keys = list(zip((spec.query, *spec.support), flips, strict=True))
            queries.append(self._query[keys[0]])
            supports.append(stack([self._support[i, spec.class_id, flip] for i, flip in keys[1:]], 1))
            mask, base_mask = self._labels[keys[0][0], spec.class_id, keys[0][1]]
            masks.append(mask)
            base_masks.append(base_mask)
            classes.append(spec.class_id)
        count = len(classes)
        labels = Episode(
            query_image=torch.empty(count, 3, 0, 0),
            support_images=torch.empty(count, self.episodes.shots, 3, 0, 0),
            support_masks=torch.empty(count, self.episodes.shots, 0, 0),
            class_id=torch.tensor(classes),
            base_index=torch.tensor([self.dataset.fold.base_index(c) for c in classes]),
            query_mask=torch.cat(masks),
            query_base_mask=torch.cat(base_masks),
        )
        return FeatureBatch(stack(queries, 0), stack(supports, 0), labels)

    def _flips(self, g: int) -> list[int]:
        rng = np.random.default_rng([self.dataset.seed, sample_seed(g)])
        return rng.integers(0, 2, 1 + self.episodes.shots).tolist()


class _Images(Dataset[Any]):
    """(image index, class, flip) -> the key, the image (1, 3, S, S) and its mask and base labels (1, 2, S, S)."""

    def __init__(self, dataset: EpisodeDataset, keys: list[tuple[int, int, int]]) -> None:
        self.dataset, self.keys = dataset, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, n: int) -> tuple[tuple[int, int, int], Tensor, Tensor]:
        i, class_id, flip = self.keys[n]
        _, image, maps = self.dataset.load_one(i, class_id, self.dataset.transform, 0)
        if flip:
            image, maps = image.flip(-1), maps.flip(-1)
        return self.keys[n], image[None], maps[None]

    @staticmethod
    def collate(items: list[Any]) -> Any:
        """One item is a batch."""
        return items[0]


def _cpu(features: Features) -> Features:
    return {name: f.cpu() for name, f in features.items()}
