"""One's own data as a COCO-format file: polygons or run lengths of any annotation tool, and a folder of photos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.read import json_format
from fewseg.data.division import Divided
from fewseg.data.images import align_mask, read_oriented
from fewseg.data.source import SourceIndex
from fewseg.data.text import Tally
from fewseg.errors import DataError

OTHERS = (
    "a data set to train or evaluate on is an export in COCO's format; from other tools' exports `fewseg segment "
    "--annotations` takes supports"
)


@dataclass(kw_only=True, eq=False)
class CocoJson(Divided):
    """`annotations` (a file below `root`; by default the only .json there) and the photos that it names in `images`.

    Photos are found as `fewseg segment --annotations` finds them (`annotations.photos`); those that are not there are
    left out. Image ids are the file names as the annotation file gives them, in its order. A class's mask is the union
    of its annotations; in label maps smaller annotations lie on larger ones. Folds and subsets are made as those of
    `folder`: `folds` (of the classes that have annotations) and `fold_seed`, or `novel_classes`; `val_fraction`.
    """

    name = "coco_json"
    holds = "an annotation file and photos"
    annotations: str | None = None
    images: str | None = None

    def _open(self) -> tuple[str, ...]:
        path = self.root / self.annotations if self.annotations else _only_json(self.root)
        if path.is_file() and (kind := json_format(path)) not in (None, "COCO"):
            raise DataError(f"{path} is {kind}'s; {OTHERS}")
        self._file = CocoFile(path, root=self.root, key=f"coco_json-{path.stem}")
        self.class_names = self._file.class_names
        self._folder = self.root / (self.images or "")
        photos = Photos(path, self._folder, option=f"data.images=FOLDER, or put them below {self.root}")
        self._photos = {name: photo for name in self._file.files if (photo := photos.find(name))}
        if not self._photos:
            raise DataError(str(photos.tally))
        self.left_out = [
            (path.name, path, "left out", f"{path}: {told}") for told in self._file.tally.lines() if "left out" in told
        ] + [
            (name, self._folder / name, "missing", f"the photo {name!r} was not found in {photos.places}")
            for name in self._file.files
            if name not in self._photos
        ]
        """What `data check` lists: id, file, kind, what is wrong."""
        self._file.tally.warn()
        photos.tally.warn()
        return self._file.files

    def _belongs(self, image_id: str) -> bool:
        return image_id in self._photos and super()._belongs(image_id)

    def describe(self) -> dict[str, Any]:
        """What was found: the annotation file, the photos and the classes."""
        found = {"annotations": str(self._file.path), "photos": str(self._folder), "classes": list(self.class_names)}
        return super().describe() | {"root": str(self.root)} | found

    @property
    def used(self) -> tuple[int, ...]:
        """The ids of the classes that have annotations."""
        return self._file.used

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Image `i` as RGB and its (H, W) label map, turned as the photo was: 0 background, 1..N classes, 255 void."""
        image, orientation = read_oriented(self.image_path(i))
        return image, self._turned(self.labels(i), i, image, orientation)

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone, as it was annotated."""
        return self._file.labels(self._chosen[i], smaller_on_top=True)

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """All of image `i` that is annotated as a class, (H, W) {0, 1, 255 void}, turned as the photo was."""
        mask = self._file.mask(self._chosen[i], class_id)
        if labels is not None and labels.shape == mask.shape:
            return mask
        return self._turned(mask, i, *read_oriented(self.image_path(i)))

    def _turned(self, mask: NDArray[np.uint8], i: int, image: Image.Image, orientation: int) -> NDArray[np.uint8]:
        name = f"the annotation of {self.ids[i]}"
        return align_mask(mask, image.size, orientation=orientation, name=name, source=self.root)

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self._photos[self.ids[i]]

    @cached_property
    def _index_of_all(self) -> SourceIndex:
        return self._file.index(self._file.files, self.progress, overlapping=True)


def _only_json(root: Path) -> Path:
    found = sorted([*root.glob("*.json"), *(root / "annotations").glob("*.json")])
    fitting = [path for path in found if json_format(path) == "COCO"] if len(found) > 1 else found
    if len(fitting) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in fitting or found) or "none"
        advice = "name it with data.annotations=FILE" if found else OTHERS
        raise DataError(f"{root} must hold one .json file of COCO's format, found: {names}; {advice}")
    passed_over = Tally(root)
    for path in set(found) - set(fitting):
        passed_over.add("JSON files are not of COCO's format and are left out", path.name)
    passed_over.warn()
    return fitting[0]
