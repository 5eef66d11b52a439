"""The files that `fewseg segment` writes: mask PNGs, overlays, YOLO, GeoJSON, LabelMe.

`Objects` are the single objects of every class of a picture, where they are asked for: all files tell of them then.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fewseg.data import images
from fewseg.data.captions import with_legend
from fewseg.data.instances import instances
from fewseg.data.regions import Parts, grown
from fewseg.data.video import VIDEO_SUFFIXES
from fewseg.errors import DataError
from fewseg.files import content_mark, replacing
from fewseg.segment.polygons import Ring, is_hole, joined, polygons
from fewseg.segment.table import Told, pixels_hash

FORMATS = ("png", "coco", "yolo", "geojson", "labelme", "cvat", "labelstudio", "via", "csv")
CLASSES = "classes.txt"
INSTANCES = "_instances"
"""What the name of a picture of single objects ends with."""
OVERLAY = "_overlay.jpg"
OVERLAY_VIDEO = "_overlay.mp4"
FRAME = re.compile(rf"frame_(\d+)(\.png|{INSTANCES}\.png|\.txt|\.geojson|\.json|_overlay\.jpg)")
"""Names of the files that are written for a video's frames; see `frame_stem`."""
Objects: TypeAlias = Mapping[int, Parts]
"""The objects of each class by its label; their numbers in files go on from one class to the next."""
UNNAMED = "object"
"""What the one class of a support without a name is called in files."""
LABELME = '{"fewseg": "segment", '
"""How a file for LabelMe begins; where LabelMe wrote it again that key is its last."""
MADE_BY = "fewseg"
"""Of the text in a mask's PNG that says what made it."""
PIXELS = "fewseg pixels"
"""Of the text that says which pixels were written."""
TOLD = "fewseg told"
"""Of the text with what is told of each class: its presence, the overlap to expect and the doubt, as JSON."""
NAMES = "fewseg classes"
"""Of the text with the classes' names, as JSON."""
PHOTO = "fewseg photo"
"""Of the text that says which photo it is of (`files.content_mark`)."""
_MOST_OBJECTS = 65535
"""Of a picture: its numbers have 16 bits."""


def frame_stem(number: int) -> str:
    """The stem of a frame's outputs in its video's folder."""
    return f"frame_{number:06d}"


def frame_masks(folder: Path) -> list[Path]:
    """The masks of a video's frames that are in its folder."""
    frames = (path for path in folder.glob("*.png") if FRAME.fullmatch(path.name))
    return sorted(path for path in frames if not path.stem.endswith(INSTANCES))


def outputs(
    stem: str, out_dir: Path, *, formats: Sequence[str], overlay: bool, single: bool = False
) -> dict[str, Path]:
    """The files that are written for one picture, by kind; those of `fewseg.segment.books` are one for all of them.

    `single`: also the picture of single objects.
    """
    endings = {"png": ".png", "yolo": ".txt", "geojson": ".geojson", "labelme": ".json"}
    files = {kind: out_dir / f"{stem}{endings[kind]}" for kind in formats if kind in endings}
    files |= {"instances": out_dir / f"{stem}{INSTANCES}.png"} if single else {}
    return files | ({"overlay": out_dir / f"{stem}{OVERLAY}"} if overlay else {})


def objects_of(labels: NDArray[np.uint8]) -> Objects:
    """The single objects of every class in labels (H, W); DataError where they are too many to number."""
    found = {label: instances(labels == label) for label in present(labels)}
    if (count := sum(len(parts.pixels) for parts in found.values())) > _MOST_OBJECTS:
        raise DataError(f"it has {count} separate parts, of which 16 bits number {_MOST_OBJECTS}; give --min-area")
    return found


def numbered(objects: Objects, size: tuple[int, int]) -> NDArray[np.uint16]:
    """(H, W): 0 background, 1.. the objects, class by class."""
    numbers, before = np.zeros(size, np.uint16), 0
    for parts in objects.values():
        inside = parts.labels > 0
        numbers[inside] = parts.labels[inside] + before
        before += len(parts.pixels)
    return numbers


def write(
    files: dict[str, Path],
    image: Image.Image,
    labels: NDArray[np.uint8],
    names: Sequence[str] | None,
    objects: Objects | None = None,
    *,
    photo: Path,
    made: str = "",
    told: Told | None = None,
) -> None:
    """Write one picture's files; `labels` (H, W) hold 1.. for `names` in order, or 1 where there are none. `made` says
    in the mask's PNG what made it (`segment.origin`), and `told` what is told of each class.
    """
    for kind, path in files.items():
        if kind == "png":
            mask = images.mask_picture(labels, several=is_label_map(names))
            says = {
                MADE_BY: made,
                PIXELS: pixels_hash(np.asarray(mask)),
                TOLD: json.dumps(told),
                NAMES: json.dumps(names),
            }
            is_video = photo.suffix.lower() in VIDEO_SUFFIXES
            images.write_image(mask, path, pnginfo=_text(says | {PHOTO: "" if is_video else content_mark(photo)}))
        elif kind == "instances":
            images.write_image(Image.fromarray(numbered(objects or {}, labels.shape)), path)
        elif kind == "overlay":
            images.write_image(overlay(image, labels, names, objects), path, quality=90)
        else:
            called = names or (UNNAMED,)
            if kind == "labelme":
                text = labelme(labels, called, os.path.relpath(photo, path.parent), objects)
            else:
                text = yolo(labels, objects) if kind == "yolo" else geojson(labels, called, objects)
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


