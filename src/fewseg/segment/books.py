"""Files that tell of all pictures of a run: COCO, CVAT's XML, Label Studio's predictions, VIA.

Each is a context that gives what adds a picture, and is whole at the end, or absent; pictures are written as they come,
so that memory does not grow with their number. COCO, CVAT and Label Studio keep masks to the pixel; VIA knows polygons,
whose holes are joined to the outline by a line of no width.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.label_studio import encode_rle
from fewseg.files import replacing
from fewseg.segment import formats as files
from fewseg.segment.formats import Objects, outlines, present
from fewseg.segment.planning import Job
from fewseg.segment.table import Told

Add: TypeAlias = Callable[[Job, NDArray[np.uint8], Objects | None, Told | None], None]
"""A picture, its labels (H, W), its objects where they are asked for, and what is told of each class."""
_COCO = '{"info": {"description": "fewseg segment"'
_CVAT = '<?xml version="1.0" encoding="utf-8"?>\n<!-- fewseg segment -->\n'
_VIA = r'\{\n"[^"\n]+": \{"filename": '
_OURS = re.compile("|".join((re.escape(_COCO), re.escape(_CVAT), re.escape(files.LABELME), _VIA)).encode())
"""How fewseg's files begin, and those of no tool that read them and wrote them again."""


@contextmanager
def coco_file(path: Path, classes: Sequence[str], runtime: str) -> Iterator[Add]:
    """COCO: without objects a class is one annotation of a picture; an object's has its number ("instance").

    `runtime`, what ran the model, stands in its "info".
    """
    from pycocotools import mask as rle

    pictures: list[dict[str, Any]] = []
    numbers = count(1)
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]

    def add(piece: Job, labels: NDArray[np.uint8], objects: Objects | None, told: Told | None) -> None:
        height, width = labels.shape
        pictures.append({"id": len(pictures) + 1, "file_name": piece.name, "width": width, "height": height})
        for label, instance, mask in _masks(labels, objects):
            code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            counts = str(code["counts"], "ascii")  # type: ignore[arg-type]
            number = next(numbers)
            entry = {
                "id": number,
                "image_id": len(pictures),
                "category_id": label,
                "segmentation": {"size": [height, width], "counts": counts},
                "area": int(rle.area(code)),
                "bbox": [float(side) for side in rle.toBbox(code)],
                "iscrowd": 0,
            } | ({} if instance is None else {"instance": instance})
            file.write(("," if number > 1 else "") + "\n" + json.dumps(entry))

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        head = f'{_COCO}, "runtime": {json.dumps(runtime)}}}, "categories": {json.dumps(categories)}'
        file.write(f'{head},\n"annotations": [')
        yield add
        file.write(f'],\n"images": {json.dumps(pictures)}}}\n')


def as_fewseg_wrote(path: Path) -> list[Path]:
    """Files of annotations, of a folder all in it, that begin as fewseg writes them, and no tool that read them does.

    YOLO's lines tell nothing of who wrote them.
    """
    there = [path] if path.is_file() else sorted(path.glob("*.json")) + sorted(path.glob("*.xml"))
    return [file for file in there if _OURS.match(_beginning(file))]


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1000)


@contextmanager
def cvat_file(path: Path, classes: Sequence[str], runtime: str) -> Iterator[Add]:
    """CVAT for images 1.1: a mask for each class of a picture, or each object, as run lengths in its box."""
    numbers = count()

    def add(piece: Job, labels: NDArray[np.uint8], objects: Objects | None, told: Told | None) -> None:
        height, width = labels.shape
        name = html.escape(piece.name)
        file.write(f'<image id="{next(numbers)}" name="{name}" width="{width}" height="{height}">\n')
        for label, _, mask in _masks(labels, objects):
            top, left, cut = _cut_out(mask)
            runs = ", ".join(map(str, _runs(cut.ravel())))
            box = f'left="{left}" top="{top}" width="{cut.shape[1]}" height="{cut.shape[0]}" z_order="0"'
            kind = f'label="{html.escape(classes[label - 1])}" source="auto" occluded="0"'
            file.write(f'<mask {kind} rle="{runs}" {box}></mask>\n')
        file.write("</image>\n")

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        named = "".join(f"<label><name>{html.escape(name)}</name><attributes/></label>" for name in classes)
        file.write(_CVAT + "<annotations>\n<version>1.1</version>\n")
        file.write(f"<meta><task><labels>{named}</labels></task></meta>\n")
        yield add
        file.write("</annotations>\n")


