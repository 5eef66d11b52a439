"""One's own data in folders: photos with one mask per class, with the masks of one class, or with label maps."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.division import Divided
from fewseg.data.folder_layout import Found, Layout, find_layout, subsets
from fewseg.data.images import align_mask, read_labels, read_oriented
from fewseg.data.index import cached_index, count_labels, fingerprint, in_parallel
from fewseg.data.label_maps import LabelMaps, one_name
from fewseg.data.masks import MUCH, SWAPPED, different, read_marking, read_mask
from fewseg.data.regions import border_share
from fewseg.data.same_photos import same_content
from fewseg.data.source import SourceIndex, class_mask
from fewseg.data.text import Tally
from fewseg.errors import DataError, DataWarning, FewsegError, UsageError
from fewseg.labels import IGNORE, MOST_CLASSES

_SUSPECTS = 20
"""Classes whose masks are looked at, those of which most mark much: looking costs time at every start."""
_SOME = 0.2
"""Of a class's masks: where fewer mark most of their photo, things that fill photos are the likelier reason."""


class _Photo(NamedTuple):
    id: str
    """CLASS/NAME or NAME, without the ending; with sub-folders where there are some."""
    image: Path
    masks: tuple[tuple[int, Path], ...]
    """Class and file; the class is 0 where the file is a label map."""