def signature(mask: Path) -> dict[str, str]:
    """What a mask's PNG says under `MADE_BY`, `PIXELS`, `TOLD`, `NAMES` and `PHOTO`; nothing where it does not say."""
    try:
        with Image.open(mask) as picture:
            keys = (MADE_BY, PIXELS, TOLD, NAMES, PHOTO)
            return {key: str(picture.info[key]) for key in keys if key in picture.info}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # whoever reads it says what is wrong
        return {}


def _text(says: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for key, value in says.items():
        info.add_text(key, value)
    return info


def is_label_map(names: Sequence[str] | None) -> bool:
    """Whether masks hold the numbers of classes; those of one class are 0 and 255, which every viewer shows."""
    return names is not None and len(names) > 1


def overlay(
    image: Image.Image, labels: NDArray[np.uint8], names: Sequence[str] | None = None, objects: Objects | None = None
) -> Image.Image:
    """The picture with every class tinted in its colour, a white line between objects that touch, and below it, where
    classes have names, which colour is whose.
    """
    shown = present(labels)
    for label in shown:
        image = images.overlay(image, labels == label, color=images.class_color(label))
    if objects:
        pixels = np.array(image)
        pixels[_seams(numbered(objects, labels.shape))] = 255
        image = Image.fromarray(pixels)
    if not names or not shown:
        return image
    counts = {label: f" ({len(parts.pixels)})" for label, parts in (objects or {}).items()}
    entries = [(names[label - 1] + counts.get(label, ""), images.class_color(label)) for label in shown]
    return with_legend(image, entries)


def _seams(numbers: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Where one object lies beside another."""
    seams = np.zeros(numbers.shape, bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        one, other = numbers[first], numbers[second]
        seams[first] |= (one != other) & (one > 0) & (other > 0)
    return grown(seams, max(0, round(min(numbers.shape) / 500)))


def yolo(labels: NDArray[np.uint8], objects: Objects | None = None) -> str:
    """YOLO segmentation: a line per connected part, `class x y x y ...` as shares of the picture's sides.

    Class numbers begin at 0. The format knows no holes: they are joined to the outline by a line of no width.
    """
    height, width = labels.shape
    lines = []
    for label, corners in outlines(labels, objects):
        shares = corners / (width, height)
        lines.append(f"{label - 1} " + " ".join(f"{value:.6g}" for value in shares.ravel()) + "\n")
    return "".join(lines)


def geojson(labels: NDArray[np.uint8], names: Sequence[str], objects: Objects | None = None) -> str:
    """A FeatureCollection in pixel coordinates (x to the right, y down, pixel (0, 0) from 0 to 1), holes included."""
    features = []
    for label, rings, pixels in _parts(labels, objects):
        properties = {"class": names[label - 1], "class_id": label, "pixels": pixels}
        features.append({"type": "Feature", "properties": properties, "geometry": _geometry(rings)})
    height, width = labels.shape
    size = {"width": width, "height": height}
    return json.dumps({"type": "FeatureCollection", "image": size, "features": features}) + "\n"


def labelme(labels: NDArray[np.uint8], names: Sequence[str], photo: str, objects: Objects | None = None) -> str:
    """LabelMe's file of a picture at `photo`, seen from the file: a polygon for each connected part, or object.

    It knows no holes: they are joined to the outline by a line of no width.
    """
    height, width = labels.shape
    shapes = [
        {"label": names[label - 1], "points": corners.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}}
        for label, corners in outlines(labels, objects)
    ]
    size = {"imageHeight": height, "imageWidth": width}
    head = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": photo, "imageData": None}
    return LABELME + json.dumps(head | size)[1:] + "\n"


def outlines(labels: NDArray[np.uint8], objects: Objects | None) -> Iterator[tuple[int, Ring]]:
    """Of every connected part, or object, its class's label, and its corners x, y with holes joined to them."""
    for label, rings, _ in _parts(labels, objects):
        yield label, joined(rings)[:-1]


def _parts(labels: NDArray[np.uint8], objects: Objects | None) -> Iterator[tuple[int, list[Ring], int]]:
    """Every connected part, or object, of every class: its label, its rings, its number of pixels."""
    for label in present(labels):
        for rings, pixels in polygons(labels == label, None if objects is None else objects[label]):
            yield label, rings, pixels


def present(labels: NDArray[np.uint8]) -> list[int]:
    """The classes that labels hold."""
    return [label for label in range(1, 1 + int(labels.max(initial=0))) if (labels == label).any()]


def _geometry(rings: list[Ring]) -> dict[str, Any]:
    grouped: list[list[Any]] = []
    for ring in rings:
        if not is_hole(ring):
            grouped.append([])
        grouped[-1].append(ring.tolist())
    if len(grouped) == 1:
        return {"type": "Polygon", "coordinates": grouped[0]}
    return {"type": "MultiPolygon", "coordinates": grouped}


def write_classes(path: Path, classes: Sequence[str]) -> None:
    """The class names of a label map's values from 1, and of YOLO's numbers from 0, one a line."""
    with replacing(path) as temporary:
        # a name from a broken file or another encoding's terminal may have no UTF-8
        temporary.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8", errors="backslashreplace")
