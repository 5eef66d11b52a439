"""PASCAL-Part (Chen et al. 2014) as Matcher (Liu et al. 2024) has it: parts of objects in VOC 2010, in four folds."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from fewseg.data.annotations.runs import OddShape, Rle, as_rle, checked_runs
from fewseg.data.crops import Crop, Crops, whole_box
from fewseg.data.index import in_parallel
from fewseg.data.source import Fold
from fewseg.data.text import Tally, found_in, read_text
from fewseg.errors import DataError, UsageError

GROUPS = ("animals", "indoor", "person", "vehicles")
_LIST, _FOLDER = "all_obj_part_to_image.json", "Annotations_Part_json_merged_part_classes"
_LEFT_OUT = ("aeroplane", "TAIL")
"""The part that Matcher's code passes over."""


class PascalPart(Crops):
    """Matcher's files and VOC 2010's JPEGImages below `root`, `root`/VOCdevkit/VOC2010 or `root`/VOC2010.

    all_obj_part_to_image.json lists the photos of every part, by group, object and subset;
    Annotations_Part_json_merged_part_classes/PHOTO.json holds the objects of a photo. A class is an object's part
    (`bird+FACE`) with photos in both subsets; the novel ones of a fold are those of a group: animals, indoor, person,
    vehicles. An image is an object, cut out by its box.
    """

    name = "pascal_part"
    holds = f"{_LIST}, {_FOLDER}/ and JPEGImages/ (here or in VOCdevkit/VOC2010/)"
    fetched = (
        "Fetch pascal.zip by way of https://github.com/aim-uofa/Matcher (datasets/README.md), and VOC 2010's "
        "VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010"
    )

    def __init__(self, *, subset: str = "train", root: str | None = None) -> None:
        super().__init__(subset, root, holds=self.holds)
        places = [self.root / name for name in ("VOCdevkit/VOC2010", "VOC2010")] + [self.root]
        self.voc = next((place for place in places if (place / _LIST).is_file()), self.root)
        listed, self._annotations = self.voc / _LIST, self.voc / _FOLDER
        if not listed.is_file() or not self._annotations.is_dir():
            raise DataError(f"pascal_part expects {self.holds} in {self.root}; {found_in(self.voc)}. {self.fetched}")
        part_of = "train" if subset == "train" else "val"
        self._group: dict[str, str] = {}
        photos: set[str] = set()
        try:
            groups = json.loads(read_text(listed))
            for group in GROUPS:
                for thing, parts in groups[group]["object"].items():
                    for part, images in parts["part"].items():
                        if images["train"] and images["val"] and (thing, part) != _LEFT_OUT:
                            self._group[f"{thing}+{part}"] = group
                            photos.update(images[part_of])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{listed} is not built as Matcher's file is ({error!r}); fetch it again") from error
        self.class_names = tuple(self._group)
        self._photos = sorted(photos)
        self.files = [self._annotations / f"{photo}.json" for photo in self._photos]

    def fold(self, index: int) -> Fold:
        """The parts of one group are novel, those of the other three are base."""
        if not 0 <= index < len(GROUPS):
            raise UsageError(f"pascal_part has folds 0 to 3 ({', '.join(GROUPS)}); fold {index} was asked for")
        novel = [c for c, group in enumerate(self._group.values(), 1) if group == GROUPS[index]]
        return Fold.of(index, novel, classes=len(self.class_names))

    def photo_path(self, photo: int) -> Path:
        """The file of a photo by its number."""
        return self.voc / "JPEGImages" / f"{self._photos[photo]}.jpg"

    @cached_property
    def crops(self) -> list[Crop]:  # type: ignore[override]
        """The objects of which parts are marked; those whose box is empty are left out, which is told."""
        found, self._places, tally = [], [], Tally(self._annotations)
        listed = in_parallel(self._objects, range(len(self.files)), self.progress, "reading objects")
        for photo, things in enumerate(listed):
            for number, box, size in things:
                if cut := whole_box(*box, size=size):
                    found.append(Crop(f"{self._photos[photo]}_{number}", photo, cut))
                    self._places.append(number)
                else:
                    tally.add("objects with an empty box, left out", self.files[photo].name)
        tally.warn()
        return found

    def shapes(self, i: int) -> list[tuple[int, Rle]]:
        """Class and shape, in the whole photo, of the parts of object `i`."""
        crop = self.crops[i]
        file = self.files[crop.photo]
        return self._parts(file, self._read(file)[self._places[i]])

    def _objects(self, photo: int) -> list[tuple[int, list[float], tuple[int, int]]]:
        """Number, box and the photo's size of every object of which a part is a class."""
        file, found = self.files[photo], []
        for number, thing in enumerate(self._read(file)):
            if parts := self._parts(file, thing):
                box = thing["bndbox"]
                names = ("xmin", "ymin", "xmax", "ymax")
                sides = [box[name] for name in names] if set(names) <= set(box) else list(box.values())
                height, width = parts[0][1]["size"]
                found.append((number, [float(side) for side in sides], (height, width)))
        return found

    def _parts(self, file: Path, thing: dict[str, Any]) -> list[tuple[int, Rle]]:
        try:
            named = [(f"{thing['name']}+{part['name']}", shape) for part in thing["parts"] for shape in part["mask"]]
            known = [(self.class_names.index(name) + 1, shape) for name, shape in named if name in self._group]
            return [(class_id, _checked(shape)) for class_id, shape in known]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file}: an object is not built as Matcher's are ({error!r}); fetch it again") from error

    def _read(self, file: Path) -> list[dict[str, Any]]:
        try:
            return orjson.loads(file.read_bytes())["object"]
        except FileNotFoundError as error:
            raise DataError(f"{file} is missing; {_LIST} names its photo. {self.fetched}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is not built as Matcher's files are ({error!r}); fetch it again") from error


def _checked(shape: dict[str, Any]) -> Rle:
    height, width = shape["size"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise OddShape(f"its size is {height} x {width}")
    return as_rle(checked_runs(shape["counts"], height * width), height, width)
