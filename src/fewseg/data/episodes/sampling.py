"""Draws episodes: `sample_episodes` a protocol's test list, `TrainingEpisodes` the endless list to train on.

An episode is a pure function of the source's index, the fold, the protocol, the seed and its number. It has a random
generator of its own, so that the number of workers changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from fewseg.data.episodes.draws import (
    DRAW,
    Pools,
    count_photos,
    draw_supports,
    epoch_order,
    known_classes,
    specs_by,
)
from fewseg.data.episodes.lists import EpisodeList, EpisodeSpec
from fewseg.data.episodes.protocols import EvaluationProtocol
from fewseg.data.source import Fold, ImageSource
from fewseg.errors import DataError, DataWarning, UsageError, check_choice, shortened
from fewseg.progress import counted

NOVEL_RULES = ("drop", "background", "ignore")
DRAWS = ("image", "class")
COARSE_LEAST = 3
"""An image counts for a class from this many of its pixels on, where only every 32nd along both sides is looked at."""


def training_images(source: ImageSource, fold: Fold, *, novel: str = "drop") -> NDArray[np.int64]:
    """Ascending indices of the images with at least `source.min_pixels` pixels of some base class.

    `novel` says what becomes of images that hold unseen classes: `drop` leaves them out; `background` and `ignore` keep
    them (the data set of episodes then hides those pixels).
    """
    check_choice("data.novel", novel, NOVEL_RULES)
    counts = source.index.counts
    kept = (counts[:, list(fold.base)] >= source.min_pixels).any(1)
    if novel == "drop":
        kept &= ~counts[:, list(fold.unseen)].any(1)
    return np.flatnonzero(kept)


@dataclass(eq=False)
class TrainingEpisodes:
    """What to train on: a query image, one of its classes, and supports.

    Supports are uniform among the class's other training images, without repeats.
    With `draw="image"`, the papers' rule, every training image is the query once per epoch, in an order shuffled anew,
    and the class is uniform among the base classes with at least `min_pixels` pixels in it. With `draw="class"` the
    class is uniform among all base classes and the query among its images, so that rare classes count as much.
    A share of `negatives` has supports of a class that the query does not hold, as its labels tell (`labelled`):
    nothing is to be found there. A query whose labels tell of no class that it lacks is drawn with one that it holds,
    which a DataWarning tells.
    With `most_shots` the batches, of `batch` episodes each, have 1 to that many supports by turns, and `shots` is not
    looked at; an image is the support several times where its class has too few.
    With `power` a class is drawn in proportion to the number of its photos to that power: 0 all equally often. The
    source's `class_weights`, where it has any, multiply that.
    With `apart`, some of the classes and a share, that share of the episodes is of them; absent classes are drawn among
    those that the drawn one belongs to. It needs `draw="class"`.
    A class with fewer images than `shots` + 1 (with `most_shots`: 2) is left out; a DataWarning names it.
    """

    source: ImageSource
    fold: Fold
    _: KW_ONLY
    shots: int = 1
    seed: int = 0
    novel: str = "drop"
    draw: str = "image"
    negatives: float = 0.0
    most_shots: int | None = None
    batch: int = 1
    power: float = 0.0
    apart: tuple[Collection[int], float] = ((), 0.0)

    def __post_init__(self) -> None:
        check_choice("train.draw", self.draw, DRAWS)
        if self.apart[0] and self.draw != "class":
            raise UsageError(f"train.regions are drawn with train.draw=class, not with {self.draw}")
        if self.power and self.draw != "class":
            raise UsageError(f"train.draw_power is for train.draw=class, not for {self.draw}")
        self._weights = getattr(self.source, "class_weights", None)
        if self._weights is not None and self.draw != "class":
            raise UsageError(f"data.weights are for train.draw=class, not for {self.draw}")
        if not 0 <= self.negatives <= 1:
            raise UsageError(f"train.negatives={self.negatives} is a share of the episodes; give 0 to 1")
        source, fold, least = self.source, self.fold, self.source.min_pixels
        images = training_images(source, fold, novel=self.novel)
        kept = len(training_images(source, fold, novel="background"))
        remedy = "data.novel=background keeps images that hold novel classes too" if kept > len(images) else ""
        if not len(images):
            raise DataError(_no_images(source, fold, kept))
        pools = {c: np.intersect1d(images, source.index.images_of(c, min_pixels=least)) for c in fold.base}
        self._pools = _drawable(
            source, pools, self.shots if self.most_shots is None else 1, least=least, use="training", remedy=remedy
        )
        self.images = np.unique(np.concatenate(list(self._pools.values())))
        if self.negatives and hasattr(source, "labelled"):
            self._tell_of_images_without_negatives()

    def __len__(self) -> int:
        """Episodes per epoch: one for every training image."""
        return len(self.images)

    def shots_of(self, g: int) -> int:
        """How many supports episode number `g` has."""
        return self.shots if self.most_shots is None else 1 + g // self.batch % self.most_shots

    def spec(self, g: int) -> EpisodeSpec:
        """Episode number `g`, counted from the start of training over all epochs."""
        rng = default_rng([self.seed, DRAW, g])
        if self.draw == "class":
            class_id = self._one_of(self._group(rng), rng)
            query = int(rng.choice(self._pools[class_id]))
        else:
            epoch, position = divmod(g, len(self))
            query = int(self.images[epoch_order(len(self), self.seed, epoch)[position]])
            present = self.source.index.classes_in(query, min_pixels=self.source.min_pixels)
            class_id = int(rng.choice([c for c in present if c in self._pools]))
        if self.negatives and rng.random() < self.negatives:
            absent = self._absent(query)
            like = [c for c in absent if (c in self.apart[0]) == (class_id in self.apart[0])] or absent
            class_id = self._one_of(like, rng) if like else class_id
        pool, shots = self._pools[class_id], self.shots_of(g)
        few = count_photos(self.source, pool) <= shots
        return EpisodeSpec(query, class_id, draw_supports(rng, self.source, pool, query, shots, few))

    def _group(self, rng: Generator) -> list[int]:
        """The classes to draw one of: all, or those of one side of `apart`."""
        apart, share = self.apart
        if not apart:
            return list(self._pools)
        chosen = rng.random() < share
        return [c for c in self._pools if (c in apart) == chosen] or list(self._pools)

    def _one_of(self, classes: list[int], rng: Generator) -> int:
        if not self.power and self._weights is None:
            return int(rng.choice(classes))
        weights = np.array([len(self._pools[c]) for c in classes], float) ** self.power
        if self._weights is not None:
            weights *= self._weights[classes]
        return int(rng.choice(classes, p=weights / weights.sum()))

    def _tell_of_images_without_negatives(self) -> None:
        if silent := sum(not self._absent(i) for i in self.images.tolist()):
            told = f"the labels of {silent} of {len(self.images)} training images tell of no class that the image lacks"
            text = f"{self.source.name}: {told}, so train.negatives={self.negatives} holds for the others"
            warnings.warn(DataWarning(text), stacklevel=1)

    def _absent(self, query: int) -> list[int]:
        """The classes that an image does not hold, as its labels tell."""
        return [c for c in known_classes(self.source, query, self._pools) if not self.source.index.counts[query, c]]


def sample_episodes(
    source: ImageSource,
    fold: Fold,
    *,
    protocol: EvaluationProtocol,
    seed: int,
    shots: int,
    episodes: int | None = None,
    classes: tuple[int, ...] | None = None,
) -> EpisodeList:
    """The test episodes of one repeat: `episodes` queries (default: the protocol's number), as often each as it draws
    supports for a query, or looks for classes in it; these then follow each other.

    `classes` (default: the fold's novel ones) are those to draw; `fold.held_out` to validate on the training images.
    A class with fewer images than `shots` + 1 is left out; a DataWarning names it. DataError where none is left.
    """
    chosen = fold.novel if classes is None else classes
    if not chosen:
        raise UsageError(f"no class to draw episodes of: fold {fold.index} has {len(fold.held_out)} held-out classes")
    coarse = getattr(source, "coarse", None) if protocol.listed == "coarse" else None
    least = COARSE_LEAST if coarse else 1 if protocol.support == "any_pixel" else source.min_pixels
    pools = {c: (coarse or source.index).images_of(c, min_pixels=least) for c in sorted(chosen)}
    others = f"take another fold than {fold.index}, or other data.novel_classes"
    pools = _drawable(source, pools, shots, least=least, use="the episodes", otherwise=others)
    if (count := protocol.episodes if episodes is None else episodes) is None:
        count = sum(map(len, pools.values()))
    specs_of = specs_by(source, pools, shots, protocol, seed)
    specs = tuple(spec for e in range(count) for spec in specs_of(e))
    drawn = fold.index, shots, protocol.name, seed
    return EpisodeList(source.name, source.subset, *drawn, specs, source.index.ids, source.class_names)


def _no_images(source: ImageSource, fold: Fold, kept: int) -> str:
    """Why there is no image to train on, of which `kept` hold a base class, and what can be done."""
    told = f"{source.name} has no image to train on in fold {fold.index}: {kept} hold {source.min_pixels} pixels or "
    told += "more of a base class"
    if not kept:
        return f"{told}; add photos"
    held = ", ".join(source.class_names[c - 1] for c in fold.held_out)
    also = f" or one that is held out to validate on ({held})" if held else ""
    free = "train.validation=none holds none out, and " if held else ""
    return f"{told}, and all of these hold a novel class{also} as well; {free}data.novel=background keeps such images"


def _drawable(
    source: ImageSource, pools: Pools, shots: int, *, least: int, use: str, remedy: str = "", otherwise: str = ""
) -> Pools:
    """The classes with enough images for a query and its supports; a DataWarning names the others.

    DataError where there is none, with what can be done.
    """
    if shots < 1:
        raise UsageError(f"an episode needs at least one support image; shots={shots} was given")
    counts = {c: count_photos(source, pool) for c, pool in pools.items()}
    enough = {c: pool for c, pool in pools.items() if counts[c] > shots}
    if len(enough) == len(pools):
        return enough
    few = [f"class {source.class_names[c - 1]!r} has {counted(counts[c], 'image')}" for c in pools if c not in enough]
    reason = f"{shortened(few, 20)}; {shots}-shot episodes need {shots + 1} with at least {least} of its pixels"
    if enough:
        told = f"{source.name}: left out of {use}: {reason}"
        warnings.warn(DataWarning("; ".join(filter(None, (told, remedy)))), stacklevel=1)
        return enough
    most = max(counts.values()) - 1
    fewer = f"give {counted(most, 'shot')}" if most > 0 else ""
    raise DataError(
        f"{reason}. What helps: {', or '.join(filter(None, ('add photos of the class', fewer, remedy, otherwise)))}"
    )
