"""Supports as a user gives them: options of the command line in their order, or a folder with a folder per class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from fewseg.data.decoding import AS_IT_IS, PictureRule
from fewseg.data.images import SUFFIXES, overlay, read_image, write_image
from fewseg.data.marks import Marks, marking_from_marks, strokes_in
from fewseg.data.masks import Label, Marking
from fewseg.data.pairs import beside
from fewseg.errors import DataError, UsageError
from fewseg.predictor import read_support
from fewseg.segment.planning import free_name

Supports: TypeAlias = dict[str | None, tuple[list[Any], list[Any]]]
"""Photos and masks by class, as `FewShotPredictor.set_support` takes them; None is the class without a name."""

GROUPED = ("class", "support", "mask", "scribble", "box", "point", "background", "label")
"""Options of `fewseg segment` whose order has a meaning."""


@dataclass
class MarkedPhoto:
    """A photo of a support and what was said about it: a mask file, or marks."""

    path: Path
    mask: Path | None = None
    scribble: Path | None = None
    box: list[Any] = field(default_factory=list)
    point: list[Any] = field(default_factory=list)
    background: list[Any] = field(default_factory=list)

    @property
    def is_marked(self) -> bool:
        """Whether anything says where the object is."""
        return bool(self.mask or self.scribble or self.box or self.point)

    def mask_or_file(self, pictures: PictureRule = AS_IT_IS) -> Path | Marking:
        """The mask's file, or the mask that the marks on the upright photo mean."""
        if self.mask is not None:
            return self.mask
        photo = read_image(self.path, pictures)
        self._check_pixels(photo.size)
        strokes = strokes_in(read_image(self.scribble), photo) if self.scribble else None
        marks = Marks(self.box, self.point, self.background, strokes)
        return marking_from_marks(photo, marks, str(self.path))

    def _check_pixels(self, size: tuple[int, int]) -> None:
        """UsageError where all are from 0 to 1, fractions or a box: nobody marks the pixel of the corner so."""
        given = [(option, mark) for option in ("box", "point", "background") for mark in getattr(self, option)]
        shares = [(option, mark) for option, mark in given if option == "box" or any(side % 1 for side in mark)]
        if shares and all(0 <= side <= 1 for _, mark in given for side in mark):
            option, mark = shares[0]
            told, pixels = (
                ",".join(f"{side:g}" for side in sides)
                for sides in (mark, (round(share * size[i % 2]) for i, share in enumerate(mark)))
            )
            raise UsageError(
                f"{self.path}: --{option} {told} looks like a share of the photo, {size[0]} x {size[1]} pixels; give "
                f"pixels: --{option} {pixels}"
            )


