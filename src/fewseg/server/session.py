"""One visitor's work: supports, photos and what the network said about them, in a folder of its own.

Probabilities stay on the disk, so that memory does not grow with the photos and a new threshold needs no network.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data import images
from fewseg.data.decoding import picture_size
from fewseg.data.marks import Marks, mask_from_marks, strokes_in
from fewseg.errors import DataError, UsageError
from fewseg.files import replacing
from fewseg.models.base import FewShotSegmenter
from fewseg.predictor import FewShotPredictor, label_map, unless_absent
from fewseg.report.contents import gathered
from fewseg.report.overlays import fit, heat, resize_mask
from fewseg.segment import formats
from fewseg.segment.jobs import free_name

SHOWN = 1024
"""Longer side in pixels of pictures on the page."""


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for."""

    megapixels: int = 25
    photos: int = 50
    supports: int = 40

    def read(self, path: str | Path) -> Image.Image:
        """A photo as upright RGB; DataError, before its pixels are decoded, where it has too many."""
        try:
            width, height = picture_size(path)
        except DataError as error:
            raise DataError(f"{Path(path).name} is not a picture that can be read; use JPEG or PNG") from error
        if width * height > self.megapixels * 10**6:
            raise DataError(
                f"{Path(path).name} has {width} x {height} pixels; at most {self.megapixels} megapixels are taken "
                "here: scale it down, or use fewseg segment"
            )
        return images.read_image(path)


@dataclass
class Support:
    """A marked photo."""

    name: str
    photo: Image.Image
    mask: NDArray[np.uint8]

    def shown(self) -> tuple[Image.Image, str]:
        """A small picture with the mask on it, and its caption."""
        small = shrunk(self.photo)
        return images.overlay(small, resize_mask(self.mask, (small.height, small.width))), self.name


