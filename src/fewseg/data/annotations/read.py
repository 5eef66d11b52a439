"""Recognises the format of an annotation tool's export and gives its photos and masks as supports."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations.coco import read_coco
from fewseg.data.annotations.cvat_masks import read_cvat_masks
from fewseg.data.annotations.cvat_xml import read_cvat_xml
from fewseg.data.annotations.label_studio import PNG_NAME, read_label_studio, read_label_studio_png
from fewseg.data.annotations.labelme import read_labelme
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.shapes import AnnotatedPhoto
from fewseg.data.annotations.supervisely import read_supervisely
from fewseg.data.annotations.via import read_via
from fewseg.data.annotations.yolo import is_yolo, read_yolo
from fewseg.errors import DataError, UsageError

Pairs = tuple[list[Path | Image.Image], list[NDArray[np.uint8]]]
"""Photos, and their masks (H, W) uint8 {0, 1, 255 ignore}."""

KNOWN = (
    "COCO (.json), LabelMe and X-AnyLabeling (.json, or a folder of them), Label Studio (.json, or a folder of its PNG "
    "masks with the .json), CVAT for images 1.1 (.xml), CVAT segmentation mask 1.1 (the unpacked folder), VIA (.json), "
    "Supervisely (.json, or the folder), YOLO segmentation (the folder of data.yaml or classes.txt)"
)
_ONE_FILE = {"COCO": read_coco, "Label Studio": read_label_studio, "VIA": read_via}
_FILE_PER_PHOTO = {"LabelMe": read_labelme, "Supervisely": read_supervisely}


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
    is told by the content: see docs/annotation-tools.md. A class's mask is the union of its regions, with 255 where the
    export says `__ignore__`. What cannot be read is left out with a DataWarning. UsageError where a class is not in the
    export, DataError where it is damaged, or where nothing is left of a class that was asked for.
    """
    export = Path(path)
    place = Photos(export, None if photos is None else Path(photos))
    found: dict[str, dict[object, tuple[Path | Image.Image, NDArray[np.uint8]]]] = {}
    for photo in _photos(export, place):
        for label in photo.labels:
            pairs = found.setdefault(label, {})
            if photo.image is not None and (classes is None or label in classes):
                _add(pairs, photo, label, place, most=shots)
    reasons = f" ({place.tally})" if place.tally.found else ""
    if absent := [name for name in classes or () if name not in found]:
        raise UsageError(f"{export} has no class {absent[0]!r}; it has {', '.join(sorted(found)) or 'none'}{reasons}")
    empty = [name for name in classes or () if not found[name]]
    if empty or not any(found.values()):
        raise DataError(f"{export} has no annotated areas{' of ' + empty[0] if empty else ''} to read{reasons}")
    place.tally.warn()
    chosen = {name: list(found[name].values()) for name in (classes or sorted(found)) if found[name]}
    return {name: ([image for image, _ in pairs], [mask for _, mask in pairs]) for name, pairs in chosen.items()}


def _add(
    pairs: dict[object, tuple[Path | Image.Image, NDArray[np.uint8]]],
    photo: AnnotatedPhoto,
    label: str,
    place: Photos,
    *,
    most: int | None,
) -> None:
    """The photo's mask of a class; a photo that has two entries in the export is one support."""
    assert photo.image is not None
    key = photo.image if isinstance(photo.image, Path) else id(photo)
    if most is not None and len(pairs) >= most and key not in pairs:
        return
    try:
        mask = photo.mask(label, place)
    except DataError as error:
        place.tally.add("photos cannot be used and are left out", error)
        return
    if key in pairs and pairs[key][1].shape == mask.shape:
        place.tally.add("photos have several entries, whose regions are taken together", photo.image)
        mask = np.where((mask == 1) | (pairs[key][1] == 1), np.uint8(1), np.maximum(mask, pairs[key][1]))
    if (mask == 1).any():
        pairs[key] = photo.image, mask


def _photos(export: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    if export.is_dir():
        return _in_folder(export, photos)
    if not export.is_file():
        raise DataError(f"{export}: there is no such file or folder")
    suffix = export.suffix.lower()
    if suffix == ".xml":
        return read_cvat_xml(export, photos)
    if suffix == ".json" and (kind := json_format(export)):
        return _ONE_FILE[kind](export, photos) if kind in _ONE_FILE else _FILE_PER_PHOTO[kind]([export], photos)
    if suffix in (".yaml", ".yml") and is_yolo(export.parent):
        return read_yolo(export.parent, photos)
    if suffix == ".zip":
        raise UsageError(f"{export}: unpack it, and give the folder or the annotation file in it")
    unknown = DataError if suffix == ".json" else UsageError
    raise unknown(f"{export} is of no known annotation format; known: {KNOWN}")


def _in_folder(folder: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    if (folder / "SegmentationClass").is_dir():
        return read_cvat_masks(folder, photos)
    if any(PNG_NAME.fullmatch(path.name) for path in folder.glob("task-*.png")):
        return read_label_studio_png(folder, photos)
    if (folder / "annotations.xml").is_file():
        return read_cvat_xml(folder / "annotations.xml", photos)
    by_format: dict[str, list[Path]] = {}
    for file in sorted(path for path in folder.rglob("*.json") if not path.name.startswith(".")):
        if kind := json_format(file):
            by_format.setdefault(kind, []).append(file)
        else:
            photos.tally.add("JSON files are no annotations, left out", file)
    if len(by_format) > 1 or any(len(by_format.get(kind, [])) > 1 for kind in _ONE_FILE):
        listed = [f"{file} ({kind})" for kind, files in by_format.items() for file in files[:3]]
        each = " and ".join(kind for kind in by_format if kind in _FILE_PER_PHOTO)
        apart = f", or the folder of {each}'s files alone: copy them to one of their own" if each else ""
        raise UsageError(f"{folder} holds several exports, such as {', '.join(listed)}; give one file{apart}")
    for kind, files in by_format.items():
        return _ONE_FILE[kind](files[0], photos) if kind in _ONE_FILE else _FILE_PER_PHOTO[kind](files, photos)
    if is_yolo(folder):
        return read_yolo(folder, photos)
    raise DataError(f"{folder} holds no known annotation format; known: {KNOWN}")


def json_format(file: Path) -> str | None:
    """The format of a JSON file by the keys in its first part, since COCO's files may be too large to be read for this.

    None where it is no annotation.
    """
    with open(file, "rb") as content:
        start = content.read(1 << 17)
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    head = start.decode("utf-16" if utf16 else "utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    keys = set(re.findall(r'"(\w+)"\s*:', head))
    if head.startswith("["):
        return "Label Studio" if keys & _OF_LABEL_STUDIO else None
    if not head.startswith("{"):
        return None
    if keys & {"shapes", "imageData", "imagePath"}:
        return "LabelMe"
    if "_via_img_metadata" in keys or {"regions", "filename"} <= keys:
        return "VIA"
    if {"objects", "size"} <= keys:
        return "Supervisely"
    return "COCO" if keys & {"images", "annotations", "categories"} else None


_OF_LABEL_STUDIO = {"original_width", "was_cancelled", "completed_by", "file_upload", "annotation_id", "annotator"}
