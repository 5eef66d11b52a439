"""Finds the photos that an export names, for every format, and counts what of the export was passed over.

A name is taken as a path first, then as an address (`%20`, Label Studio's `?d=`), then without the eight characters
that Label Studio puts before uploads. It is looked for below the folders by all of its path, then, among all photos
below the export's own folder (of a folder `annotations`, the one above) or the given one, by the longest end of its
path, where capital letters and how accents are written are no matter. Two files that fit equally, or two entries that
would get one file, are a DataError.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from fewseg.data.annotations.coco_catalogue import in_words
from fewseg.data.images import SUFFIXES
from fewseg.data.text import Tally
from fewseg.errors import DataError

_NO_PHOTOS = {"SegmentationClass", "SegmentationObject"}
"""Folders of masks that have the photos' names."""
_BESIDE_PHOTOS = {"annotations", "annotation", "ann", "labels", "json"}
"""Folders of exports whose photos are rather beside them."""
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")


class AmbiguousPhoto(DataError):
    """An entry's photo may be several files, or one file several entries' photo: nothing that may be passed over."""


class OtherPhoto(DataError):
    """A photo is not the one that was annotated: more than a region is wrong."""


class Photos:
    """The photos of one export, in the given folder or beside the export, or in `images` there.

    `tally` counts what of the export is passed over, photos that are not there among it; `option` is what errors say
    to give their folder by.
    """

    def __init__(self, export: Path, given: Path | None = None, *, option: str = "--photos") -> None:
        self.export, self.tally, self.option = export, Tally(export), option
        self.root = given or (export if export.is_dir() else export.parent)
        self.folders = [self.root / name for name in ("", "images", "JPEGImages")]
        self._searched = self.root
        if given is None:
            self._searched = self.root.parent if self.root.name.lower() in _BESIDE_PHOTOS else self.root
            self.folders += [self.root.parent, self.root.parent / "images"]
        self._taken: dict[Path, str] = {}

    def find(self, name: str, *, entry: str = "", ending: bool = True, annotated: bool = True) -> Path | None:
        """The photo of that name; None, and counted, where it is not there.

        `entry`: what tells this entry of the export from others that give the same name. Without `ending` the name
        lacks its file type. A photo that is not `annotated` only keeps others from taking its file.
        """
        forms = _forms(name)[: None if annotated else 1]
        for form in forms:
            for folder in self.folders:
                if found := self._at(folder, form, ending):
                    return self._take(found, entry or (name if form != forms[0] else ""), name)
        if not annotated:
            return None
        for form in forms:
            if found := self._by_tail(name, form, ending):
                return self._take(found, entry or name, name)
        self.tally.add(
            f"photos were not found in {self.places}; give their folder with {self.option}", repr(name[:200])
        )
        return None

    @property
    def places(self) -> str:
        """Where photos are looked for, in words."""
        return ", ".join(dict.fromkeys(map(str, [*self.folders, self._searched])))

    @contextmanager
    def passing_over(self, what: str, example: object) -> Iterator[None]:
        """What cannot be read inside is left out and counted."""
        try:
            yield
        except AmbiguousPhoto:
            raise
        except OtherPhoto as error:
            raise OtherPhoto(f"{example}: {error}") from error
        except Exception as error:  # the decoders of what lies in an export raise anything
            self.tally.add(f"{what}, left out", f"{example}: {in_words(error)}")

    def _take(self, found: Path, entry: str, name: str) -> Path:
        """The found photo; DataError if another entry has it, unless both gave its very path."""
        place = Path(os.path.realpath(found))
        if self._taken.setdefault(place, entry) != entry:
            raise AmbiguousPhoto(
                f"{self.export}: {entry or name!r} and another entry of it would both be {found}; give the folder in "
                f"which their paths begin with {self.option}"
            )
        return found

    def _at(self, folder: Path, form: str, ending: bool) -> Path | None:
        """The photo of that very path below a folder."""
        if ending:
            return photo_at(folder / form) if form else None
        place = folder / form
        try:
            files = [Path(place.parent, name) for name in sorted(os.listdir(place.parent))]
        except (OSError, ValueError):
            return None
        fitting = [path for path in files if path.stem == place.name and path.suffix.lower() in SUFFIXES]
        if len(fitting) > 1:
            raise self._ambiguous(str(place), fitting)
        return fitting[0] if fitting else None

    def _ambiguous(self, what: str, fitting: Sequence[Path]) -> AmbiguousPhoto:
        listed = ", ".join(map(str, fitting[:5]))
        return AmbiguousPhoto(
            f"{what} may be any of {listed}; give the folder of photos with {self.option}, or rename one"
        )

    def _by_tail(self, name: str, form: str, ending: bool) -> Path | None:
        """The photo below the root whose path ends most like the name's."""
        *folders, last = [part for part in form.split("/") if part not in ("", ".", "..")] or [""]
        stem, suffix = (PurePosixPath(last).stem, PurePosixPath(last).suffix.lower()) if ending else (last, "")
        fitting = [path for path in self._below.get(_plain(stem), []) if not ending or path.suffix.lower() == suffix]
        if not fitting:
            return None
        alike = [(_same_end(folders, path.parent.parts), path.name == last) for path in fitting]
        best = [path for path, count in zip(fitting, alike, strict=True) if count == max(alike)]
        if len(best) > 1:
            raise self._ambiguous(f"{self.export}: its photo {name!r}", best)
        if folders and not max(alike)[0] and best[0].parent not in self.folders:
            self.tally.add("photos were told by the last part of their path alone", f"{name!r} is {best[0]}")
        return best[0]

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """All photos below the folder that is searched, by plain name without ending."""
        found: dict[str, list[Path]] = {}
        for folder, inner, files in os.walk(self._searched):
            inner[:] = sorted(name for name in inner if name not in _NO_PHOTOS and not name.startswith("."))
            for path in (Path(folder, name) for name in sorted(files)):
                if path.suffix.lower() in SUFFIXES:
                    found.setdefault(_plain(path.stem), []).append(path)
        return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def photo_at(place: Path) -> Path | None:
    """The path if there is a file that may be a picture: one with another ending is none."""
    # os.path, unlike Path, is False for names that no file can have
    return place if (place.suffix.lower() in SUFFIXES or not place.suffix) and os.path.isfile(place) else None


def _forms(name: str) -> list[str]:
    """The paths that a name may mean, the likeliest first."""
    literal = name.replace("\\", "/").lstrip("/")
    try:
        url = urlsplit(name)
        address = parse_qs(url.query).get("d", [unquote(url.path)])[0].replace("\\", "/").lstrip("/")
    except ValueError:  # it is no address, but may be a name
        address = literal
    places = [form.rpartition("/") for form in (literal, address)]
    return list(dict.fromkeys([literal, address, *(f"{a}{slash}{_UPLOAD.sub('', last)}" for a, slash, last in places)]))


def _same_end(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts at the ends of two paths are the same."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