@dataclass
class Answer:
    """A photo and where the classes' probabilities lie."""

    name: str
    photo: Path
    probabilities: list[Path]
    presence: list[float | None]
    """Of each class, as `Result.presence`."""
    correlations: list[tuple[Path, str]]

    def labels(self, *, threshold: float, presence: float, min_area: int, step: int = 1) -> NDArray[np.uint8]:
        """The label map (H, W), or of every `step`-th pixel; classes that are there with less than `presence` are not
        in it.
        """
        maps = (np.load(path, mmap_mode="r")[::step, ::step].astype(np.float32) for path in self.probabilities)
        shown = (unless_absent(proba, told, presence) for proba, told in zip(maps, self.presence, strict=True))
        return label_map(shown, threshold=threshold, min_area=min_area // step**2)


@dataclass
class Session:
    """Supports, answers and their folder; `close` removes it."""

    limits: Limits = field(default_factory=Limits)
    supports: list[Support] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    names: tuple[str, ...] = ()
    """The classes of the answers."""
    root: Path | None = None
    """Where the folder is made; None: the system's place for temporary files."""
    folder: Path | None = None

    def add_support(self, name: str, photo: Image.Image, mask: NDArray[np.uint8]) -> None:
        """A photo and its mask (H, W) {0, 1} for a class; UsageError where something is missing."""
        if not name.strip():
            raise UsageError("Give the object a name first.")
        if len(self.supports) >= self.limits.supports:
            raise UsageError(f"There are {self.limits.supports} marked photos already; that is the limit here.")
        if not mask.any():
            raise UsageError("Nothing is marked yet: paint over the object in red.")
        self.supports.append(Support(name.strip(), photo, mask))

    def answer(self, model: FewShotSegmenter, photos: Sequence[tuple[str, str | Path]]) -> Iterator[tuple[int, str]]:
        """Run the network on photos (name, path); yields how many are done, and what was wrong with the last one."""
        if not self.supports:
            raise UsageError("Mark the object in at least one photo first, and press “Add”.")
        if not 1 <= len(photos) <= self.limits.photos:
            raise UsageError(f"Give 1 to {self.limits.photos} photos at a time, not {len(photos)}.")
        predictor = FewShotPredictor(model)
        by_name = gathered((support.name, support) for support in self.supports)
        named = {name: ([s.photo for s in same], [s.mask for s in same]) for name, same in by_name.items()}
        predictor.set_support(named)
        self.close()
        self.folder = Path(tempfile.mkdtemp(prefix="session-", dir=self.root))
        self.names = tuple(named)
        for number, (name, path) in enumerate(photos, start=1):
            try:
                self.answers.append(self._answer(predictor, name, self.limits.read(path), number))
                yield number, ""
            except DataError as error:
                yield number, str(error)

    def _answer(self, predictor: FewShotPredictor, name: str, photo: Image.Image, number: int) -> Answer:
        folder = self.folder
        if folder is None:
            raise UsageError("The session was closed.")
        results = predictor.predict_each(photo)
        kept = folder / f"{number}.png"
        images.write_image(photo, kept, compress_level=1)
        small = np.asarray(shrunk(photo))
        probabilities, correlations = [], []
        for index, (label, result) in enumerate(results.items()):
            probabilities.append(folder / f"{number}-{index}.npy")
            np.save(probabilities[-1], result.proba.astype(np.float16))
            for stage, correlation in enumerate(result.correlations, start=1):
                path = folder / f"{number}-{index}-{stage}.jpg"
                images.write_image(Image.fromarray(heat(correlation, small.shape[:2], image=small)), path, quality=85)
                correlations.append((path, f"{name}: {label}, map {stage} of {len(result.correlations)}"))
        return Answer(name, kept, probabilities, [result.presence for result in results.values()], correlations)

    def shown(self, *, threshold: float, presence: float, min_area: int) -> Iterator[tuple[Image.Image, str]]:
        """Every photo with its masks drawn on it, small, and what covers how much of it."""
        for answer in self.answers:
            photo = images.read_image(answer.photo)
            step = max(1, -(-max(photo.size) // SHOWN))
            labels = answer.labels(threshold=threshold, presence=presence, min_area=min_area, step=step)
            small = photo.resize((labels.shape[1], labels.shape[0]), Image.Resampling.BILINEAR)
            shares = [(name, 100 * (labels == i).mean()) for i, name in enumerate(self.names, start=1)]
            told = ", ".join(f"{name} {share:.1f} %" for name, share in shares if share) or "nothing found"
            yield formats.overlay(small, labels), f"{answer.name}: {told}"

    def zip_masks(self, *, threshold: float, presence: float, min_area: int) -> Path | None:
        """A zip of masks of full size: 0/255 for one class, else label maps, and `classes.txt`; None without any."""
        if self.folder is None or not self.answers:
            return None
        path = self.folder / "masks.zip"
        taken: set[str] = set()
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for answer in self.answers:
                labels = answer.labels(threshold=threshold, presence=presence, min_area=min_area)
                mask = self.folder / "mask.png"
                names = self.names if len(self.names) > 1 else None
                formats.write({"png": mask}, Image.new("RGB", (1, 1)), labels, names)
                stem = free_name(Path(answer.name).stem, taken)
                taken.add(stem.casefold())
                archive.write(mask, f"{stem}.png")
            archive.writestr("classes.txt", "".join(f"{name}\n" for name in self.names))
        return path

    def close(self) -> None:
        """Forget the answers and remove their files; supports stay."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder, self.answers = None, []


def shrunk(photo: Image.Image) -> Image.Image:
    """A photo at the size of the page, never enlarged."""
    height, width = fit((photo.height, photo.width), SHOWN)
    return photo.resize((width, height), Image.Resampling.BILINEAR) if (width, height) != photo.size else photo


def painted_mask(photo: Image.Image, layer: Image.Image | None, *, strokes: bool) -> NDArray[np.uint8]:
    """What was painted on the shrunken photo as a mask (H, W) {0, 1} of the photo's size.

    `layer` is RGBA. Red is the object; with `strokes` red and blue are scribbles, from which the mask is grown.
    """
    marks = np.zeros((photo.height, photo.width), np.uint8)
    if layer is not None:
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer.convert("RGBA"))
        marks = resize_mask(strokes_in(flat), (photo.height, photo.width))
    if not strokes or not (marks == 1).any():
        return (marks == 1).astype(np.uint8)
    return mask_from_marks(photo, Marks(scribble=marks))
