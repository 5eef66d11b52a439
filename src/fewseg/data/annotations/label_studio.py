"""Label Studio: its exports JSON and JSON-MIN (brushes, polygons, boxes, ellipses), and its export of brushes as PNG.

Of several annotations of a task the first with regions that was not cancelled counts, which is told. Brush strokes are
run lengths of RGBA values
(the encoding of the JavaScript package @thi.ng/rle-pack); a pixel is marked where its alpha is not 0. The PNG export
has files `task-1-annotation-2-by-3-tag-Label-0.png`; which photo a task shows is in the JSON export, put beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations import shapes
from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.runs import OddShape
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape, read_json
from fewseg.data.images import SUFFIXES
from fewseg.data.masks import read_mask
from fewseg.errors import DataError

_SEVERAL = "tasks have several annotations, of which the first is read"
PNG_NAME = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-[^-]*-[^-]+-(?P<label>.+)-\d+\.png")


def read_label_studio(file: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos of a JSON or JSON-MIN export."""
    seen: set[int] = set()
    for number, task in enumerate(_tasks(file), start=1):
        photo = None
        with photos.passing_over("tasks that are not of Label Studio's JSON format", f"task {number}"):
            results = _results(task, photos, f"task {task.get('id', number)}")
            if "annotation_id" in task and results and task["id"] in seen:  # JSON-MIN has an entry for each
                photos.tally.add(_SEVERAL, f"task {task['id']}")
                continue
            seen |= {task["id"]} if results and "id" in task else set()
            image = photos.find(_address(task), annotated=any(_labels(result["value"]) for result in results))
            photo = annotated(image, results)
        if photo:
            yield photo


def annotated(image: Path | None, results: Sequence[dict[str, Any]]) -> AnnotatedPhoto:
    """A photo with the regions of an annotation: those of its `result` that have `original_width`."""
    areas = [Shape(str(label), partial(_draw, result)) for result in results for label in _labels(result["value"])]
    size = (int(results[0]["original_height"]), int(results[0]["original_width"])) if results else None
    return AnnotatedPhoto(image, size, areas)


def _results(task: dict[str, Any], photos: Photos, name: str) -> list[dict[str, Any]]:
    """The regions of a task; JSON-MIN has them by the names of tags, without a `value` of their own."""
    if "annotations" in task or "predictions" in task:  # an import has predictions alone
        done = [a["result"] for a in task.get("annotations", ()) if not a.get("was_cancelled")]
        found = [regions for results in done if (regions := [r for r in results if "original_width" in r])]
        if len(found) > 1:
            photos.tally.add(_SEVERAL, name)
        if not done and task.get("predictions"):
            photos.tally.add(
                "tasks have predictions alone, which are no annotations: submit them there, and export", name
            )
        return found[0] if found else []
    regions = [region for tag in task.values() if isinstance(tag, list) for region in tag]
    return [r | {"value": r} for r in regions if isinstance(r, dict) and "original_width" in r]


def _labels(value: dict[str, Any]) -> list[str]:
    return [name for key, names in value.items() if key.endswith("labels") for name in names]


