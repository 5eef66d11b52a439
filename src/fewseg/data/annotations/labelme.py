"""LabelMe: one JSON file per photo, with polygons, rectangles, circles, lines, points and masks.

The photo is the file `imagePath`, or, where that is not there, the copy in `imageData`. Lines and points have no area:
as LabelMe's own conversion does, lines are drawn 10 pixels wide and points as discs of radius 5.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations import shapes
from fewseg.data.annotations.shapes import AnnotatedPhoto, Shape, Size, expecting, find_photo, read_json
from fewseg.data.images import read_image, read_mask
from fewseg.errors import DataError

_LINE, _POINT = 10, 5


def read_labelme(files: Sequence[Path], folders: Sequence[Path]) -> Iterator[AnnotatedPhoto]:
    """The photos of LabelMe files; DataError where one is damaged or has a shape of an unknown type."""
    for file in files:
        content = read_json(file)
        with expecting(f"{file} is no LabelMe file"):
            areas = [_shape(shape) for shape in content["shapes"]]
            image = _photo(content, folders, file)
            photo = AnnotatedPhoto(image, _size(content, image), areas)
        yield photo


def _photo(content: dict[str, Any], folders: Sequence[Path], file: Path) -> Path | Image.Image:
    try:
        return find_photo(content["imagePath"], [file.parent, *folders], export=file)
    except DataError:
        if not content.get("imageData"):
            raise
    return read_image(io.BytesIO(base64.b64decode(content["imageData"])))


def _size(content: dict[str, Any], image: Path | Image.Image) -> Size:
    if content.get("imageHeight") and content.get("imageWidth"):
        return int(content["imageHeight"]), int(content["imageWidth"])
    picture = read_image(image) if isinstance(image, Path) else image
    return picture.height, picture.width


def _shape(shape: dict[str, Any]) -> Shape:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind in ("polygon", "oriented_rectangle"):
        draw = partial(shapes.polygon, points)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        draw = partial(shapes.polygon, shapes.rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    elif kind == "circle":
        (cx, cy), (px, py) = points
        radius = math.hypot(px - cx, py - cy)
        draw = partial(shapes.polygon, shapes.ellipse(cx, cy, radius, radius))
    elif kind in ("line", "linestrip"):
        draw = partial(shapes.line, points, width=_LINE)
    elif kind in ("point", "points"):
        draw = partial(_discs, points)
    elif kind == "mask":
        draw = partial(_mask, shape["mask"], points)
    else:
        raise DataError(f"a LabelMe shape of type {kind!r} is not known; save it as a polygon")
    return Shape(str(shape["label"]), draw)


def _discs(points: list[list[float]], size: Size) -> NDArray[np.bool_]:
    return np.logical_or.reduce([shapes.polygon(shapes.ellipse(x, y, _POINT, _POINT), size) for x, y in points])


def _mask(encoded: str, points: list[list[float]], size: Size) -> NDArray[np.bool_]:
    """A mask of its bounding box, as a PNG in base64; the box begins at the first point."""
    part = read_mask(io.BytesIO(base64.b64decode(encoded))) == 1
    return shapes.pasted(part, round(points[0][0]), round(points[0][1]), size)
