"""One's own data in folders: photos with one mask per class, or photos with label maps."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.division import Divided
from fewseg.data.images import SUFFIXES, align_mask, read_labels, read_mask, read_oriented
from fewseg.data.index import build_index
from fewseg.data.source import SourceIndex
from fewseg.errors import DataError

MOST_CLASSES = 254
"""What a label map of bytes can hold beside background and void."""


class _Photo(NamedTuple):
    id: str
    """CLASS/NAME or NAME, without the ending."""
    image: Path
    labels: Path
    class_id: int
    """Of the mask; 0 where the file is a label map."""


class Folder(Divided):
    """Photos and masks below `root`, in one of two layouts.

    `images/CLASS/NAME.jpg` with `masks/CLASS/NAME.png` (`images.mask_of` says what is foreground there), or
    `images/NAME.jpg` with `labels/NAME.png` (class ids, palette or grey, 255 void) and class names in `classes.txt`,
    one a line, class 1 first. Folds: `folds` parts of the classes, shuffled by `fold_seed` (null: in order), or one
    with these `novel_classes`. A share `val_fraction` of the images, chosen by their ids, is `test` and the rest
    `train`; with 0 both are all images, which only `novel=drop` keeps apart.
    """

    name = "folder"
    holds = "images/ and masks/ or labels/"
    class_names = ()

    def _open(self) -> list[str]:
        self.by_class = (self.root / "masks").is_dir()
        self._all = _masks(self.root) if self.by_class else _label_maps(self.root)
        if not self._all:
            raise DataError(f"{self.root / 'images'} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        self.class_names = self._class_names()
        return [photo.id for photo in self._all]

    def describe(self) -> dict[str, Any]:
        """What was found: the layout and the classes."""
        layout = "images/CLASS + masks/CLASS" if self.by_class else "images + labels"
        return super().describe() | {"root": str(self.root), "layout": layout, "classes": list(self.class_names)}

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Image `i` as RGB and its (H, W) label map: 0 background, 1..N classes, 255 void."""
        image, orientation = read_oriented(self.image_path(i))
        return image, align_mask(self.labels(i), image.size, orientation=orientation, name=str(self._photo(i).labels))

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone, as it lies in the file."""
        return _read(self._photo(i))

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self._photo(i).image

    def _photo(self, i: int) -> _Photo:
        return self._all[self._chosen[i]]

    @cached_property
    def _index_of_all(self) -> SourceIndex:
        """Of both subsets, and for label maps without `classes.txt` of every class there can be."""
        if absent := [photo.labels for photo in self._all if not photo.labels.is_file()]:
            raise DataError(
                f"{len(absent)} of {len(self._all)} photos have no label file, the first missing is {absent[0]}"
            )
        return build_index(
            [photo.id for photo in self._all],
            lambda i: _read(self._all[i]),
            [photo.labels for photo in self._all],
            classes=len(self.class_names) or MOST_CLASSES,
            root=self.root,
            key="folder",
            progress=self.progress,
        )

    def _class_names(self) -> tuple[str, ...]:
        if self.by_class:
            names = _class_folders(self.root)
        elif (listed := self.root / "classes.txt").is_file():
            names = [line.strip() for line in listed.read_text().splitlines() if line.strip()]
        else:
            most = int(np.flatnonzero(self._index_of_all.counts.any(axis=0)).max())
            names = [f"class_{c}" for c in range(1, 1 + most)]
        if not 1 <= len(names) <= MOST_CLASSES:
            raise DataError(f"{self.root} has {len(names)} classes; 1 to {MOST_CLASSES} are possible")
        return tuple(names)


def _read(photo: _Photo) -> NDArray[np.uint8]:
    """The (H, W) label map, as it lies in the file."""
    if not photo.class_id:
        return read_labels(photo.labels)
    mask = read_mask(photo.labels)
    return np.where(mask == 1, np.uint8(photo.class_id), mask)


def _masks(root: Path) -> list[_Photo]:
    photos = []
    for class_id, name in enumerate(_class_folders(root), 1):
        found = _photos(root / "images" / name, root / "masks" / name)
        photos += [_Photo(f"{name}/{image.stem}", image, mask, class_id) for image, mask in found]
    return photos


def _label_maps(root: Path) -> list[_Photo]:
    if not (root / "labels").is_dir():
        raise DataError(
            f"{root} has neither masks/ nor labels/; lay it out as images/CLASS + masks/CLASS or images + labels"
        )
    return [_Photo(photo.stem, photo, labels, 0) for photo, labels in _photos(root / "images", root / "labels")]


def _class_folders(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "masks").iterdir() if path.is_dir() and not path.name.startswith("."))


def _photos(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Every photo of a folder, by name, with the place of its label file."""
    if not images.is_dir():
        raise DataError(f"{images} is missing; it must hold the photos that {labels} annotates")
    found = sorted(p for p in images.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    for one, other in pairwise(found):
        if one.stem == other.stem:
            raise DataError(f"{one} and {other.name} would share one label file; rename one of them")
    return [(path, labels / f"{path.stem}.png") for path in found]
