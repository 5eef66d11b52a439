"""Probabilities of classes on the disk, and what is made of them: masks at any threshold, in any format, at full size.

A file holds (C, h, w) uint16: probabilities in 65535ths, rounded up, so that above T stays above T.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.concept.finding import moved
from fewseg.data.images import mask_picture, write_image
from fewseg.files import replacing, write_failures
from fewseg.predictor import label_map, told_of, unless_absent
from fewseg.segment import formats
from fewseg.segment.books import BOOKS
from fewseg.segment.planning import Job, free_name
from fewseg.segment.shards import FAILURES
from fewseg.segment.table import NAME as TABLE
from fewseg.segment.table import table_file
from fewseg.server.visitors import Stored

_ONE = 65535
FORMATS = formats.FORMATS


@dataclass(frozen=True)
class FoundPhoto:
    """What was found in a photo: its maps' file, and what is told of each class."""

    name: str
    size: tuple[int, int]
    """Width and height of the photo."""
    classes: tuple[str, ...]
    presence: tuple[float | None, ...]
    quality: tuple[float | None, ...]
    thresholds: tuple[float, ...]
    """What each concept chose, which lies at 0.5 in the maps."""
    maps: Stored


@dataclass(frozen=True)
class Shown:
    """What of the probabilities counts as found."""

    threshold: float | None = None
    """Of every class's probability, as `fewseg segment --threshold`; None: what its concept chose."""
    presence: float = 0.5
    min_area: int = 0


def write_maps(path: Path, probabilities: Sequence[NDArray[np.float32]]) -> None:
    """Write a photo's maps, one (h, w) a class."""
    maps = np.stack([np.ceil(proba * np.float32(_ONE)).astype(np.uint16) for proba in probabilities])
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, maps, allow_pickle=False)


def read_maps(path: Path, *, side: int | None = None) -> NDArray[np.uint16]:
    """A photo's maps (C, h, w), of at most `side` pixels a side."""
    with path.open("rb") as file:
        maps = np.load(file, allow_pickle=False)
    height, width = maps.shape[1:]
    share = (side or max(height, width)) / max(height, width)
    if share >= 1:
        return maps
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.stack([np.ceil(_resized(one, size)).astype(np.uint16) for one in maps])


def labels_of(found: FoundPhoto, shown: Shown) -> NDArray[np.uint8]:
    """The label map (H, W) of the photo's own size: 0 background, 1.. the classes in their order."""
    return label_map(_probabilities(found, shown), min_area=shown.min_area)


def _probabilities(found: FoundPhoto, shown: Shown) -> list[NDArray[np.float32]]:
    """Of each class (H, W), of the photo's own size, above 0.5 where it counts as found."""
    maps = zip(read_maps(found.maps.path), found.presence, found.thresholds, strict=True)
    return [
        unless_absent(_cut(_resized(one, found.size) / np.float32(_ONE), chosen, shown.threshold), told, shown.presence)
        for one, told, chosen in maps
    ]


def write_mask(path: Path, found: FoundPhoto, shown: Shown) -> None:
    """A PNG: 0 and 255 of one class, a label map of several."""
    with TemporaryDirectory(dir=path.parent) as name:
        mask = Path(name) / "mask.png"
        write_image(mask_picture(labels_of(found, shown), several=formats.is_label_map(found.classes)), mask)
        mask.replace(path)


def write_zip(
    path: Path,
    photos: Sequence[FoundPhoto],
    shown: Shown,
    wanted: Sequence[str],
    *,
    failed: Sequence[tuple[str, str]],
    runtime: str,
) -> None:
    """All photos' masks in the formats that `fewseg segment` writes, in one zip, and what could not be done."""
    classes = photos[0].classes if photos else ()
    several = formats.is_label_map(classes)
    taken: set[str] = {Path(formats.CLASSES).stem}
    with TemporaryDirectory(dir=path.parent) as name, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        work = Path(name)
        with ExitStack() as open_files:
            table = None
            books = [BOOKS[kind] for kind in wanted if kind in BOOKS]
            writers = [open_files.enter_context(write(work / file, classes, runtime)) for file, write in books]
            if "csv" in wanted:
                table = open_files.enter_context(table_file(work / TABLE, classes, several=several))
            for found in photos:
                stem = free_name(Path(found.name).stem, taken)
                taken.add(stem.casefold())
                probabilities = _probabilities(found, shown)
                labels = label_map(probabilities, min_area=shown.min_area)
                files = formats.outputs("mask", work, formats=wanted, overlay=False)
                formats.write(files, Image.new("RGB", (1, 1)), labels, classes, photo=work / found.name)
                for file in files.values():
                    archive.write(file, stem + file.suffix)
                    file.unlink()
                known = enumerate(zip(found.presence, found.quality, probabilities, strict=True), start=1)
                told = [told_of(p, q, mask=labels == label, own=proba > 0.5) for label, (p, q, proba) in known]
                for write in writers:
                    write(Job(Path(found.name), found.name, stem), labels, None, told)
                if table:
                    table(Path(found.name), work / f"{stem}.png" if "png" in wanted else None, labels, told, None)
        if "yolo" in wanted or several:
            formats.write_classes(work / formats.CLASSES, classes)
        write_failures(work / FAILURES, failed)
        for file in sorted(work.iterdir()):
            archive.write(file, file.name)


def _cut(proba: NDArray[np.float32], chosen: float, threshold: float | None) -> NDArray[np.float32]:
    """Probabilities (H, W) that were moved by `chosen`, so that those above `threshold` before are above 0.5."""
    return proba if threshold is None else moved(moved(proba, 1 - chosen), threshold)  # by 1 - t undoes by t


def _resized(values: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map at another size (width, height)."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
