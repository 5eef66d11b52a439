"""How photos and masks lie in a folder: the layouts that everybody has, found by the names of folders and files."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fewseg.data.class_list import ClassList, find_class_list
from fewseg.data.images import SUFFIXES
from fewseg.data.pairs import RULE, Pairs, beside, pair, pictures
from fewseg.data.text import Tally, read_lines
from fewseg.errors import DataError, DataWarning

PHOTOS = ("images", "image", "imgs", "img", "photos", "photo", "jpegimages", "original", "originals", "input", "inputs")
MASKS = ("1stmanual", "masks", "mask", "groundtruth", "gt")
LABELS = ("labels", "label", "labelmaps", "annotations", "annotation", "segmentationclass", "segmentationclasspng")
"""Names of folders, in small letters without blanks, - and _: the first that is there, or the only one that ends so."""
TRAIN = ("train", "training")
TEST = ("val", "valid", "validation", "test", "testing")
"""Folders and lists that divide images; they are no classes."""

TREES = """\
  images/CLASS/NAME.jpg   masks/CLASS/NAME.png                a mask per class
  images/NAME.jpg         masks/NAME.png                      one class
  images/NAME.jpg         labels/NAME.png        classes.txt  label maps: 0 background, 1 the first name, 255 void
  JPEGImages/NAME.jpg     SegmentationClass/NAME.png          label maps, as VOC's
  CLASS/NAME.jpg          CLASS/NAME_mask.png                 side by side; without CLASS/ it is one class"""

Kind = Literal["classes", "one class", "label maps"]


class Found(NamedTuple):
    """A photo with its mask."""

    id: str
    """The photo's place below the folder of photos, without its ending."""
    photo: Path
    mask: Path
    class_name: str
    """The folder that it is in; empty where folders are no classes."""


@dataclass
class Layout:
    """What was found in a folder."""

    kind: Kind
    text: str
    """The layout in words."""
    found: list[Found]
    class_names: tuple[str, ...]
    """The folders, where these are the classes."""
    listed: ClassList | None
    left_out: list[tuple[str, Path, str, str]]
    """Photos without a mask, then masks without a photo: id, file, what is wrong."""