def ordered(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """The options of `GROUPED` and their values in the order of a command line, `--name value` and `--name=value`."""
    found, words = [], iter(arguments)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in GROUPED:
            found.append((name, value if equals else next(words, "")))
    return found


class Groups(NamedTuple):
    """What the options of a command line say, by class; None is the class without a name."""

    photos: dict[str | None, list[MarkedPhoto]]
    without: list[str]
    """Classes that were named without photos."""
    labels: dict[str | None, Label]
    """Which value of the class's masks is the object."""


def grouped(options: Iterable[tuple[str, str]]) -> Groups:
    """Photos by class from options in their order.

    What stands before the first `--class` has no class. A `--mask` belongs to its class's first photo that has
    nothing yet, a `--label` to all masks of its class; `--scribble`, `--box`, `--point` and `--background` belong to
    the photo before them.
    """
    photos: dict[str | None, list[MarkedPhoto]] = {}
    labels: dict[str | None, Label] = {}
    name: str | None = None
    for option, value in options:
        group = photos.setdefault(name, [])
        if option == "class":
            name = value
            photos.setdefault(name, [])
        elif option == "label":
            if labels.setdefault(name, value) != value:
                raise UsageError(f"--label {labels[name]} and --label {value} were given{_of(name)}; give one a class")
        elif option == "support":
            group.append(MarkedPhoto(Path(value)))
        elif not group:
            raise UsageError(f"--{option} {value} stands before any --support{_of(name)}; give its photo first")
        elif option == "mask":
            free = [photo for photo in group if not photo.is_marked]
            if not free:
                count, masks = len(group), 1 + sum(photo.mask is not None for photo in group)
                raise UsageError(
                    f"{count} --support but {masks} --mask were given{_of(name)}; every photo needs its mask, in the "
                    "same order"
                )
            free[0].mask = Path(value)
        elif option == "scribble":
            group[-1].scribble = Path(value)
        else:
            form = "LEFT,TOP,RIGHT,BOTTOM" if option == "box" else "X,Y"
            form += " in pixels of the upright photo"
            getattr(group[-1], option).append(numbers(option, value, form))
    for name, group in photos.items():
        _check(group, name)
    without = [name for name, group in photos.items() if name is not None and not group]
    return Groups({name: group for name, group in photos.items() if group}, without, labels)


def _check(group: list[MarkedPhoto], name: str | None) -> None:
    for photo in group:
        if not photo.is_marked:
            masks = sum(p.mask is not None for p in group)
            raise UsageError(
                f"{len(group)} --support but {masks} --mask were given{_of(name)}; {photo.path} needs --mask, "
                "--scribble, --box or --point"
            )
        if photo.mask and (photo.scribble or photo.box or photo.point or photo.background):
            raise UsageError(f"{photo.path} has a --mask and marks; give one or the other")


def _of(name: str | None) -> str:
    return "" if name is None else f" for --class {name}"


def numbers(option: str, value: str, form: str) -> tuple[float, ...]:
    """The numbers of an option such as `--box 1,2,3,4`; `form` is how it is written, as LEFT,TOP,RIGHT,BOTTOM."""
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = ()
    if len(found) != form.partition(" ")[0].count(",") + 1:
        raise UsageError(f"--{option} {value!r}: give {form}")
    return found


def supports_of(groups: dict[str | None, list[MarkedPhoto]], pictures: PictureRule = AS_IT_IS) -> Supports:
    """Photos and masks of groups, as a predictor takes them."""
    return {
        name: ([photo.path for photo in group], [photo.mask_or_file(pictures) for photo in group])
        for name, group in groups.items()
    }


def folder_supports(root: Path, pictures: PictureRule = AS_IT_IS) -> Supports:
    """Supports in a folder with a sub-folder per class: `CLASS/NAME.jpg` beside `CLASS/NAME_mask.png` or
    `CLASS/NAME.png`, or `CLASS/NAME_scribble.png`.

    DataError where a photo has no mask.
    """
    if not root.is_dir():
        raise UsageError(f"--supports {root}: there is no such folder")
    found: dict[str | None, list[MarkedPhoto]] = {
        folder.name: photos for folder in sorted(root.iterdir()) if (photos := _folder_photos(folder))
    }
    if not found:
        if any(path.suffix.lower() in SUFFIXES for path in root.iterdir()):
            above = f"give the folder above it, and --class {root.name}"
            raise DataError(
                f"{root} holds photos, and --supports takes a folder of folders, one for each class: {above}"
            )
        raise DataError(
            f"{root} holds no annotated photos; put them into {root.name}/CLASS/NAME.jpg with "
            f"{root.name}/CLASS/NAME_mask.png beside them"
        )
    return supports_of(found, pictures)


def _folder_photos(folder: Path) -> list[MarkedPhoto]:
    if not folder.is_dir() or folder.name.startswith("."):
        return []
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    strokes = {path.stem.removesuffix("_scribble"): path for path in files if path.stem.endswith("_scribble")}
    pairs = beside(path for path in files if path not in strokes.values())
    if absent := [path for path in pairs.photos if path.stem not in strokes]:
        stem = absent[0].stem
        if stem.endswith("_mask"):
            raise DataError(f"{absent[0]} is the mask of a photo that is not there; put the photo beside it")
        raise DataError(f"{absent[0]} has no mask; put {stem}_mask.png or {stem}_scribble.png beside it")
    marked = [MarkedPhoto(path, mask) for path, mask in pairs.found]
    marked += [MarkedPhoto(path, scribble=strokes[path.stem]) for path in pairs.photos]
    return sorted(marked, key=lambda photo: photo.path)


def draw_supports(
    supports: Supports, labels: dict[str | None, Label], out: Path, pictures: PictureRule = AS_IT_IS
) -> dict[Path, str]:
    """Write a picture of every support with what its mask marks to `out`, and say how each was understood."""
    told, taken = {}, set[str]()
    for name, (images, masks) in supports.items():
        for number, (image, mask) in enumerate(zip(images, masks, strict=True), start=1):
            what = str(mask) if isinstance(mask, Path) else f"mask {number} of {name or 'the support'}"
            label = labels.get(name, labels.get(None))
            photo, marking = read_support(image, mask, label=label, name=what, pictures=pictures)
            shown = Image.fromarray(photo if photo.dtype == np.uint8 else np.rint(photo * 255).astype(np.uint8))
            stem = f"{name}_{Path(image).stem}" if isinstance(image, Path) and name else f"{name or 'support'}_{number}"
            safe = re.sub(r"[^\w .()-]", "_", Path(stem).name)[:80]  # a class may have any name
            path = out / f"{free_name(safe, taken)}.jpg"
            taken.add(path.stem.casefold())
            write_image(overlay(shown, marking.mask), path, quality=90)
            told[path] = understood(name, image, mask, marking)
    return told


def understood(name: str | None, image: Any, mask: Any, marking: Marking) -> str:
    """How a support was understood, in a line."""
    photo = image if isinstance(image, Path) else "a photo inside the export"
    by = f"{mask}: " if isinstance(mask, Path) else ""
    return f"support{'' if name is None else ' of ' + name}: {photo}: {by}{marking}"


def merged(*parts: Supports) -> Supports:
    """Several sources' supports in one; a class that is in several gets the photos of all."""
    whole: Supports = {}
    for part in parts:
        for name, (images, masks) in part.items():
            former = whole.get(name, ([], []))
            whole[name] = ([*former[0], *images], [*former[1], *masks])
    if None in whole and len(whole) > 1:
        named = ", ".join(name for name in whole if name is not None)
        raise UsageError(f"some supports have a class ({named}) and some have none; put --class NAME before them")
    return whole
