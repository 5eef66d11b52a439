"""Episodes and base-class samples as torch data sets by number, and a loader whose output no worker count changes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fewseg.data.episodes.lists import EpisodeSpec
from fewseg.data.episodes.sampling import NOVEL_RULES, epoch_order, training_images
from fewseg.data.source import Fold, ImageSource, class_mask, labelled, mask_of
from fewseg.data.transforms import Transform, sample_seed
from fewseg.data.weak_supports import weak_mask
from fewseg.data.workers import START, follow_parent, starting_workers
from fewseg.episode import Episode
from fewseg.errors import DataError, FewsegError, UsageError, check_choice, first_line
from fewseg.labels import IGNORE, MOST_CLASSES, WIDE_IGNORE


@dataclass
class Sample:
    """A batch of episodes, and which images they are of."""

    episode: Episode
    specs: tuple[EpisodeSpec, ...]


@dataclass(eq=False)
class EpisodeDataset(Dataset[Sample]):
    """Episode number g -> a Sample of one; a pure function of g.

    `spec_of(g)` names the images; the query and every support are transformed on their own, by seeds (seed, g, slot).
    Pixels of unseen classes are background in the base labels, or 255 there and in the masks with `novel="ignore"`.
    """

    source: ImageSource
    fold: Fold
    _: KW_ONLY
    spec_of: Callable[[int], EpisodeSpec]
    length: int
    transform: Transform
    further_views: Transform | None = None
    seed: int = 0
    novel: str = "background"
    supports: str = "mask"
    """What supports are marked by: mask, or of `weak_supports` box, scribble, point."""

    def __post_init__(self) -> None:
        self._lookup = base_lookup(self.source, self.fold, novel=self.novel)
        self._wide = wide_lookup(self.source, self.fold, novel=self.novel)
        self._hidden = self.fold.unseen if self.novel == "ignore" else ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, g: int) -> Sample:
        spec = self.spec_of(g)
        pairs, class_ids = [], ()
        for slot, i in enumerate((spec.query, *spec.support)):
            photo, labels, maps = self.read(i, spec.class_id)
            if slot == 0 and self._wide is not None:  # transforms take bytes, in which 255 is void
                local, class_ids = _localise(labels, ())
                maps = np.stack([maps[0], local])
            if slot:
                maps = self.as_marked(photo, maps)
            pairs.append(self.transform(photo, maps, sample_seed(self.seed, g, slot)))
        (image, mask), *supports = pairs
        bases = mask[1:]
        if self._wide is not None:
            bases = _looked_up(_table(self._wide[[0, *class_ids]], void=WIDE_IGNORE), bases)
        episode = Episode(
            query_image=image[None],
            support_images=torch.stack([support for support, _ in supports])[None],
            support_masks=torch.stack([labels[0] for _, labels in supports])[None],
            class_id=torch.tensor([spec.class_id]),
            base_index=torch.tensor([self.fold.base_index(spec.class_id)]),
            query_mask=mask[:1],
            query_base_mask=bases,
            base_known=None if (known := self.known_bases(spec.query)) is None else known[None],
        )
        return Sample(episode, (spec,))

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Sample:
        """One batch from several samples."""
        return Sample(
            Episode.cat([sample.episode for sample in samples]),
            tuple(spec for sample in samples for spec in sample.specs),
        )

    def load_views(self, i: int, views: Iterable[int]) -> dict[int, tuple[Tensor, ImageLabels]]:
        """Views of an image (3, S, S) with their labels, by number.

        View 0 is `transform` with seed 0, view 1 is view 0 flipped, the others are `further_views` with seeds of their
        own. None depends on the data set's seed, nor on the fold as long as the image holds no unseen class.
        """
        if not (wanted := set(views)):
            return {}
        image, labels = _load(self.source, i)
        local, class_ids = _localise(labels, self.source.index.classes_in(i).tolist())
        masks = [mask_of(self.source, i, c, labels) for c in class_ids]
        overlapping = any((mask != class_mask(local, n)).any() for n, mask in enumerate(masks, start=1))
        unseen = [n for n, c in enumerate(class_ids, start=1) if c not in self.fold.base]
        # no cut may depend on classes that are not trained
        shown = np.where(np.isin(local, unseen), np.uint8(0), local)
        maps = np.stack([shown, local, *(masks if overlapping else ())])

        def cut(view: int) -> tuple[Tensor, Tensor]:
            transform = self.further_views if view and self.further_views else self.transform
            pixels, mapped = transform(image, maps, sample_seed(i, view) if view else 0)
            return pixels, mapped[1:]

        found = {view: cut(view) for view in wanted - {1}}
        if 1 in wanted:
            pixels, mapped = found.get(0) or cut(0)
            found[1] = pixels.flip(-1), mapped.flip(-1)
        return {v: (pixels, ImageLabels(mapped[0], class_ids, mapped[1:])) for v, (pixels, mapped) in found.items()}

    def class_maps(self, labels: ImageLabels, class_id: int) -> tuple[Tensor, Tensor]:
        """Class mask and base labels, each (S, S), of a view's labels."""
        bases = self._lookup if self._wide is None else self._wide
        meant = _table(bases[[0, *labels.class_ids]], void=bases[-1])
        return self.class_map(labels, class_id), _looked_up(meant, labels.local)

    def class_map(self, labels: ImageLabels, class_id: int) -> Tensor:
        """Class mask (S, S) of a view's labels."""
        hidden = [c in self._hidden and c != class_id for c in (0, *labels.class_ids)]
        if len(labels.masks) and class_id in labels.class_ids:
            mask = labels.masks[labels.class_ids.index(class_id)]
            if not any(hidden):
                return mask
            unseen = _looked_up(_table(np.array(hidden), void=False), labels.local)
            return mask.masked_fill((mask != 1) & unseen, IGNORE)
        meant = [IGNORE if unseen else c == class_id for c, unseen in zip((0, *labels.class_ids), hidden, strict=True)]
        return _looked_up(_table(np.array(meant, np.uint8), void=IGNORE), labels.local)

    def read(self, i: int, class_id: int) -> tuple[Image.Image, NDArray[Any], NDArray[np.uint8]]:
        """An image and its label map (H, W) as they are, and the class mask and base labels (2, H, W)."""
        image, labels = _load(self.source, i)
        mask = self._seen(mask_of(self.source, i, class_id, labels), labels, class_id)
        return image, labels, np.stack([mask, self._lookup[labels]])

    def as_marked(self, photo: Image.Image, maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What `read` gives, with the class mask that the marks of a support mean."""
        return maps if self.supports == "mask" else np.stack([weak_mask(photo, maps[0], self.supports), *maps[1:]])

    def known_bases(self, i: int) -> Tensor | None:
        """(N,) bool, as `known_bases`."""
        return known_bases(self.source, self.fold, i)

    def _seen(self, mask: NDArray[np.uint8], labels: NDArray[Any], class_id: int) -> NDArray[np.uint8]:
        """A class's mask in which other classes that training must not see are 255."""
        others = [c for c in self._hidden if c != class_id]
        return np.where((mask != 1) & np.isin(labels, others), np.uint8(IGNORE), mask) if others else mask


@dataclass(frozen=True)
class ImageLabels:
    """A view's labels: (S, S) uint8, 0 background, n the class `class_ids[n - 1]`, 255 void."""

    local: Tensor
    class_ids: tuple[int, ...]
    masks: Tensor
    """(n, S, S) uint8 {0, 1, 255}, the mask of each class where they overlap; else empty (0, S, S)."""


def _table(meant: NDArray[Any], *, void: int) -> NDArray[Any]:
    """What the numbers 0, 1, ... of a view's labels mean; all others are void."""
    return np.concatenate([meant, np.full(256 - len(meant), void, meant.dtype)])


def _looked_up(table: NDArray[Any], numbers: Tensor) -> Tensor:
    """What a table says of uint8 numbers, on their device."""
    if numbers.device.type == "cpu":  # numpy takes bytes as they are
        return torch.from_numpy(table[numbers.numpy()])
    return torch.from_numpy(table).to(numbers.device)[numbers.int()]


def _localise(labels: NDArray[Any], present: Sequence[int]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Labels numbered by the classes that the image holds, also covered ones (`present`), and these."""
    void = np.iinfo(labels.dtype).max
    ids = sorted({int(c) for c in np.unique(labels) if c not in (0, void)} | set(present))
    table = np.zeros(int(void) + 1, np.uint8)
    table[ids], table[void] = np.arange(1, len(ids) + 1), IGNORE
    return table[labels], tuple(ids)


class BaseDataset(Dataset[tuple[Tensor, ...]]):
    """Sample g of supervised training on the base classes, a function of g: image (3, S, S) and base labels (S, S).

    Where the source's images have only some classes marked, `known_bases` (N,) comes third.
    Every training image occurs once per epoch (of `len` samples), in an order shuffled anew.
    """

    def __init__(
        self, source: ImageSource, fold: Fold, *, transform: Transform, seed: int = 0, novel: str = "background"
    ) -> None:
        if len(fold.base) > MOST_CLASSES:
            raise UsageError(f"{source.name} has {len(fold.base)} base classes; a base learner takes 254 at most")
        self.source, self.seed = source, seed
        self.images = training_images(source, fold, novel=novel)
        if not len(self.images):
            raise DataError(
                f"{source.name} has no image with a base class of fold {fold.index} to train on (novel={novel})"
            )
        self.fold, self.transform = fold, transform
        self._lookup = base_lookup(source, fold, novel=novel)

    def __len__(self) -> int:
        return len(self.images)

    def image_of(self, g: int) -> int:
        """Index in the source of the image of sample `g`."""
        epoch, position = divmod(g, len(self))
        return int(self.images[epoch_order(len(self), self.seed, epoch)[position]])

    def __getitem__(self, g: int) -> tuple[Tensor, ...]:
        i = self.image_of(g)
        image, labels = _load(self.source, i)
        pixels, maps = self.transform(image, self._lookup[labels][None], sample_seed(self.seed, g, 0))
        known = known_bases(self.source, self.fold, i)
        return (pixels, maps[0]) if known is None else (pixels, maps[0], known)


def base_lookup(source: ImageSource, fold: Fold, *, novel: str) -> NDArray[np.uint8]:
    """The fold's table from label values to base labels: 1..N; unseen classes are background, or 255 with `ignore`.

    More base classes than a byte holds have no labels here: all of their table is 255.
    """
    table = _base_table(source, fold, novel=novel, void=IGNORE)
    return (np.full_like(table, IGNORE) if len(fold.base) > MOST_CLASSES else table).astype(np.uint8)


def wide_lookup(source: ImageSource, fold: Fold, *, novel: str) -> NDArray[np.int32] | None:
    """The same with 65535 for 255 where there are more base classes than a byte holds, else None.

    None too where nothing says which classes an image's labels tell of: with so many, not all are marked in every image
    (in FSS-1000 one is), and the others' pixels are no background.
    """
    if len(fold.base) <= MOST_CLASSES or not hasattr(source, "labelled"):
        return None
    return _base_table(source, fold, novel=novel, void=WIDE_IGNORE)


def _base_table(source: ImageSource, fold: Fold, *, novel: str, void: int) -> NDArray[np.int32]:
    check_choice("data.novel", novel, NOVEL_RULES)
    table = np.zeros(256 if len(source.class_names) <= MOST_CLASSES else 2**16, np.int32)
    table[list(fold.base)] = np.arange(1, len(fold.base) + 1)
    table[[-1, *(fold.unseen if novel == "ignore" else ())]] = void
    return table


def known_bases(source: ImageSource, fold: Fold, i: int) -> Tensor | None:
    """(N,) bool: the base classes whose pixels are marked in image `i`; None where all are."""
    known = labelled(source, i)
    return None if known is None else torch.from_numpy(known[list(fold.base)])


def certain(labels: NDArray[np.uint8], known: Tensor | None) -> NDArray[np.uint8]:
    """Base labels (H, W) to score by: 255 for background that may be a base class which is not marked."""
    return labels if known is None or known.all() else np.where(labels == 0, np.uint8(IGNORE), labels)


def _load(source: ImageSource, i: int) -> tuple[Image.Image, NDArray[Any]]:
    """Image and label map; DataError if they are not of one size."""
    image, labels = source.load(i)
    if labels.shape != (image.height, image.width):
        raise DataError(
            f"image {source.index.ids[i]!r} of {source.name} is {image.width} x {image.height} pixels,"
            f" but its labels are {labels.shape[1]} x {labels.shape[0]}; they must be of one size"
        )
    return image, labels


class GlobalSampler:
    """Batches of the numbers start..stop in order, each of `batch` over all ranks: a rank gets every world-th of it.

    A run that is resumed starts at the number where it stopped.
    """

    def __init__(self, start: int, stop: int, *, batch: int, rank: int = 0, world: int = 1) -> None:
        if batch < 1 or batch % world:
            raise UsageError(f"a batch of {batch} cannot be divided among {world} devices; give a multiple of {world}")
        self.start, self.stop, self.batch, self.rank, self.world = start, stop, batch, rank, world

    def __len__(self) -> int:
        return max(0, -(-(self.stop - self.start) // self.batch))

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.stop, self.batch):
            yield list(range(first, min(first + self.batch, self.stop)))[self.rank :: self.world]


@dataclass
class _Told(Dataset[Any]):
    """A data set that gives a FewsegError as an item: raised in a loader process, it would lose its type."""

    inner: Dataset[Any]

    def __getitem__(self, g: int) -> Any:
        try:
            return self.inner[g]
        except FewsegError as error:
            return error

    def collate(self, items: list[Any]) -> Any:
        """The first error, or one batch from the items."""
        errors = (item for item in items if isinstance(item, FewsegError))
        return next(errors, None) or getattr(self.inner, "collate", default_collate)(items)


def make_loader(dataset: Dataset[Any], batches: Iterable[list[Any]], *, workers: int = 0) -> Generator[Any]:
    """What a torch loader makes of lists of numbers, or of whatever items the data set takes.

    The output is the same for any number of workers; there are never more than processors. A FewsegError of one of them
    is raised here unchanged, without the traceback that torch adds to its text.
    """
    workers = min(workers, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
    context = multiprocessing.get_context(START) if workers else None
    told = _Told(dataset)
    loader = DataLoader(
        told,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=told.collate,
        worker_init_fn=_start_worker,
        multiprocessing_context=context,
        generator=torch.Generator(),  # the seed that a loader draws must not come from the stream that models use
    )
    try:
        for batch in _started(loader):  # without a name that a traceback would keep: its processes end with the loop
            if isinstance(batch, FewsegError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "killed" not in f"{error} {error.__cause__}":
            raise
        raise FewsegError(
            f"a loader process died, most often for lack of memory; give fewer workers ({first_line(error)})"
        ) from error


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    with starting_workers():
        return iter(loader)


def _start_worker(_: int) -> None:
    follow_parent()
    torch.set_num_threads(1)
