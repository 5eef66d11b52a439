"""What is trained: episodes for a few-shot segmenter, or labelled images for the base learner. The loop is the same."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from fewseg.build import configured_model, create_source
from fewseg.config import Config
from fewseg.data.dataset import (
    BaseDataset,
    EpisodeDataset,
    GlobalSampler,
    Sample,
    base_lookup,
    certain,
    known_bases,
    make_loader,
)
from fewseg.data.episodes.sampling import TrainingEpisodes
from fewseg.data.fingerprint import source_classes
from fewseg.data.region_classes import WithRegions
from fewseg.data.source import Fold, ImageSource
from fewseg.data.transforms import Augment, Squeeze
from fewseg.errors import DataWarning, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import base_miou, count_episodes
from fewseg.features.cache import FeatureCache
from fewseg.features.region_classes import with_regions
from fewseg.features.store import FeatureStore
from fewseg.features.training_set import TrainingFeatures
from fewseg.metrics.iou import base_confusion, label_pixels, miou, winners
from fewseg.models.fast import accelerate
from fewseg.models.parts.base_learner import PSPNet
from fewseg.models.parts.ops import resize_ac
from fewseg.progress import Silent
from fewseg.registry import plugins_of
from fewseg.runtime.processes import of_all, own_share
from fewseg.schema import TrainConfig
from fewseg.training.objectives import BaseObjective, EpisodeObjective


class Task(ABC):
    """A model with the batches that train it."""

    model: Any
    """What is saved."""
    module: nn.Module
    """What the loop calls: gives the losses, the terms to log and the counts of a batch."""
    source: ImageSource
    fold: Fold
    dataset: Dataset[Any]
    epoch_length: int
    """Items per epoch."""

    def __init__(self, config: Config, *, progress: Silent) -> None:
        self.config = config
        self.source = create_source(config, "train", progress=progress)
        self.fold = training_fold(config, self.source)
        self.taught = self._taught(progress)
        self.model = model = configured_model(config, base_classes=len(self.taught[1].base))
        if hasattr(model, "name_classes"):  # a base learner has none
            model.name_classes(self.taught[0].class_names)
        self.augment = Augment(config.augment, model.image_size, mean=model.backbone.pixel_mean.flatten().tolist())

    def _taught(self, progress: Silent) -> tuple[ImageSource, Fold]:
        """The images and classes to train on: the data set's, if not more."""
        return self.source, self.fold

    def plugins(self) -> list[dict[str, str]]:
        """The plugins that the method and the data set come from, for the record."""
        return plugins_of(*self.classes())

    def classes(self) -> list[type[Any]]:
        """The classes of the method and of the data set, and of those that it joins."""
        return [type(self.model), *source_classes(self.source)]

    def batches(self, sampler: GlobalSampler, *, progress: Silent, folder: Path | None = None) -> Generator[Any]:
        """The batches of a sampler's numbers; large temporary files go to `folder`."""
        return make_loader(self.dataset, sampler, workers=self.config.train.workers)

    @abstractmethod
    def inputs(self, batch: Any) -> dict[str, Any]:
        """A loader's batch as the keyword arguments of `module`: tensors and dicts of tensors."""

    @abstractmethod
    def name_of(self, g: int) -> str:
        """Training item number `g` by the ids of its images, for a person to find them."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups."""
        return self.model.param_groups(self.config.train.lr)

    @abstractmethod
    def validate(self, *, progress: Silent) -> dict[str, float] | None:
        """Scores of the model as it is, or None if nothing is validated. "miou" selects the best model."""


