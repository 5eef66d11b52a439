"""Frozen features of a training set, extracted once: of every image as it is, mirrored, and in further views.

A mirrored image's features are not its features mirrored: strided layers pad on one side. So both are extracted. Every
view of an image is extracted on its own, so that a resumed run, which extracts fewer, finds the same. A GPU keeps in
its own memory what fits.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewseg.data.dataset import EpisodeDataset, GlobalSampler, ImageLabels, make_loader
from fewseg.data.episodes.sampling import TrainingEpisodes
from fewseg.data.transforms import sample_seed
from fewseg.episode import Episode
from fewseg.errors import DataError
from fewseg.features.cache import nbytes, stack_queries, stack_supports
from fewseg.features.overflow import FeatureFile
from fewseg.features.store import FeatureStore
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.fast import accelerate
from fewseg.progress import Silent
from fewseg.runtime.threads import in_lanes, lanes_for

OF_DEVICE = 0.5
"""The share of a GPU's free memory that features may take; a step needs the rest."""

Key = tuple[Any, ...]
"""("query", image, view) or ("support", image, class, view); a method that masks features has queries only."""


@dataclass(frozen=True)
class FeatureBatch:
    """A batch of episodes as extracted features; `labels` is an Episode whose images have no pixels."""

    query: Features
    support: Features
    labels: Episode


