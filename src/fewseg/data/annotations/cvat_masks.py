"""CVAT's segmentation mask 1.1: coloured PNGs in `SegmentationClass`, and `labelmap.txt`, which names the colours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewseg.data.annotations.photos import Photos
from fewseg.data.annotations.shapes import AnnotatedPhoto, Mask, Shape
from fewseg.data.images import read_image
from fewseg.data.masks import color_codes
from fewseg.data.text import read_lines
from fewseg.errors import DataError


def read_cvat_masks(root: Path, photos: Photos) -> Iterator[AnnotatedPhoto]:
    """The photos, with the colours that `labelmap.txt` names."""
    names, folder = _colours(root / "labelmap.txt"), root / "SegmentationClass"
    masks = sorted(folder.rglob("*.png"))
    if not masks:
        raise DataError(f"{folder} holds no masks; unpack CVAT's 'Segmentation mask 1.1' export")
    for path in masks:
        photo = None
        with photos.passing_over("masks that cannot be read", path):
            codes = color_codes(np.asarray(read_image(path)))
            present = set(np.unique(codes).tolist())
            if unnamed := present - names.keys() - {0}:
                example = f"{path} has {', '.join(f'#{code:06x}' for code in sorted(unnamed)[:3])}"
                photos.tally.add("masks have colours that labelmap.txt does not name", example)
            shapes = [Shape(n, partial(_draw, codes == code)) for code, n in names.items() if code in present]
            found = photos.find(
                path.relative_to(folder).with_suffix("").as_posix(), ending=False, annotated=bool(shapes)
            )
            photo = AnnotatedPhoto(found, (codes.shape[0], codes.shape[1]), shapes)
        if photo:
            yield photo


def _draw(where: NDArray[np.bool_], mask: Mask) -> None:
    mask |= where


def _colours(file: Path) -> dict[int, str]:
    """Class names by colour code from lines `name:R,G,B:parts:actions`."""
    if not file.is_file():
        raise DataError(f"{file} is missing: it says which colour is which class; export with CVAT's own labels")
    found = {}
    for text in read_lines(file):
        if text.startswith("#"):
            continue
        name, colour, *_ = [*text.split(":"), ""]
        try:
            red, green, blue = (int(part) for part in colour.split(","))
        except ValueError as error:
            raise DataError(f"{file}: the line {text!r} is not of the form name:R,G,B:parts:actions") from error
        found[red << 16 | green << 8 | blue] = name.strip()
    return found