@dataclass(kw_only=True, eq=False)
class Folder(Divided):
    """Photos and masks below `root`, in one of the layouts that `fewseg.data.folder_layout.TREES` shows.

    `images/CLASS/NAME.jpg` with `masks/CLASS/NAME.png` (`fewseg.data.masks` says what is foreground there);
    `images/NAME.jpg` with `masks/NAME.png`, masks of one class, which has the name `class_name` or that of the root; or
    `images/NAME.jpg` with `labels/NAME.png` (class ids, palette or grey, 255 void) and class names in `classes.txt`,
    one a line, class 1 first. Label maps of 0 and 255 alone are masks of one class.

    A photo that lies in several class folders is one image that holds these classes. Folds: `folds` parts of the
    classes, shuffled by `fold_seed` (null: in order), or one with these `novel_classes`. A share `val_fraction` of the
    images, chosen by their ids, is `test` and the rest `train`; with 0 ImageSets/Segmentation/train.txt and val.txt or
    folders `train` and `val` say it, and where there are none both are all images, which only `novel=drop` keeps apart.
    """

    name = "folder"
    holds = "images/ and masks/ or labels/"
    class_name: str | None = None
    """Name of the class where there is only one; null: that of the root's folder."""
    label: str | None = None
    """Which value of the masks is the object, where they hold several: 2, any (all but 0), >=128, #ff0000."""

    def _open(self) -> list[str]:
        self._layout = layout = find_layout(self.root)
        self.left_out = layout.left_out
        """What `data check` lists: id, file, kind, what is wrong."""
        self.swapped: list[str] = []
        """What is to be said of classes whose masks may mark what is around the object; known with the index."""
        if layout.class_names and self.class_name is not None:
            raise UsageError(
                f"data.class_name={self.class_name}: the classes of {self.root} have the names of their folders "
                f"({', '.join(layout.class_names)}); leave it out"
            )
        if layout.kind == "label maps":
            self._take_for_masks(layout)
        self._all = (
            self._merged(layout.found) if layout.kind == "classes" else [_photo(f, layout.kind) for f in layout.found]
        )
        ids = [photo.id for photo in self._all]
        if layout.kind == "one class" and self.label is None:
            self._check_values([photo.masks[0][1] for photo in self._all])
        self._named = None if self.val_fraction else subsets(self.root, ids)
        return ids

    def _take_for_masks(self, layout: Layout) -> None:
        """Label maps are masks of one class where one of their values is asked for, or where they hold no numbers."""
        if layout.listed and (len(layout.listed.names) > 1 or layout.listed.colours):
            if self.label is not None:
                raise UsageError(
                    f"data.label={self.label}: {layout.listed.file} names the values of the label maps; leave it out"
                )
            return
        if self.label is not None or not any(_holds_ids(item.mask) for item in _sample(layout.found, 5)):
            layout.kind = "one class"

    def _check_values(self, files: Sequence[Path]) -> None:
        """DataError where masks of one class hold another value in each file, as label maps do."""
        values: list[tuple[int, Path]] = []
        for file in _sample(files, 30):
            try:
                value = read_marking(file).value
            except FewsegError:  # it will be told where it is needed
                continue
            if value is not None:
                values.append((1 if value == 255 else value, file))
        if listed := different(values):
            raise DataError(
                f"the masks of {self.root} hold different values: {listed}. If they are classes, name them in "
                f"{self.root / 'classes.txt'}, one a line; if all are one class, give data.label=any"
            )

    def _belongs(self, image_id: str) -> bool:
        return super()._belongs(image_id) if self._named is None else image_id in self._named[self.subset]

    @property
    def one_class_each(self) -> bool:
        """Whether every annotation is the mask of a class, which must mark something."""
        return self._layout.kind != "label maps"

    def describe(self) -> dict[str, Any]:
        """What was found: the layout and the classes."""
        found = {"root": str(self.root), "layout": self._layout.text, "holds": self._layout.kind}
        return super().describe() | found | {"classes": list(self.class_names)}

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Image `i` as RGB and its (H, W) label map: 0 background, 1..N classes, 255 void."""
        image, orientation = read_oriented(self.image_path(i))
        name = str(self._photo(i).masks[0][1])
        return image, align_mask(self.labels(i), image.size, orientation=orientation, name=name, source=self.root)

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone, as it lies in the file; of masks that overlap the smaller is on
        top.
        """
        return self._labels(self._photo(i))

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """The (H, W) mask of a class in image `i`, {0, 1, 255}: all of it, also where another class lies on top.

        `labels` is what `load` gave, if that is at hand.
        """
        photo = self._photo(i)
        if len(photo.masks) > 1:
            masks = self._class_masks(photo)
            return masks.get(class_id, np.zeros_like(next(iter(masks.values()))))
        return class_mask(self.load(i)[1] if labels is None else labels, class_id)

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self._photo(i).image

    def _photo(self, i: int) -> _Photo:
        return self._all[self._chosen[i]]

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of class ids 1..N."""
        names = self._layout.class_names
        if self._maps is not None:
            names = self._maps.names
        elif not names:
            names = (one_name(self.root, self._layout.listed, self.class_name),)
        if len(names) > MOST_CLASSES:
            raise DataError(f"{self.root} has {len(names)} classes; 1 to {MOST_CLASSES} are possible")
        return names

    @cached_property
    def _maps(self) -> LabelMaps | None:
        """The label maps, where there are some."""
        if self._layout.kind != "label maps":
            return None
        files = [photo.masks[0][1] for photo in self._all]
        return LabelMaps(self.root, files, self._layout.listed, self.class_name, self.progress)

    @cached_property
    def _index_of_all(self) -> SourceIndex:
        """Of both subsets."""
        ids = tuple(photo.id for photo in self._all)
        index = self._index_of_masks(ids) if self._maps is None else SourceIndex(ids, self._maps.counts)
        self.swapped = self._find_swapped(index.counts)
        for text in self.swapped:
            warnings.warn(DataWarning(text), stacklevel=2)
        return index

    def _index_of_masks(self, ids: tuple[str, ...]) -> SourceIndex:
        def counts() -> NDArray[np.int64]:
            return np.array(list(in_parallel(self._count, self._all, self.progress, "reading annotations")), np.int64)

        files = [file for photo in self._all for _, file in photo.masks]
        classes = [[class_id for class_id, _ in photo.masks] for photo in self._all]
        mark = fingerprint(files, ids, classes, self._layout.class_names, self.label, root=self.root)
        index = cached_index(ids, counts, root=self.root, key="folder", mark=mark)
        tally = Tally(self.root)
        for photo, (rest, *marked) in zip(self._all, index.counts.tolist(), strict=True):
            if not any(marked):
                tally.add("masks mark nothing", photo.masks[0][1])
            elif not rest:
                tally.add("masks leave nothing as background", photo.masks[0][1])
        tally.warn()
        return index

    def _find_swapped(self, counts: NDArray[np.int64]) -> list[str]:
        """Classes of which many masks mark most of their photo, and most of its border where some are looked at.

        Photos with several classes are passed over: of these any may fill what the others leave.
        """
        held = counts[:, 1:]
        alone = (held == held.sum(1, keepdims=True)) & (counts[:, :1] > 0)
        many = alone & (held > MUCH[0] * counts.sum(1, keepdims=True))
        share = many.sum(0) / np.maximum(1, np.count_nonzero(held, axis=0))
        found = []
        for number in np.argsort(-share, kind="stable")[:_SUSPECTS].tolist():
            class_id, much, of = number + 1, np.flatnonzero(many[:, number]), np.count_nonzero(held[:, number])
            if share[number] <= _SOME:
                break
            looked_at = [self._all[i] for i in _sample(much.tolist(), 10)]
            swapped = [photo for photo in looked_at if border_share(self._labels(photo) == class_id) > MUCH[1]]
            if 2 * len(swapped) >= len(looked_at):
                first = next(file for c, file in swapped[0].masks if c in (0, class_id))
                found.append(
                    f"{self.root}: {len(much)} of {of} masks of {self.class_names[number]!r} mark more than "
                    f"{MUCH[0]:.0%} of their photo, and {len(swapped)} of {len(looked_at)} that were looked at more "
                    f"than {MUCH[1]:.0%} of its border ({SWAPPED}; the first: {first})"
                )
        return found

    def _count(self, photo: _Photo) -> NDArray[np.int64]:
        """(1 + classes,) pixels; of a photo in several class folders each class's whole mask."""
        counts = count_labels(self._labels(photo), classes=len(self.class_names), path=photo.masks[0][1])
        if len(photo.masks) > 1:
            for class_id, mask in self._class_masks(photo).items():
                counts[class_id] = np.count_nonzero(mask == 1)
        return counts

    def _labels(self, photo: _Photo) -> NDArray[np.uint8]:
        class_id, file = photo.masks[0]
        if self._maps is not None:
            return self._maps.read(file)
        if len(photo.masks) == 1:
            mask = self._read_mask(file)
            return np.where(mask == 1, np.uint8(class_id), mask)
        masks = self._class_masks(photo)
        labels = np.where(np.any([mask == IGNORE for mask in masks.values()], axis=0), np.uint8(IGNORE), np.uint8(0))
        for c, mask in sorted(masks.items(), key=lambda item: -int((item[1] == 1).sum())):
            labels[mask == 1] = c
        return labels

    def _class_masks(self, photo: _Photo) -> dict[int, NDArray[np.uint8]]:
        """The (H, W) masks by class of a photo that several class folders hold, of the upright photo's size."""
        image, orientation = read_oriented(photo.image)
        found: dict[int, NDArray[np.uint8]] = {}
        for class_id, file in photo.masks:
            mask = align_mask(
                self._read_mask(file), image.size, orientation=orientation, name=str(file), source=self.root
            )
            former = found.get(class_id, mask)
            found[class_id] = np.where((former == 1) | (mask == 1), np.uint8(1), np.maximum(former, mask))
        return found

    def _read_mask(self, file: Path) -> NDArray[np.uint8]:
        try:
            return read_mask(file, self.label)
        except FewsegError as error:
            if self._layout.kind != "one class":
                raise
            raise type(error)(
                f"{error}. If these are several classes, name them in {self.root / 'classes.txt'}, one a line"
            ) from error

    def _merged(self, found: Sequence[Found]) -> list[_Photo]:
        """The photos of class folders; one that several folders hold is one, with the id of the first."""
        paths = [item.photo for item in found]
        first = same_content(paths, root=self.root, key="folder-photos", progress=self.progress)
        groups: dict[int, list[Found]] = defaultdict(list)
        for i, item in zip(first, found, strict=True):
            groups[i].append(item)
        tally, merged = Tally(self.root), []
        for i, item in enumerate(found):
            group = groups[first[i]]
            if len({other.class_name for other in group}) == 1:
                group = [item]
            if group[0] is item:
                masks = tuple((1 + self._layout.class_names.index(one.class_name), one.mask) for one in group)
                merged.append(_Photo(item.id, item.photo, masks))
            if group[0] is item and len(group) > 1:
                names = " and ".join(str(one.photo.relative_to(self.root)) for one in group[:2])
                names += f" and {len(group) - 2} more" if len(group) > 2 else ""
                tally.add("photos lie in several class folders: each is one image that holds these classes", names)
        tally.warn()
        return merged


def _photo(found: Found, kind: str) -> _Photo:
    return _Photo(found.id, found.photo, ((0 if kind == "label maps" else 1, found.mask),))


def _sample(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many, evenly spread."""
    return items[:: -(-len(items) // most)]


def _holds_ids(file: Path) -> bool:
    try:
        read_labels(file)
    except DataError:
        return False
    return True
