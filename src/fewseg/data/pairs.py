"""Which mask belongs to which photo, by their names: one rule for data sets in folders and for folders of supports."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fewseg.data.images import SUFFIXES
from fewseg.data.text import Tally
from fewseg.errors import DataError

RULE = "a mask has its photo's name, as NAME.png, NAME_mask.png or mask_NAME.png, with any picture's ending"
_MARK = re.compile(r"[ _.-](mask|masks|label|labels|seg|segmentation|gt|groundtruth)$", re.IGNORECASE)
"""What a mask's name may have behind its photo's."""
_WORDS = r"images?|imgs?|photos?|training|masks?|labels?|seg|segmentation|gt|groundtruth|manual1|1stHO|L"
_AROUND = re.compile(rf"^({_WORDS})[ _.-]?(?=.*\d)|[ _.-]({_WORDS})$", re.IGNORECASE)
"""What may stand around the name that photo and mask share, where nothing else fits: img_7 and mask_7."""
_LIKE_MASKS = (".png", ".gif", ".bmp", ".tif", ".tiff")
"""Of two files NAME.* in one folder the mask is the one whose ending comes first here."""
_LITTER = {"thumbs.db", "desktop.ini"}


def own_name(path: Path) -> str:
    """A photo's or mask's name without its ending, in small letters, and without what says that it is a mask."""
    return _MARK.sub("", path.stem).casefold()


class Pairs(NamedTuple):
    """Photos with their masks, and what is left over, each in the order of names."""

    found: list[tuple[Path, Path]]
    photos: list[Path]
    """Without a mask."""
    masks: list[Path]
    """Without a photo."""


def pictures(folder: Path, *, tally: Tally | None = None) -> list[Path]:
    """The picture files in a folder and its sub-folders, by name; hidden ones left out, other files told to a tally."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif tally is not None and path.name.lower() not in _LITTER:
            tally.add("files that are no pictures, passed over", path)
    return found


def pair(photos: Iterable[Path], masks: Iterable[Path], *, below: tuple[Path, Path]) -> Pairs:
    """Photos and masks of two folders (`below`), by their places in them and their names.

    A mask is its photo's `NAME.*`, `NAME_mask.*` (or `_label`, `_segmentation`, `_gt`, ...) or `NAME.jpg.*`, in the
    same sub-folder; where that fits nothing, the name alone decides if it is there only once, without words such as
    `img_` and `mask_` around it. DataError where two photos would share a mask or a photo has two.
    """
    by_key: dict[str, Path] = {}
    for path in sorted(photos):
        if (other := by_key.setdefault(_key(path, below[0]), path)) != path:
            raise DataError(f"{other} and {path.name} would share one mask; rename one of them")
    of_photo: dict[str, list[Path]] = defaultdict(list)
    astray = []
    for path in sorted(masks):
        key = _key(path, below[1])
        near = next((k for k in (key, _MARK.sub("", key), key.rpartition(".")[0]) if k in by_key), None)
        (of_photo[near] if near is not None else astray).append(path)
    for key, path in _by_name({k: p for k, p in by_key.items() if k not in of_photo}, astray).items():
        of_photo[key].append(path)
        astray.remove(path)
    for key, several in of_photo.items():
        if len(several) > 1:
            names = " and ".join(str(path) for path in several)
            raise DataError(f"{by_key[key]} has {len(several)} masks: {names}; remove or rename all but one")
    found = [(path, of_photo[key][0]) for key, path in by_key.items() if key in of_photo]
    return Pairs(found, [path for key, path in by_key.items() if key not in of_photo], astray)


def named_as_masks(files: Iterable[Path]) -> list[Path]:
    """Those files that are called like the mask of another one in their folder: `NAME_mask.png` beside `NAME.jpg`."""
    bare = {path: path.with_suffix("") for path in files}
    there = set(bare.values())
    return [
        path
        for path, name in bare.items()
        if (photo := name.with_name(_MARK.sub("", name.name) or name.name)) != name and photo in there
    ]


def beside(files: Iterable[Path]) -> Pairs:
    """Photos and masks that lie in one folder: `NAME.jpg` with `NAME_mask.png`, or with `NAME.png`; see `pair`."""
    files = sorted(files)
    masks = named_as_masks(files)
    rest: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path not in masks:
            rest[path.stem].append(path)
    for same in rest.values():
        likely = [path for ending in _LIKE_MASKS for path in same if path.suffix.lower() == ending]
        masks += likely[: len(same) - 1]
    folder = files[0].parent if files else Path()
    return pair([path for path in files if path not in masks], masks, below=(folder, folder))


def _key(path: Path, folder: Path) -> str:
    """A file's place below a folder, without its ending."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_name(photos: dict[str, Path], masks: list[Path]) -> dict[str, Path]:
    """The masks, by keys of photos, whose bare names are there once on both sides."""
    keys, named = defaultdict(list), defaultdict(list)
    for key, path in photos.items():
        keys[_AROUND.sub("", path.stem)].append(key)
    for path in masks:
        named[_AROUND.sub("", path.stem)].append(path)
    return {keys[name][0]: paths[0] for name, paths in named.items() if len(paths) == len(keys.get(name, ())) == 1}
