"""The files that `fewseg segment` writes: mask PNGs, overlays, COCO, YOLO segmentation and GeoJSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data import images
from fewseg.files import replacing
from fewseg.segment.polygons import Ring, is_hole, joined, polygons

FORMATS = ("png", "coco", "yolo", "geojson", "csv")
ANNOTATIONS = "annotations.json"
CLASSES = "classes.txt"
FRAME = re.compile(r"frame_\d+(\.png|\.txt|\.geojson|_overlay\.jpg)")
"""Names of the files that are written for a video's frames; see `frame_stem`."""


def frame_stem(number: int) -> str:
    """The stem of a frame's outputs in its video's folder."""
    return f"frame_{number:06d}"


def outputs(stem: str, out_dir: Path, *, formats: Sequence[str], overlay: bool) -> dict[str, Path]:
    """The files that are written for one picture, by kind; the COCO file is one for all of them."""
    endings = {"png": ".png", "yolo": ".txt", "geojson": ".geojson"}
    files = {kind: out_dir / f"{stem}{endings[kind]}" for kind in formats if kind in endings}
    return files | ({"overlay": out_dir / f"{stem}_overlay.jpg"} if overlay else {})


def write(files: dict[str, Path], image: Image.Image, labels: NDArray[np.uint8], names: Sequence[str] | None) -> None:
    """Write one picture's files; `labels` (H, W) hold 1.. for `names` in order, or 1 where there are none."""
    for kind, path in files.items():
        if kind == "png" and is_label_map(names):
            images.write_labels(labels, path)
        elif kind == "png":
            images.write_image(Image.fromarray(labels * np.uint8(255)), path)
        elif kind == "overlay":
            images.write_image(overlay(image, labels, several=is_label_map(names)), path, quality=90)
        else:
            text = yolo(labels) if kind == "yolo" else geojson(labels, names or ("object",))
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


def is_label_map(names: Sequence[str] | None) -> bool:
    """Whether masks hold the numbers of classes; those of one class are 0 and 255, which every viewer shows."""
    return names is not None and len(names) > 1


def overlay(image: Image.Image, labels: NDArray[np.uint8], *, several: bool) -> Image.Image:
    """The picture with every class tinted in its colour."""
    for label in _present(labels):
        color = images.class_color(label) if several else images.FOREGROUND_COLOR
        image = images.overlay(image, labels == label, color=color)
    return image


def yolo(labels: NDArray[np.uint8]) -> str:
    """YOLO segmentation: a line per connected part, `class x y x y ...` as shares of the picture's sides.

    Class numbers begin at 0. The format knows no holes: they are joined to the outline by a line of no width.
    """
    height, width = labels.shape
    lines = []
    for label, rings, _ in _parts(labels):
        corners = joined(rings)[:-1] / (width, height)
        lines.append(f"{label - 1} " + " ".join(f"{value:.6g}" for value in corners.ravel()) + "\n")
    return "".join(lines)


def geojson(labels: NDArray[np.uint8], names: Sequence[str]) -> str:
    """A FeatureCollection in pixel coordinates (x to the right, y down, pixel (0, 0) from 0 to 1), holes included."""
    features = []
    for label, rings, pixels in _parts(labels):
        properties = {"class": names[label - 1], "class_id": label, "pixels": pixels}
        features.append({"type": "Feature", "properties": properties, "geometry": _geometry(rings)})
    height, width = labels.shape
    size = {"width": width, "height": height}
    return json.dumps({"type": "FeatureCollection", "image": size, "features": features}) + "\n"


def _parts(labels: NDArray[np.uint8]) -> Iterator[tuple[int, list[Ring], int]]:
    """Every connected part of every class: its label, its rings, its number of pixels."""
    for label in _present(labels):
        for rings, pixels in polygons(labels == label):
            yield label, rings, pixels


def _present(labels: NDArray[np.uint8]) -> list[int]:
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


@contextmanager
def coco_file(
    path: Path, classes: Sequence[str], *, runtime: str
) -> Iterator[Callable[[str, NDArray[np.uint8]], None]]:
    """A COCO file that is whole at the end, or absent: what adds a picture by its name and its labels (H, W).

    `runtime`, what ran the model, stands in its "info".

    Annotations are written as they come, so that memory does not grow with their number.
    """
    from pycocotools import mask as rle

    pictures: list[dict[str, Any]] = []
    numbers = count(1)
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]

    def add(name: str, labels: NDArray[np.uint8]) -> None:
        height, width = labels.shape
        pictures.append({"id": len(pictures) + 1, "file_name": name, "width": width, "height": height})
        for label in _present(labels):
            code = rle.encode(np.asfortranarray(labels == label, dtype=np.uint8))
            counts = str(code["counts"], "ascii")  # type: ignore[arg-type]
            number = next(numbers)
            entry = {
                "id": number,
                "image_id": len(pictures),
                "category_id": label,
                "segmentation": {"size": [height, width], "counts": counts},
                "area": int(rle.area(code)),
                "bbox": [float(side) for side in rle.toBbox(code)],
                "iscrowd": 0,
            }
            file.write(("," if number > 1 else "") + "\n" + json.dumps(entry))

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        info = {"description": "fewseg segment", "runtime": runtime}
        head = f'"info": {json.dumps(info)}, "categories": {json.dumps(categories)}'
        file.write(f'{{{head},\n"annotations": [')
        yield add
        file.write(f'],\n"images": {json.dumps(pictures)}}}\n')


def write_classes(path: Path, classes: Sequence[str]) -> None:
    """The class names of YOLO's numbers, one a line."""
    with replacing(path) as temporary:
        # a name from a broken file or another encoding's terminal may have no UTF-8
        temporary.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8", errors="backslashreplace")
