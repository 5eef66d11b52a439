"""What annotation tools draw, as masks: a photo with labelled shapes, each drawn when it is needed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewseg.data.annotations.coco_file import MOST_PIXELS
from fewseg.errors import DataError, FewsegError

Size = tuple[int, int]
"""(H, W) in pixels."""
Points = Sequence[Sequence[float]]
"""Corners (x, y) in pixels; pixel (0, 0) reaches from 0 to 1."""
_FARTHEST = 1e6
"""Pixels: what is farther away is no place on a photo, and overflows the drawing's whole numbers."""


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """A document that is not built as its format says is a DataError that begins with `what`."""
    try:
        yield
    except FewsegError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{what} ({type(error).__name__}: {error}); export it again") from error


def read_json(file: Path) -> Any:
    """What a JSON file holds; DataError where it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no valid JSON ({error}); it may be cut off: export it again") from error


class Shape(NamedTuple):
    """One annotated region."""

    label: str
    draw: Callable[[Size], NDArray[np.bool_]]
    """The region on a photo of a size, (H, W)."""


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo and the regions that a tool's export has on it."""

    image: Path | Image.Image
    size: Size
    shapes: Sequence[Shape]

    def __post_init__(self) -> None:
        height, width = self.size
        if height < 1 or width < 1 or height * width > MOST_PIXELS:
            most = MOST_PIXELS / 1e6
            raise DataError(f"{self._name} is said to be of {width} x {height} pixels; 1 to {most:.0f} million can be")

    @property
    def _name(self) -> str:
        return str(self.image) if isinstance(self.image, Path) else "a photo inside the export"

    def mask(self, label: str) -> NDArray[np.uint8]:
        """All regions of a label in one mask (H, W) uint8 {0, 1}; DataError where one cannot be drawn."""
        whole = np.zeros(self.size, bool)
        for shape in self.shapes:
            if shape.label == label:
                with expecting(f"{self._name}: a region of {label!r} cannot be drawn"):
                    whole |= shape.draw(self.size)
        return whole.astype(np.uint8)


def polygon(points: Points, size: Size) -> NDArray[np.bool_]:
    """The pixels whose centres a polygon encloses."""
    from skimage.draw import polygon as pixels

    corners = _places(points)
    mask = np.zeros(size, bool)
    mask[pixels(corners[:, 1], corners[:, 0], size)] = True
    return mask


def _places(points: Points) -> NDArray[np.float64]:
    """(N, 2) places (x, y) where pixel (0, 0) has its centre at 0."""
    places = np.asarray(points, float).reshape(-1, 2) - 0.5
    if not (np.abs(places) < _FARTHEST).all():  # NaN is refused too
        raise ValueError("a corner is no place on a photo")
    return places


def rectangle(
    left: float, top: float, right: float, bottom: float, *, turned: float = 0.0, about: Sequence[float] | None = None
) -> list[list[float]]:
    """Corners of a box, turned by degrees (clockwise as seen) about a point, by default its centre."""
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return _rotated(corners, about or ((left + right) / 2, (top + bottom) / 2), turned)


def ellipse(cx: float, cy: float, rx: float, ry: float, *, turned: float = 0.0) -> list[list[float]]:
    """A polygon of an ellipse, turned by degrees (clockwise as seen) about its centre."""
    angles = [2 * math.pi * i / 180 for i in range(180)]
    return _rotated([[cx + rx * math.cos(a), cy + ry * math.sin(a)] for a in angles], (cx, cy), turned)


def _rotated(points: Points, about: Sequence[float], degrees: float) -> list[list[float]]:
    """Points turned clockwise as seen (y runs down) about a point."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = [(x - about[0], y - about[1]) for x, y in points]
    return [[about[0] + x * cos - y * sin, about[1] + x * sin + y * cos] for x, y in moved]


def line(points: Points, size: Size, *, width: int) -> NDArray[np.bool_]:
    """The pixels of a line of straight pieces."""
    picture = Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(picture).line([(x, y) for x, y in _places(points)], fill=1, width=width, joint="curve")
    return np.asarray(picture)


def pasted(part: NDArray[Any], left: int, top: int, size: Size) -> NDArray[np.bool_]:
    """A mask (h, w) at its place in a photo; what reaches over the border is cut off."""
    mask = np.zeros(size, bool)
    x0, y0 = max(left, 0), max(top, 0)
    inside = part[y0 - top : max(size[0] - top, 0), x0 - left : max(size[1] - left, 0)]
    mask[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = inside
    return mask


def find_photo(name: str, folders: Sequence[Path], *, export: Path) -> Path:
    """The photo that an export names by a path or an address, looked for in folders, by its path and by its last part.

    Label Studio puts eight characters and a hyphen before the names of uploads: the name is tried without them too.
    """
    try:
        url = urlsplit(name)
    except ValueError as error:
        raise DataError(f"{export}: {name!r} is no name of a photo ({error}); export it again") from error
    given = parse_qs(url.query).get("d", [unquote(url.path)])[0].replace("\\", "/")
    last = given.rsplit("/", 1)[-1]
    names = [given.lstrip("/"), last, re.sub(r"^[0-9a-f]{8}-", "", last)]
    for candidate in (folder / n for n in names for folder in folders):
        if os.path.isfile(candidate):  # unlike Path's, False for names that no file can have
            return candidate
    places = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise DataError(f"{export}: its photo {name!r} was not found in {places}; give the folder of photos with --photos")


def photo_folders(export: Path, photos: Path | None) -> list[Path]:
    """Where an export's photos are looked for: the given folder, else beside the export and in its `images` folders."""
    if photos is not None:
        return [photos]
    root = export if export.is_dir() else export.parent
    return [root, root / "images", root / "JPEGImages", root.parent, root.parent / "images"]
