"""CVAT for images 1.1: one XML file with polygons, masks (run lengths in a box), boxes and ellipses per photo.

Lines, points, tags and skeletons have no area and are passed over. The XML is read element by element, and refuses
entities (defusedxml).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse
from numpy.typing import NDArray

from fewseg.data.annotations import shapes
from fewseg.data.annotations.coco_file import MOST_PIXELS
from fewseg.data.annotations.shapes import AnnotatedPhoto, Shape, Size, expecting, find_photo
from fewseg.errors import DataError


def read_cvat_xml(file: Path, folders: Sequence[Path]) -> Iterator[AnnotatedPhoto]:
    """The photos with areas on them; DataError where the file is damaged or of another kind (CVAT for video)."""
    count = 0
    try:
        for _, element in iterparse(file):
            if element.tag == "track":
                raise DataError(f"{file} is CVAT's format for video; export the job as 'CVAT for images 1.1'")
            if element.tag != "image":
                continue
            count += 1
            with expecting(f"{file}: image {count} is not of CVAT's format"):
                photo = _photo(element, folders, file)
            if photo:
                yield photo
            element.clear()  # a long file's memory
    except DataError:
        raise
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:  # the last two: of its encoding
        raise DataError(f"{file} is no XML that can be read safely ({error}); export it again") from error
    if not count:
        raise DataError(f"{file} has no <image>; export the task as 'CVAT for images 1.1'")


def _photo(element: Any, folders: Sequence[Path], file: Path) -> AnnotatedPhoto | None:
    """The photo of an <image>, or None where no area is marked on it."""
    areas = [shape for child in element if (shape := _shape(child)) is not None]
    if not areas:
        return None
    size = (int(element.attrib["height"]), int(element.attrib["width"]))
    return AnnotatedPhoto(find_photo(element.attrib["name"], folders, export=file), size, areas)


def _shape(element: Any) -> Shape | None:
    given = element.attrib
    turned = float(given.get("rotation", 0))
    if element.tag == "polygon":
        outline = [[float(v) for v in pair.split(",")] for pair in given["points"].split(";")]
    elif element.tag == "box":
        outline = shapes.rectangle(*(float(given[side]) for side in ("xtl", "ytl", "xbr", "ybr")), turned=turned)
    elif element.tag == "ellipse":
        outline = shapes.ellipse(*(float(given[key]) for key in ("cx", "cy", "rx", "ry")), turned=turned)
    elif element.tag == "mask":
        box = (int(given[key]) for key in ("left", "top", "width", "height"))
        return Shape(given["label"], partial(_mask, np.array(given["rle"].split(","), np.int64), *box))
    else:
        return None
    return Shape(given["label"], partial(shapes.polygon, outline))


def _mask(runs: NDArray[np.int64], left: int, top: int, width: int, height: int, size: Size) -> NDArray[np.bool_]:
    """Lengths of background and foreground in turn, row by row in the mask's box."""
    pixels = width * height
    if width < 1 or not 0 < pixels <= MOST_PIXELS:
        raise ValueError(f"its box is {width} x {height}")
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() > pixels:  # the second: a sum that overflows
        raise ValueError(f"its runs are longer than its box of {pixels} pixels")
    flat = np.zeros(pixels, bool)
    filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    flat[: len(filled)] = filled
    return shapes.pasted(flat.reshape(height, width), left, top, size)
