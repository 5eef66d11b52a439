"""What the server does with photos: teaches concepts and finds them, with a model that is read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.concept import Concept, teach
from fewseg.concept.finder import Finder
from fewseg.concept.finding import DETAIL, OVERLAP
from fewseg.concept.taught import reduced
from fewseg.data import images
from fewseg.data.decoding import picture_size
from fewseg.errors import DataError, UsageError, lacks_memory
from fewseg.predictor import Result, read_support
from fewseg.progress import Silent
from fewseg.runtime.engine import Engine
from fewseg.server.folder import writing
from fewseg.server.jobs import Job, UnneededError, failure
from fewseg.server.limits import MB, Limits, or_raise
from fewseg.server.maps import FoundPhoto, write_maps
from fewseg.server.notes import collected
from fewseg.server.refused import Refused
from fewseg.server.uploads import File, Upload
from fewseg.server.visitors import Kept, Visitor, random_name

_LARGE = 4_000_000
"""Pixels of a picture from which on one at a time is read."""
_READY_SUPPORTS = 60
"""Encoded supports that are kept for further photos, 2.2 MB each with the shipped model."""


class Studio:
    """Teaches and finds for all visitors; its methods run in the threads of `Workers`."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.side = round(2 * DETAIL * engine.image_size / (1 + OVERLAP))
        """Longest side at which photos are looked at: tiles, 2 x 2, need no more."""
        self._ready: OrderedDict[tuple[str, ...], tuple[Finder, int]] = OrderedDict()
        self._lock, self._one_large = threading.Lock(), threading.Lock()

    def teach(self, job: Job, visitor: Visitor, upload: Upload, name: str, label: str | None) -> None:
        """Make a concept of photos (`photo`) with their masks (`mask`, whose value `label` is the object), and of
        photos without the object (`absent`).
        """
        photos, masks, absent = (upload.of(field) for field in ("photo", "mask", "absent"))
        try:
            with self._named(upload.files), collected() as notes:
                large = [self.check_size(file.stored.path, file.name) > _LARGE for file in (*photos, *masks, *absent)]
                with self._one_large if any(large) else nullcontext():
                    paths = [[file.stored.path for file in files] for files in (photos, masks, absent)]
                    how = {"absent": paths[2], "label": label, "model": self.engine}
                    concept = teach(*paths[:2], name=name, **how, progress=_Progress(job))
            names = {file.stored.path.name: file.name for file in upload.files}
            notes = [_renamed(note, upload.files) for note in notes]
            self.keep(job, visitor, self._with_names(concept, names), notes)
        finally:
            upload.remove()

    def mark(self, upload: Upload, label: str | None) -> tuple[NDArray[np.uint8], str]:
        """What a photo's (`photo`) mask (`mask`) marks, (H, W) of the upright photo, and how it was understood."""
        (photo,), (mask,) = upload.of("photo"), upload.of("mask")
        with self._named(upload.files), collected() as notes:
            large = [self.check_size(file.stored.path, file.name) > _LARGE for file in upload.files]
            with self._one_large if any(large) else nullcontext():
                _, marking = read_support(photo.stored.path, mask.stored.path, label=label, name=mask.name)
        return marking.mask, "; ".join([marking.meaning, *(_renamed(note, upload.files) for note in notes)])

    def take(self, job: Job, visitor: Visitor, upload: Upload) -> None:
        """Take a concept's file (`concept`)."""
        (file,) = upload.of("concept")
        try:
            with self._named([file]), collected() as notes:
                concept = Concept.load(file.stored.path)
                Finder([concept], self.engine)  # whether this model can take it
            self.keep(job, visitor, concept, notes)
        finally:
            upload.remove()

    def keep(self, job: Job, visitor: Visitor, concept: Concept, notes: Sequence[str]) -> None:
        """A concept among the visitor's, and told in its job."""
        path = visitor.new_path()
        with writing(visitor.folder):
            concept.save(path)
        expected = concept.expected
        key = random_name()
        told = {
            "concept": key,
            "name": concept.title,
            "supports": concept.shots,
            "absent": len(concept.absent),
            "model": concept.model.name,
            "choice": str(concept.choice),
            "expected_iou": {"mean": expected.iou, "low": expected.low, "high": expected.high},
            "meanings": [f"{one.name}: {one.meaning}" for one in concept.supports],
            "notes": list(notes),
        }
        visitor.concepts[key] = Kept(visitor.stored(path), told)
        job.tell("concept", told)

    def find(self, job: Job, visitor: Visitor, concepts: Sequence[str], file: File, number: int) -> None:
        """Look for concepts in a photo; what is wrong with it is told, and the others are done."""
        try:
            finder = self._finder_of(visitor, concepts)
            with self._named([file]), collected() as notes:
                photo, size = self._read(file)
                job.check()
                results = finder.predict_each(photo)
            path = visitor.new_path()
            with writing(visitor.folder):
                write_maps(path, [result.proba for result in results.values()])
            presence = tuple(result.presence for result in results.values())
            quality = tuple(result.quality for result in results.values())
            maps = visitor.stored(path)
            found = FoundPhoto(file.name, size, tuple(results), presence, quality, finder.thresholds, maps)
        except UnneededError:
            raise
        except Exception as error:
            if not job.stopped:  # else its files may be gone
                job.tell("photo", {"number": number, "name": file.name, **failure(error)})
            return
        finally:
            visitor.remove(file.stored)
        if job.stopped or visitor.gone:
            visitor.remove(found.maps)
            return
        job.results[number] = found
        job.tell("photo", {"number": number, **_told(found, results), "notes": notes})

    def _with_names(self, concept: Concept, names: dict[str, str]) -> Concept:
        """A concept that names its photos as they were sent."""
        groups = {
            group: tuple(replace(example, name=names.get(example.name, example.name)) for example in examples)
            for group, examples in (("supports", concept.supports), ("absent", concept.absent))
        }
        return replace(concept, **groups)

    def _read(self, file: File) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """A photo's pixels, reduced to `side`, and its own width and height."""
        with self._one_large if self.check_size(file.stored.path, file.name) > _LARGE else nullcontext():
            image = images.read_image(file.stored.path)
            return reduced(np.asarray(image), self.side), image.size

    def whole(self, path: Path) -> Image.Image:
        """A photo of the operator's, of its own size; DataError where it has too many pixels."""
        with self._one_large if self.check_size(path, path.name) > _LARGE else nullcontext():
            return images.read_image(path)

    def check_size(self, path: Path, name: str) -> int:
        """A picture's number of pixels, which are not decoded; DataError where they are too many."""
        width, height = picture_size(path)
        if width * height > self.limits.megapixels * MB:
            raise DataError(
                f"{name} has {width} x {height} pixels; at most {self.limits.megapixels} megapixels are taken "
                f"here: scale it down, use fewseg segment{or_raise('megapixels')}"
            )
        return width * height

    @contextmanager
    def _named(self, files: Sequence[File]) -> Iterator[None]:
        """Errors and notes name files as they were sent, and not where they lie."""
        try:
            yield
        except (DataError, UsageError) as error:
            raise DataError(_renamed(str(error), files)) from error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise DataError("it takes more memory than there is; scale it down") from error

    def _finder_of(self, visitor: Visitor, keys: Sequence[str]) -> Finder:
        """What looks for a visitor's concepts, kept for the next photo."""
        wanted = tuple(keys)
        with self._lock:
            if wanted in self._ready:
                self._ready.move_to_end(wanted)
                return self._ready[wanted][0]
            kept = [visitor.concepts[key] for key in wanted if key in visitor.concepts]
            if len(kept) < len(wanted):
                raise Refused(404, "a concept was removed meanwhile; teach it again")
            finder = Finder([Concept.load(one.file.path) for one in kept], self.engine)
            self._ready[wanted] = (finder, sum(one.told["supports"] for one in kept))
            while len(self._ready) > 1 and sum(shots for _, shots in self._ready.values()) > _READY_SUPPORTS:
                self._ready.popitem(last=False)
            return finder

    def forget(self, keys: Iterable[str]) -> None:
        """Concepts that are there no more."""
        gone = set(keys)
        with self._lock:
            for wanted in [one for one in self._ready if gone & set(one)]:
                del self._ready[wanted]


class _Progress(Silent):
    """Teaching's steps as events of its job."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, items: Iterable[Any], description: str, total: int, *, done: int = 0) -> Iterator[Any]:
        for number, item in enumerate(items, start=done):
            self._job.check()
            self._job.tell("progress", {"what": description, "done": number, "of": total})
            yield item


def _told(found: FoundPhoto, results: dict[str, Result]) -> dict[str, Any]:
    """What is told of a photo: of each class the probability that it is there, the IoU to expect of its mask, and its
    share of the photo at the threshold that its concept chose.
    """
    classes = [
        {"name": name, "presence": result.presence, "expected_iou": result.quality, "share": float(result.mask.mean())}
        for name, result in results.items()
    ]
    return {"name": found.name, "width": found.size[0], "height": found.size[1], "classes": classes}


def _renamed(text: str, files: Sequence[File]) -> str:
    for file in files:
        text = text.replace(str(file.stored.path), file.name).replace(file.stored.path.name, file.name)
    return text