def training_fold(config: Config, source: ImageSource) -> Fold:
    """The configured fold, with base classes held out if they select the model."""
    fold = source.fold(config.data.fold)
    if config.train.all_classes:
        if config.train.validation != "none":
            raise UsageError("train.all_classes=true leaves no class to validate on; add train.validation=none")
        if novel := config.data.options.get("novel_classes"):
            told = f"train.all_classes=true trains on data.novel_classes={novel} as well"
            warnings.warn(DataWarning(f"{told}; to leave them out: train.all_classes=false"), stacklevel=2)
        return Fold(fold.index, novel=(), base=tuple(sorted((*fold.base, *fold.held_out, *fold.novel))))
    if not fold.base:
        if (count := len(source.class_names)) > 1:
            raise UsageError(
                f"all {count} classes are novel in fold {fold.index}, which leaves no base class to train on; give "
                "data.folds=2 or more, name fewer data.novel_classes, or train.all_classes=true"
            )
        none = "" if config.train.validation == "none" else " train.validation=none"
        raise UsageError(
            "one class leaves no base class: use the shipped lite as it is, train it further by the recipe lite-adapt, "
            f"or give train.all_classes=true{none}"
        )
    if config.train.validation == "base" and not fold.held_out:  # FSS-1000 brings validation classes of its own
        return fold.hold_out(config.train.held_out)
    return fold


def _check_views(config: Config) -> None:
    """Raise UsageError for views that are asked for and would not be made."""
    train, augment = config.train, config.augment
    if not train.cache_features and (train.cache_dir is not None or train.cache_views != TrainConfig.cache_views):
        raise UsageError("train.cache_views and train.cache_dir are for cached features; add train.cache_features=true")
    if train.cache_features and train.cache_views > 2 and augment.crop:
        raise UsageError(
            "a cached view serves every class of its image, so augment.crop, which keeps one, cannot make it; use "
            "augment.area=[0.3,1.0] with augment.crop=false, or train.cache_views=2"
        )


class EpisodeTask(Task):
    """Episodic training of a few-shot segmenter."""

    dataset: EpisodeDataset

    def __init__(self, config: Config, *, progress: Silent) -> None:
        super().__init__(config, progress=progress)
        data, train = config.data, config.train
        if not self.model.trainable:
            raise UsageError(f"{config.model.name} has nothing to train; evaluate it as it is")
        source, fold = self.taught
        self.episodes = TrainingEpisodes(
            source,
            fold,
            shots=data.shots,
            seed=train.seed,
            novel=data.novel,
            draw=train.draw,
            power=train.draw_power,
            negatives=train.negatives,
            most_shots=train.most_shots,
            batch=train.batch_size,
            apart=(source.regions, train.region_share) if isinstance(source, WithRegions) else ((), 0.0),
        )
        self.epoch_length = train.episodes_per_epoch or len(self.episodes)
        _check_views(config)
        self.dataset = EpisodeDataset(
            source,
            fold,
            spec_of=self.episodes.spec,
            length=self.epoch_length * train.epochs,
            transform=Squeeze(self.model.image_size) if train.cache_features else self.augment,
            further_views=self.augment,
            seed=train.seed,
            novel=data.novel,
        )
        self.features: TrainingFeatures | None = None
        self.module = EpisodeObjective(self.model)

    def _taught(self, progress: Silent) -> tuple[ImageSource, Fold]:
        train = self.config.train
        if not train.regions:
            return self.source, self.fold
        model = configured_model(self.config, base_classes=len(self.fold.base))
        if model.needs_base_learner:
            raise UsageError(
                f"{model.name} takes a base learner of the data set's classes, so it cannot be trained on others; "
                "train.regions is for methods without one, as lite"
            )
        return with_regions(
            model, self.source, self.fold, count=train.regions, novel=self.config.data.novel, progress=progress
        )

    def batches(self, sampler: GlobalSampler, *, progress: Silent, folder: Path | None = None) -> Generator[Any]:
        if self.config.train.cache_features:
            self.features = self.features or self._new_features(progress)
            self.features.fill(sampler, workers=self.config.train.workers, progress=progress, folder=folder)
            return self.features.batches(sampler)
        return super().batches(sampler, progress=progress, folder=folder)

    def _new_features(self, progress: Silent) -> TrainingFeatures:
        train = self.config.train
        store = None
        if train.cache_dir is not None:
            # where training images hold novel classes, their views depend on the fold: no cut may show what it hides
            source, fold = self.taught
            classes = () if self.config.data.novel == "drop" else fold.base
            store = FeatureStore(Path(train.cache_dir), self.model, source, self.config.augment, classes=classes)
            if store.news:
                progress.log(store.news)
        return TrainingFeatures(
            self.model,
            self.dataset,
            self.episodes,
            views=train.cache_views,
            gigabytes=train.cache_gb,
            store=store,
        )

    def inputs(self, batch: Any) -> dict[str, Any]:
        if isinstance(batch, Sample):
            return {"episode": batch.episode.as_dict()}
        return {"episode": batch.labels.as_dict(), "query": batch.query, "support": batch.support}

    def name_of(self, g: int) -> str:
        (source, _), spec = self.taught, self.episodes.spec(g)
        ids = source.index.ids
        supports = ", ".join(str(ids[i]) for i in spec.support)
        return f"{source.class_names[spec.class_id - 1]}: query {ids[spec.query]}, support {supports}"

    def validate(self, *, progress: Silent) -> dict[str, float] | None:
        train, rule = self.config.train, self.config.train.validation
        if rule == "none":
            return None
        if rule == "base":
            source, classes = self.source, self.fold.held_out
        else:
            source, classes = create_source(self.config, "test", progress=progress), self.fold.novel
        benchmark = Benchmark.draw(
            source,
            self.fold,
            shots=self.config.data.shots,
            episodes=train.val_episodes,
            seeds=(train.seed,),
            classes=classes,
        )
        (rows,) = count_episodes(
            FeatureCache(self.model), benchmark, workers=train.workers, progress=progress, title="validating"
        )
        return {"miou": miou(rows.table, benchmark.protocol.scored(classes, rows.table[:, 0]))}


