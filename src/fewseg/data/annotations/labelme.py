"""LabelMe and X-AnyLabeling: one JSON file per photo, with polygons, rectangles, circles, lines, points and masks.

The photo is the file `imagePath` as seen from the JSON file, else the copy in `imageData`, else a photo of that name
elsewhere. Lines and points have no area: they are drawn as LabelMe's own conversion does, 10 pixels wide and as discs
of radius 5.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from fewseg.data.annotations import shapes
from fewseg.data.annotations.photos import Photos, photo_at
from fewseg.data.annotations.runs import OddShape
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape, decoded, read_json
from fewseg.data.images import read_image
from fewseg.data.masks import read_mask

_OUTLINES = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")


def read_labelme(files: Sequence[Path], photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos of LabelMe files."""
    for file in files:
        photo = None
        with photos.passing_over("files that are no LabelMe files", file):
            content = read_json(file)
            areas = [Shape(str(shape["label"]), partial(_draw, shape)) for shape in content["shapes"]]
            height, width = content.get("imageHeight"), content.get("imageWidth")
            size = (int(height), int(width)) if height and width else None
            photo = AnnotatedPhoto(_photo(content, photos, file) if areas else None, size, areas)
        if photo:
            yield photo


def _photo(content: dict[str, Any], photos: Photos, file: Path) -> Path | Image.Image | None:
    name = str(content.get("imagePath") or "")
    if name and (beside := photo_at(file.parent / name.replace("\\", "/"))):
        return beside
    if content.get("imageData"):
        return read_image(io.BytesIO(decoded(content["imageData"])))
    return photos.find(name, entry=f"{file.parent}/{name}")


def _draw(shape: dict[str, Any], mask: Mask) -> None:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind in _OUTLINES or (kind == "rectangle" and len(points) == 4):
        shapes.polygon(points, mask)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        shapes.polygon(shapes.rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), mask)
    elif kind == "circle":
        (cx, cy), (px, py) = points
        radius = math.hypot(px - cx, py - cy)
        shapes.polygon(shapes.ellipse(cx, cy, radius, radius), mask)
    elif kind in ("line", "linestrip"):
        shapes.line(points, mask)
    elif kind in ("point", "points"):
        shapes.discs(points, mask)
    elif kind == "mask":  # of its bounding box, which begins at the first point
        part = read_mask(io.BytesIO(decoded(shape["mask"]))) == 1
        shapes.pasted(part, round(points[0][0]), round(points[0][1]), mask)
    else:
        raise OddShape(f"a shape of type {kind!r} is not known; save it as a polygon")
