"""`scenes`, the built-in data set: 20 classes of drawn things, deterministic from a seed, nothing stored.

Image i is a pure function of seed, level, subset, size and i. Geometry and paint have random streams of their own, so
that label maps and the index are made without painting.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.index import in_parallel
from fewseg.data.scenes.kept import KeptScenes, kept_scenes
from fewseg.data.scenes.layout import KINDS, Scene, arrange, label_map
from fewseg.data.scenes.render import render
from fewseg.data.source import SUBSETS, Fold, SourceIndex, make_fold
from fewseg.data.workers import START, worker_pool
from fewseg.errors import UsageError, check_choice
from fewseg.progress import Silent

LEVELS = ("simple", "complex", "mixed")
_MANY = 200
"""Images whose index is worth processes."""
_GEOMETRY, _PAINT, _ORDER = range(3)


class Scenes:
    """Drawn scenes: `simple` holds one object on a clean ground, `complex` 3 to 6 of 2+ classes among clutter.

    `mixed` has both by turns, for training: simple scenes teach what to match, complex ones what not to match.
    """

    name = "scenes"
    class_names: tuple[str, ...] = tuple(kind.name for kind in KINDS)

    def __init__(
        self,
        *,
        subset: str = "train",
        level: str = "complex",
        images: int = 400,
        size: int = 256,
        seed: int = 0,
        root: str | None = None,
    ) -> None:
        if root is not None:
            raise UsageError(f"scenes needs no root, it draws its images; got data.root={root!r}: leave it out")
        check_choice("subset", subset, SUBSETS)
        check_choice("level", level, LEVELS)
        for option, value, least, most in (
            ("images", images, 1, 10**6),
            ("size", size, 64, 2048),
            ("seed", seed, 0, 2**63),
        ):
            if not least <= value <= most:
                raise UsageError(f"scenes.{option} is {value}; give {least} to {most}")
        self.subset, self.level, self.images, self.size, self.seed = subset, level, images, size, seed
        self.min_pixels = max(64, round(2048 * (size / 473) ** 2))
        _ = self._kept  # before a loader forks: its processes are to share it

    def __len__(self) -> int:
        return self.images

    def __getstate__(self) -> dict[str, object]:
        # another process draws anew, unless it was forked and shares what is kept; an index that is built goes along
        return {key: value for key, value in vars(self).items() if key != "_kept"}

    @cached_property
    def _kept(self) -> KeptScenes:
        """Room for what is drawn."""
        options = (self.subset, self.level, self.images, self.size, self.seed)
        # a subclass may draw other pictures from the same options: they are kept apart
        return kept_scenes(*options) if type(self) is Scenes else KeptScenes(self.images, self.size)

    @cached_property
    def index(self) -> SourceIndex:
        """Counted on label maps drawn from the geometry alone."""
        if self._kept.index is None:
            ids = tuple(f"{self.level}-{self.subset}-{i:06d}" for i in range(self.images))
            counts = np.stack(list(self._counts())).astype(np.int64)
            counts.setflags(write=False)  # all sources with these options have it
            self._kept.index = SourceIndex(ids, counts)
        return self._kept.index

    def _counts(self) -> Iterable[NDArray[np.int64]]:
        # a process that is spawned runs the user's script once more, and a loader's may start none
        if self.images < _MANY or START != "fork" or multiprocessing.current_process().daemon:
            return map(self._pixels, range(self.images))
        return in_parallel(self._pixels, range(self.images), Silent(), "counting", pool=worker_pool())

    def _pixels(self, i: int) -> NDArray[np.int64]:
        """(21,) of the background and every class in image `i`."""
        return np.bincount(self.labels(i).ravel(), minlength=256)[: len(KINDS) + 1]

    def shape_of(self, i: int) -> tuple[int, int]:
        """Height and width of image `i`, which is not painted for it."""
        return self.labels(i).shape  # type: ignore[return-value]

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Image `i` as RGB and its (H, W) label map: 0 background, 1..20, 255 on every outline."""
        drawn = self._kept.get(i)
        if drawn is None:
            scene = self._arrange(i)
            image = render(scene, self.size, self._rng(_PAINT, i))
            drawn = np.dstack([np.asarray(image), label_map(scene, self.size)])
            self._kept.put(i, drawn)
        return Image.fromarray(np.ascontiguousarray(drawn[..., :3])), np.ascontiguousarray(drawn[..., 3])

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i`, without the cost of its image."""
        return label_map(self._arrange(i), self.size)

    def fold(self, index: int) -> Fold:
        """Four folds of five novel classes, each a mixture of plants, animals, minerals and made things."""
        return make_fold(index, classes=len(KINDS))

    def _arrange(self, i: int) -> Scene:
        if not 0 <= i < self.images:
            raise IndexError(f"scenes has images 0 to {self.images - 1}, not {i}")
        turn, place = divmod(i, len(KINDS))
        first = 1 + int(self._rng(_ORDER, turn).permutation(len(KINDS))[place])
        crowded = self.level == "complex" or (self.level == "mixed" and i % 2 == 1)
        return arrange(self._rng(_GEOMETRY, i), first, crowded=crowded)

    def _rng(self, stream: int, i: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, LEVELS.index(self.level), SUBSETS.index(self.subset), stream, i])