class TrainingFeatures:
    """Extracted features of a training set; every episode takes its images in random ones of their `views`.

    `gigabytes` of them are kept in memory, the others in a temporary file; on a GPU up to `OF_DEVICE` of what is free
    there is filled first. What `store` holds is not extracted again.
    """

    def __init__(
        self,
        model: FewShotSegmenter,
        dataset: EpisodeDataset,
        episodes: TrainingEpisodes,
        *,
        views: int = 2,
        gigabytes: float = 4.0,
        store: FeatureStore | None = None,
    ) -> None:
        self.model = accelerate(model).eval()
        self.dataset, self.episodes, self.views = dataset, episodes, views
        self.budget = int(gigabytes * 1e9)
        self.used = 0
        self._device = self.model.device
        self._room = int(OF_DEVICE * torch.cuda.mem_get_info(self._device)[0]) if self._device.type == "cuda" else 0
        self._kept: dict[Key, Features] = {}
        self._labels: dict[tuple[int, int], ImageLabels] = {}
        self._file: FeatureFile | None = None
        self._store = store

    def fill(self, sampler: GlobalSampler, *, workers: int, progress: Silent, folder: Path | None = None) -> None:
        """Extract all that the sampler's episodes will ask for and is not there yet.

        The file for what memory has no room for is made in `folder`. DataError where the disk has no room either.
        """
        wanted = self._wanted(sampler)
        total = sum(len(keys) for keys in wanted.values())
        images = _Images(self.dataset, wanted, self._store)
        loader = make_loader(images, [[n] for n in range(len(images))], workers=workers)
        with closing(self._extracted(loader)) as extracted:
            for key, features in progress(extracted, "extracting features", total):
                self._keep(key, features, total, folder)

    def batches(self, sampler: GlobalSampler) -> Generator[FeatureBatch]:
        """The sampler's batches from what was extracted."""
        yield from map(self._batch, sampler)

    def _wanted(self, sampler: GlobalSampler) -> dict[int, set[Key]]:
        """By image, so that each is loaded once."""
        wanted: dict[int, set[Key]] = {}
        for g in chain.from_iterable(sampler):
            spec = self.episodes.spec(g)
            for slot, (i, view) in enumerate(zip((spec.query, *spec.support), self._views(g), strict=True)):
                as_query = slot == 0 or self.model.masks_features
                key = ("query", i, view) if as_query else ("support", i, spec.class_id, view)
                if key not in self._kept:
                    wanted.setdefault(i, set()).add(key)
        return dict(sorted(wanted.items()))

    def _extracted(self, loader: Iterable[list[_Input]]) -> Generator[tuple[Key, Features], None, None]:
        """Features by key; labels are kept on the way."""

        def inputs() -> Iterator[_Input]:
            for key, given, labels in chain.from_iterable(loader):
                # a loader process's tensors hold an open file each; copies do not
                view = key[1], key[-1]
                if view not in self._labels:
                    self._labels[view] = self._labels_kept(labels)
                copied = given if isinstance(given, Tensor) else {name: f.clone() for name, f in given.items()}
                yield key, copied, self._labels[view]

        return in_lanes(self._extract, inputs(), lanes=lanes_for(self.model.device))

    def _labels_kept(self, labels: ImageLabels) -> ImageLabels:
        """A view's labels where they stay."""
        size = labels.local.numel() + labels.masks.numel()
        if size <= self._room:
            self._room -= size
            return replace(labels, local=labels.local.to(self._device), masks=labels.masks.to(self._device))
        self.used += size
        return replace(labels, local=labels.local.clone(), masks=labels.masks.clone())

    @torch.no_grad()
    def _extract(self, item: _Input) -> tuple[Key, Features]:
        key, given, labels = item
        if not isinstance(given, Tensor):
            return key, given
        pixels = given[None].to(self.model.device)
        if key[0] == "query":
            features = self.model.extract_query(pixels)
        else:
            mask = self.dataset.class_map(labels, key[2])
            features = self.model.extract_support(pixels[:, None], mask[None, None].to(self.model.device))
        if self._store is not None:
            local, masks = labels.local.cpu(), labels.masks.cpu()
            self._store.put(key, _on(features, torch.device("cpu")), replace(labels, local=local, masks=masks))
        return key, features

    def _keep(self, key: Key, features: Features, total: int, folder: Path | None) -> None:
        size = nbytes(features)
        if size <= self._room:
            self._kept[key] = _on(features, self._device)
            self._room -= size
            return
        if self.used + size <= self.budget:
            self._kept[key] = _on(features, torch.device("cpu"))
            self.used += size
            return
        needed, place = size * total - self.budget, folder or Path(tempfile.gettempdir())
        if self._file is None and needed <= (free := shutil.disk_usage(place).free):
            self._file = FeatureFile(limit=free, folder=place)
        filed = self._file and self._file.put(features)
        if not filed:
            raise DataError(
                f"the frozen features need about {needed / 1e9:.0f} GB more than train.cache_gb, and the disk of"
                f" {place} has no room for them; set train.cache_features=false"
            )
        self._kept[key] = filed

    def _batch(self, numbers: Iterable[int]) -> FeatureBatch:
        queries, supports, marked, maps, classes, known = [], [], [], [], [], []
        for g in numbers:
            spec, (view, *views) = self.episodes.spec(g), self._views(g)
            c = spec.class_id
            queries.append(_on(self._kept["query", spec.query, view], self._device))
            shown = list(zip(spec.support, views, strict=True))
            drawn = [self.dataset.class_map(self._labels[one], c).to(self._device) for one in shown]
            supports.append([self._support(*one, c, mask) for one, mask in zip(shown, drawn, strict=True)])
            marked.append(torch.stack(drawn))
            both = self.dataset.class_maps(self._labels[spec.query, view], c)
            maps.append([one.to(self._device) for one in both])
            classes.append(c)
            known.append(self.dataset.known_bases(spec.query))
        masks, bases = map(torch.stack, zip(*maps, strict=True))
        shots = self.episodes.shots_of(g)
        episode = Episode(
            query_image=torch.empty(len(classes), 3, 0, 0),
            support_images=torch.empty(len(classes), shots, 3, 0, 0),
            support_masks=torch.stack(marked),
            class_id=torch.tensor(classes),
            base_index=torch.tensor([self.dataset.fold.base_index(c) for c in classes]),
            query_mask=masks,
            query_base_mask=bases,
            base_known=None if known[0] is None else torch.stack(known),
        )
        return FeatureBatch(stack_queries(queries), stack_supports(supports), episode)

    def _support(self, i: int, view: int, class_id: int, mask: Tensor) -> Features:
        if not self.model.masks_features:
            return _on(self._kept["support", i, class_id, view], self._device)
        return self.model.as_support(_on(self._kept["query", i, view], self._device), mask[None, None])

    def _views(self, g: int) -> list[int]:
        rng = np.random.default_rng([self.dataset.seed, sample_seed(g)])
        return rng.integers(0, self.views, 1 + self.episodes.shots_of(g)).tolist()


def _on(features: Features, device: torch.device) -> Features:
    return {name: f.to(device) for name, f in features.items()}


_Input = tuple[Key, Tensor | Features, ImageLabels]
"""A key with the view's image (3, S, S), or with what the store holds of it, and the view's labels."""


class _Images(Dataset[list[_Input]]):
    """Number of a wanted image -> the inputs of its keys; a view that is stored whole is not loaded."""

    def __init__(self, dataset: EpisodeDataset, wanted: dict[int, set[Key]], store: FeatureStore | None) -> None:
        self.dataset, self.wanted, self.store = dataset, list(wanted.items()), store

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, n: int) -> list[_Input]:
        i, keys = self.wanted[n]
        stored = {key: self.store.get(key) if self.store else None for key in sorted(keys)}
        loaded = self.dataset.load_views(i, {key[-1] for key, kept in stored.items() if kept is None})
        found = {key: kept or loaded[key[-1]] for key, kept in stored.items()}
        return [(key, given, labels) for key, (given, labels) in found.items()]

    @staticmethod
    def collate(items: list[list[_Input]]) -> list[_Input]:
        """One image is a batch."""
        return items[0]
