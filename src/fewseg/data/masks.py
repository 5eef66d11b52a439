"""What a mask marks: one rule for every reader, which says how it understood a mask and asks where it cannot know.

A mask's values are an index of a colour palette, a grey level, a whole number, or a colour `#rrggbb`. 0 and black are
background. In this order:

1. Alpha that varies: opaque parts (from half of the highest alpha on) are the object, as in a cut-out, unless they are
   black and something else. Alpha that does not vary is no value.
2. A value that was named (`label`) is the object; `any` makes it every value but 0.
3. One value beside 0 is the object, whatever it is.
4. Only 0, a class id up to 100 (or a palette's index) and 255: the id is the object, 255 is ignored, as in VOC's masks.
5. Numbers from black to white with few or narrow steps between (soft edges, a JPEG's ringing): the upper half is the
   object. Numbers between 0 and 1: from 0.5 on.
6. Whole numbers of 16 or 32 bit, or more than 20 of 8 bit, that are regions on 0: ids of instances, all the object.
   Few of which the highest is white (255, 65535) are rather the levels of a trimap.
7. Anything else has several readings: UsageError with the values and the option to say which is meant.

So have the masks of one class where each file holds another class id (`check_one_value`).

What a GeoTIFF marks as without a value (GDAL's NODATA) is background if that value is 0, else ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.decoding import DEEP, LOSSY, File, decode, name_of
from fewseg.data.regions import border_share, grown, shrunk
from fewseg.errors import UsageError
from fewseg.labels import IGNORE

Label: TypeAlias = int | str
"""Which value of a mask is the object: a number, `>=128` (from a number on), `any` (all but 0), a colour `#rrggbb`."""

_ELSEWHERE = "label= in Python, the field label of the API, data.label= for a data set"
_HIGHEST_ID = 100
"""Beside 255: a class id up to here; above it a grey level is as likely (the 127 or 128 of a trimap)."""
_FEW = 20
"""So many values of 8 bit may be classes; more are instances, if they are flat."""
SWAPPED = "if that is background, invert the mask"
"""What a marking's meaning says where it may mark what is around the object."""
MUCH = 0.5, 0.75
"""Of a photo, and of its border: where more is marked, a mask may be swapped."""


@dataclass(frozen=True)
class Marking:
    """A mask as it was understood."""

    mask: NDArray[np.uint8]
    """(H, W): 1 the object, 255 ignored, 0 all else."""
    meaning: str
    """In words: the values found, and which of them is the object."""
    value: int | None = None
    """The value of the object, where it is one that nobody named."""
    upright: bool = False
    """Whether it is known to be of the photo as it is shown, whatever its file's orientation."""
    soft: bool = False
    """Whether the object is the upper half of levels from black to white."""

    @property
    def share(self) -> float:
        """The object's share of the picture."""
        return float((self.mask == 1).mean())

    def __str__(self) -> str:
        return f"{self.meaning}; {100 * self.share:.3g} % marked"


def read_mask(file: File, label: Label | None = None) -> NDArray[np.uint8]:
    """A mask file of one class as (H, W) uint8 {0, 1, 255 ignore}; see `read_marking`."""
    return read_marking(file, label).mask


def read_marking(file: File, label: Label | None = None) -> Marking:
    """A mask file as the rule of this module understands it; `label`, which of its values is the object.

    The EXIF orientation of the mask itself is not read: annotation tools save masks as they were shown (`align_mask`).
    DataError where the file cannot be read, or says that it is turned and its size cannot tell (`Raster.check_mask`),
    UsageError where it may mean several things.
    """
    raster = decode(file)
    raster.check_mask(file)
    marking = marking_of(raster.filled(0), label, name=name_of(file))
    if label is None and MUCH[0] < marking.share < 1:
        at_border = border_share(marking.mask == 1)
        told = f", with {100 * at_border:.0f} % of the border ({SWAPPED})" if at_border > MUCH[1] else ""
        marking = replace(marking, meaning=marking.meaning + told)
    if not raster.missing or not (unknown := raster.unknown).any():
        return marking
    meaning = f"{marking.meaning}; {raster.missing:g}, which the file calls no value, is ignored"
    return replace(marking, mask=np.where(unknown, np.uint8(IGNORE), marking.mask), meaning=meaning)


