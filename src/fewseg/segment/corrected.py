"""Masks that `fewseg segment` wrote and people corrected, as supports."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.decoding import decode
from fewseg.data.images import OWN_COLORS, SUFFIXES, label_colors, read_labels
from fewseg.data.masks import Label, Marking, color_codes, read_marking
from fewseg.data.text import Tally
from fewseg.data.video import VIDEO_SUFFIXES, frame_of
from fewseg.errors import DataError, UsageError, shortened
from fewseg.labels import IGNORE
from fewseg.segment.formats import FRAME, INSTANCES, OVERLAY
from fewseg.segment.shards import Shard, parts_of
from fewseg.segment.table import NAME, Row, lines, pixels_hash, read_rows, write_lines

_SHOWN = 8
"""Values or colours of a mask that are named."""


def corrected(
    masks: Sequence[Path], name: str, *, photos: Path | None = None, label: Label | None = None
) -> tuple[tuple[list[Any], list[Any]], int]:
    """Photos and masks of the class `name`, and how many masks of folders are as they were written, and left out.

    `masks` are folders that `fewseg segment` wrote, with their `results.csv`, or masks in them, which are taken as they
    are. Photos are looked for where they were, then in `photos`. `label` is the value of the object in masks of a
    single class. UsageError or DataError where there is no table, no such class, no corrected mask, or no photo.
    """
    found: tuple[list[Any], list[Any]] = ([], [])
    unchanged, passed = 0, Tally("--correct")
    for given in masks:
        folder = _folder(given)
        rows = rows_of(folder)
        own = [row for row in rows if row.name == name and row.mask]
        classes_of: dict[str, list[str]] = {}
        for row in sorted(rows, key=lambda one: one.value):
            classes_of.setdefault(row.mask, []).append(row.name)
        if not own and any(row.name == name for row in rows):
            raise DataError(f"{folder / NAME} names no masks: they were not written; segment with --format png, too")
        if not own:
            classes = ", ".join(dict.fromkeys(row.name for row in rows)) or "none"
            raise DataError(f"{folder / NAME} has no masks of the class {name!r}; its classes are {classes}")
        chosen = own if given.is_dir() else [row for row in own if (folder / row.mask).resolve() == given.resolve()]
        if not chosen:
            what = "the mask, not its overlay" if given.name.endswith(OVERLAY) else "a mask that fewseg segment wrote"
            raise DataError(f"{folder / NAME} does not name {given}; give {what}")
        if given.is_dir():
            for path in _strangers(folder, rows):
                passed.add(
                    "pictures that are called like no mask, passed over (a correction has its mask's very name)", path
                )
        for row in chosen:
            if given.is_dir() and as_written(folder / row.mask, row.written):
                unchanged += 1
                continue
            found[0].append(_photo(row, photos))
            found[1].append(_marking(folder / row.mask, row, classes_of[row.mask], label))
    passed.warn()
    if not found[0]:
        told = ", ".join(map(str, masks))
        raise DataError(
            f"in {told} every mask is as it was written ({unchanged}); correct some (the masks, not their "
            "overlays), or name those to take"
        )
    return found, unchanged


def clear_table(out: Path, shard: Shard | None) -> None:
    """Leave in a folder's table the lines of corrected masks alone, which stay, before the others are written anew: it
    would tell of others. A part does so with its own.
    """
    for table in [shard.named(out / NAME)] if shard else [*parts_of(out / NAME)]:
        if table.is_file():
            found = [*lines(table)]
            written = {line["mask"]: line["written"] for line in found}
            stay = {mask for mask, pixels in written.items() if not as_written(out / mask, pixels)}
            write_lines(table, [line for line in found if line["mask"] in stay])


def _folder(given: Path) -> Path:
    """Where the table of a mask, or of a folder of them, lies."""
    if not given.exists():
        raise UsageError(f"--correct {given}: there is no such file or folder")
    for folder in (given, *given.absolute().parents):
        if any(parts_of(folder / NAME)):
            return folder
    raise DataError(f"{given} has no {NAME}; give a folder that fewseg segment --concept (or --format csv) wrote")


def rows_of(folder: Path) -> list[Row]:
    """The rows of a folder's table, or of those of its parts (`--shard`); of a mask that is in several the latest.
    DataError where they are none.
    """
    rows = [row for table in parts_of(folder / NAME) for row in read_rows(table)]
    return list({(row.photo, row.mask, row.name): row for row in rows}.values())


def _strangers(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Pictures beside the masks that `segment` did not write, such as a correction saved as JPEG."""
    masks = {folder / row.mask for row in rows if row.mask}
    known = masks | {Path(row.photo).resolve() for row in rows}
    made = (OVERLAY, f"{INSTANCES}.png")
    return [
        path
        for place in sorted({mask.parent for mask in masks})
        for path in sorted(place.glob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.endswith(made) and not {path, path.resolve()} & known
    ]


def as_written(mask: Path, written: str) -> bool:
    """Whether a mask is there with the pixels of that hash, or is not there at all."""
    if not mask.is_file():
        return True
    try:
        return pixels_hash(read_labels(mask)) == written
    except DataError:
        return False  # other colours


def saved_again(mask: Path, names: Sequence[str]) -> NDArray[np.uint8]:
    """A label map of `names` that fewseg wrote and somebody saved again, as (H, W) of 0, 1, ... and 255: by the colours
    that it was written in, whatever the order of a palette; by its values where it has none, or altogether others.

    DataError where colours or values are none of the classes'.
    """
    raster = decode(mask)
    raster.check_mask(mask)
    try:
        labels = _by_color(raster.pixels, len(names)) if isinstance(raster.pixels, Image.Image) else None
    except DataError as error:
        raise DataError(f"{mask}: {error}") from error
    if labels is None:
        labels = read_labels(mask)
        if (labels == IGNORE).any() and not ((labels > 0) & (labels < IGNORE)).any():
            raise DataError(
                f"{mask} is black and white, which is none of its classes, {', '.join(names)}: paint in the colours "
                "that fewseg gave them, or teach the one that it marks: fewseg teach --concept FILE --support PHOTO "
                f"--mask {shlex.quote(str(mask))}"
            )
    if strange := sorted({*np.unique(labels).tolist()} - {*range(len(names) + 1), IGNORE}):
        classes = ", ".join(f"{name} {value}" for value, name in enumerate(names, start=1))
        raise DataError(
            f"{mask} holds {shortened([*map(str, strange)], _SHOWN)}, and the classes are {classes}: save it in the "
            "colours that fewseg gave them, or with these values"
        )
    return labels


def _by_color(picture: Image.Image, count: int) -> NDArray[np.uint8] | None:
    """Labels up to `count` of a picture in the colours of `label_colors`, what is see-through being background; None
    where its values say it: of a grey picture, or a palette on black of none of the classes' colours. DataError where
    only some colours are the classes', or what is there is half see-through.
    """
    pixels = np.asarray(picture.convert("RGBA"))
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    if ((alpha > 0) & (alpha < 255)).any():
        raise DataError("it is partly half see-through: save it without transparency")
    clear = alpha == 0
    values = np.asarray(picture) if picture.mode == "P" else None
    grey = not clear.any() and (rgb == rgb[..., :1]).all()
    if grey and picture.mode not in ("RGB", "RGBA") and (values is None or (rgb[..., 0] == values).all()):
        return None
    codes = np.where(clear, 0, color_codes(rgb))
    labels = np.array([*range(count + 1), IGNORE], np.uint8)
    own = color_codes(label_colors()[labels])
    there = np.unique(codes).tolist()
    if strange := [f"#{code:06x}" for code in there if code not in own]:
        if grey and values is None:
            return None
        on_black = values is not None and not clear.any() and not codes[values == 0].any()
        if on_black and not {*there} & {*own[1 : 1 + min(count, OWN_COLORS)].tolist()}:
            return None
        raise DataError(
            f"it has the colours {shortened(strange, _SHOWN)}, which fewseg gave to no class: paint with those of the "
            f"classes ({', '.join(f'#{code:06x}' for code in own[1:-1])}), without soft edges"
        )
    order = np.argsort(own)
    return labels[order[np.searchsorted(own[order], codes)]]


def _marking(mask: Path, row: Row, names: Sequence[str], label: Label | None) -> Marking:
    """What somebody made of a mask of `names` that fewseg wrote, upright."""
    if row.value == IGNORE:  # the only class
        return replace(read_marking(mask, label), upright=True)
    if label is not None:
        raise UsageError(f"--label {label} is of masks of one class, and {mask} is of {', '.join(names)}: leave it out")
    labels = saved_again(mask, names)
    inside = np.where(labels == IGNORE, np.uint8(IGNORE), (labels == row.value).astype(np.uint8))
    return Marking(inside, f"{mask.name}: {row.value} is the object", upright=True)


def _photo(row: Row, photos: Path | None) -> Path:
    """The photo, or the frame of a video, where it was, or by the longest end of its path in another folder."""
    path = _file(row, photos)
    frame = FRAME.fullmatch(Path(row.mask).name)
    return frame_of(path, int(frame[1])) if frame and path.suffix.lower() in VIDEO_SUFFIXES else path


def _file(row: Row, photos: Path | None) -> Path:
    path = Path(row.photo)
    if path.is_file():
        return path
    parts = [part for part in path.parts if part not in ("..", path.anchor)]
    ends = [photos.joinpath(*parts[i:]) for i in range(len(parts))] if photos else []
    if found := next((end for end in ends if end.is_file()), None):
        return found
    where = f"nor below {photos}" if photos else "give the folder that it is in: --photos DIR"
    raise DataError(f"{path}, the photo of {row.mask}, is not there; {where}")
