"""What is wrong with a data set: files missing, unreadable or wrongly labelled, and classes with too few images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.data.images import read_image
from fewseg.data.index import Indexed, in_parallel
from fewseg.data.same_photos import same_content
from fewseg.data.source import ImageSource
from fewseg.errors import DataError
from fewseg.progress import Silent, counted


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one image."""

    image_id: str
    path: Path
    """The photo's file; a text about the labels names theirs."""
    kind: str
    """`missing`, `left out`, `unreadable`, `size`, `labels`, or of a class's mask `empty` or `full`."""
    text: str


def check_source(source: Indexed, *, but: Collection[Path] = (), progress: Silent | None = None) -> list[Problem]:
    """Everything that is wrong, image by image; reads every file, and needs no index.

    Photos in `but` are passed over. What a source leaves out (`left_out`) is wrong too.
    """
    _ = source.class_names  # a list of classes that does not fit is an error of the whole
    left_out = [Problem(*said) for said in getattr(source, "left_out", ())]
    numbers, show = [i for i in range(len(source.ids)) if source.image_path(i) not in but], progress or Silent()
    found = in_parallel(lambda i: _check(source, i), numbers, show, "checking images")
    return [p for p in left_out if p.path not in but] + [problem for problems in found for problem in problems]


def check_classes(sources: Sequence[Indexed], *, shots: int) -> list[str]:
    """What is to be said of classes with too few images in every one of a data set's subsets to draw episodes from.

    Raises DataError where that is so of all of them.
    """
    least = sources[0].min_pixels
    enough = np.max([(source.index.counts >= least).sum(0) for source in sources], axis=0)
    few = [c for c in range(1, len(enough)) if enough[c] <= shots]
    found = []
    if few:
        named = ", ".join(f"{sources[0].class_names[c - 1]!r} {enough[c]}" for c in few)
        text = (
            f"{shots}-shot episodes need {shots + 1} images with at least {least} pixels of their class; there are "
            f"fewer of: {named}"
        )
        if len(few) == len(enough) - 1:
            raise DataError(text)
        found.append(f"{text}. These classes are left out")
    return found


def check_copies(sources: Sequence[ImageSource], *, progress: Silent | None = None) -> list[str]:
    """What is to be said of photos that several parts of a mix hold, by their bytes; `sources` are its subsets."""
    places: dict[Path, tuple[str, dict[str, str]]] = {}
    for source in sources:
        for key, part in getattr(source, "parts", {}).items():
            for i, image_id in enumerate(part.index.ids if hasattr(part, "image_path") else ()):
                path = part.image_path(i)
                if path.is_file():  # one that is missing is a problem of its own
                    places.setdefault(path, (key, {}))[1][source.subset] = f"{key}/{image_id}"
    paths = list(places)
    if not paths:
        return []
    root: Any = getattr(sources[0], "root", None)
    first = same_content(paths, root=root, key="mix-photos", progress=progress or Silent())
    alike: dict[int, list[Path]] = defaultdict(list)
    for n, path in zip(first, paths, strict=True):
        alike[n].append(path)
    several = [[places[p] for p in group] for group in alike.values() if len({places[p][0] for p in group}) > 1]
    leaks = [group for group in several if _leaks(group)]
    told = (
        (several, "in several sources, where each may lack the other's labels"),
        (leaks, "in training images of one source and test images of another, so a test may show what was trained on"),
    )
    return [f"{counted(len(found), 'photo')} {text}; the first is {_named(found[0])}" for found, text in told if found]


def _leaks(group: Sequence[tuple[str, dict[str, str]]]) -> bool:
    """Whether copies of a photo are training images of one part, and test images of another one alone."""
    return any("train" in one and "test" in other and "train" not in other for _, one in group for _, other in group)


def _named(group: Sequence[tuple[str, dict[str, str]]]) -> str:
    return " = ".join(next(iter(ids.values())) for _, ids in group)


def _check(source: Indexed, i: int) -> list[Problem]:
    name, path = source.ids[i], source.image_path(i)
    problems, size = [], None
    try:
        size = read_image(path).size
    except DataError as error:
        problems.append(Problem(name, path, "unreadable" if path.is_file() else "missing", str(error)))
    try:
        if size is None:
            labels = source.labels(i)
        else:  # an image may be a part of its photo
            image, labels = source.load(i)
            size = image.size
    except DataError as error:
        of_size = size is not None and "image's size" in str(error)
        kind = "missing" if "no such file" in str(error) else "size" if of_size else "labels"
        return [*problems, Problem(name, path, kind, str(error))]
    if size is not None and labels.shape != (size[1], size[0]):
        text = f"{path} is {size[0]} x {size[1]} pixels, its labels are {labels.shape[1]} x {labels.shape[0]}"
        problems.append(Problem(name, path, "size", text))
    void = np.iinfo(labels.dtype).max
    if getattr(source, "one_class_each", False) and labels.size:
        if not (marked := (labels > 0) & (labels < void)).any():
            problems.append(Problem(name, path, "empty", f"the mask of {path} marks nothing"))
        elif marked.all():
            problems.append(Problem(name, path, "full", f"the mask of {path} marks the whole picture; is it inverted?"))
    wrong = sorted(set(np.unique(labels).tolist()) - set(range(1 + len(source.class_names))) - {void})
    if wrong:
        text = f"labels of {name}: values {wrong} are no classes (0 to {len(source.class_names)} and {void} are)"
        problems.append(Problem(name, path, "labels", text))
    return problems
