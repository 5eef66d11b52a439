"""VGG Image Annotator (VIA 1 and 2): its JSON export and its project, with polygons, boxes, circles, ellipses, lines.

A region's class is its first attribute's value, or what is ticked there; which attribute that is, is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fewseg.data.annotations import shapes
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.runs import OddShape
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape, read_json


def read_via(file: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos of a VIA file."""
    content = read_json(file)
    entries = content.get("_via_img_metadata", content)
    attribute: str | None = None
    for key, entry in entries.items():
        photo = None
        with photos.passing_over("entries that are not of VIA's format", key):
            regions = entry["regions"]
            areas = []
            for region in regions.values() if isinstance(regions, dict) else regions:
                attribute = attribute or next(iter(region.get("region_attributes", {})), None)
                areas.append(Shape(_label(region, attribute, photos), partial(_draw, region["shape_attributes"])))
            photo = AnnotatedPhoto(photos.find(str(entry["filename"]), annotated=bool(areas)), None, areas)
            if areas:
                _compare(photo, entry.get("size"), photos)
        if photo:
            yield photo


def _compare(photo: AnnotatedPhoto, size: Any, photos: Photos) -> None:
    """Tell of a photo that is another file than what was annotated, by all that VIA keeps of it: its bytes."""
    there = photo.image.stat().st_size if isinstance(photo.image, Path) else None
    if there is not None and isinstance(size, int) and size not in (-1, there):
        told = f"{photo.image} has {there} bytes, {size} when it was annotated"
        photos.tally.add(
            "photos are other files than those that were annotated; look at how the marks lie on them", told
        )


def _label(region: dict[str, Any], attribute: str | None, photos: Photos) -> str:
    given = region.get("region_attributes", {})
    value = given.get(attribute)
    if isinstance(value, dict):  # boxes to tick
        value = next((name for name, ticked in value.items() if ticked), None)
    if value in (None, ""):
        photos.tally.add("regions have no class and are called 'object'", f"attributes {list(given)}")
        return "object"
    if len(given) > 1:
        photos.tally.add(f"regions have several attributes; the class is {attribute!r}", ", ".join(given))
    return str(value)


def _draw(given: dict[str, Any], mask: Mask) -> None:
    kind = given["name"]
    if kind in ("polygon", "polyline"):
        points = list(zip(given["all_points_x"], given["all_points_y"], strict=True))
        shapes.check_within(points, mask)
        (shapes.polygon if kind == "polygon" else shapes.line)(points, mask)
    elif kind == "rect":
        left, top = given["x"], given["y"]
        points = shapes.rectangle(left, top, left + given["width"], top + given["height"])
        shapes.check_within(points, mask)
        shapes.polygon(points, mask)
    elif kind in ("circle", "ellipse", "point"):
        centre = given["cx"], given["cy"]
        shapes.check_within([centre], mask)
        if kind == "point":
            shapes.discs([centre], mask)
        else:
            radii = (given["r"], given["r"]) if kind == "circle" else (given["rx"], given["ry"])
            shapes.polygon(shapes.ellipse(*centre, *radii, turned=math.degrees(given.get("theta", 0))), mask)
    else:
        raise OddShape(f"a VIA shape of type {kind!r} is not known; draw it as a polygon")
