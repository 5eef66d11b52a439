"""PACO-Part (Liu et al. 2024, Matcher): parts of objects in PACO-LVIS (Ramanathan et al. 2023), in four folds."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.lvis import lvis_file, lvis_photo
from fewseg.data.annotations.runs import Rle
from fewseg.data.crops import Crop, Crops, whole_box
from fewseg.data.index import cached_arrays, code_of, fingerprint
from fewseg.data.source import Fold
from fewseg.data.text import Tally
from fewseg.errors import DataError, UsageError

FOLDS = 4


class PacoPart(Crops):
    """paco_lvis_v1_train.json, paco_lvis_v1_val.json and COCO 2017's train2017 and val2017, below `root` or in
    annotations/, paco/ and coco/ there; `test` is val.

    A class is a category of an object's part (`mug:handle`) of which train has an annotation. Fold f has of them, in
    the order of their ids, f, f + 4, ... as novel, if val has more than one photo of them. An image is an object, cut
    out by its box. Matcher's own file has 448 classes; how they were chosen and ordered is not published.
    """

    name = "paco_part"
    holds = "paco_lvis_v1_train.json, paco_lvis_v1_val.json, train2017/ and val2017/"

    def __init__(self, *, subset: str = "train", root: str | None = None) -> None:
        super().__init__(subset, root, holds=self.holds)
        train, val = (
            lvis_file(self.root, f"paco_lvis_v1_{part}.json", data=self.name, part=part, fetched_as="paco")
            for part in ("train", "val")
        )
        if train.class_names != val.class_names:
            raise DataError(
                f"the categories of paco_lvis_v1_train.json and paco_lvis_v1_val.json in {self.root} differ"
            )
        self._file = train if subset == "train" else val
        of_parts = np.array([":" in name for name in train.class_names])
        self._numbers = (np.flatnonzero((train.images_of()[1:] > 0) & of_parts) + 1).tolist()
        """Of the classes, among the file's categories."""
        if not self._numbers:
            raise DataError(f"{train.path} has no annotation of a part, a category OBJECT:PART")
        self.class_names = tuple(train.class_names[c - 1] for c in self._numbers)
        held = val.images_of()
        self._enough = {own for own, c in enumerate(self._numbers, 1) if held[c] > 1}
        self.files = [self._file.path]

    def fold(self, index: int) -> Fold:
        """Every fourth class is of the fold; of these, those with more than one photo in val are novel."""
        if not 0 <= index < FOLDS:
            raise UsageError(f"paco_part has folds 0 to {FOLDS - 1}; fold {index} was asked for")
        count = len(self.class_names)
        novel = range(1 + index, 1 + count // FOLDS * FOLDS, FOLDS)
        return Fold.of(index, [c for c in novel if c in self._enough], classes=count)

    def photo_path(self, photo: int) -> Path:
        """The file of a photo by its number, in train2017 or val2017."""
        return lvis_photo(self.root, Path(self._file.files[photo]).name)

    @cached_property
    def crops(self) -> list[Crop]:  # type: ignore[override]
        """The objects of which parts are marked; those whose box is empty are left out, which is told."""
        found, self._chosen, tally = [], [], Tally(self._file.path)
        names = [Path(name).stem for name in self._file.files]
        for row, (photo, number) in enumerate(self._objects["of"].tolist()):
            name = f"{names[photo]}_{number}"
            if box := whole_box(*self._objects["boxes"][row].tolist(), size=self._file.size(photo)):
                found.append(Crop(name, photo, box))
                self._chosen.append(row)
            else:
                tally.add("objects with an empty box, or without one, left out", name)
        tally.warn()
        return found

    def shapes(self, i: int) -> list[tuple[int, Rle]]:
        """Class and shape, in the whole photo, of the parts of object `i`."""
        first, last = self._objects["first"][self._chosen[i] : self._chosen[i] + 2]
        drawn = self._file.shapes(self.crops[i].photo, self._objects["parts"][first:last])
        return [(self._numbers.index(number) + 1, shape) for number, shape in drawn]

    @cached_property
    def _objects(self) -> dict[str, NDArray[Any]]:
        """`of` (objects, 2): photo and its annotation's id; `boxes` (objects, 4); `first` where its `parts` begin."""
        mark = fingerprint([], self._file.mark, code_of(type(self)), root=Path())
        return cached_arrays(self._read, root=self.root, key=f"{self.name}-{self.subset}-objects", mark=mark)

    def _read(self) -> dict[str, NDArray[Any]]:
        known = set(self._numbers)
        of, boxes, parts, first = [], [], [], [0]
        for photo in range(len(self._file.files)):
            box: dict[int, list[float]] = {}
            parts_of: dict[int, list[list[int]]] = defaultdict(list)
            for place, annotation in self._file.entries(photo):
                thing = annotation.get("obj_ann_id")
                if place[0] in known:
                    if type(thing) is not int:
                        raise DataError(f"{self._file.path}: the annotation at byte {place[1]} has no obj_ann_id")
                    parts_of[thing].append(place)
                elif type(thing) is int and annotation.get("id") == thing and annotation.get("bbox"):
                    left, top, width, height = annotation["bbox"]
                    box[thing] = [int(left), int(top), int(left + width), int(top + height)]
            for thing, places in parts_of.items():
                of.append((photo, thing))
                boxes.append(box.get(thing, [0, 0, 0, 0]))
                parts += places
                first.append(len(parts))
        return {
            "of": np.array(of, np.int64).reshape(-1, 2),
            "boxes": np.array(boxes, np.int64).reshape(-1, 4),
            "parts": np.array(parts, np.int64).reshape(-1, 3),
            "first": np.array(first, np.int64),
        }
