"""What is wrong with the files of a data set: missing, unreadable, of the wrong size or wrongly labelled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewseg.data.images import read_image
from fewseg.data.index import Indexed, in_parallel
from fewseg.errors import DataError
from fewseg.progress import Silent


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one image."""

    image_id: str
    path: Path
    """The photo's file; a text about the labels names theirs."""
    kind: str
    """`missing`, `unreadable`, `size` or `labels`."""
    text: str


def check_source(source: Indexed, *, progress: Silent | None = None) -> list[Problem]:
    """Everything that is wrong, image by image; reads every file, and needs no index."""
    numbers, show = range(len(source.ids)), progress or Silent()
    found = in_parallel(lambda i: _check(source, i), numbers, show, "checking images")
    return [problem for problems in found for problem in problems]


def _check(source: Indexed, i: int) -> list[Problem]:
    name, path = source.ids[i], source.image_path(i)
    problems, size = [], None
    try:
        size = read_image(path).size
    except DataError as error:
        problems.append(Problem(name, path, "unreadable" if path.is_file() else "missing", str(error)))
    try:
        labels = source.labels(i) if size is None else np.asarray(source.load(i)[1])
    except DataError as error:
        of_size = size is not None and "image's size" in str(error)
        kind = "missing" if "no such file" in str(error) else "size" if of_size else "labels"
        return [*problems, Problem(name, path, kind, str(error))]
    if size is not None and labels.shape != (size[1], size[0]):
        text = f"{path} is {size[0]} x {size[1]} pixels, its labels are {labels.shape[1]} x {labels.shape[0]}"
        problems.append(Problem(name, path, "size", text))
    void = np.iinfo(labels.dtype).max
    wrong = sorted(set(np.unique(labels).tolist()) - set(range(1 + len(source.class_names))) - {void})
    if wrong:
        text = f"labels of {name}: values {wrong} are no classes (0 to {len(source.class_names)} and {void} are)"
        problems.append(Problem(name, path, "labels", text))
    return problems
