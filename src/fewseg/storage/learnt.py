"""Learnt: the classes that a model was trained on, by their names, as its record tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fewseg import registry
from fewseg.data.class_names import matched_names
from fewseg.data.episodes.sampling import training_images
from fewseg.data.source import Fold, ImageSource, classes_hash
from fewseg.errors import DataError


@dataclass(frozen=True)
class Learnt:
    """What a model was trained on."""

    data: str
    """The data set's name."""
    fold: int | None
    """Which fold's base classes; None where it was trained on every class."""
    base: tuple[str, ...] | None
    """Names of its base classes in their order; None where that is not known."""
    before: tuple[str, ...] | None = ()
    """Names of the classes that the model it started from was trained on; None where that is not known."""
    without_images: tuple[str, ...] = ()
    """Names of its base classes of which no image was there to train on."""
    image_size: int | None = None
    """Side of the images that it was trained on; None where that is not known."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of all classes that it was trained on; None where some are not known."""
        if self.base is None or self.before is None:
            return None
        return tuple(dict.fromkeys((*(name for name in self.base if name not in self.without_images), *self.before)))

    def seen(self, names: Sequence[str]) -> list[str] | None:
        """Those of the names of test classes that it was trained on; None where that is not known."""
        return None if self.classes is None else list(matched_names(names, self.classes))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        told = {"data": self.data, "fold": self.fold, "classes": self.classes and list(self.classes)}
        return told if self.image_size is None else told | {"image_size": self.image_size}


def record_of(source: ImageSource, fold: Fold, start: Learnt | None, *, novel: str = "drop") -> dict[str, Any]:
    """What a model's record says of the names of its classes; `start` is what it started from had learnt, `novel` the
    rule of `training_images`.
    """
    told: dict[str, Any] = {"base_names": [source.class_names[c - 1] for c in fold.base]}
    counts = source.index.counts[training_images(source, fold, novel=novel)]
    if empty := [c for c in fold.base if not counts[:, c].any()]:
        told["without_images"] = [source.class_names[c - 1] for c in empty]
    if start is not None:
        told["names_before"] = start.classes and list(start.classes)
    return told


def learnt_of(info: dict[str, Any]) -> Learnt | None:
    """What a model's record tells that it was trained on; None where it tells of no data set and fold.

    Older records hold no names: then they are the data set's where its class has a fixed list.
    """
    try:
        data, fold = info.get("data", {}).get("name"), info.get("fold")
        if data is None or not fold:
            return None
        names = _fixed_names(data, info.get("classes"))
        base = info.get("base_names", names and [names[int(c) - 1] for c in fold["base"]])
        before = info.get("names_before", ())
        if "seen_before" in info and "names_before" not in info:  # its ids are of this data set; of another's none is
            before = [names[int(c) - 1] for c in info["seen_before"]] if names and info["seen_before"] else None
        index = int(fold["index"]) if fold["novel"] or fold["held_out"] else None
        names_of = (None if part is None else tuple(map(str, part)) for part in (base, before))
        empty, size = tuple(map(str, info.get("without_images", ()))), info.get("image_size")
        return Learnt(data, index, *names_of, without_images=empty, image_size=size and int(size))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"fewseg.json is damaged: it tells no classes ({error}); save the model again") from error


def _fixed_names(data: str, given: str | None) -> Sequence[str] | None:
    """The class names of a data set that has the same wherever it lies; None for others, and for other names than it
    was trained with (`given`: their hash).
    """
    source = registry.find("source", data) if registry.is_known("source", data) else None
    found = getattr(source, "class_names", None)
    if source is None or not isinstance(found, tuple):
        return None
    return found if given in (None, classes_hash(source)) else None
