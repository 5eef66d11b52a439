"""What a COCO-format file lists, and where in it: the text is walked once, element by element.

Odd entries are passed over and counted. Ids are only compared, so they may be numbers or text.
"""

from __future__ import annotations

import codecs
import json
import mmap
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fewseg.data.annotations.runs import MOST_PIXELS, OddShape, checked_runs, is_outline
from fewseg.data.text import Tally, read_text
from fewseg.errors import DataError
from fewseg.labels import MOST_CLASSES

VOID = 65535
"""The class number of what is to be ignored."""
BACKGROUND_NAMES = frozenset({"background", "_background_"})
VOID_NAMES = frozenset({"__ignore__"})
BOXES = "boxes stand in for missing outlines"
_UNLISTED = -1
_SPACE = re.compile(rb"\s*")
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_INNER = rb'\{[^{}"]*+(?:%b[^{}"]*+)*+\}' % _TEXT
_OBJECT = re.compile(rb'\{[^{}"]*+(?:(?:%b|%b)[^{}"]*+)*+\}' % (_TEXT, _INNER), re.DOTALL)
"""Where an object ends if it is valid JSON and its objects hold no others."""
_DECODER = json.JSONDecoder()
_WINDOW = 2**16
"""Bytes that are first decoded to read what is no such object."""
_EXPONENT = len("e+")
"""Of a number that is cut off behind it, the part before is a number as well."""
_IDS = ("id", "image_id", "category_id")
_EXACT = 2.0**53
"""From here on floats stand for more than one whole number."""

Catalogue = dict[str, NDArray[Any]]


