"""CVAT for images 1.1: one XML file with polygons, masks (run lengths in a box), boxes and ellipses per photo.

A project's photo has its subset before its name. Lines, points and skeletons have no area and are left out. The XML is
read element by element, and refuses entities (defusedxml).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from fewseg.data.annotations import shapes
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.runs import OddShape
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape, check_pixels
from fewseg.errors import DataError

_AREAS = ("polygon", "box", "ellipse", "mask")
_NO_AREAS = ("polyline", "points", "skeleton", "cuboid")


def read_cvat_xml(file: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos; DataError where the file is damaged or of another kind (CVAT for video)."""
    count = 0
    try:
        for _, element in iterparse(file):
            if element.tag == "track":
                raise DataError(f"{file} is CVAT's format for video; export the job as 'CVAT for images 1.1'")
            if element.tag != "image":
                continue
            count += 1
            photo = None
            with photos.passing_over("images that are not of CVAT's format", f"image {count}"):
                photo = _photo(element, photos)
            if photo:
                yield photo
            element.clear()  # a long file's memory
    except DataError:
        raise
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:  # the last two: of its encoding
        raise DataError(f"{file} is no XML that can be read safely ({error}); export it again") from error
    if not count:
        raise DataError(f"{file} has no <image>; export the task as 'CVAT for images 1.1'")


def _photo(element: Any, photos: Photos) -> AnnotatedPhoto:
    given = element.attrib
    areas = []
    for child in element:
        if child.tag in _AREAS:
            areas.append(Shape(child.attrib["label"], partial(_draw, child.tag, dict(child.attrib))))
        elif child.tag in _NO_AREAS:
            photos.tally.add("shapes without an area are left out", f"a {child.tag} on {given['name']!r}")
    name = "/".join(part for part in (given.get("subset", ""), given["name"]) if part)
    return AnnotatedPhoto(photos.find(name, annotated=bool(areas)), (int(given["height"]), int(given["width"])), areas)


def _draw(kind: str, given: dict[str, str], mask: Mask) -> None:
    turned = float(given.get("rotation", 0))
    if kind == "polygon":
        outline = [[float(v) for v in pair.split(",")] for pair in given["points"].split(";")]
    elif kind == "box":
        outline = shapes.rectangle(*(float(given[side]) for side in ("xtl", "ytl", "xbr", "ybr")), turned=turned)
    elif kind == "ellipse":
        outline = shapes.ellipse(*(float(given[key]) for key in ("cx", "cy", "rx", "ry")), turned=turned)
    else:
        return _draw_runs(given, mask)
    return shapes.polygon(outline, mask)


def _draw_runs(given: dict[str, str], mask: Mask) -> None:
    """Lengths of background and foreground in turn, row by row in the mask's box."""
    left, top, width, height = (int(given[key]) for key in ("left", "top", "width", "height"))
    check_pixels(height, width)
    runs, pixels = [int(n) for n in given["rle"].split(",")], width * height
    if min(runs) < 0 or sum(runs) > pixels:
        raise OddShape(f"its runs are negative or longer than its box of {pixels} pixels")
    flat = np.zeros(pixels, bool)
    filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    flat[: len(filled)] = filled
    shapes.pasted(flat.reshape(height, width), left, top, mask)
