"""What the values in a folder's label maps mean: which classes they are, and what these are called."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.class_list import ClassList
from fewseg.data.images import read_labels
from fewseg.data.index import cached_arrays, fingerprint, in_parallel
from fewseg.errors import DataError, DataWarning, UsageError, shortened
from fewseg.labels import IGNORE
from fewseg.progress import Silent, counted

_SHOWN, _MUCH_VOID = 4, 0.25


@dataclass(frozen=True)
class LabelMaps:
    """Files of label maps, and the list of classes beside them, if there is one.

    Their values are counted once, and cached below `root`. DataWarnings tell what was guessed.
    """

    root: Path
    files: Sequence[Path]
    listed: ClassList | None
    class_name: str | None
    """The user's name of a single class."""
    progress: Silent

    def read(self, file: Path) -> NDArray[np.uint8]:
        """A label map (H, W): 0 background, 1..N classes, 255 void."""
        labels = self._read(file)
        return np.where(labels == IGNORE, np.uint8(1), labels) if self.of_one_class else labels

    @property
    def counts(self) -> NDArray[np.int64]:
        """(files, 1 + N) pixels of background and every class; DataError names a file that cannot be read."""
        if self.of_one_class:
            return self._values[:, [0, IGNORE]]
        return self._values[:, : 1 + len(self.names)]

    @cached_property
    def of_one_class(self) -> bool:
        """Whether there are only 0 and 255, and no more than one name: 255 is the object then."""
        if self._totals[1:IGNORE].any() or not self._totals[IGNORE]:
            return False
        if self.listed is not None and len(self.listed.names) > 1:
            raise DataError(
                f"{self.root}: the label maps hold only 0 and 255, and 255 is void, but {self.listed.file.name} has "
                f"{len(self.listed.names)} names. Write 1 for {self.listed.names[0]!r}, 2 for {self.listed.names[1]!r} "
                "and so on, or put each class's masks into masks/CLASS and its photos into images/CLASS"
            )
        self._tell(self.root, "255 in its label maps is taken for the object, as there is no other value")
        return True

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the values 1..N; DataError where a list has other names than there are values."""
        if self.of_one_class:
            return (one_name(self.root, self.listed, self.class_name),)
        present = np.flatnonzero(self._totals[1:IGNORE]) + 1
        return self._unnamed(present) if self.listed is None else self._listed(self.listed, int(present.max(initial=0)))

    def _listed(self, listed: ClassList, most: int) -> tuple[str, ...]:
        if without := self._without_background():
            self._tell(self.root, without)
        if most > len(listed.names):
            listed.refuse(most, next(file for file in self.files if self._histogram(file)[most]))
        if listed.background:
            self._tell(
                listed.file, f"the first name, the background's, is that of 0, and {listed.names[0]!r} that of 1"
            )
        elif 0 < most < len(listed.names):
            count, last = len(listed.names), listed.names[-1]
            self._tell(listed.file, f"{count} names, but the label maps hold 1 to {most}: {last!r} is nowhere")
        return listed.names

    def _without_background(self) -> str:
        """Which maps hold no 0, in words, where that is no chance: half of them do not, or 255 is in its place."""
        if not self._totals[0]:
            return "no label map holds 0, the background"
        rows = self._rows
        found = np.flatnonzero((rows[:, 0] == 0) & rows.any(1))
        void = float((rows[found, IGNORE] / rows[found].sum(1)).mean()) if len(found) else 0.0
        if 2 * len(found) < len(rows) and void < _MUCH_VOID:
            return ""
        names = shortened([self.files[i].name for i in found.tolist()], _SHOWN)
        told = f"{len(found)} of {counted(len(rows), 'label map')} hold no 0, the background ({names})"
        if void < _MUCH_VOID:
            return told
        return f"{told}: 255, void, is {100 * void:.0f} % of them, and is not scored; background is written as 0"

    def _unnamed(self, present: NDArray[Any]) -> tuple[str, ...]:
        """class_1 to class_N, or the user's name for 1 where it is the only value."""
        held = ", ".join(map(str, present[:10].tolist())) + ", ..." * (len(present) > 10)
        if not held:
            raise DataError(f"{self.root}: the label maps hold nothing but 0, the background")
        most = int(present[-1])
        if not self._totals[0] or most > 200 or (most > 100 and len(present) < 4):
            why = " and no 0, the background" if not self._totals[0] else ", levels rather than classes"
            raise DataError(
                f"{self.root}: the label maps hold {held}{why}. If they are masks of one class, say which value is "
                "the object with data.label=VALUE (or '>=128', or any); if they are classes, name them in classes.txt"
            )
        if self.class_name is not None and most > 1:
            raise UsageError(
                f"data.class_name={self.class_name} is the name of one class, 1, but the label maps hold {held}; name "
                "them in classes.txt, one a line"
            )
        names = tuple(f"class_{c}" for c in range(1, 1 + most)) if self.class_name is None else (self.class_name,)
        if len(present) < most:
            self._tell(
                self.root, f"the label maps hold {held}: these are {names[0]} to {names[-1]}, or say in classes.txt"
            )
        return names

    @cached_property
    def _values(self) -> NDArray[np.int64]:
        """(files, 256) pixels of every value."""

        def build() -> dict[str, NDArray[Any]]:
            rows = in_parallel(lambda file: np.bincount(self._read(file).ravel(), minlength=256), *self._of_all)
            return {"values": np.array(list(rows), np.int32)}

        mark = fingerprint(self.files, self.listed and self.listed.colours, root=self.root)
        return cached_arrays(build, root=self.root, key="folder-labels", mark=mark)["values"].astype(np.int64)

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """(files, 256) pixels of every value, zeros of files that cannot be read: names do not depend on a damaged
        one.
        """
        try:
            return self._values
        except DataError:
            return np.stack(list(in_parallel(self._histogram, *self._of_all)))

    @cached_property
    def _totals(self) -> NDArray[np.int64]:
        """(256,) pixels of every value in all files."""
        return self._rows.sum(0)

    @property
    def _of_all(self) -> tuple[Sequence[Path], Silent, str]:
        return self.files, self.progress, "reading annotations"

    def _histogram(self, file: Path) -> NDArray[np.int64]:
        """(256,) pixels of every value in a file, zeros where it cannot be read."""
        try:
            return np.bincount(self._read(file).ravel(), minlength=256)
        except DataError:
            return np.zeros(256, np.int64)

    def _read(self, file: Path) -> NDArray[np.uint8]:
        return read_labels(file) if self.listed is None else self.listed.read_labels(file)

    def _tell(self, where: Path, text: str) -> None:
        warnings.warn(DataWarning(f"{where}: {text}"), stacklevel=1)


def one_name(root: Path, listed: ClassList | None, given: str | None) -> str:
    """What the only class is called: the user's name, the list's, or that of the root's folder, which is told."""
    name = given or (listed.names[0] if listed is not None else None)
    if name is None:
        name = root.resolve().name
        told = f"{root}: its one class is called {name!r} (data.class_name=NAME to change it)"
        warnings.warn(DataWarning(told), stacklevel=1)
    return name
