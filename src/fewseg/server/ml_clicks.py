"""Label Studio's smart tools: a point or a rectangle that was drawn on a task, and the one object that it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations.shapes import rectangle
from fewseg.data.marks import Marks, mask_from_marks
from fewseg.data.regions import connected
from fewseg.predictor import nearest
from fewseg.runtime.engine import Engine, own_support
from fewseg.server.refused import Refused

_LEAST = 0.1
"""A probability at a point below which a concept has not found the object that is there."""
_FALL = 0.7
"""How much less sure than at the point the rest of its object may be."""


@dataclass(frozen=True)
class Drawn:
    """What is drawn so far for one object of a label, in per cent of the photo's sides."""

    label: str
    boxes: Sequence[tuple[float, float, float, float]]
    """(left, top, width, height)."""
    turned: Sequence[float]
    """Each box, in degrees about its first corner."""
    points: Sequence[tuple[float, float]]
    background: Sequence[tuple[float, float]]

    @classmethod
    def of(cls, context: Any, labels: Sequence[str]) -> Drawn | None:
        """Of a request's `context`; None where it has none. Refused where no label of the project is meant."""
        regions = context.get("result") if isinstance(context, dict) else None
        if not regions:
            return None
        try:
            return cls._read(regions, labels)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            told = "a smart tool's region is no KeyPointLabels and no RectangleLabels of an Image; use one of them"
            raise Refused(422, told) from error

    @classmethod
    def _read(cls, regions: Any, labels: Sequence[str]) -> Drawn:
        boxes, turned, points, background, named = [], [], [], [], labels[0] if len(labels) == 1 else None
        for region in regions:
            value = region["value"]
            at = float(value["x"]), float(value["y"])
            if region["type"].startswith("rectangle"):
                boxes.append((*at, float(value["width"]), float(value["height"])))
                turned.append(float(value.get("rotation") or 0))
            elif region["type"].startswith("keypoint"):
                (points if region.get("is_positive", True) else background).append(at)
            else:
                raise ValueError(region["type"])
            given = value.get(region["type"]) or [named]
            named = given[0]
        if named not in labels:
            raise Refused(422, f"the smart tool's label is {named!r}; masks are for {', '.join(labels)}: name it alike")
        return cls(str(named), boxes, turned, points, background)

    def marks(self, width: int, height: int) -> Marks:
        """In pixels of a photo."""
        wide, high = width / 100, height / 100
        boxes = []
        for (x, y, across, down), turned in zip(self.boxes, self.turned, strict=True):
            left, top, right, bottom = x * wide, y * high, (x + across) * wide, (y + down) * high
            corners = np.array(rectangle(left, top, right, bottom, turned=turned, about=(left, top)))
            boxes.append((*corners.min(0).tolist(), *corners.max(0).tolist()))
        inside = np.array([width, height]) - 1e-3
        points, background = (
            [tuple(np.clip(np.multiply(at, (wide, high)), 0, inside).tolist()) for at in group]
            for group in (self.points, self.background)
        )
        return Marks(boxes, points, background)


def object_at(engine: Engine, photo: Image.Image, marks: Marks, proba: NDArray[np.float32] | None) -> NDArray[np.bool_]:
    """The mask (H, W) of the object that marks mean, in a photo with what a concept finds in it, or None.

    In a box, what the concept finds there; at points, the part of it that they touch. Where there is no concept, or it
    finds nothing there: in a box, what looks like the box's ellipse; at points, what grows from them by colour.
    """
    size = photo.height, photo.width
    inside = np.ones(size, bool)
    if marks.boxes:
        inside[:] = False
        for left, top, right, bottom in marks.boxes:
            inside[max(round(top), 0) : round(bottom), max(round(left), 0) : round(right)] = True
    if proba is not None and (mask := _part(proba, marks) & inside).any():
        return mask
    if not marks.boxes:
        return mask_from_marks(photo, marks) > 0
    ellipse = mask_from_marks(photo, Marks(marks.boxes))  # alone: colours grown from points say less, on photos
    found = _alike(engine, photo, ellipse) & inside
    return found if found.any() else ellipse > 0


def _part(proba: NDArray[np.float32], marks: Marks) -> NDArray[np.bool_]:
    """What is found, where points are given the part that they touch and that holds none beside it."""
    if not marks.points:
        return proba > 0.5
    places = [(int(y), int(x)) for x, y in marks.points]
    sure = min(float(proba[place]) for place in places)
    if sure < _LEAST:
        return np.zeros(proba.shape, bool)
    beside = max((float(proba[int(y), int(x)]) for x, y in marks.background), default=0.0)
    parts = connected(proba > max(min(0.5, _FALL * sure), beside)).labels
    touched = {int(parts[place]) for place in places} - {0}
    return np.isin(parts, list(touched))


def _alike(engine: Engine, photo: Image.Image, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What looks like the mask's content in the photo itself."""
    pixels, small = np.asarray(photo), nearest(mask, engine.image_size)
    if not (small == 1).any():
        return np.zeros(mask.shape, bool)
    query = engine.encode_query(pixels)
    support = own_support(engine, query, pixels, small)
    return engine.match(query, support, size=mask.shape, method=engine.method).proba > 0.5
