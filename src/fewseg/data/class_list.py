"""Lists of class names as tools write them: classes.txt, class_names.txt, labelmap.txt, _classes.csv."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fewseg.data.images import read_image, read_labels
from fewseg.data.masks import Label, color_codes
from fewseg.data.text import read_lines
from fewseg.errors import DataError, UsageError
from fewseg.labels import IGNORE

NAMES = (
    "classes.txt",
    "class_names.txt",
    "labelmap.txt",
    "labels.txt",
    "_classes.csv",
    "classes.csv",
    "class_dict.csv",
)
"""Files that are looked for, the first one first."""
_PLACES = (1 << 16, 1 << 8, 1)
_VOC_VOID = (224, 224, 192)
_NUMBERED = re.compile(r"(\d+)\s*[:,;\t ]\s*(\S.*)")


@dataclass(frozen=True)
class ClassList:
    """What a file says of the values of label maps."""

    file: Path
    names: tuple[str, ...]
    """Of the values 1..N."""
    background: bool
    """Whether the first name was the background's, that of 0."""
    colours: tuple[tuple[int, int, int], ...] = ()
    """RGB of the values 0..N in a coloured label map; none where the file has none."""

    def refuse(self, most: int, example: Path) -> NoReturn:
        """DataError: label maps hold values up to `most` (as in `example`), which has no name here."""
        first = ", the background's first," if self.background else ""
        raise DataError(
            f"{self.file.name} has {len(self.names) + self.background} names{first} but the label maps hold 1 to "
            f"{most} ({example}: label value {most} is no class); give the names of 1 to {most}, one a line"
        )

    def read_labels(self, file: Path) -> NDArray[np.uint8]:
        """A label map (H, W): by its colours where the list has some and the map has too, else by its values."""
        if not self.colours:
            return read_labels(file)
        known = {_code(colour): value for value, colour in enumerate(self.colours)} | {_code(_VOC_VOID): IGNORE}
        codes = color_codes(np.asarray(read_image(file)))
        present, places = np.unique(codes, return_inverse=True)
        unknown = [code for code in present.tolist() if code not in known]
        if unknown and all(len(set(_colour(code))) == 1 for code in present.tolist()):  # greys: values, not colours
            return read_labels(file)
        if unknown:
            raise DataError(f"{file}: the colour {_colour(unknown[0])} is not in {self.file.name}")
        return np.array([known[code] for code in present.tolist()], np.uint8)[places].reshape(codes.shape)


def _code(colour: tuple[int, int, int]) -> int:
    return sum(part * place for part, place in zip(colour, _PLACES, strict=True))


def _colour(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def named_value(file: Path, label: Label | None) -> Label | None:
    """A mask's label as a value: a name is that of the list of classes beside the file, or in the folder above.

    Values stay as they are. UsageError for a name that no list has.
    """
    if not isinstance(label, str) or re.fullmatch(r"\d+|>=[\d.]+|any|#.*", label):
        return label
    for folder in (file.parent, file.parent.parent):
        if (listed := find_class_list(folder)) and label in listed.names:
            value = listed.names.index(label) + 1
            return "#{:02x}{:02x}{:02x}".format(*listed.colours[value]) if listed.colours else value
    raise UsageError(
        f"{file}: {label!r} is no value, and no list of classes ({NAMES[0]}) beside it or in the folder above has it"
    )


def find_class_list(root: Path) -> ClassList | None:
    """The list of classes in a folder; None where there is none. Capital letters in its name are no matter."""
    files = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_file()}
    found = next((files[name] for name in NAMES if name in files), None)
    return None if found is None else read_class_list(found)


def read_class_list(file: Path) -> ClassList:
    """A list of class names: a name a line, the name of value 1 first.

    A first line `background` or `_background_`, or that after a first `__ignore__`, is the name of 0. Lines may have
    numbers (`1: cow`; a CSV's `1,cow`), or be of CVAT's form `name:R,G,B:parts:actions`. DataError where a name is
    there twice, a number is missing, or the background is not first.
    """
    lines = [line for line in read_lines(file) if not line.startswith("#")]
    colours: list[tuple[int, int, int]] = []
    if file.name.lower() == "labelmap.txt" and all(":" in line for line in lines):
        lines, colours = _with_colours(file, lines)
    elif lines and re.fullmatch(r"\w+,\s*r,\s*g,\s*b", lines[0]):  # of coloured label maps, black is no class
        parts = [line.rsplit(",", 3) for line in lines[1:]]
        lines, colours = _with_colours(file, [f"{name}:{','.join(rgb)}" for name, *rgb in parts])
        kept = [i for i, colour in enumerate(colours) if any(colour)]
        lines, colours = [lines[i] for i in kept], [colours[i] for i in kept]
    elif file.suffix.lower() == ".csv":
        lines = _numbered(file, lines[not re.match(r"\d", lines[0]) :] if lines else [], must=True)
    else:
        lines = _numbered(file, lines)
    if lines and re.fullmatch(r"_+ignore_+", lines[0], re.IGNORECASE):
        lines, colours = lines[1:], colours[1:]
    background = bool(lines) and _is_background(lines[0])
    names = lines[background:]
    if not names:
        raise DataError(f"{file} names no class; write one name a line, that of value 1 first")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{file} has the name {twice[0]!r} more than once; every class needs a name of its own")
    if late := [name for name in names if _is_background(name)]:
        raise DataError(
            f"{file}: {late[0]!r} is not in the first line; the background is 0: put it first or leave it out"
        )
    if twice := [colour for colour, count in Counter(colours).items() if count > 1]:
        raise DataError(f"{file} has the colour {twice[0]} more than once; every class needs one of its own")
    if colours and not background:
        colours = [(0, 0, 0), *colours]
    return ClassList(file, tuple(names), background, tuple(colours))


def _is_background(name: str) -> bool:
    return name.strip("_").casefold() == "background"


def _numbered(file: Path, lines: list[str], *, must: bool = False) -> list[str]:
    """The names of lines `NUMBER NAME` in the order of their numbers; other lines as they are unless they `must`."""
    found = [_NUMBERED.fullmatch(line) for line in lines]
    numbers = [int(match[1]) for match in found if match]
    start = min(numbers, default=0)
    in_turn = sorted(numbers) == list(range(start, start + len(lines))) and start < 2
    if not in_turn or not lines:
        if must:
            raise DataError(f"{file} must have lines VALUE,NAME with the values 0, 1, 2, ... without a gap")
        return lines
    names = [match[2].strip() for match in sorted(filter(None, found), key=lambda match: int(match[1]))]
    if start == 0 and not (_is_background(names[0]) or re.fullmatch(r"_+ignore_+", names[0], re.IGNORECASE)):
        raise DataError(f"{file} calls the value 0 {names[0]!r}, but 0 is the background; classes begin with 1")
    return names


def _with_colours(file: Path, lines: list[str]) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Names and RGB of lines `name:R,G,B:parts:actions`."""
    found = [re.fullmatch(r"(.+?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(:.*)?", line) for line in lines]
    if odd := [line for line, match in zip(lines, found, strict=True) if not match]:
        raise DataError(f"{file}: {odd[0]!r} is not of the form name:R,G,B:parts:actions")
    matches = [match for match in found if match]
    return [match[1].strip() for match in matches], [(int(m[2]), int(m[3]), int(m[4])) for m in matches]