def read_catalogue(path: Path, *, most: int = MOST_CLASSES) -> Catalogue:
    """Names, files, sizes, and every annotation's class and place, grouped by image in the file's order.

    DataError for more than `most` categories.

    `names`, `files`, `sizes` (images, 2); `parts` (annotations, 3): class number, begin and end in the text; `first`:
    where each image's begin; `utf8`: whether the places are the file's, or those of its text in UTF-8; `what`, `count`
    and `example` of what was passed over.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            try:
                return _Reader(path, most).read(data) | {"utf8": np.array(True)}
            except UnicodeDecodeError:
                pass  # it is in another encoding
    return _Reader(path, most).read(utf8_text(path)) | {"utf8": np.array(False)}


def utf8_text(path: Path) -> bytes:
    """A file of any encoding in UTF-8."""
    return read_text(path).encode(errors="replace")


def outlines(annotation: dict[str, Any]) -> list[list[float]]:
    """The polygons of an annotation that can be drawn; its box where it has no outline at all."""
    found: Any = annotation.get("segmentation")
    if not found or (isinstance(found, list) and not any(found)):
        return _box(annotation.get("bbox"))
    return [found] if is_outline(found) else [part for part in found if is_outline(part)]


def _box(sides: Any) -> list[list[float]]:
    try:
        left, top, width, height = map(float, sides)
    except (TypeError, ValueError):
        return []
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]] if width > 0 and height > 0 else []


class _Reader:
    """The lists of one file while it is walked."""

    def __init__(self, path: Path, most: int) -> None:
        self.path, self.most, self.tally, self.annotated = path, most, Tally(path), 0
        self.categories: dict[str, str] = {}  # names by id
        self.images: list[tuple[str, int, int]] = []
        self.place: dict[str, int] = {}  # of an image id among the images
        self.named: dict[str, int] = {}  # of an image's name
        self.image_ids, self.category_ids = _Numbers(), _Numbers()  # as annotations mention them
        self.rows = array("q")  # of an annotation: numbers of image id and category id, begin, end, height, width or 0

    def read(self, data: Any) -> Catalogue:
        take = {"categories": self._category, "images": self._image, "annotations": self._annotation}
        for key, value, begin, end in _walk(self.path, data):
            if key not in take:
                continue
            try:
                take[key](value, begin, end)
            except DataError:  # what makes the whole file ambiguous
                raise
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
                self.tally.add(f"entries of {key!r} left out", f"at byte {begin}, {in_words(error)}")
        return self._arrays()

    def _category(self, value: Any, begin: int, end: int) -> None:
        key, name = _id(value["id"]), str(value["name"]).strip()
        if self.categories.setdefault(key, name) != name:
            raise DataError(f"{self.path}: categories {self.categories[key]!r} and {name!r} have one id, {key}")

    def _image(self, value: Any, begin: int, end: int) -> None:
        address = value.get("coco_url") or value.get("flickr_url") or ""
        name = str(value.get("file_name") or address.rsplit("/", 1)[-1])
        height, width = _whole(value["height"]), _whole(value["width"])
        if not name:
            raise OddShape("it has no file_name")
        if min(height, width) < 1 or height * width > MOST_PIXELS:
            raise OddShape(
                f"it is said to be of {width} x {height} pixels; 1 to {MOST_PIXELS / 1e6:.0f} million can be"
            )
        key, image = _id(value["id"]), (name, height, width)
        place = self.named.setdefault(name, len(self.images))
        if place == len(self.images):
            self.images.append(image)
        elif self.images[place] != image:
            raise DataError(f"{self.path}: the image {name!r} is listed twice, with two sizes")
        if self.place.setdefault(key, place) != place:
            other = self.images[self.place[key]][0]
            raise DataError(f"{self.path}: the images {other!r} and {name!r} have one id, {key}; export it again")

    def _annotation(self, value: Any, begin: int, end: int) -> None:
        self.annotated += 1
        image, category = self.image_ids.of(value["image_id"]), self.category_ids.of(value["category_id"])
        segmentation, height, width = value.get("segmentation"), 0, 0
        if isinstance(segmentation, dict):
            height, width = map(_whole, segmentation["size"])
            if not 0 < height * width <= MOST_PIXELS:
                raise OddShape("its run lengths are of an impossible size")
            checked_runs(segmentation["counts"], height * width)
        elif not (drawn := outlines(value)):
            raise OddShape("it has neither an outline of three points or more nor a box")
        elif not any(segmentation or ()):
            self.tally.add(BOXES, f"at byte {begin}")
        elif drawn[0] is not segmentation and len(drawn) < len(segmentation):
            self.tally.add("parts of outlines have fewer than three points and are left out", f"at byte {begin}")
        elif drawn[0][0] <= 1 and max(map(max, drawn)) <= 1:
            self.tally.add(
                "outlines lie within one pixel; are they shares of the sides, not pixels?", f"at byte {begin}"
            )
        self.rows.extend((image, category, begin, end, height, width))

    def _arrays(self) -> Catalogue:
        if not self.images or not self.categories:
            counts = f"{len(self.images)} images and {len(self.categories)} categories"
            raise DataError(f"{self.path} has {counts}; it is not of COCO's format" + self._reasons())
        classes = self._classes()
        sizes = np.array([image[1:] for image in self.images], np.int32)
        rows = np.array(self.rows, np.int64).reshape(-1, 6)
        image_of = np.array([self.place.get(i, _UNLISTED) for i in self.image_ids.texts], np.int64)[rows[:, 0]]
        numbers = [classes[self.categories[c]] if c in self.categories else _UNLISTED for c in self.category_ids.texts]
        class_of = np.array(numbers, np.int64)[rows[:, 1]]
        other_size = (rows[:, 4] > 0) & (rows[:, 4:] != sizes[image_of]).any(1)
        kept = self._without("are of images that are not listed", image_of == _UNLISTED, rows)
        kept &= self._without("are of categories that are not listed", class_of == _UNLISTED, rows)
        kept &= self._without("mark the background, which is no class", class_of == 0, rows)
        kept &= self._without("have run lengths of another size than their image", other_size & kept, rows)
        if self.annotated and not kept.any():
            raise DataError(f"{self.path} has no annotation that can be used" + self._reasons())
        parts, image_of = np.column_stack([class_of, rows[:, 2:4]])[kept], image_of[kept]
        told = [(what, count, example) for what, (count, example) in self.tally.found.items()]
        return {
            "names": np.array([name for name, number in classes.items() if 0 < number < VOID], str),
            "files": np.array([image[0] for image in self.images]),
            "sizes": sizes,
            "first": np.concatenate([[0], np.bincount(image_of, minlength=len(sizes)).cumsum()]).astype(np.int64),
            "parts": parts[np.argsort(image_of, kind="stable")],
            "what": np.array([what for what, _, _ in told], str),
            "count": np.array([count for _, count, _ in told], np.int64),
            "example": np.array([example for _, _, example in told], str),
        }

    def _classes(self) -> dict[str, int]:
        """Numbers of names: 1..N in the order of ids, a name that is there twice (Roboflow's project) once."""
        found: dict[str, int] = {}
        for key in sorted(self.categories, key=_order):
            name = self.categories[key]
            special = 0 if name.lower() in BACKGROUND_NAMES else VOID if name.lower() in VOID_NAMES else None
            regular = sum(0 < number < VOID for number in found.values())
            found.setdefault(name, 1 + regular if special is None else special)
            if len(self.categories) > 4 * self.most or regular > self.most:
                raise DataError(f"{self.path} has more than {self.most} categories, which is the most that can be")
        return found

    def _without(self, what: str, wrong: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether annotations are none of the wrong ones, which are counted."""
        for begin in rows[wrong, 2].tolist():
            self.tally.add(f"annotations {what}, left out", f"at byte {begin}")
        return ~wrong

    def _reasons(self) -> str:
        return f": {self.tally}" if self.tally.found else ""


class _Numbers:
    """Ids numbered in the order in which they come; `texts` are they."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}
        self._known: dict[int, int] = {}

    def of(self, value: Any) -> int:
        """The number of an id; OddShape for what is none."""
        if type(value) is not int:  # also of True, which is as good as 1 for a dict
            return self.texts.setdefault(_id(value), len(self.texts))
        if (number := self._known.get(value)) is None:
            number = self._known[value] = self.texts.setdefault(str(value), len(self.texts))
        return number


def in_words(error: Exception) -> str:
    """Why an entry cannot be read, without the words of the language that this is written in."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error) if isinstance(error, OddShape | DataError) else "it is not built as the format says"


def _id(value: Any) -> str:
    """An id as text: 1, 1.0 and "1" are one."""
    if not isinstance(value, int | float | str):
        raise OddShape("an id is neither a number nor text")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _order(key: str) -> tuple[int, int, str]:
    """Numbers first, by their value."""
    return (0, int(key), "") if re.fullmatch(r"-?\d{1,18}", key) else (1, 0, key)


def _whole(value: Any) -> int:
    number = int(float(value))
    if number != float(value):
        raise OddShape(f"{value} is no number of pixels")
    return number


def parse(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 as the standard library reads it, several times as fast."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # also of what json alone takes: NaN, infinity, half of a surrogate pair
        return json.loads(str(text, "utf-8"))
    for key in _IDS:
        if type(number := value.get(key)) is float and abs(number) >= _EXACT:
            return json.loads(text)  # of whole numbers beyond 64 bit orjson makes floats: two ids would be one
    return value


def _walk(path: Path, data: Any) -> Iterator[tuple[str, Any, int, int]]:
    """(key, element, begin, end) of every element of the top-level lists of a text in bytes; places are in bytes."""

    def skip(at: int) -> int:
        return _SPACE.match(data, at).end()  # type: ignore[union-attr]

    def after_comma(at: int) -> int:
        return skip(at + 1) if data[at] == b","[0] else at

    try:
        at = skip(3 if data[:3] == codecs.BOM_UTF8 else 0)
        if data[at] != b"{"[0]:
            raise DataError(f"{path} is not of COCO's format: it must be one JSON object")
        at = skip(at + 1)
        while data[at] != b"}"[0]:
            key, at = _decoded(data, at)
            at = skip(skip(at) + 1)
            if data[at] != b"["[0]:
                _, at = _decoded(data, at)
            else:
                at = skip(at + 1)
                while data[at] != b"]"[0]:
                    value, end = _element(data, at)
                    yield key, value, at, end
                    at = after_comma(skip(end))
                at += 1
            at = after_comma(skip(at))
    except (UnicodeDecodeError, DataError):
        raise
    except (ValueError, IndexError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); it may be cut off: fetch or export it again") from error


def _element(data: Any, at: int) -> tuple[Any, int]:
    """A list's element, and where it ends."""
    if found := _OBJECT.match(data, at):
        try:
            return parse(found.group()), found.end()
        except json.JSONDecodeError:
            pass  # said below, with its place
    value, end = _decoded(data, at)
    text = data[at:end]
    return value if text.isascii() else json.loads(str(text, "utf-8")), end


def _decoded(data: Any, at: int) -> tuple[Any, int]:
    """What stands at a place, a character per byte, and where it ends; as much of the text is taken as that needs."""
    size = _WINDOW
    while True:
        text = str(data[at : at + size], "latin-1")
        try:
            value, length = _DECODER.raw_decode(text)
            if length + _EXPONENT < size or at + size >= len(data):
                return value, at + length
        except json.JSONDecodeError as error:
            if at + size >= len(data):
                raise ValueError(f"{error.msg} at byte {at + error.pos}") from error
        size *= 16
