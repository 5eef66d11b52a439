"""ISIC 2018's skin lesions (Codella et al. 2019) as cross-domain few-shot segmentation has them (PATNet)."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.targets import Picture, Target
from fewseg.data.text import Tally, found_in, read_text
from fewseg.errors import DataError, DataWarning

_PHOTOS, _MASKS = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
_SQUEEZED = (512, 512)
"""Pixels to which a script that sorts the photos also squeezes them; the masks it leaves as they are."""


class Isic2018(Target):
    """ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth below `root` or `root`/ISIC.

    The classes are the photos' diagnoses: photos lie in the folders 1, 2 and 3, or class_id.csv (ID,Class), which
    PATNet's repository has, lies beside the two folders. Photos squeezed to 512 x 512 have their masks squeezed too.
    """

    name = "isic2018"
    class_names = ("seborrheic keratosis", "nevus", "melanoma")
    holds = f"{_PHOTOS}/ (with folders 1, 2, 3, or class_id.csv beside it) and {_MASKS}/ (here or in ISIC/)"
    fetched = (
        "Fetch both from https://challenge.isic-archive.com/data/#2018 (Task 1, training), and data/isic/class_id.csv "
        "from https://github.com/slei109/PATNet"
    )

    @cached_property
    def pictures(self) -> list[Picture]:
        """All photos whose class is known."""
        base = self._inner("ISIC", needs=f"{_PHOTOS} {_MASKS}")
        sorted_ones = [base / _PHOTOS / str(c) for c in (1, 2, 3)]
        if any(folder.is_dir() for folder in sorted_ones):
            photos = [(c, photo) for c, folder in enumerate(sorted_ones, 1) for photo in folder.glob("*.jpg")]
        else:
            photos = list(self._listed(base))
        found = self._paired(
            Picture(p.stem, p, ((c, base / _MASKS / f"{p.stem}_segmentation.png"),)) for c, p in photos
        )
        self._tell_of_squeezed(found[0])
        return found

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Image `i` as RGB and its (H, W) label map, squeezed as the photo is."""
        image, labels = super().load(i)
        if image.size == _SQUEEZED != labels.shape[::-1]:
            labels = np.asarray(Image.fromarray(labels).resize(_SQUEEZED, Image.Resampling.NEAREST))
        return image, labels

    def _listed(self, base: Path) -> Iterator[tuple[int, Path]]:
        """Class and photo of the rows of class_id.csv whose photo is there."""
        file = next((f for f in (base / "class_id.csv", self.root / "class_id.csv") if f.is_file()), None)
        if file is None:
            raise DataError(f"{self.name} expects class_id.csv in {base}; {found_in(base)}. {self.fetched}")
        photos = {photo.stem: photo for photo in (base / _PHOTOS).glob("*.jpg")}
        numbers = {name.replace(" ", "_"): c for c, name in enumerate(self.class_names, 1)}
        tally = Tally(file)
        for row in csv.DictReader(read_text(file).splitlines()):
            number = numbers.get(row.get("Class") or "")
            if number is None or not row.get("ID"):
                raise DataError(f"{file}: a row {row}; expected the columns ID and Class, of {', '.join(numbers)}")
            if photo := photos.pop(row["ID"], None):
                yield number, photo
            else:
                tally.add("rows without a photo, left out", row["ID"])
        for name in photos:
            tally.add("photos without a row, left out", name)
        tally.warn()

    def _tell_of_squeezed(self, picture: Picture) -> None:
        with Image.open(picture.photo) as photo, Image.open(picture.masks[0][1]) as mask:
            if photo.size == _SQUEEZED != mask.size:
                told = f"{picture.photo.parent}: photos of 512 x 512 pixels are squeezed; their masks are squeezed too"
                warnings.warn(DataWarning(told), stacklevel=1)