def find_layout(root: Path) -> Layout:
    """The layout of a folder of photos and masks.

    Photos without a mask and masks without a photo are left out and told once, with their numbers. DataError where no
    layout is recognised, where nothing is left, and where more masks have no photo than have one.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; give data.root=DIR with photos and masks in it")
    tally = Tally(root)
    layout = _apart(root, tally) or _side_by_side(root) or _side_by_side(root, _folder_of(root, PHOTOS))
    if layout is None:
        raise DataError(f"{root} {_hint(root)}. What is understood:\n{TREES}")
    tally.warn()
    return layout


def subsets(root: Path, ids: Sequence[str]) -> dict[str, set[str]] | None:
    """The ids of the train and the test images, where the data say it: ImageSets/Segmentation/train.txt and val.txt (or
    test.txt), or folders of these names below that of the photos. None where they do not. A DataWarning tells it.
    """
    known, tally = set(ids), Tally(root)
    lists = {path.stem: path for path in [*root.glob("ImageSets/*.txt"), *root.glob("ImageSets/Segmentation/*.txt")]}
    first, second = (next((lists[name] for name in names if name in lists), None) for names in (TRAIN, TEST))
    if first and second:
        found = {subset: _listed(path, known, tally) for subset, path in (("train", first), ("test", second))}
        said = f"{first.relative_to(root)} and {second.name}"
        for name in sorted(known - found["train"] - found["test"]):
            tally.add(f"photos in neither {first.name} nor {second.name}, left out", name)
    else:
        part = {n: next((p for p in n.lower().split("/")[:-1] if p in TRAIN + TEST), "") for n in ids}
        found = {key: {n for n in ids if part[n] in names} for key, names in (("train", TRAIN), ("test", TEST))}
        said = "the folders " + " and ".join(sorted(filter(None, set(part.values()))))
    if not found["train"] or not found["test"]:
        return None
    tally.warn()
    counts = f"{len(found['train'])} to train on, {len(found['test'])} to test on"
    warnings.warn(DataWarning(f"{root}: {said} divide the images: {counts}"), stacklevel=1)
    return found


def _listed(path: Path, known: set[str], tally: Tally) -> set[str]:
    """The ids that a list names, one a line, with or without an ending."""
    found = set()
    for line in read_lines(path):
        name = next((n for n in (line, line.split()[0], re.sub(r"\.\w+$", "", line)) if n in known), None)
        if name is None:
            tally.add(f"names in {path.name} that are no photo with a mask, passed over", line)
        else:
            found.add(name)
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _plain_name(path: Path) -> str:
    return re.sub(r"[ _-]", "", path.name).lower()


def _folder_of(root: Path, names: tuple[str, ...]) -> Path | None:
    """The sub-folder of the first of these names that has a picture somewhere in it."""
    named = {_plain_name(path): path for path in reversed(_folders(root)) if _has_picture(path)}
    ending = [path for name, path in named.items() if name.endswith(names)]
    alone = ending[0] if len(ending) == 1 else None
    return next((named[name] for name in names if name in named), alone)


def _photos_of(root: Path, annotated: Path) -> Path | None:
    """The folder of photos that one of masks is named after: `train` of `train_masks`, `test` of `ground_truth`."""
    names = [re.sub(r"(masks?|labels?|annot)$", "", _plain_name(annotated))]
    names += TEST if _plain_name(annotated) == "groundtruth" else ()
    named = {_plain_name(path): path for path in _folders(root) if path != annotated and _has_picture(path)}
    return next((named[name] for name in names if name in named), None)


def _has_picture(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))


def _is_part(path: Path) -> bool:
    return path.name.lower() in TRAIN + TEST


def _apart(root: Path, tally: Tally) -> Layout | None:
    """Photos in one folder, masks or label maps in another."""
    images, masks, labels = (_folder_of(root, names) for names in (PHOTOS, MASKS, LABELS))
    annotated = masks or labels
    if annotated is None or (images := images or _photos_of(root, annotated)) is None:
        return None
    if masks and labels:
        tally.add("folders of label maps, passed over beside a folder of masks", labels.name)
    text = f"{images.name} + {annotated.name}"
    photos, files = pictures(images, tally=tally), pictures(annotated, tally=tally)
    folders = [] if annotated == labels or all(map(_is_part, _folders(annotated))) else _folders(annotated)
    if not folders:
        _refuse_deeper(annotated, files if annotated == masks else [])
        pairs = pair(photos, files, below=(images, annotated))
        return _without_classes(root, text, pairs, below=images, labels=annotated == labels, tally=tally)
    if flat := [path for path in files if path.parent == annotated]:
        raise DataError(
            f"{annotated} holds pictures ({flat[0].name}) and folders ({folders[0].name}); put every mask into the "
            "folder of its class, or all of them beside each other"
        )
    photos_in, masks_in = _by_folder(photos, images), _by_folder(files, annotated)
    groups = {
        folder.name: pair(photos_in.pop(folder.name, []), masks_in[folder.name], below=(images / folder.name, folder))
        for folder in folders
    }
    groups[""] = Pairs([], [path for stray in photos_in.values() for path in stray], [])
    return _by_class(groups, f"{images.name}/CLASS + {annotated.name}/CLASS", below=images, tally=tally)


def _by_folder(paths: list[Path], below: Path) -> dict[str, list[Path]]:
    """Files by the sub-folder that they are in."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[path.relative_to(below).parts[0]].append(path)
    return found


def _refuse_deeper(masks: Path, files: list[Path]) -> None:
    for path in files:
        for folder in path.relative_to(masks).parents:
            if folder.name and not _is_part(folder):
                raise DataError(
                    f"{masks / folder} is a folder inside {masks.name}/{folder.parts[0]}: if its name is a class, put "
                    f"it directly into {masks.name}, and its photos into a folder of that name"
                )


