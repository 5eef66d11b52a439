"""CVAT's segmentation mask 1.1: coloured PNGs in `SegmentationClass`, and `labelmap.txt`, which names the colours."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fewseg.data.annotations.shapes import AnnotatedPhoto, Shape
from fewseg.data.images import SUFFIXES, read_image
from fewseg.errors import DataError


def read_cvat_masks(root: Path, folders: Sequence[Path]) -> Iterator[AnnotatedPhoto]:
    """The photos whose mask has any colour that `labelmap.txt` names, but for the background's."""
    names = _colours(root / "labelmap.txt")
    masks = sorted((root / "SegmentationClass").rglob("*.png"))
    if not masks:
        raise DataError(f"{root / 'SegmentationClass'} holds no masks; unpack CVAT's 'Segmentation mask 1.1' export")
    for path in masks:
        pixels = np.asarray(read_image(path)).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        present = set(np.unique(pixels).tolist())
        shapes = [Shape(n, lambda _, p=pixels, c=code: p == c) for code, n in names.items() if code in present]
        if shapes:
            photo = _photo(path.relative_to(root / "SegmentationClass").with_suffix(""), folders, root)
            yield AnnotatedPhoto(photo, (pixels.shape[0], pixels.shape[1]), shapes)


def _colours(file: Path) -> dict[int, str]:
    """Class names by colour code from lines `name:R,G,B:parts:actions`, comments and the background left out."""
    if not file.is_file():
        raise DataError(f"{file} is missing: it says which colour is which class; export with CVAT's own labels")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error}); export it again") from error
    found = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        name, colour, *_ = [*text.split(":"), ""]
        try:
            red, green, blue = (int(part) for part in colour.split(","))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {text!r} is not of the form name:R,G,B:parts:actions") from error
        if name.strip().lower() != "background":
            found[red << 16 | green << 8 | blue] = name.strip()
    return found


def _photo(stem: Path, folders: Sequence[Path], root: Path) -> Path:
    for base in [folder / name for folder in folders for name in dict.fromkeys((stem, Path(stem.name)))]:
        for path in sorted(base.parent.glob(f"{glob.escape(base.name)}.*")):
            if path.suffix.lower() in SUFFIXES:
                return path
    places = ", ".join(str(folder) for folder in folders)
    raise DataError(f"{root}: no photo {stem} was found in {places}; give the folder of photos with --photos")
