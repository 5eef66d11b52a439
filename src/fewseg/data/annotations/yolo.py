"""YOLO: a text file per photo with lines `class x y x y ...` in shares of the photo's sides, and a list of class names.

The list is `names` in data.yaml, or classes.txt, obj.names. Text files lie in `labels` beside `images`, or beside
their photos; `fewseg segment --format yolo` writes them so. Lines `class x y width height` are boxes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewseg.data.annotations import shapes
from fewseg.data.annotations.coco_catalogue import BOXES
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape
from fewseg.data.text import read_lines, read_text
from fewseg.errors import DataError

LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")
_NO_LABELS = re.compile(r"(classes|labels|train|val|valid|test|readme.*|requirements)\.txt", re.IGNORECASE)


def label_files(root: Path) -> list[Path]:
    """The text files that may hold outlines: those below folders `labels` if there are any."""
    found = sorted(path for path in root.rglob("*.txt") if not _NO_LABELS.fullmatch(path.name))
    return [path for path in found if "labels" in path.relative_to(root).parts[:-1]] or found


def is_yolo(root: Path) -> bool:
    """Whether a folder has label files, and one of them a line as YOLO's are, or a list of class names."""
    files = label_files(root)
    return bool(files) and (_list_file(root) is not None or any(map(_looks_so, files[:20])))


def read_yolo(root: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos that have a label file."""
    names = _names(root)
    if names is None:
        photos.tally.add("folder has no list of class names (data.yaml, classes.txt); they are called by number", root)
    for file in label_files(root):
        photo = None
        if photos.root == root and file.with_name(f"{file.stem}_overlay.jpg").is_file():
            photos.tally.add("label files lie beside masks, as `fewseg segment` writes them; give --photos", file)
            continue
        with photos.passing_over("text files that are no YOLO labels", file):
            areas = [shape for text in read_lines(file) if (shape := _shape(text, names or {}, photos, file))]
            parts = file.relative_to(root).with_suffix("").parts
            place = "/".join("images" if part == "labels" else part for part in parts)
            photo = AnnotatedPhoto(photos.find(place, ending=False, annotated=bool(areas)), None, areas)
        if photo:
            yield photo


def _shape(text: str, names: dict[int, str], photos: Photos, file: Path) -> Shape | None:
    try:
        number, *numbers = (float(part) for part in text.split())
        if number < 0 or number % 1 or not all(-1 <= n <= 2 for n in numbers) or not _fits(numbers):
            raise ValueError
    except (ValueError, OverflowError):
        photos.tally.add("lines are not `class x y x y ...` in shares of the sides, left out", f"{file}: {text[:60]}")
        return None
    if len(numbers) < 6:
        photos.tally.add(BOXES, f"{file}: {text[:60]}")
    if names and int(number) not in names:
        photos.tally.add("lines are of classes without a name, called by their number", f"{file}: {text[:60]}")
    return Shape(names.get(int(number), str(int(number))), partial(_draw, numbers))


def _fits(numbers: Sequence[float]) -> bool:
    """Three corners or more, or a box, which a confidence may follow."""
    return len(numbers) in (4, 5) or (len(numbers) >= 6 and len(numbers) % 2 == 0)


def _draw(shares: Sequence[float], mask: Mask) -> None:
    height, width = mask.shape
    if len(shares) < 6:
        x, y, wide, high = shares[:4]
        box = shapes.rectangle(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        shares = [side for corner in box for side in corner]
    shapes.polygon(shapes.in_pixels(list(zip(shares[::2], shares[1::2], strict=True)), width, height), mask)


def _looks_so(file: Path) -> bool:
    try:
        numbers = [float(part) for part in read_lines(file)[0].split()]
    except (DataError, ValueError, IndexError):
        return False
    return len(numbers) >= 5 and math.isfinite(sum(numbers)) and numbers[0] % 1 == 0


def _list_file(root: Path) -> Path | None:
    places = [*(root / name for name in LISTS), *sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]
    places += [root.parent / name for name in ("data.yaml", "classes.txt")] if root.name == "labels" else []
    return next((place for place in places if place.is_file() and _listed(place)), None)


def _names(root: Path) -> dict[int, str] | None:
    file = _list_file(root)
    return _listed(file) if file else None


def _listed(file: Path) -> dict[int, str]:
    """Class names by number."""
    if file.suffix not in (".yaml", ".yml"):
        return dict(enumerate(read_lines(file)))
    import yaml

    try:
        found: Any = yaml.safe_load(read_text(file))
        names = found.get("names", {}) if isinstance(found, dict) else {}
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs if isinstance(name, str | int | float)}
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is no YAML with a list of `names`; give the data.yaml of a YOLO data set") from error