def read_label_studio_png(folder: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The annotated photos of a folder of brush PNGs, with a JSON export of the same tasks in it."""
    exports = sorted(folder.glob("*.json"))
    if len(exports) != 1:
        raise DataError(
            f"{folder} has {len(exports)} .json files; Label Studio's PNG export does not say which photo is whose: "
            "put the JSON export of the same project beside the PNG files"
        )
    tasks: dict[int, dict[str, Any]] = {}
    for number, task in enumerate(_tasks(exports[0]), start=1):
        with photos.passing_over("tasks that are not of Label Studio's JSON format", f"task {number}"):
            tasks[int(task["id"])] = task
    by_task: dict[int, dict[int, list[tuple[str, Path]]]] = {}
    for path in sorted(folder.glob("task-*.png")):
        if name := PNG_NAME.fullmatch(path.name):
            annotations = by_task.setdefault(int(name["task"]), {})
            annotations.setdefault(int(name["annotation"]), []).append((name["label"], path))
    for number, annotations in sorted(by_task.items()):
        files, photo = annotations[min(annotations)], None
        with photos.passing_over(f"tasks have masks but are not in {exports[0].name}", f"task {number}"):
            task = tasks[number]
            found = photos.find(_address(task))
            photo = AnnotatedPhoto(found, None, [Shape(label, partial(_png, path)) for label, path in files])
        if photo:
            yield photo


def _png(path: Path, mask: Mask) -> None:
    part = read_mask(path) == 1
    if part.shape != mask.shape:
        raise OddShape(f"{path} is {part.shape[1]} x {part.shape[0]} pixels, its photo is not")
    mask |= part


def _tasks(file: Path) -> list[dict[str, Any]]:
    tasks = read_json(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{file} is not Label Studio's JSON export: it must be a list of tasks")
    return tasks


def _address(task: dict[str, Any]) -> str:
    """Where a task's photo is; the full export has it in `data`, the short one (JSON-MIN) beside the results."""
    values = [v for v in task.get("data", task).values() if isinstance(v, str)]
    pictures = [v for v in values if Path(v.split("?d=")[-1].split("?")[0]).suffix.lower() in SUFFIXES]
    if not pictures:
        raise OddShape("it names no picture in its data")
    return pictures[0]


def _draw(result: dict[str, Any], mask: Mask) -> None:
    value = result["value"]
    if result.get("image_rotation"):
        raise OddShape("it was drawn on a rotated photo; rotate it back in Label Studio, export again")
    wide, high = result["original_width"] / 100, result["original_height"] / 100
    turned = value.get("rotation", 0)
    if "rle" in value:
        mask |= _brush(value["rle"], mask.shape)
    elif "points" in value:
        shapes.polygon(shapes.in_pixels(value["points"], wide, high), mask)
    elif "radiusX" in value:
        radii = value["radiusX"] * wide, value["radiusY"] * high
        shapes.polygon(shapes.ellipse(value["x"] * wide, value["y"] * high, *radii, turned=turned), mask)
    elif "width" in value and "height" in value:
        left, top = value["x"] * wide, value["y"] * high
        right, bottom = left + value["width"] * wide, top + value["height"] * high
        # turned about the box's first corner
        shapes.polygon(shapes.rectangle(left, top, right, bottom, turned=turned, about=(left, top)), mask)
    else:
        raise OddShape("it has no area; draw it with a brush, a polygon, a box or an ellipse")


def _brush(runs: Sequence[int], size: Sequence[int]) -> NDArray[np.bool_]:
    total = int.from_bytes(bytes(runs[:4]))  # before that much memory is taken
    if total != 4 * size[0] * size[1]:
        raise OddShape(f"a brush has {total} values, which {size[1]} x {size[0]} RGBA pixels do not")
    return decode_rle(runs).reshape(*size, 4)[..., 3] > 0


def decode_rle(packed: Sequence[int]) -> NDArray[np.uint8]:
    """Bytes of Label Studio's run lengths as values 0..255.

    A bit stream, highest bit first: 32 bits number of values; 5 bits word size - 1; four times 4 bits length size - 1;
    then runs: 1 bit (1: one repeated word, 0: as many words as the run is long), 2 bits which length size, the run's
    length - 1, its word or words.
    """
    bits = np.unpackbits(np.asarray(packed, np.uint8))
    at = 0

    def take(count: int) -> int:
        nonlocal at
        value = int("".join(map(str, bits[at : at + count])) or "0", 2)
        at += count
        return value

    total, word = take(32), take(5) + 1
    if word > 8 or total > 4 << 28:
        raise OddShape(f"a brush of {total} values of {word} bits cannot be read; export the annotation again")
    sizes = [take(4) + 1 for _ in range(4)]
    places = 1 << np.arange(word - 1, -1, -1)
    values, done = np.zeros(total, np.uint8), 0
    while done < total:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        end = min(done + length, total)
        words = 1 if repeated else length
        block = bits[at : at + words * word]
        if len(block) < words * word:
            raise DataError("a brush's run lengths are cut off; export the annotation again")
        at += words * word
        values[done:end] = (block.reshape(words, word) @ places)[: end - done]
        done = end
    return values


def encode_rle(mask: NDArray[np.bool_]) -> list[int]:
    """The bytes of Label Studio's run lengths of a mask (H, W), as RGBA of 0 and 255: what `decode_rle` reads."""
    flat = mask.ravel()
    borders = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    lengths, values = 4 * np.diff(borders), flat[borders[:-1]] * 255
    parts = -(-lengths // _LONGEST)  # of a run that is too long for its length's bits
    values, rest = np.repeat(values, parts), lengths - (parts - 1) * _LONGEST
    whole = np.full(parts.sum(), _LONGEST)
    whole[np.cumsum(parts) - 1] = rest
    head = _bits([4 * flat.size], 32) + _bits([7], 5) + _bits([2, 3, 7, 15], 4)
    runs = np.concatenate([np.tile([1, 1, 1], (len(whole), 1)), _matrix(whole - 1, 16), _matrix(values, 8)], 1)
    return np.packbits(np.concatenate([head, runs.ravel()]).astype(np.uint8)).tolist()


_LONGEST = 1 << 16
"""Values in a run whose length has 16 bits."""


def _bits(numbers: list[int], count: int) -> list[int]:
    return _matrix(np.array(numbers), count).ravel().tolist()


def _matrix(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Each number's bits, the highest first: (numbers, count)."""
    return (numbers[:, None] >> np.arange(count - 1, -1, -1)) & 1
