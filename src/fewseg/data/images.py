"""Pictures in and out: photos of any kind as RGB, label maps and masks as arrays, and overlays."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from scipy import ndimage

from fewseg.episode import IGNORE
from fewseg.errors import DataError, UsageError
from fewseg.files import replacing

File = str | os.PathLike[str] | IO[bytes]
"""A path, or a file opened for reading bytes."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif"}
)
"""File name endings (lower case) that count as pictures when a folder is searched."""

FOREGROUND_COLOR = (255, 48, 80)
"""RGB of the foreground in overlays."""

_LOSSY = {"JPEG", "MPO", "WEBP", "JPEG2000", "AVIF"}
_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of an EXIF orientation upright."""


def read_image(file: File) -> Image.Image:
    """A picture file as 8-bit RGB, upright as its EXIF orientation says, transparent parts on white.

    Deep pictures (16-bit, float) are scaled to 8 bit by `to_eight_bit`; of animations the first frame is read.
    DataError where the file is missing, broken, not a picture or beyond Pillow's limit of 179 megapixels.
    """
    return read_oriented(file)[0]


def read_oriented(file: File) -> tuple[Image.Image, int]:
    """As `read_image`, with the EXIF orientation (1..8) that was applied; `align_mask` needs it."""
    image, orientation = _decode(file)
    try:
        image = to_rgb(image)
    except (ValueError, OSError) as error:
        raise DataError(
            f"{_name(file)}: colour mode {image.mode} is not understood; save it as an RGB PNG or JPEG"
        ) from error
    return (image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image), orientation


def read_labels(file: File) -> NDArray[np.uint8]:
    """A label map file as (H, W) uint8: indices of a palette PNG (as VOC's), grey values, or 0/1 of a 1-bit picture.

    DataError where the file has no class ids to read: true colours, values above 255, or a lossy format.
    """
    image, _ = _decode(file)
    if image.format in _LOSSY:
        raise DataError(f"{_name(file)}: {image.format} changes pixel values, so class ids cannot be read; use PNG")
    channels = np.atleast_3d(np.asarray(image))
    if image.mode in ("LA", "PA", "RGBA"):
        channels = channels[..., :-1]
    values = channels[..., 0]
    if (channels[..., 1:] != channels[..., :1]).any():
        raise DataError(f"{_name(file)}: coloured {image.mode} pixels are no class ids; save a palette or grey PNG")
    if values.min() < 0 or values.max() > 255 or (values % 1).any():
        raise DataError(
            f"{_name(file)}: values {values.min():g} to {values.max():g} are no class ids; use whole 0 to 255"
        )
    return values.astype(np.uint8)


def read_mask(file: File) -> NDArray[np.uint8]:
    """A mask file of one class as (H, W) uint8 {0, 1, 255 ignore}; see `mask_of` for what counts as foreground.

    The EXIF orientation of the mask itself is not read: annotation tools save masks as they were shown (`align_mask`).
    """
    image, _ = _decode(file)
    try:
        return mask_of(image)
    except (ValueError, OSError) as error:
        raise DataError(
            f"{_name(file)}: colour mode {image.mode} is no mask; save it as a grey PNG, 255 = object"
        ) from error


def align_mask(
    mask: NDArray[np.uint8], size: tuple[int, int], *, orientation: int = 1, name: str = "the mask"
) -> NDArray[np.uint8]:
    """A mask (H, W) turned as its photo was turned, if need be, to the photo's `size` (width, height).

    A mask of the upright photo's size is taken as it is; one of the size that the photo has in its file, before the
    EXIF orientation, is turned like the photo; any other size is a DataError.
    """
    if mask.shape == (size[1], size[0]):
        return mask
    if orientation >= 5 and mask.shape == size:
        return np.asarray(Image.fromarray(mask).transpose(_UPRIGHT[orientation]))
    given = f"{mask.shape[1]} x {mask.shape[0]}" if mask.ndim == 2 else f"of shape {mask.shape}"
    raise DataError(f"{name} is {given} but its image is {size[0]} x {size[1]} pixels; give a mask of the image's size")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB: deep ones scaled, transparent parts on white (orientation is left alone)."""
    if image.mode in _DEEP:
        return Image.fromarray(to_eight_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def to_eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers as uint8, by the smallest range that holds them all: [0, 1] if floats, 8, 12, 16 bit, else min to max.

    12 bit is what many cameras and scanners put into 16-bit files. NaN becomes 0.
    """
    if values.dtype == np.uint8:
        return values
    whole = np.issubdtype(values.dtype, np.integer) or values.dtype == bool
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    tops = (255.0, 4095.0, 65535.0) if whole else (1.001, 255.0, 4095.0, 65535.0)  # resampling may overshoot 1 a little
    top = next((top for top in tops if low >= -0.001 * top and high <= top), None)
    if top is None:
        numbers, top = numbers - low, max(high - low, 1e-9)
    return np.clip(np.rint(numbers * (255.0 / (1.0 if top == 1.001 else top))), 0, 255).astype(np.uint8)


def mask_of(image: Image.Image) -> NDArray[np.uint8]:
    """Where a mask picture marks its object, as (H, W) uint8 {0, 1, 255 ignore}. The first rule that fits holds:

    1. Alpha that varies: opaque (alpha >= 128) is foreground, as in a cut-out. Alpha that does not vary is passed over.
    2. A colour palette: every index but 0 is foreground; 255 is ignore if other indices than 0 and 255 occur (VOC).
    3. Exactly the values 1 and 255, with or without 0, in a lossless file: 1 is foreground, 255 ignore.
    4. No value in the upper half of the range (0/1 masks, class ids) in a lossless file: non-zero is foreground.
    5. Otherwise the upper half of the range (>= 128 of 255) is foreground: 0/255 masks, soft edges, JPEG's ringing.

    The value of a colour pixel is its largest channel; a palette of greys is read as greys.
    """
    if image.mode in ("LA", "La", "RGBA", "RGBa") and (alpha := np.asarray(image)[..., -1]).min() < alpha.max():
        return (alpha >= 128).astype(np.uint8)
    if image.mode in ("P", "PA") and not _grey_palette(image):
        index = _first_channel(image)
        mask = (index > 0).astype(np.uint8)
        if ((index > 0) & (index < IGNORE)).any():
            mask[index == IGNORE] = IGNORE
        return mask
    values = _mask_values(image)
    lossless = image.format not in _LOSSY
    if lossless and set(np.unique(values)) | {0} == {0, 1, IGNORE}:
        return values.astype(np.uint8)
    half = 32768 if values.max() > 255 else 128
    return (values > 0 if lossless and values.max() < half else values >= half).astype(np.uint8)


def write_image(image: Image.Image, path: Path, **options: Any) -> None:
    """Save a picture in the format of its suffix, whole or not at all; `options` are Pillow's for that format."""
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format is None:
        raise UsageError(f"{path}: {path.suffix!r} is no picture format that can be written; use .png or .jpg")
    with replacing(path) as temporary:
        image.save(temporary, format=file_format, **options)


def write_labels(labels: NDArray[np.uint8], path: Path) -> None:
    """Save a label map (H, W) uint8 as a palette PNG in the colours of `label_colors`; `read_labels` gives it back."""
    image = Image.fromarray(labels).convert("L")
    image.putpalette(label_colors().tobytes())
    write_image(image, path)


def label_colors() -> NDArray[np.uint8]:
    """(256, 3) RGB of label values, as VOC's: the bits of a value spread over the three channels, black for 0."""
    bit, channel = np.ogrid[:8, :3]
    bits = (np.arange(256)[:, None, None] >> (3 * bit + channel)) & 1
    return (bits << (7 - bit)).sum(1).astype(np.uint8)


def class_color(class_id: int) -> tuple[int, int, int]:
    """The RGB of a class in overlays: that of `label_colors`, from class 255 on those of the first classes again."""
    red, green, blue = label_colors()[1 + (class_id - 1) % 254].tolist()
    return red, green, blue


def overlay(
    image: Image.Image,
    mask: NDArray[Any],
    *,
    color: tuple[int, int, int] = FOREGROUND_COLOR,
    alpha: float = 0.45,
    line: int = 1,
) -> Image.Image:
    """An RGB image with the foreground (True or 1 in `mask`, (H, W)) tinted, and outlined in the colour and white.

    The line inside is `line` pixels wide, and wider on large photos.
    """
    inside = np.equal(mask, 1)
    if inside.shape != (image.height, image.width):
        raise UsageError(
            f"mask of shape {inside.shape} does not lie on an image of {image.width} x {image.height} pixels"
        )
    pixels = np.array(image.convert("RGB"))
    pixels[inside] = np.rint((1 - alpha) * pixels[inside] + alpha * np.array(color, np.float32)).astype(np.uint8)
    width = max(1, round(min(inside.shape) / 250))
    core = np.asarray(ndimage.minimum_filter(inside, 2 * max(line, width) + 1, mode="constant", cval=0), bool)
    halo = np.asarray(ndimage.maximum_filter(inside, 2 * width + 1, mode="constant", cval=0), bool)
    pixels[halo & ~inside] = 255  # white around the line keeps it visible on objects of its own colour
    pixels[inside & ~core] = color
    return Image.fromarray(pixels)


def _decode(file: File) -> tuple[Image.Image, int]:
    name = _name(file)
    try:
        with warnings.catch_warnings():
            # large photos are fine, its error is the limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.load()
                orientation = _orientation(image)
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder; a picture file is needed here") from error
    except PermissionError as error:
        raise DataError(f"{name}: no permission to read it") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name} is not a picture that can be read; use JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large ({error}); scale it down first") from error
    except Exception as error:  # Pillow's decoders raise anything from struct.error to SyntaxError on broken files
        raise DataError(f"{name} is damaged or cut off ({error}); copy or export it again") from error
    return image, orientation


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block is no reason to refuse a whole picture
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _name(file: File) -> str:
    return str(file if isinstance(file, str | os.PathLike) else getattr(file, "name", "the given file"))


def _first_channel(image: Image.Image) -> NDArray[Any]:
    """(H, W) values of an image's first channel as they are stored; palettes give indices."""
    return np.atleast_3d(np.asarray(image))[..., 0]


def _grey_palette(image: Image.Image) -> bool:
    colors = np.asarray(image.getpalette("RGB") or [0, 0, 0], np.uint8).reshape(-1, 3)
    used = colors[np.unique(_first_channel(image)).clip(max=len(colors) - 1)]
    return bool((used == used[:, :1]).all())


def _mask_values(image: Image.Image) -> NDArray[Any]:
    if image.mode in _DEEP:
        values = np.asarray(image)
        return values if np.issubdtype(values.dtype, np.integer) else to_eight_bit(values)
    if image.mode in ("1", "L", "LA", "La"):
        return _first_channel(image).astype(np.uint8)
    return np.asarray(image.convert("RGB")).max(-1)
