"""What a concept holds: the annotated photos, the setting that was chosen on them, and what is to be expected of it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.decoding import AS_IT_IS, PictureRule
from fewseg.errors import DataError, UsageError
from fewseg.labels import IGNORE

LARGEST_SIDE = 4096
"""Of a photo in a concept, in pixels; no teaching keeps a larger one."""
MOST_TILES = 16
"""Along a photo's sides."""
MOST_EXAMPLES = 1000
_LONGEST_NAME = 300
_LARGEST_GIVEN = 10**6
_QUALITY = 95


@dataclass(frozen=True)
class Example:
    """An annotated photo, kept as it is stored: a JPEG, and a grey PNG of the mask."""

    jpeg: bytes = field(repr=False)
    png: bytes = field(repr=False)
    name: str
    """The photo's file name, for people."""
    meaning: str
    """How its mask was understood, in words."""
    side: int | None = None
    """The longer side of the photo as it was given, in pixels: a larger one is reduced."""

    def __post_init__(self) -> None:
        _check_text(self.name, "the name of a photo")
        if self.side is not None:
            _check_count(self.side, _LARGEST_GIVEN, "the side of a photo")
        _check_text(self.meaning, "the meaning of a mask")

    @classmethod
    def of(cls, photo: NDArray[np.uint8], mask: NDArray[np.uint8], *, side: int, name: str, meaning: str) -> Example:
        """A photo (H, W, 3) and its mask (H, W) {0, 1, 255 ignore}, reduced to a longest side of `side` pixels."""
        image, marks = reduced(photo, side), Image.fromarray(mask)
        jpeg, png = io.BytesIO(), io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG", quality=_QUALITY, subsampling=0)
        marks.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST).save(png, "PNG", optimize=True)
        return cls(jpeg.getvalue(), png.getvalue(), _line(name), _line(meaning), max(photo.shape[:2]))

    @cached_property
    def photo(self) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        return np.asarray(_picture(self.jpeg, "JPEG", self.name).convert("RGB"))

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """(H, W): 1 the object, 255 ignored, 0 all else."""
        mask = np.asarray(_picture(self.png, "PNG", self.name))
        if mask.shape != self.photo.shape[:2] or mask.dtype != np.uint8 or not np.isin(mask, (0, 1, IGNORE)).all():
            raise DataError(f"the mask of {self.name} does not fit its photo")
        return mask

    @property
    def marks(self) -> bool:
        """Whether the object is in the photo."""
        return bool((self.mask == 1).any())

    def check(self) -> None:
        """DataError where the photo and its mask cannot be read; nothing of them stays in memory."""
        _ = Example(self.jpeg, self.png, self.name, self.meaning).mask


@dataclass(frozen=True)
class Choice:
    """How the object is looked for."""

    method: str
    threshold: float
    """Foreground is above this probability."""
    tiles: int
    """Along each side of a photo; 1: photos are looked at as a whole."""
    negatives: int = 0
    """How many of the photos without the class, the first, are matched as background."""

    def __post_init__(self) -> None:
        _check_text(self.method, "the method")
        _check_number(self.threshold, 0, 1, "the threshold")
        _check_count(self.tiles, MOST_TILES, "the number of tiles")
        _check_count(self.negatives, MOST_EXAMPLES, "the number of photos without the class", least=0)

    def __str__(self) -> str:
        tiles = f", {self.tiles} x {self.tiles} tiles" if self.tiles > 1 else ""
        against = f", against {self.negatives} without it" if self.negatives else ""
        return f"{self.method} above {self.threshold:g}{tiles}{against}"


@dataclass(frozen=True)
class Expected:
    """The IoU to expect on photos like those that taught, with the interval that holds it in four of five cases."""

    iou: float
    low: float
    high: float
    each: tuple[float, ...] = ()
    """With what IoU each support's object was found by means of the others, by the setting that is best for these."""
    sureness: float = 0.5
    """The mean of `sureness` over those answers."""
    by_choice: tuple[float, ...] = ()
    """As `each`, by the setting that was chosen; empty where that is not known, as of a single support."""
    settings: tuple[str, ...] = ()
    """By which setting each of `each` is, in words; as many as `by_choice`."""

    def __post_init__(self) -> None:
        for value in (self.low, self.iou, self.high, self.sureness, *self.each, *self.by_choice):
            _check_number(value, 0, 1, "the expected IoU")
        for setting in self.settings:
            _check_text(setting, "a setting")
        if self.by_choice and not len(self.by_choice) == len(self.each) == len(self.settings):
            raise ValueError("not every support has its setting and its IoU by the one that was chosen")
        if not self.low <= self.iou <= self.high:
            raise ValueError("the expected IoU is not in its interval")

    def __str__(self) -> str:
        return f"{100 * self.iou:.0f} % IoU ({100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Presence:
    """The probability that the class is in a photo: the logistic of `slope` times what was measured, and `offset`.

    Measured is the logit of what the model tells, or where it tells nothing, of how sure it is of the surest hundredth
    of the photo.
    """

    slope: float
    offset: float
    absent: int
    """The number of photos without the class that it was calibrated on."""

    def __post_init__(self) -> None:
        _check_number(self.slope, 0, 1e6, "the calibration of presence")
        _check_number(self.offset, -1e6, 1e6, "the calibration of presence")
        _check_count(self.absent, MOST_EXAMPLES, "the number of photos without the class")