def _side_by_side(root: Path, base: Path | None = None) -> Layout | None:
    """Photos and masks in the same folder, `base` (by default the root itself) or the folders in it."""
    base, tally = base or root, Tally(root)
    direct = {
        folder: [path for path in pictures(folder) if path.parent == folder] for folder in (base, *_folders(base))
    }
    text = "" if base == root else f"{base.name}/"
    pairs = beside(direct.pop(base))
    if pairs.found:
        layout = _without_classes(root, f"{text}NAME + {text}NAME_mask", pairs, below=base, labels=False, tally=tally)
    else:
        groups = {folder.name: beside(paths) for folder, paths in direct.items() if not _is_part(folder)}
        if not any(group.found for group in groups.values()):
            return None
        layout = _by_class(groups, f"{text}CLASS/NAME + {text}CLASS/NAME_mask", below=base, tally=tally)
    tally.warn()
    return layout


def _by_class(groups: dict[str, Pairs], text: str, *, below: Path, tally: Tally) -> Layout:
    found, left_out = _checked(groups, below=below, tally=tally)
    return Layout(
        "classes", text, found, tuple(name for name, pairs in groups.items() if name and pairs.found), None, left_out
    )


def _without_classes(root: Path, text: str, pairs: Pairs, *, below: Path, labels: bool, tally: Tally) -> Layout:
    """Label maps, which folders of that name and a list of several classes mean, or the masks of one class."""
    found, left_out = _checked({"": pairs}, below=below, tally=tally)
    listed = find_class_list(root)
    several = labels or (listed is not None and len(listed.names) > 1)
    return Layout("label maps" if several else "one class", text, found, (), listed, left_out)


def _checked(
    groups: dict[str, Pairs], *, below: Path, tally: Tally
) -> tuple[list[Found], list[tuple[str, Path, str, str]]]:
    """What is there and what is left out of all groups; DataError where too little is there."""

    def id_of(path: Path) -> str:
        return path.relative_to(below).with_suffix("").as_posix()

    found = [Found(id_of(photo), photo, mask, name) for name, group in groups.items() for photo, mask in group.found]
    photos = [path for group in groups.values() for path in group.photos]
    masks = [path for group in groups.values() for path in group.masks]
    if len(masks) > len(found) or not found:
        examples = ", ".join(
            f"{what} such as {paths[0]}" for what, paths in (("photos", photos), ("masks", masks)) if paths
        )
        raise DataError(
            f"{len(photos)} photos have no mask and {len(masks)} masks have no photo, {len(found)} have each other "
            f"({examples}): {RULE}, in the same sub-folder"
        )
    for path in photos:
        tally.add("photos without a mask, left out", path)
    for path in masks:
        tally.add("masks without a photo, left out", path)
    left_out = [(id_of(path), path, "missing", f"{path} has no mask: {RULE}") for path in photos]
    return found, left_out + [(path.stem, path, "missing", f"{path} has no photo of its name") for path in masks]


def _hint(root: Path) -> str:
    """What is wrong with a folder whose layout is not understood."""
    if any(root.glob("*.json")) or any(root.rglob("labels/*.txt")) or any(root.rglob("labels/*/*.txt")):
        return "holds an annotation tool's export rather than masks: export it in COCO's format, and take coco_json"
    deeper = [path for path in _folders(root) if _folder_of(path, PHOTOS) and _folder_of(path, MASKS + LABELS)]
    if len(deeper) == 1 and not _is_part(deeper[0]):
        return f"has its photos and masks one folder down: give data.root={deeper[0]}"
    if parts := [path for path in _folders(root) if _is_part(path) and _has_picture(path)]:
        names = " and ".join(path.name for path in parts)
        first = next((path for path in parts if path.name.lower() in TRAIN), parts[0])
        if any(_folder_of(path, PHOTOS) or beside(pictures(path)).found for path in parts):
            return f"is divided into {names}: give one of them, data.root={first}, and the others to evaluate on"
        where = f"photos into images/{first.name}, masks into masks/{first.name}"
        return f"is divided into {names} without masks in them: put {where} and so on"
    return _what_is_missing(root)


def _what_is_missing(root: Path) -> str:
    images, masks = _folder_of(root, PHOTOS), _folder_of(root, MASKS + LABELS)
    if images and not masks:
        return f"has photos in {images.name}/, but no folder of masks or labels with pictures in it"
    if masks:
        return f"has masks in {masks.name}/, but no folder of photos, such as images/, with pictures in it"
    return "is not laid out as photos with masks" if _has_picture(root) else "holds no pictures"