@contextmanager
def label_studio_file(path: Path, classes: Sequence[str], runtime: str) -> Iterator[Add]:
    """Label Studio: a task for each picture with a prediction of brushes, for a project whose BrushLabels are called
    `tag`, of an Image `image`; pictures by the path of its local storage.
    """
    numbers = count(1)

    def add(piece: Job, labels: NDArray[np.uint8], objects: Objects | None, told: Told | None) -> None:
        prediction = label_studio_prediction(labels, classes, objects, told)
        prediction["model_version"] = f"fewseg, {runtime}"
        task = {"data": {"image": f"/data/local-files/?d={quote(piece.name)}"}, "predictions": [prediction]}
        file.write(("," if next(numbers) > 1 else "") + "\n" + json.dumps(task))

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        yield add
        file.write("\n]\n")


def label_studio_prediction(
    labels: NDArray[np.uint8],
    classes: Sequence[str],
    objects: Objects | None,
    told: Told | None,
    *,
    tag: str = "tag",
    image: str = "image",
    kind: str = "brushlabels",
) -> dict[str, Any]:
    """Label Studio's prediction of a picture: regions for the control `tag` of the Image called `image`, brushes to the
    pixel, or with the kind "polygonlabels" an outline for each connected part; scores where something is told.
    """
    height, width = labels.shape
    place = {"from_name": tag, "to_name": image, "type": kind, "image_rotation": 0}
    size = {"original_width": width, "original_height": height}
    scores = [None if one is None else one[1] if one[1] is not None else one[0] for one in told or ()]
    result = []
    for number, (label, value) in enumerate(_regions(labels, objects, kind), start=1):
        score = {} if not scores or scores[label - 1] is None else {"score": scores[label - 1]}
        region = {"id": f"r{number}", **place, **size, "value": value | {kind: [classes[label - 1]]}, **score}
        result.append(region)
    known = [score for score in scores if score is not None]
    return {"result": result} | ({"score": min(known)} if known else {})


def _regions(labels: NDArray[np.uint8], objects: Objects | None, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if kind == "brushlabels":
        for label, _, mask in _masks(labels, objects):
            yield label, {"format": "rle", "rle": encode_rle(mask)}
        return
    shares = np.array(labels.shape[::-1]) / 100
    for label, corners in outlines(labels, objects):
        yield label, {"points": (corners / shares).tolist(), "closed": True}


@contextmanager
def via_file(path: Path, classes: Sequence[str], runtime: str) -> Iterator[Add]:
    """VIA 2's JSON: a polygon for each connected part, or object, with its class as the attribute `class`."""
    numbers = count(1)

    def add(piece: Job, labels: NDArray[np.uint8], objects: Objects | None, told: Told | None) -> None:
        there = not piece.is_video and piece.query.is_file()
        size = piece.query.stat().st_size if there else -1  # by it and the name VIA finds a picture
        regions = []
        for label, corners in outlines(labels, objects):
            x, y = corners.T.tolist()
            shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
            regions.append({"shape_attributes": shape, "region_attributes": {"class": classes[label - 1]}})
        entry = {"filename": piece.name, "size": size, "regions": regions, "file_attributes": {}}
        key = json.dumps(f"{piece.name}{size}")
        file.write(("," if next(numbers) > 1 else "") + f"\n{key}: {json.dumps(entry)}")

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("{")
        yield add
        file.write("\n}\n")


BOOKS: dict[str, tuple[str, Callable[[Path, Sequence[str], str], AbstractContextManager[Add]]]] = {
    "coco": ("annotations.json", coco_file),
    "cvat": ("annotations.xml", cvat_file),
    "labelstudio": ("labelstudio.json", label_studio_file),
    "via": ("via.json", via_file),
}
"""Each format's file name, and what writes it."""


def _cut_out(mask: NDArray[np.bool_]) -> tuple[int, int, NDArray[np.bool_]]:
    """The first row and column of a mask's box, and what is in it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _runs(flat: NDArray[np.bool_]) -> list[int]:
    """Lengths of background and foreground in turn."""
    borders = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], borders, [len(flat)]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def _masks(labels: NDArray[np.uint8], objects: Objects | None) -> Iterator[tuple[int, int | None, NDArray[np.bool_]]]:
    """Every class's label and mask (H, W); or every object's label, number and mask."""
    before = 0
    for label in present(labels):
        if objects is None:
            yield label, None, labels == label
            continue
        parts, mask = objects[label], np.zeros(labels.shape, bool)
        for number, (top, left, bottom, right) in enumerate(parts.boxes.tolist(), start=1):
            window = slice(top, bottom), slice(left, right)
            mask[window] = parts.labels[window] == number
            yield label, before + number, mask
            mask[window] = False
        before += len(parts.pixels)
