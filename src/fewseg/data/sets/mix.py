"""`mix`: several data sets as one, joined by their classes' names; what a source leaves unlabelled is no background."""

from __future__ import annotations

import copy
import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.class_names import bare, is_numbered, synonym_table
from fewseg.data.division import Folded
from fewseg.data.source import Fold, ImageSource, SourceIndex, class_mask, labelled, map_type, mask_of, of_masks
from fewseg.errors import DataError, UsageError, check_choice, suggest

EVERY = "all"
"""In `absent`: every class that the source has not."""


@dataclass(kw_only=True, eq=False)
class Mix(Folded):
    """Several data sets as one: `sources` gives each by a name of its own, as `{name: folder, root: DIR}`.

    A relative `root` of theirs lies below `root`. Classes of one name are one class, whatever the case, spaces, `_` and
    `-`; so are the names in `SYNONYMS` and in `synonyms` ({NAME: [OTHER]}). `names` ({SOURCE: {OWN: NAME}}) gives a
    source's class another name: one to join it by, or one that keeps it apart.

    In a source's photos its own classes are known, to be there or not; others may be there unlabelled, unless `absent`
    ({SOURCE: [CLASS]}, or `all`) says that they are not. In those of `partial` sources only what is marked is known.
    `weights` ({SOURCE: WEIGHT}; 1 where it says nothing) has a source's classes drawn so many times as often where
    training draws by class; a class of several sources has the largest of theirs.
    Folds: `folds` parts of the classes, shuffled by `fold_seed`; those of the source `fold_of`, with the classes that
    other sources have by the same names; or one with these `novel_classes`. Training and test images are the sources'
    own.
    """

    name = "mix"
    sources: dict[str, ImageSource] | None = None
    names: dict[str, dict[str, str]] | None = None
    synonyms: dict[str, list[str]] | None = None
    absent: dict[str, list[str]] | None = None
    partial: list[str] | None = None
    weights: dict[str, float] | None = None
    fold_of: str | None = None
    min_pixels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        # class ids must not depend on the order in which a file lists the sources
        self.parts = dict(sorted((self.sources or {}).items()))
        self._check_sources()
        for option in ("names", "absent", "partial", "weights"):
            for source in getattr(self, option) or ():
                check_choice(f"data.{option}", source, tuple(self.parts))
        for source, weight in (self.weights or {}).items():
            if not 0 < weight < math.inf:
                raise UsageError(f"data.weights.{source}={weight}: give a number above 0; 1 is as often as others")
        if self.fold_of is not None:
            check_choice("data.fold_of", self.fold_of, tuple(self.parts))
            if self.novel_classes or self.folds is not None:
                raise UsageError("data.fold_of takes a source's folds; leave out data.novel_classes and data.folds")
        if self.root is None:  # where what is found out about the photos is kept
            self.root = next((Path(r) for p in self.parts.values() if (r := getattr(p, "root", None))), Path())

    def _check_sources(self) -> None:
        if not self.parts:
            raise UsageError(
                "mix needs data sets: give data.sources={NAME: {name: folder, root: DIR}, OTHER: {...}}, best in a "
                "YAML file"
            )
        for key, part in self.parts.items():
            if not re.fullmatch(r"\w+", key):
                raise UsageError(f"data.sources: {key!r} is no name for a source; take letters, digits and _")
            if part.subset != self.subset:
                raise UsageError(f"data.sources.{key} is of the subset {part.subset}, the mix {self.subset}")

    # Classes.

    @cached_property
    def _joined(self) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
        """The mix's class names, and per source the class ids here of its classes 1..N."""
        table = synonym_table(self.synonyms or {})
        names: dict[str, str] = {}
        ids: dict[str, tuple[int, ...]] = {}
        for key, part in self.parts.items():
            renamed = self._renamed(key, part)
            given = [renamed.get(own, own) for own in part.class_names]
            found = [(name, table.get(bare(name), name)) for name in given]
            _check_apart(key, part, [name for _, name in found])
            for own, name in found:
                if bare(name) in names and is_numbered(own):
                    raise UsageError(
                        f"data.sources.{key}: its class {own!r} has no name, nor has another source's: they would be "
                        f"joined. Write classes.txt, or data.names.{key}={{{own}: NAME}}"
                    )
                names.setdefault(bare(name), name)
            numbers = {key: c for c, key in enumerate(names, 1)}
            ids[key] = tuple(numbers[bare(name)] for _, name in found)
        self._check_synonyms()
        return tuple(names.values()), ids

    def _renamed(self, key: str, part: ImageSource) -> Mapping[str, str]:
        renamed = (self.names or {}).get(key, {})
        for own in renamed:
            check_choice(f"data.names.{key}: class", own, part.class_names)
        return renamed

    def _check_synonyms(self) -> None:
        """UsageError for a synonym that no source has: a slip there would join nothing, and nobody would see it."""
        given = {key: self._renamed(key, part) for key, part in self.parts.items()}
        known = [given[key].get(own, own) for key, part in self.parts.items() for own in part.class_names]
        there = {bare(name) for name in known}
        for name, others in (self.synonyms or {}).items():
            for other in others:
                if bare(other) not in there:
                    raise UsageError(
                        f"data.synonyms.{name}: no source has a class {other!r}; leave it out.{suggest(other, known)}"
                    )

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of class ids 1..N: those of `names` and the tables, else the first source's."""
        return self._joined[0]

    @property
    def joined(self) -> dict[str, dict[str, str]]:
        """The classes that several sources have, each with its name in every one of them."""
        found: dict[str, dict[str, str]] = {name: {} for name in self.class_names}
        for key, part in self.parts.items():
            for own, c in zip(part.class_names, self._joined[1][key], strict=True):
                found[self.class_names[c - 1]][key] = own
        return {name: own for name, own in found.items() if len(own) > 1}

    @cached_property
    def class_weights(self) -> NDArray[np.float64] | None:
        """(1 + N,) how often each class is drawn beside one of weight 1, by class id; None: all equally often."""
        if not self.weights:
            return None
        found = np.zeros(1 + len(self.class_names))
        for key, ids in self._joined[1].items():
            found[list(ids)] = np.maximum(found[list(ids)], self.weights.get(key, 1.0))
        return found

    def class_id(self, name: str, *, option: str) -> int:
        """The class of that name, or of one that stands for it."""
        ids = {bare(own): c for c, own in enumerate(self.class_names, 1)}
        known = synonym_table(self.synonyms or {}).get(bare(name), name)
        if bare(known) not in ids:
            raise UsageError(
                f"unknown {option} {name!r}: none of {', '.join(self.parts)} has it.{suggest(name, self.class_names)}"
            )
        return ids[bare(known)]

    def fold(self, index: int) -> Fold:
        """One of the source `fold_of`, or of the mix's own."""
        if self.fold_of is None:
            return super().fold(index)
        inner, ids = self.parts[self.fold_of].fold(index), self._joined[1][self.fold_of]
        novel, held_out = ({ids[c - 1] for c in classes} for classes in (inner.novel, inner.held_out))
        base = set(range(1, 1 + len(self.class_names))) - novel - held_out
        return Fold(index, *(tuple(sorted(classes)) for classes in (novel, base, held_out)))

    # Images.

    def _build_index(self) -> SourceIndex:
        _ = self._known  # what is wrong with the options is told before anything is drawn
        counts = np.zeros((self._starts[-1], 1 + len(self.class_names)), np.int64)
        ids: list[str] = []
        for first, (key, part) in zip(self._starts, self.parts.items(), strict=False):
            counts[first : first + len(part.index.ids), [0, *self._joined[1][key]]] = part.index.counts
            ids += (f"{key}/{image_id}" for image_id in part.index.ids)
        return SourceIndex(tuple(ids), counts)

    @cached_property
    def _starts(self) -> list[int]:
        """Index of every source's first image, and the number of all."""
        return list(accumulate((len(part.index.ids) for part in self.parts.values()), initial=0))

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """Image ids: SOURCE/ID."""
        return self.index.ids

    def _at(self, i: int) -> tuple[str, Any, int]:
        """The source of image `i`, its name, and the image's index in it."""
        place = bisect_right(self._starts, i) - 1
        if not 0 <= place < len(self.parts):
            raise IndexError(f"mix has images 0 to {self._starts[-1] - 1}, not {i}")
        key = list(self.parts)[place]
        return key, self.parts[key], i - self._starts[place]

    def image_path(self, i: int) -> Path:
        """The photo's file."""
        _, part, j = self._at(i)
        return part.image_path(j)

    def load(self, i: int) -> tuple[Image.Image, NDArray[Any]]:
        """Image `i` as RGB and its (H, W) label map; uint16, in which 65535 is void, for more than 254 classes."""
        key, part, j = self._at(i)
        image, labels = part.load(j)
        return image, self._mapped(key, labels, self.ids[i])

    def labels(self, i: int) -> NDArray[Any]:
        """The (H, W) label map of image `i` alone."""
        key, part, j = self._at(i)
        return self._mapped(key, part.labels(j), self.ids[i])

    def _mapped(self, key: str, labels: NDArray[Any], image_id: str) -> NDArray[Any]:
        """A source's label map with the mix's class ids."""
        kind, void = map_type(len(self.class_names)), int(np.iinfo(labels.dtype).max)
        table = np.full(1 + void, -1, np.int32)
        table[void] = np.iinfo(kind).max
        table[: 1 + len(self._joined[1][key])] = (0, *self._joined[1][key])
        mapped = table[labels]
        if (mapped < 0).any():
            raise DataError(
                f"{image_id}: label value {labels[mapped < 0].max()} is no class of the source {key}, which has 0 to "
                f"{len(self._joined[1][key])} and {void} (void)"
            )
        return mapped.astype(kind)

    def mask_of(self, i: int, class_id: int, labels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
        """A class's mask (H, W) {0, 1, 255 void} as the source of image `i` gives it; `labels` is what `load` gave."""
        key, part, j = self._at(i)
        ids, labels = self._joined[1][key], self.load(i)[1] if labels is None else labels
        if class_id not in ids:
            return class_mask(labels, class_id)
        kind, own = map_type(len(self.class_names)), map_type(len(ids))
        table = np.zeros(1 + np.iinfo(kind).max, own)
        table[list(ids)] = np.arange(1, 1 + len(ids))
        table[-1] = np.iinfo(own).max
        return mask_of(part, j, ids.index(class_id) + 1, table[labels])

    def labelled(self, i: int) -> NDArray[np.bool_]:
        """(1 + N,) which classes' pixels would be marked in image `i`, by class id."""
        key, part, j = self._at(i)
        known = self._known[key].copy()
        own = labelled(part, j)
        if key in (self.partial or ()):
            own = part.index.counts[j] > 0
        if own is not None:
            known[list(self._joined[1][key])] = own[1:]
        return known

    @cached_property
    def _known(self) -> dict[str, NDArray[np.bool_]]:
        """Per source (1 + N,) the classes that it has or that are absent from it, by class id."""
        found = {}
        for key, ids in self._joined[1].items():
            absent = (self.absent or {}).get(key, [])
            known = np.full(1 + len(self.class_names), absent == [EVERY])
            named = [] if absent == [EVERY] else [self.class_id(n, option=f"data.absent.{key}") for n in absent]
            if both := set(named) & set(ids):
                name = self.class_names[min(both) - 1]
                raise UsageError(f"data.absent.{key}: the source has the class {name!r} itself; leave it out")
            known[[0, *ids, *named]] = True
            found[key] = known
        return found

    def of_masks(self) -> Self:
        """The same images, with classes counted by their masks in the sources that have both."""
        source = copy.copy(self)
        source.__dict__.pop("index", None)
        source.parts = {key: of_masks(part) for key, part in self.parts.items()}
        return source

    def describe(self) -> dict[str, Any]:
        """What was found of every source, and which classes were joined."""
        found = {
            key: getattr(part, "describe", dict)() | {"images": len(part.index.ids), "classes": len(part.class_names)}
            for key, part in self.parts.items()
        }
        return super().describe() | {"classes": list(self.class_names), "sources": found, "joined": self.joined}


def _check_apart(key: str, part: ImageSource, names: list[str]) -> None:
    """UsageError where two classes of a source have one name."""
    first: dict[str, str] = {}
    for own, name in zip(part.class_names, names, strict=True):
        if (other := first.setdefault(bare(name), own)) != own:
            raise UsageError(
                f"data.sources.{key} has the classes {other!r} and {own!r}, which would both be {name!r}; give one "
                f"another name: data.names.{key}={{{own}: NAME}}"
            )
