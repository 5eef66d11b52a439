"""COCO's format as supports: one JSON file with polygons, run lengths and compressed run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.annotations.shapes import AnnotatedPhoto, Shape, Size, find_photo


def read_coco(path: Path, folders: Sequence[Path]) -> Iterator[AnnotatedPhoto]:
    """The photos that have annotations; where instances of two classes overlap, the later annotation wins."""
    file = CocoFile(path, root=path.parent, key=f"coco_json-{path.stem}")
    for i, name in enumerate(file.files):
        classes = file.classes_of(i)
        if not classes:
            continue
        height, width = (int(side) for side in file.sizes[i])
        shapes = [Shape(file.class_names[c - 1], partial(_drawn, file, i, c)) for c in classes]
        yield AnnotatedPhoto(find_photo(name, folders, export=path), (height, width), shapes)


def _drawn(file: CocoFile, i: int, class_id: int, size: Size) -> NDArray[np.bool_]:
    return file.labels(i) == class_id
