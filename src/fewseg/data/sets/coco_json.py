"""One's own data as a COCO-format file: polygons or run lengths of any annotation tool, and a folder of photos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.division import Divided
from fewseg.data.source import SourceIndex
from fewseg.errors import DataError


@dataclass(kw_only=True, eq=False)
class CocoJson(Divided):
    """`annotations` (a file below `root`; by default the only .json there) and the photos that it names in `images`.

    Image ids are the file names as the annotation file gives them, in its order. Folds and subsets are made as those of
    `folder`: `folds` and `fold_seed`, or `novel_classes`; `val_fraction`.
    """

    name = "coco_json"
    holds = "an annotation file and photos"
    annotations: str | None = None
    images: str | None = None

    def _open(self) -> tuple[str, ...]:
        path = self.root / self.annotations if self.annotations else _only_json(self.root)
        self._file = CocoFile(path, root=self.root, key=f"coco_json-{path.stem}")
        self.class_names = self._file.class_names
        own = self.root / "images"
        self._photos = self.root / self.images if self.images is not None else own if own.is_dir() else self.root
        return self._file.files

    def describe(self) -> dict[str, Any]:
        """What was found: the annotation file, the photos and the classes."""
        found = {"annotations": str(self._file.path), "photos": str(self._photos), "classes": list(self.class_names)}
        return super().describe() | {"root": str(self.root)} | found

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone: 0 background, 1..N classes."""
        return self._file.labels(self._chosen[i])

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        return self._photos / self.ids[i]

    @cached_property
    def _index_of_all(self) -> SourceIndex:
        return self._file.index(self._file.files, self.progress)


def _only_json(root: Path) -> Path:
    found = sorted([*root.glob("*.json"), *(root / "annotations").glob("*.json")])
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in found) or "none"
        raise DataError(f"{root} must hold one .json file, found: {names}; name it with data.annotations=FILE")
    return found[0]
