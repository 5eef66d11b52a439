"""COCO's format as supports: one JSON file with polygons, run lengths, compressed run lengths and boxes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fewseg.data.annotations.coco_catalogue import VOID
from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape
from fewseg.labels import IGNORE


def read_coco(path: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos; a class's mask is the union of its own annotations, whatever lies over them."""
    file = CocoFile(path, root=path.parent, key=f"coco_json-{path.stem}")
    photos.tally.found |= file.tally.found
    names = dict(enumerate(file.class_names, 1)) | {VOID: "__ignore__"}
    for i, name in enumerate(file.files):
        shapes = [Shape(names[c], partial(_draw, file, i, c)) for c in file.classes_of(i)]
        yield AnnotatedPhoto(photos.find(name, annotated=bool(shapes)), file.size(i), shapes)


def _draw(file: CocoFile, i: int, class_id: int, mask: Mask) -> None:
    mask |= file.mask(i, class_id) == (1 if class_id != VOID else IGNORE)