class BaseTask(Task):
    """Supervised training of the base learner on the base classes."""

    model: PSPNet
    dataset: BaseDataset

    def __init__(self, config: Config, *, progress: Silent) -> None:
        super().__init__(config, progress=progress)
        self.module = BaseObjective(self.model, freeze_backbone=config.train.backbone_factor == 0)
        self.dataset = BaseDataset(
            self.source, self.fold, transform=self.augment, seed=config.train.seed, novel=config.data.novel
        )
        self.epoch_length = config.train.episodes_per_epoch or len(self.dataset)

    def inputs(self, batch: Any) -> dict[str, Any]:
        return dict(zip(("image", "labels", "known"), batch, strict=False))

    def name_of(self, g: int) -> str:
        return str(self.source.index.ids[self.dataset.image_of(g)])

    def param_groups(self) -> list[dict[str, Any]]:
        train = self.config.train
        groups = self.model.param_groups(train.lr, backbone_factor=train.backbone_factor)
        return groups if train.backbone_factor else groups[1:]

    @torch.inference_mode()
    def validate(self, *, progress: Silent) -> dict[str, float] | None:
        """MIoU over the base classes on the test images (whose novel pixels are background); it selects nothing
        here.
        """
        if self.config.train.validation == "none":
            return None
        source = create_source(self.config, "test", progress=progress)
        counts = source.index.counts[:, list(self.fold.base)]
        images = np.flatnonzero((counts >= source.min_pixels).any(1))[: self.config.train.val_episodes]
        lookup = base_lookup(source, self.fold, novel="background")
        squeeze, device = Squeeze(self.model.image_size), next(self.model.parameters()).device
        classes = len(self.fold.base)
        total = torch.zeros(1 + classes, 3, dtype=torch.long)
        model = accelerate(self.model).eval()
        own = own_share(images.tolist())
        for i in progress(own, "validating the base learner", len(own)):
            image, labels = source.load(i)
            truth = torch.from_numpy(certain(lookup[labels], known_bases(source, self.fold, i)))
            pixels, _ = squeeze(image, lookup[labels][None])
            logits = resize_ac(model(pixels[None].to(device)), truth.shape)
            total[:, :2] += base_confusion(winners(logits[0]).cpu(), truth, classes)
            total[:, 2] += torch.from_numpy(label_pixels(truth, classes))
        return {"base_miou": base_miou(torch.stack(of_all(total)).sum(0).numpy())}
