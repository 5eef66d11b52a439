"""COCO's format as supports: one JSON file with polygons, run lengths and compressed run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.annotations.shapes import AnnotatedPhoto, Shape, find_photo


def read_coco(path: Path, folders: Sequence[Path]) -> Iterator[AnnotatedPhoto]:
    """The photos that have annotations; where instances of two classes overlap, the later annotation wins."""
    file = CocoFile(path, root=path.parent, key=f"coco_json-{path.stem}")
    for i, name in enumerate(file.files):
        classes = file.classes_of(i)
        if not classes:
            continue
        shapes = [Shape(file.class_names[c - 1], lambda _, i=i, c=c: file.labels(i) == c) for c in classes]
        yield AnnotatedPhoto(find_photo(name, folders, export=path), file.size(i), shapes)
