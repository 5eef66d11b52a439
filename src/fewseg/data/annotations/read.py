"""Recognises the format of an annotation tool's export and gives its photos and masks as supports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations.coco import read_coco
from fewseg.data.annotations.cvat_masks import read_cvat_masks
from fewseg.data.annotations.cvat_xml import read_cvat_xml
from fewseg.data.annotations.label_studio import PNG_NAME, read_label_studio, read_label_studio_png
from fewseg.data.annotations.labelme import read_labelme
from fewseg.data.annotations.shapes import AnnotatedPhoto, photo_folders
from fewseg.errors import DataError, UsageError

Pairs = tuple[list[Path | Image.Image], list[NDArray[np.uint8]]]
"""Photos, and their masks (H, W) uint8 {0, 1}."""

_KNOWN = (
    "COCO (.json), LabelMe (.json, or a folder of them), Label Studio (.json, or a folder of its PNG masks with the "
    ".json), CVAT for images 1.1 (.xml), CVAT segmentation mask 1.1 (the unpacked folder)"
)


def load_supports(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    photos: str | Path | None = None,
    shots: int | None = None,
) -> dict[str, Pairs]:
    """Supports in an annotation tool's export: {class: (photos, masks)}, for `FewShotPredictor.set_support`.

    `classes`: only these, in this order (None: all, by name). `photos`: the folder of the photos that the export names
    (None: beside it, or in its `images`). `shots`: at most so many photos of a class, the export's first. The format
    is told by the content: see docs/own-photos.md. UsageError where a class is not in it, DataError where it is
    damaged or a photo is missing.
    """
    export = Path(path)
    found: dict[str, tuple[list[Any], list[Any]]] = {}
    for photo in _photos(export, photo_folders(export, None if photos is None else Path(photos))):
        for label in dict.fromkeys(shape.label for shape in photo.shapes):
            pair = found.setdefault(label, ([], []))
            if (classes is None or label in classes) and (shots is None or len(pair[0]) < shots):
                mask = photo.mask(label)
                if mask.any():
                    pair[0].append(photo.image)
                    pair[1].append(mask)
    if absent := [name for name in classes or () if name not in found]:
        raise UsageError(f"{export} has no class {absent[0]!r}; it has {', '.join(sorted(found)) or 'none'}")
    chosen = {name: found[name] for name in (classes or sorted(found)) if found[name][0]}
    if not chosen:
        raise DataError(f"{export} has no annotated areas{' of ' + ', '.join(classes) if classes else ''}")
    return chosen


def _photos(export: Path, folders: list[Path]) -> Iterator[AnnotatedPhoto]:
    if export.is_dir():
        return _in_folder(export, folders)
    if not export.is_file():
        raise DataError(f"{export}: there is no such file or folder")
    if export.suffix.lower() == ".xml":
        return read_cvat_xml(export, folders)
    if export.suffix.lower() == ".json":
        return _in_json(export, folders)
    if export.suffix.lower() == ".zip":
        raise UsageError(f"{export}: unpack it, and give the folder or the annotation file in it")
    raise UsageError(f"{export} is of no known annotation format; known: {_KNOWN}")


def _in_folder(folder: Path, folders: list[Path]) -> Iterator[AnnotatedPhoto]:
    if (folder / "SegmentationClass").is_dir():
        return read_cvat_masks(folder, folders)
    if any(PNG_NAME.fullmatch(path.name) for path in folder.glob("task-*.png")):
        return read_label_studio_png(folder, folders)
    if (folder / "annotations.xml").is_file():
        return read_cvat_xml(folder / "annotations.xml", folders)
    files = sorted(folder.glob("*.json"))
    if files and all(_is_labelme(file) for file in files):
        return read_labelme(files, folders)
    if len(files) == 1:
        return _in_json(files[0], folders)
    raise UsageError(f"{folder} holds no known annotation format; known: {_KNOWN}")


def _in_json(file: Path, folders: list[Path]) -> Iterator[AnnotatedPhoto]:
    if _is_labelme(file):
        return read_labelme([file], folders)
    return read_label_studio(file, folders) if _head(file).startswith("[") else read_coco(file, folders)


def _is_labelme(file: Path) -> bool:
    """Whether a JSON file's first part has LabelMe's keys: COCO's files may be too large to be read for this."""
    head = _head(file)
    return head.startswith("{") and any(f'"{key}"' in head for key in ("shapes", "imageData", "imagePath"))


def _head(file: Path) -> str:
    with open(file, encoding="utf-8", errors="replace") as text:
        return text.read(1 << 16).lstrip("\ufeff \t\r\n")
