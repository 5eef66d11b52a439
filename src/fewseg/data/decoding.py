"""Picture files as the numbers that they hold, whatever the format, and any numbers as 8-bit RGB by a stated rule."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from fewseg.errors import DataError, DataWarning, UsageError, install_line, refuse_address

File = str | os.PathLike[str] | IO[bytes]
"""A path, or a file opened for reading bytes."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Of Pillow's formats those that are read; some of the others run programs, or know no limit of size."""

RAW = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
"""Endings of cameras' raw pictures: many are TIFFs whose first page is a small preview, which must not be taken."""
_RAW_TOLD = "raw pictures of cameras are not read (a small preview would be); export it as JPEG or TIFF"
_DNG, _SUBFILE = 50706, 254
"""Tags of a TIFF's page: of a raw picture, and, with its first bit, of what is a preview of another page."""
LOSSY = {"JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "HEIF"}
DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of an EXIF orientation upright."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PERCENTILES = (0.1, 99.9)
_MOST_PAGES = 10_000
"""Of a TIFF that are looked at: a page may lead to an earlier one, and so on for ever."""
_UNASKED, _DENSEST = 2**28, 1100
"""Bytes of a TIFF page that are believed of any file, and those that a byte of a file may stand for (Deflate's most is
1032)."""


@dataclass(frozen=True)
class PictureRule:
    """How pictures become 8-bit RGB where more than one way is possible."""

    range: tuple[float, float] | None = None
    """Values of pictures deeper than 8 bit that become 0 and 255; None: each picture's own 0.1 and 99.9 percentiles."""
    bands: tuple[int, int, int] | None = None
    """Which bands, from 1, are red, green and blue; None: the first three, or the first alone of two."""
    page: int | None = None
    """Which page of a TIFF, from 1; None: the first."""

    def __post_init__(self) -> None:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise UsageError(f"a range from {self.range[0]:g} to {self.range[1]:g} is empty; give LOW,HIGH")
        if min(self.bands or (1,)) < 1 or (self.page or 1) < 1:
            raise UsageError("bands and pages are counted from 1")


AS_IT_IS = PictureRule()


@dataclass(frozen=True)
class Raster:
    """What a picture file holds."""

    pixels: Image.Image | NDArray[Any]
    """As Pillow has it; or (H, W, bands) of what Pillow cannot hold, such as several bands of more than 8 bit."""
    orientation: int
    """EXIF's, 1 to 8."""
    missing: float | None = None
    """GDAL's NODATA, of an array: the value of pixels without a value."""

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """(H, W): where an array has no value in any of its bands."""
        values = np.asarray(self.pixels)
        with np.errstate(over="ignore"):  # the mark is a text, with more digits than floats of 32 bit have
            missing = np.asarray(self.missing, values.dtype if values.dtype.kind == "f" else np.float64)
        return np.all((values == missing) | (np.isnan(values) & np.isnan(missing)), axis=2)

    def filled(self, value: float) -> Image.Image | NDArray[Any]:
        """The pixels, with `value` where an array has none."""
        if self.missing is None:
            return self.pixels
        kept = np.asarray(self.pixels)
        kept = kept.astype(np.float64) if np.isnan(value) else kept
        return np.where(self.unknown[..., None], np.asarray(value, kept.dtype), kept)

    def check_mask(self, file: File) -> None:
        """DataError for a mask's file that has an orientation of its own, whose turn its size does not show."""
        if self.orientation not in UPRIGHT:
            return
        height, width = np.asarray(self.pixels).shape[:2]
        if self.orientation < 5 or height == width:
            raise DataError(
                f"{name_of(file)} has an EXIF orientation of its own ({self.orientation}), and may be stored turned or "
                "upright; save it as its photo is shown, without an orientation"
            )


def name_of(file: File) -> str:
    """A file's name for messages."""
    return str(file if isinstance(file, str | os.PathLike) else getattr(file, "name", "the given file"))


def decode(file: File, rule: PictureRule = AS_IT_IS) -> Raster:
    """A picture file's content; DataError where it is missing, broken, no picture, or beyond Pillow's limit of size."""
    refuse_address(file)
    with _said_plainly(name_of(file)):
        content = _head(file)
        is_tiff = content.startswith(_TIFF)
        if Path(name_of(file)).suffix.lower() in RAW or (is_tiff and content[8:10] == b"CR"):
            raise DataError(_RAW_TOLD)
        if is_tiff:
            return _tiff(file, rule)
        image, orientation = _pillow(file)
        if content[:8] == b"\x89PNG\r\n\x1a\n" and content[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
            image = _upper_bits(image, "16-bit colours of a PNG", "save it as TIFF")
    return Raster(image, orientation)


def to_rgb(image: Image.Image | NDArray[Any], rule: PictureRule = AS_IT_IS) -> Image.Image:
    """Any Pillow image, or (H, W, bands) numbers, as 8-bit RGB: deep ones scaled, transparent parts on white.

    It is not turned: see `UPRIGHT`.
    """
    if not isinstance(image, Image.Image):
        return Image.fromarray(_three_bands(image, rule))
    if image.mode in DEEP:
        return Image.fromarray(to_eight_bit(np.asarray(image), rule)).convert("RGB")
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _three_bands(values: NDArray[Any], rule: PictureRule) -> NDArray[np.uint8]:
    """(H, W, 3) of (H, W, bands), all bands scaled alike."""
    return to_eight_bit(values[..., [band - 1 for band in chosen_bands(values.shape[2], rule)]], rule)


def chosen_bands(count: int, rule: PictureRule) -> tuple[int, int, int]:
    """Which of `count` bands, from 1, are red, green and blue, told where it is open; DataError where one is absent."""
    bands = rule.bands or ((1, 2, 3) if count >= 3 else (1, 1, 1))
    if max(bands) > count:
        raise DataError(f"band {max(bands)} was asked for, but there are {count}")
    if rule.bands is None and count not in (1, 3):
        told = "bands 1, 2 and 3 are read as red, green and blue" if count > 3 else "band 1 is read as grey"
        _tell(f"a picture of {count} bands: {told}; --bands R,G,B chooses others")
    return bands


def to_eight_bit(values: NDArray[Any], rule: PictureRule = AS_IT_IS) -> NDArray[np.uint8]:
    """Numbers as uint8: `rule.range`, or the picture's own 0.1 to 99.9 percentiles, becomes 0 to 255.

    8-bit numbers stay as they are. NaN, infinite ones and those beyond 1e30, marks of missing ones, become 0.
    """
    if values.dtype in (np.uint8, np.bool_):
        return values.astype(np.uint8) * np.uint8(255 if values.dtype == np.bool_ else 1)
    return scaled_to_eight_bit(values, *(rule.range or own_range(values)))


def own_range(values: NDArray[Any]) -> tuple[float, float]:
    """A picture's 0.1 and 99.9 percentiles, told; of its values that are no marks of missing ones."""
    known = values[np.abs(values.astype(np.float64)) < 1e30].astype(np.float64)  # false of NaN
    low, high = np.percentile(known, _PERCENTILES) if known.size else (0.0, 0.0)
    if low == high and known.size:  # nearly all of one value
        low, high = known.min(), known.max()
    _tell(
        "pictures deeper than 8 bit: each is stretched from its own 0.1 and 99.9 percentiles to 0 and 255; "
        "--range LOW,HIGH (in Python range=(LOW, HIGH)) takes one range for all"
    )
    return float(low), float(high)


def scaled_to_eight_bit(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Numbers as uint8, `low` to `high` as 0 to 255; marks of missing ones become 0."""
    numbers = values.astype(np.float64)
    finite = np.abs(numbers) < 1e30
    scaled = (np.where(finite, numbers, low) - low) * (255.0 / max(high - low, 1e-9))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _tell(text: str) -> None:
    """A note; of equal texts from one place Python shows the first."""
    warnings.warn(DataWarning(text), stacklevel=3)


@contextmanager
def _said_plainly(name: str) -> Iterator[None]:
    try:
        yield
    except DataWarning:
        raise
    except DataError as error:
        raise error if name in str(error) else DataError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder; a picture file is needed here") from error
    except PermissionError as error:
        raise DataError(f"{name}: no permission to read it") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name} is not a picture that can be read; use JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large ({error}); scale it down, or segment it with --window") from error
    except Exception as error:  # decoders raise anything from struct.error to SyntaxError on broken files
        raise DataError(f"{name} is damaged or cut off ({error}); copy or export it again") from error


def _head(file: File) -> bytes:
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return opened.read(32)
    file.seek(0)
    content = file.read(32)
    file.seek(0)
    return content


def picture_size(file: File) -> tuple[int, int]:
    """Width and height of a picture file, whose pixels are not decoded; DataError as of `decode`."""
    with _said_plainly(name_of(file)), _opened(file) as image:
        return image.size


@contextmanager
def _opened(file: File) -> Iterator[Image.Image]:
    head = _head(file)
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        _know_heif()
    with warnings.catch_warnings():
        # large photos are fine, its error is the limit
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()
        with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            yield image


def _pillow(file: File, *, page: int = 0) -> tuple[Image.Image, int]:
    with _opened(file) as image:
        # of a TIFF they were counted, and Pillow goes on for ever where its pages come back to the first
        if image.format not in ("MPO", "TIFF") and (frames := getattr(image, "n_frames", 1)) > 1:
            _tell(f"a {image.format} of {frames} frames: the first is read")
        image.seek(page)
        image.load()
        return image, _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block is no reason to refuse a whole picture
        return 1
    return orientation if orientation in UPRIGHT else 1


def _know_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise DataError(f"a HEIC photo needs `{install_line('heic')}`; or save it as JPEG") from error
    register_heif_opener()


def _tiff(file: File, rule: PictureRule) -> Raster:
    """By Pillow what it holds whole, by tifffile the rest."""
    from tifffile import TiffFile

    with TiffFile(cast(Any, file)) as opened:
        number = _page_number(opened, rule)
        tags = cast(Any, opened.pages[0]).tags
        if _DNG in tags or (_SUBFILE in tags and tags[_SUBFILE].value & 1):
            raise DataError(_RAW_TOLD)
        page: Any = opened.pages[number]
        _check_size(page, opened.filehandle.size)
        bands, unread = page.samplesperpixel, ""
        if page.bitspersample > 8 or page.sampleformat != 1 or bands not in (1, 3, 4):
            try:
                if page.sampleformat < 5:  # not complex
                    return _tiff_values(page)
            except ValueError as error:  # of a compression that needs imagecodecs, which is large
                unread = f"{page.bitspersample}-bit numbers in {page.compression.name} compression ({error})"
    advice = "save it without compression, or `pip install imagecodecs`"
    if unread and bands not in (1, 3, 4):
        raise DataError(f"{unread} cannot be read; {advice}")
    image, orientation = _pillow(file, page=number)
    if unread and bands > 1:
        image = _upper_bits(image, unread, advice)
    return Raster(image, orientation)


def _check_size(page: Any, file_bytes: int) -> None:
    """Before memory is taken for what a page says of itself."""
    pixels = page.imagewidth * page.imagelength
    if pixels > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError(f"{page.imagewidth} x {page.imagelength} pixels")
    if pixels < 1 or page.nbytes > max(_UNASKED, _DENSEST * file_bytes):
        raise DataError(
            f"it is said to hold {page.imagewidth} x {page.imagelength} pixels of {page.samplesperpixel} bands, "
            f"{page.nbytes / 1e6:.0f} MB, in a file of {file_bytes / 1e6:.1f} MB; export it again"
        )


def _tiff_values(page: Any) -> Raster:
    values = page.asarray()
    if page.samplesperpixel == 1:
        values = values.reshape(page.imagelength, page.imagewidth, 1)
    elif page.planarconfig == 2:
        values = np.moveaxis(values, 0, -1)
    if page.photometric == 0 and values.dtype.kind == "u":  # white is 0
        values = values.dtype.type((1 << page.bitspersample) - 1) - values
    orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
    return Raster(values, orientation if orientation in UPRIGHT else 1, _missing(page))


def _page_number(opened: Any, rule: PictureRule) -> int:
    """Where in a TIFF the wanted page lies; pages of another size than the first's are previews, and not counted."""
    sizes = [(page.imagewidth, page.imagelength) for page in islice(opened.pages, _MOST_PAGES)]
    pages = [number for number, size in enumerate(sizes) if size == sizes[0]]
    if (rule.page or 1) > len(pages):
        raise DataError(f"it has {len(pages)} pages; page {rule.page} was asked for")
    if len(pages) > 1 and rule.page is None:
        more = " or more" if len(sizes) == _MOST_PAGES else ""
        _tell(f"a TIFF of {len(pages)} pages{more}: the first is read; --page N chooses another")
    return pages[(rule.page or 1) - 1]


def _missing(page: Any) -> float | None:
    """GDAL's mark of pixels without a value."""
    if 42113 not in page.tags:
        return None
    try:
        return float(str(page.tags[42113].value).strip("\0 "))
    except ValueError:
        return None


def _upper_bits(image: Image.Image, what: str, advice: str) -> Image.Image:
    """An image of colours of more than 8 bit, of which Pillow keeps the upper 8; DataError where that is too little."""
    if np.asarray(image.convert("RGB")).max() < 128:  # alpha is not asked
        raise DataError(f"{what} lie in the lower bits, which cannot be read; {advice}")
    _tell(f"{what}: only the upper 8 bits of each colour are read; {advice}")
    return image
