"""Where LVIS, and what is built on it, lies: its annotations, and the photos of COCO 2017."""

from __future__ import annotations

from pathlib import Path

from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.text import found_in
from fewseg.errors import DataError
from fewseg.labels import WIDE_IGNORE


def lvis_file(root: Path, name: str, *, data: str, part: str, fetched_as: str) -> CocoFile:
    """The annotations `name` of a part of the data set `data`, in `root` or a folder of it.

    DataError where they are not there; `fetched_as` is what `data download` calls them.
    """
    places = [root / name, root / "annotations" / name, root / fetched_as / name]
    if (path := next((path for path in places if path.is_file()), None)) is None:
        raise DataError(
            f"{data} expects {name} in {root}; {found_in(root)}. Fetch it with `fewseg data download "
            f"{fetched_as} --root {root}`, and the photos with `fewseg data download coco2017 --root {root}`"
        )
    return CocoFile(path, root=root, key=f"{data}-{part}", most=WIDE_IGNORE - 1)


def lvis_photo(root: Path, name: str) -> Path:
    """A photo's file, in train2017 or val2017 below `root` or in coco/ there: LVIS divides COCO's photos anew."""
    places = [base / part / name for base in (root, root / "coco") for part in ("train2017", "val2017")]
    return next((path for path in places if path.is_file()), places[0])