@dataclass(frozen=True)
class UsedModel:
    """The model that was taught."""

    name: str
    """Of a model that comes with fewseg; of any other the last part of its path."""
    sha256: str
    """Of its weights; empty where they come from no file."""
    image_size: int

    def __post_init__(self) -> None:
        _check_text(self.name, "the model's name")
        _check_text(self.sha256, "the model's hash", least=0)
        _check_count(self.image_size, LARGEST_SIDE, "the model's image size")


@dataclass(frozen=True)
class Taught:
    """All that a concept's file holds."""

    name: str | None
    """Of the class."""
    supports: tuple[Example, ...]
    """None where only features were kept."""
    absent: tuple[Example, ...]
    """Photos without the class."""
    model: UsedModel
    choice: Choice
    expected: Expected
    presence: Presence | None = None
    pictures: PictureRule = AS_IT_IS
    """How photos deeper than 8 bit, of several bands or pages were read, and are to be read."""
    features: dict[str, NDArray[np.float16 | np.uint8]] = field(default_factory=dict, repr=False)
    """The encoded supports (1, K, ...), where their photos were not kept."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_class_name(self.name)
        if not self.supports and not self.features:
            raise ValueError("it holds neither supports nor features")
        if self.supports and self.choice.negatives > len(self.absent):
            raise ValueError(f"it is matched against {self.choice.negatives} photos, and holds {len(self.absent)}")

    @property
    def shots(self) -> int:
        """The number of supports."""
        return len(self.supports) or next(iter(self.features.values())).shape[1]

    @property
    def title(self) -> str:
        """The class's name, or a word for it."""
        return self.name or "object"

    def found_by_others(self, number: int) -> str:
        """With what IoU the other supports find one, and by which settings; empty where that is not known of all."""
        expected = self.expected
        if len(expected.by_choice) != len(self.supports) or not self.supports:
            return ""
        told = f"{100 * expected.by_choice[number]:.0f} % IoU by {self.choice}"
        if (setting := expected.settings[number]) == str(self.choice):
            return told
        return f"{told}; {100 * expected.each[number]:.0f} % by {setting}, which would have been chosen without it"


def check_class_name(name: str) -> None:
    """UsageError for a name that no file could hold in a line."""
    try:
        _check_text(name, "the name of the class")
    except (ValueError, TypeError) as error:
        raise UsageError(f"{error}; give --class a name of 1 to {_LONGEST_NAME} characters in one line") from error


def reduced(photo: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A photo (H, W, 3) whose longest side is at most `side` pixels, each the mean of those that it was."""
    height, width = photo.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return photo
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))


def _picture(content: bytes, kind: str, name: str) -> Image.Image:
    """A picture of a known format and a bounded size."""
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(content), formats=[kind])
        if max(image.size) > LARGEST_SIDE or image.mode not in ("RGB", "L"):
            raise ValueError(f"{image.width} x {image.height} pixels of {image.mode}")
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"the {kind} of {name} cannot be read ({error})") from error
    return image


def _line(text: str) -> str:
    """A text as one line of bounded length."""
    return "".join(c if c.isprintable() else "?" for c in text)[-_LONGEST_NAME:] or "?"


def _check_text(value: Any, what: str, *, least: int = 1) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is no text")
    if not least <= len(value) <= _LONGEST_NAME or not value.isprintable():
        raise ValueError(f"{what} is {value[:40]!r}")


def _check_number(value: Any, low: float, high: float, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{what} is {str(value)[:40]}")


def _check_count(value: Any, most: int, what: str, *, least: int = 1) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} is {str(value)[:40]}")
