"""Frozen features of a training set, extracted once: of every image as it is and mirrored.

A mirrored image's features are not its features mirrored: strided layers pad on one side. So both are extracted. Every
image is extracted on its own, so that a resumed run, which extracts fewer, finds the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewseg.data.dataset import EpisodeDataset, GlobalSampler, make_loader
from fewseg.data.sampling import TrainingEpisodes
from fewseg.data.transforms import sample_seed
from fewseg.engine.feature_file import FeatureFile
from fewseg.engine.features import nbytes, stack_queries, stack_supports
from fewseg.engine.lanes import in_lanes, lanes_for
from fewseg.episode import Episode
from fewseg.errors import DataError
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.progress import Silent

Key = tuple[Any, ...]
"""("query", image, flip), ("support", image, class, flip) or ("labels", image, class, flip)."""


@dataclass(frozen=True)
class FeatureBatch:
    """A batch of episodes as extracted features; `labels` is an Episode whose images are empty."""

    query: Features
    support: Features
    labels: Episode


class TrainingFeatures:
    """Extracted features of a training set; every episode mirrors its images at random.

    `gigabytes` of them are kept in memory, the others in a temporary file.
    """

    def __init__(
        self,
        model: FewShotSegmenter,
        dataset: EpisodeDataset,
        episodes: TrainingEpisodes,
        *,
        gigabytes: float = 4.0,
    ) -> None:
        self.model, self.dataset, self.episodes = model, dataset, episodes
        self.budget = int(gigabytes * 1e9)
        self.used = 0
        self._kept: dict[Key, Features] = {}
        self._file: FeatureFile | None = None

    def fill(self, sampler: GlobalSampler, *, workers: int, progress: Silent, folder: Path | None = None) -> None:
        """Extract all that the sampler's episodes will ask for and is not there yet.

        The file for what memory has no room for is made in `folder`. DataError where the disk has no room either.
        """
        wanted = self._wanted(sampler)
        images = _Images(self.dataset, wanted)
        loader = make_loader(images, [[n] for n in range(len(images))], workers=workers)
        total = sum(key[0] != "labels" for keys in wanted.values() for key in keys)
        was_training = self.model.training
        self.model.eval()
        done = self._extracted(loader, total, folder)
        try:
            for key, features in progress(done, "extracting features", total):
                self._keep(key, features, total, folder)
        finally:
            done.close()
            self.model.train(was_training)

    def batches(self, sampler: GlobalSampler) -> Iterator[FeatureBatch]:
        """The sampler's batches from what was extracted."""
        for numbers in sampler:
            yield self._batch(numbers)

    def _wanted(self, sampler: GlobalSampler) -> dict[int, set[Key]]:
        """By image, so that each is loaded once."""
        wanted: dict[int, set[Key]] = {}
        for g in (g for numbers in sampler for g in numbers):
            spec, flips = self.episodes.spec(g), self._flips(g)
            keys = {("query", spec.query, flips[0]), ("labels", spec.query, spec.class_id, flips[0])}
            keys |= {("support", i, spec.class_id, flip) for i, flip in zip(spec.support, flips[1:], strict=True)}
            for key in keys - self._kept.keys():
                wanted.setdefault(key[1], set()).add(key)
        return dict(sorted(wanted.items()))

    def _extracted(
        self, loader: Iterable[_Loaded], total: int, folder: Path | None
    ) -> Generator[tuple[Key, Features], None, None]:
        """Features by key; labels, which cost nothing, are kept on the way."""

        def inputs() -> Iterator[tuple[Key, Tensor, Tensor]]:
            for keys, classes, image, maps in loader:
                for key in keys:
                    of_class = maps[classes.index(key[2]) if key[0] != "query" else 0][None]
                    pixels, labels = (image.flip(-1), of_class.flip(-1)) if key[-1] else (image, of_class)
                    if key[0] == "labels":
                        self._keep(
                            key, {"mask": labels[:, 0].clone(), "base_mask": labels[:, 1].clone()}, total, folder
                        )
                    else:
                        yield key, pixels[None], labels

        return in_lanes(self._extract, inputs(), lanes=lanes_for(self.model.device))

    @torch.no_grad()
    def _extract(self, item: tuple[Key, Tensor, Tensor]) -> tuple[Key, Features]:
        key, image, maps = item
        pixels = image.to(self.model.device)
        if key[0] == "query":
            features = self.model.extract_query(pixels)
        else:
            features = self.model.extract_support(pixels[:, None], maps[:, None, 0].to(self.model.device))
        return key, {name: f.cpu() for name, f in features.items()}

    def _keep(self, key: Key, features: Features, total: int, folder: Path | None) -> None:
        size = nbytes(features)
        if self.used + size <= self.budget:
            self._kept[key] = features
            self.used += size
            return
        if self._file is None:
            self._file = _new_file(folder, size * total - self.budget)
        filed = self._file.put(features)
        if filed is None:
            raise _no_room(folder, size * total - self.budget)
        self._kept[key] = filed

    def _batch(self, numbers: Iterable[int]) -> FeatureBatch:
        queries, supports, labels, classes = [], [], [], []
        for g in numbers:
            spec, (flip, *flips) = self.episodes.spec(g), self._flips(g)
            c = spec.class_id
            queries.append(self._kept["query", spec.query, flip])
            supports.append([self._kept["support", i, c, f] for i, f in zip(spec.support, flips, strict=True)])
            labels.append(self._kept["labels", spec.query, c, flip])
            classes.append(c)
        count, shots = len(classes), self.episodes.shots
        episode = Episode(
            query_image=torch.empty(count, 3, 0, 0),
            support_images=torch.empty(count, shots, 3, 0, 0),
            support_masks=torch.empty(count, shots, 0, 0),
            class_id=torch.tensor(classes),
            base_index=torch.tensor([self.dataset.fold.base_index(c) for c in classes]),
            query_mask=torch.cat([maps["mask"] for maps in labels]),
            query_base_mask=torch.cat([maps["base_mask"] for maps in labels]),
        )
        return FeatureBatch(stack_queries(queries), stack_supports(supports), episode)

    def _flips(self, g: int) -> list[int]:
        rng = np.random.default_rng([self.dataset.seed, sample_seed(g)])
        return rng.integers(0, 2, 1 + self.episodes.shots).tolist()


_Loaded = tuple[list[Key], list[int], Tensor, Tensor]


class _Images(Dataset[_Loaded]):
    """Number of a wanted image -> its keys, their classes, the image (3, S, S), and each class's mask and base labels
    (n, 2, S, S).
    """

    def __init__(self, dataset: EpisodeDataset, wanted: dict[int, set[Key]]) -> None:
        self.dataset, self.wanted = dataset, list(wanted.items())

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, n: int) -> _Loaded:
        i, keys = self.wanted[n]
        classes = sorted({key[2] for key in keys if key[0] != "query"})
        return sorted(keys), classes, *self.dataset.load_classes(i, classes)

    @staticmethod
    def collate(items: list[_Loaded]) -> _Loaded:
        """One image is a batch."""
        return items[0]


def _new_file(folder: Path | None, needed: int) -> FeatureFile:
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    if needed > free:
        raise _no_room(folder, needed)
    return FeatureFile(limit=free, folder=folder)


def _no_room(folder: Path | None, needed: int) -> DataError:
    return DataError(
        f"the frozen features need about {needed / 1e9:.0f} GB more than train.cache_gb, and the disk of"
        f" {folder or tempfile.gettempdir()} has no room for them; set train.cache_features=false"
    )