def marking_of(picture: Image.Image | NDArray[Any], label: Label | None = None, *, name: str = "the mask") -> Marking:
    """A mask, a Pillow image or an array (H, W), (1, H, W) or (H, W, 1, 3 or 4), by the rule of this module.

    `name` is for errors. UsageError where it may mean several things, or `label` is none of its values' kind.
    """
    if isinstance(picture, Image.Image):
        return _of_image(picture, label, name)
    values = np.asarray(picture)
    if values.ndim == 3 and values.shape[2] == 4 and values.dtype == np.uint8:
        return _of_image(Image.fromarray(values), label, name)
    if values.ndim == 3 and values.shape[0] == 1 and values.shape[2] not in (1, 3):  # a tensor (1, H, W)
        values = values[0]
    return _of_array(values, label, name, lossy=False)


def color_codes(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """RGB (..., 3) of 8 bit as numbers (...): 0xRRGGBB."""
    return pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def different(values: Iterable[tuple[int, Any]]) -> str:
    """Of values and the files that hold them: "12 in a.png and 19 in b.png", three at most; empty where all are one."""
    first: dict[int, Any] = {}
    for value, file in values:
        first.setdefault(value, file)
    return " and ".join(f"{value} in {file}" for value, file in sorted(first.items())[:3]) if len(first) > 1 else ""


def check_one_value(masks: Iterable[Any], values: Iterable[int | None]) -> None:
    """UsageError where mask files of one class hold another class id each, as label maps of different classes do.

    `values` are the markings'. 255 and grey levels, which are painted, go with any id; arrays are no files.
    """
    pairs = zip(masks, values, strict=True)
    held = different(
        (v, mask) for mask, v in pairs if v is not None and v <= _HIGHEST_ID and isinstance(mask, str | os.PathLike)
    )
    if held:
        raise UsageError(
            f"the masks of one class hold different values: {held}. If these are different classes, give the photos "
            f"of one; if all mark the class, say --label any ({_ELSEWHERE})"
        )


def _of_image(image: Image.Image, label: Label | None, name: str) -> Marking:
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        alpha = np.asarray(image)[..., -1]
        if alpha.min() < alpha.max():
            if label is not None:
                raise UsageError(f"{name} is a cut-out, whose opaque part is the object; it has no value {label!r}")
            opaque = alpha >= (int(alpha.max()) + 1) // 2
            shown = np.unique(np.asarray(image.convert("RGB"))[opaque], axis=0)
            if len(shown) == 2 and not shown[0].any():
                raise UsageError(
                    f"{name} is partly see-through, and what is not is black and of one colour: which part is the "
                    "object? Save the mask without transparency"
                )
            return Marking(opaque.astype(np.uint8), "a cut-out: its opaque part is the object")
    if image.mode in ("P", "PA") and not _grey_palette(image) and not str(label).startswith("#"):
        clear = image.info.get("transparency")
        black = not _palette(image)[0].any() or clear == 0 or (isinstance(clear, bytes) and clear[:1] == b"\0")
        return _indices(np.atleast_3d(np.asarray(image))[..., 0], label, name, background=black)
    return _of_array(_channels(image), label, name, lossy=image.format in LOSSY)


def _of_array(values: NDArray[Any], label: Label | None, name: str, *, lossy: bool) -> Marking:
    if values.ndim == 3 and values.shape[2] in (1, 3):
        if (values != values[..., :1]).any():
            return _coloured(values, label, name, lossy=lossy)
        values = values[..., 0]
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "buif":
        raise UsageError(f"{name} holds {_form(values)}; a mask is (H, W) or (H, W, 3), of whole numbers")
    if values.dtype == bool and label is None:
        return Marking(values.astype(np.uint8), "true is the object")
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.dtype.kind == "f":
        values = _whole(values, name)
    if values.min() < 0:
        raise UsageError(f"{name} holds values from {values.min():g} to {values.max():g}; a mask has none below 0")
    if values.dtype.kind == "f":
        return _fractions(values, label, name)
    return _grey(values, name, lossy=lossy) if label is None else _chosen(values, label, name)


def _grey(values: NDArray[Any], name: str, *, lossy: bool) -> Marking:
    """Rules 3 to 7 for whole numbers (H, W)."""
    found, counts = np.unique(values, return_counts=True)
    marks, often = found[found > 0], counts[found > 0]
    top = 255 if found[-1] <= 255 else 65535
    if len(marks) <= 1:
        return _one_value(values, found)
    if (
        len(marks) == 2
        and found[0] == 0
        and marks[1] == top
        and marks[0] <= _HIGHEST_ID
        and often[1] < 8 * often[0]
        and not lossy
    ):
        return _with_void(values, int(marks[0]), top)
    if _is_soft(values, top, lossy=lossy):
        kind = "of a lossy format" if lossy else "with soft edges"
        meaning = f"0 to {top} {kind}: the upper half is the object"
        return Marking((values >= (top + 1) // 2).astype(np.uint8), meaning, soft=True)
    deep = values.dtype.itemsize in (2, 4) or top > 255
    many = len(marks) > _FEW or (deep and marks[-1] != top)
    if not lossy and many and _are_regions(values, len(marks)):
        return Marking((values > 0).astype(np.uint8), f"{len(marks)} ids of instances: all are the object")
    raise _asks(name, found)


def _indices(values: NDArray[Any], label: Label | None, name: str, *, background: bool) -> Marking:
    """Indices (H, W) of a colour palette; `background`: its index 0 is black or transparent."""
    if label is not None:
        return _chosen(values, label, name)
    found = np.unique(values)
    marks = found[found > 0]
    if found[0] == 0 and not background and len(marks):
        raise _asks(name, found, "it is a palette whose index 0 is no black, so index 0 may be the object.")
    if len(marks) <= 1:
        return _one_value(values, found)
    if len(marks) == 2 and found[0] == 0 and marks[1] == IGNORE:
        return _with_void(values, int(marks[0]), IGNORE)
    raise _asks(name, found)


def _coloured(values: NDArray[Any], label: Label | None, name: str, *, lossy: bool) -> Marking:
    """(H, W, 3): one colour on black, with soft edges or without, or the colour that was named."""
    if str(label).startswith(">="):
        return _chosen(values.max(2), str(label), name)
    codes = color_codes(values)
    found, often = np.unique(codes, return_counts=True)
    if label is not None and label != "any":
        if not (isinstance(label, str) and label.startswith("#")):
            raise UsageError(f"{name} is coloured: name its object's colour, as #ff0000, not {label!r}")
        return Marking(
            (codes == _code(label, name)).astype(np.uint8), f"{_colours(found, often)}: {label} is the object"
        )
    if found[0] == 0 and ((label == "any" and not lossy) or len(found) == 2):
        return Marking((codes > 0).astype(np.uint8), f"{_colours(found, often)}: all but black is the object")
    strength = values.max(2)
    strongest = values[np.unravel_index(strength.argmax(), strength.shape)].astype(float)
    fits = np.abs(values - strongest * (strength / strength.max())[..., None]).max(2) <= 32
    full = np.rint(strength * (255.0 / strength.max())).astype(np.uint8)
    if label is None and fits.mean() > 0.95 and _is_soft(full, 255, lossy=lossy):
        meaning = "one colour on black with soft edges: its upper half is the object"
        return Marking((full >= 128).astype(np.uint8), meaning, soft=True)
    if len(found) > 256:
        raise UsageError(
            f"{name} holds {len(found)} colours, as photos do. A mask has one colour for the object, on black; if this "
            f"is one, name the object's colour with --label '#rrggbb' ({_ELSEWHERE})"
        )
    raise UsageError(
        f"{name} holds the colours {_colours(found, often)}: which is the object? Give it as --label '#rrggbb' "
        f"({_ELSEWHERE}), or save a mask of one class, 255 on 0"
    )


def _chosen(values: NDArray[Any], label: Label, name: str) -> Marking:
    """The object is the value that was named; 255 beside it is ignored."""
    found = np.unique(values)
    marks = found[found > 0]
    ids = len(marks) > 2 or (len(marks) == 2 and marks[0] <= _HIGHEST_ID)  # two of which one is grey are levels
    void = int(marks[-1]) if ids and marks[-1] in (IGNORE, 65535) else None
    if label == "any":
        return _marked(values, (values > 0) & (values != void), void, f"{_listed(found)}: all but 0 are the object")
    least = str(label).removeprefix(">=")
    try:
        value = float(least) if "." in least and least != str(label) else int(least)
    except ValueError as error:
        raise UsageError(f"{name} has the values {_listed(found)}, and none named {label!r}; give a value") from error
    if least != str(label):
        return Marking((values >= value).astype(np.uint8), f"{_listed(found)}: from {value:g} on is the object")
    void = None if value == void else void
    return _marked(values, values == value, void, f"{_listed(found)}: {value} is the object")


def _one_value(values: NDArray[Any], found: NDArray[Any]) -> Marking:
    mask = (values > 0).astype(np.uint8)
    if not found[-1]:
        return Marking(mask, "only 0: nothing is the object")
    return Marking(mask, f"{_listed(found)}: {found[-1]:g} is the object", int(found[-1]) or None)


def _with_void(values: NDArray[Any], value: int, void: int) -> Marking:
    marking = _marked(values, values == value, void, f"{_listed(np.unique(values))}: {value} is the object")
    return replace(marking, value=value)


def _marked(values: NDArray[Any], inside: NDArray[np.bool_], void: int | None, meaning: str) -> Marking:
    if void is None:
        return Marking(inside.astype(np.uint8), meaning)
    mask = np.where(values == void, IGNORE, inside).astype(np.uint8)
    return Marking(mask, f"{meaning}, {void} is ignored")


def _whole(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Floats that are whole numbers of an id's or a grey level's range as such; others as they are."""
    if not np.isfinite(values).all():
        raise UsageError(f"{name} holds values that are no numbers (NaN or infinite); a mask has none")
    if values.max() > 1 and (values % 1 == 0).all() and np.abs(values).max() < 2**31:
        return values.astype(np.int32 if values.max() > 255 else np.int64)
    return values


def _fractions(values: NDArray[Any], label: Label | None, name: str) -> Marking:
    """Floats (H, W): two values, or shares from 0 to 1."""
    found = np.unique(values)
    if str(label).startswith(">="):
        return _chosen(values, str(label), name)
    if label is not None and label != "any":
        raise UsageError(
            f"{name} holds fractions from {found[0]:g} to {found[-1]:g}, of which none can be named; give --label "
            f"'>=NUMBER' ({_ELSEWHERE})"
        )
    if found[0] == 0 and (len(found) <= 2 or label == "any"):
        return _one_value(values, found)
    if found[-1] <= 1.001:  # resampling may overshoot
        return Marking((values >= 0.5).astype(np.uint8), "shares from 0 to 1: the object is from 0.5 on")
    raise UsageError(
        f"{name} holds fractions from {found[0]:g} to {found[-1]:g}: where does the object begin? "
        f"Say it with --label '>=NUMBER' ({_ELSEWHERE})"
    )


def _is_soft(values: NDArray[Any], top: int, *, lossy: bool) -> bool:
    """Whether values (H, W) go from black to white at once, with few or steep steps between."""
    step = (top + 1) // 16
    low, high = values < step, values > top - step
    between = ~low & ~high
    count, steps = int(between.sum()), np.unique(values[between])
    lossy = lossy or (len(np.unique(values[low])) > 3 and len(np.unique(values[high])) > 1)  # once, it was
    if not high.any() or (len(steps) < 3 and not lossy and (count or len(np.unique(values[high])) < 2)):
        return False
    if lossy and not _is_near((values > 1) & ~high, high):
        return False
    if not count or (lossy and 20 * count <= high.sum()):
        return True
    if len(steps) < 3:
        return lossy and count < 20
    grey = np.bincount(values[between].astype(np.int64) // step, minlength=16)[4:12]
    one_level = 20 * (grey[1:] + grey[:-1]).max() >= 9 * count  # as a trimap's
    if one_level or 2 * np.count_nonzero(_steps(values, between) <= step // 8) >= count:
        return False
    return bool(high.sum() >= count) or bool(
        2 * low.sum() > low.size and _is_narrow(between) and _is_near(between, high)
    )


def _is_narrow(where: NDArray[np.bool_]) -> bool:
    """Whether hardly any of it is more than 2 pixels from what is not."""
    return bool(20 * np.count_nonzero(shrunk(where, 2)) <= np.count_nonzero(where))


def _is_near(where: NDArray[np.bool_], what: NDArray[np.bool_]) -> bool:
    """Whether nearly all of it is within 16 pixels from something, as far as a JPEG's blocks of colour reach."""
    far = where & ~grown(what, 16)
    return bool(20 * np.count_nonzero(far) <= np.count_nonzero(where))


def _are_regions(values: NDArray[Any], count: int) -> bool:
    """Whether of `count` values (H, W) half are flat regions, and many lie beside 0; of grey levels the lowest do."""
    touching = [b[a == 0] for v in (values, values.T) for a, b in ((v[1:], v[:-1]), (v[:-1], v[1:]))]
    beside = np.unique(np.concatenate(touching))
    ids, often = np.unique(values[values > 0], return_counts=True)
    right = values[:, 1:]
    same, times = np.unique(right[(right > 0) & (right == values[:, :-1])], return_counts=True)
    flat = 5 * times >= 2 * often[np.searchsorted(ids, same)]
    return bool(4 * np.count_nonzero(beside) >= count and 2 * flat.sum() >= count)


def _steps(values: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[np.int64]:
    """By how much neighbours (side by side) that both lie `where` differ."""
    both = where[:, 1:] & where[:, :-1]
    return np.abs(np.diff(values.astype(np.int64), axis=1))[both]


def _asks(name: str, found: NDArray[Any], why: str = "which of them is the object?") -> UsageError:
    ways = [f"Say it with --label VALUE ({_ELSEWHERE})"]
    if found[0] == 0:
        ways.append("--label any for every value but 0")
    if found[-1] >= 128:
        ways.append(f"--label '>={(int(found[-1]) + 1) // 2}' for levels")
    return UsageError(f"{name} holds the values {_listed(found)}: {why} {', or '.join(ways)}")


def _form(values: NDArray[Any]) -> str:
    """What an array is, in words."""
    if values.dtype.kind not in "buif":
        return "no numbers"
    sides = " x ".join(map(str, values.shape[:2]))
    return f"{sides} pixels of {values.shape[2]} bands" if values.ndim == 3 else f"an array of shape {values.shape}"


def _listed(found: NDArray[Any]) -> str:
    """The values in words, all of them where they are few."""
    texts = [f"{value:g}" if found.dtype.kind == "f" else str(value) for value in found.tolist()]
    if len(texts) > 12:
        return f"{texts[0]} to {texts[-1]} ({len(texts)} of them)"
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _colours(found: NDArray[Any], often: NDArray[Any]) -> str:
    most = [f"#{code:06x}" for code in found[np.argsort(-often, kind="stable")][:8].tolist()]
    return ", ".join(most) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _code(label: str, name: str) -> int:
    try:
        if len(label) != 7:
            raise ValueError
        return int(label[1:], 16)
    except ValueError as error:
        raise UsageError(f"{name}: {label!r} is no colour; write it as #ff0000") from error


def _channels(image: Image.Image) -> NDArray[Any]:
    """(H, W) or (H, W, 3) values of a mask picture without its alpha; palettes of greys give greys."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in DEEP or image.mode == "L":
        return np.asarray(image)
    if image.mode in ("LA", "La"):
        return np.asarray(image)[..., 0]
    return np.asarray(image.convert("RGB"))


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.getpalette("RGB") or [0, 0, 0], np.uint8).reshape(-1, 3)


def _grey_palette(image: Image.Image) -> bool:
    colors = _palette(image)
    used = colors[np.unique(np.atleast_3d(np.asarray(image))[..., 0]).clip(max=len(colors) - 1)]
    return bool((used == used[:, :1]).all()) and len(np.unique(used[:, 0])) == len(used)
