"""Supervisely: a JSON file per photo (`ann/NAME.jpg.json` with `img/NAME.jpg`), with polygons, bitmaps and boxes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewseg.data.annotations import shapes
from fewseg.data.annotations.photos import Photos, photo_at
from fewseg.data.annotations.runs import OddShape
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape, check_pixels, decoded, read_json

_MOST_BYTES = 1 << 26
"""Of an unpacked bitmap's PNG."""


def read_supervisely(files: Sequence[Path], photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos of Supervisely's files, which are named as they are, with .json after it."""
    for file in files:
        photo = None
        with photos.passing_over("files that are not of Supervisely's format", file):
            content = read_json(file)
            size = int(content["size"]["height"]), int(content["size"]["width"])
            areas = [Shape(str(entry["classTitle"]), partial(_draw, entry)) for entry in content["objects"]]
            beside = photo_at(file.parent.parent / "img" / file.stem) or photo_at(file.parent / file.stem)
            photo = AnnotatedPhoto(beside or photos.find(file.stem, entry=str(file)), size, areas)
        if photo:
            yield photo


def _draw(entry: dict[str, Any], mask: Mask) -> None:
    kind = entry["geometryType"]
    if kind == "bitmap":
        return _draw_bitmap(entry["bitmap"], mask)
    corners, holes = entry["points"]["exterior"], entry["points"].get("interior", [])
    if kind == "rectangle":
        (x0, y0), (x1, y1) = corners
        shapes.polygon(shapes.rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), mask)
    elif kind == "polygon":
        whole = np.zeros_like(mask, order="F")
        shapes.polygon(corners, whole)
        for hole in holes:
            shapes.polygon(hole, whole, value=False)
        mask |= whole
    elif kind == "line":
        shapes.line(corners, mask)
    elif kind == "point":
        shapes.discs(corners, mask)
    else:
        raise OddShape(f"a Supervisely shape of type {kind!r} is not known; make it a bitmap or a polygon")
    return None


def _draw_bitmap(given: dict[str, Any], mask: Mask) -> None:
    """A PNG, packed and in base64, at its place: what is marked is opaque, or not black."""
    unpacker = zlib.decompressobj()
    png = unpacker.decompress(decoded(given["data"]), _MOST_BYTES)
    if unpacker.unconsumed_tail:
        raise OddShape("its bitmap is too large")
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        check_pixels(picture.height, picture.width)
        pixels = np.asarray(picture.convert("RGBA"))
    opaque = np.asarray(pixels[..., 3] > 0)
    left, top = given["origin"]
    shapes.pasted(pixels[..., :3].max(-1) > 0 if opaque.all() else opaque, int(left), int(top), mask)
