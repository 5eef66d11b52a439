"""Pictures in and out: photos of any kind as RGB, label maps as arrays, overlays. Masks: `fewseg.data.masks`."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.decoding import AS_IT_IS, LOSSY, UPRIGHT, File, PictureRule, decode, name_of, to_rgb
from fewseg.data.masks import read_mask  # noqa: F401  (read from here by older code)
from fewseg.data.regions import grown, shrunk
from fewseg.data.video import VIDEO_SUFFIXES, frame_at, moment
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.files import replacing
from fewseg.labels import IGNORE

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2"}
    | {".avif", ".heic", ".heif", ".hif"}
)
"""File name endings (lower case) that count as pictures when a folder is searched."""

_FIRST_COLORS = (
    *((230, 57, 70), (0, 119, 187), (238, 153, 51), (0, 153, 136)),
    *((170, 68, 153), (204, 187, 68), (102, 204, 238), (136, 136, 136)),
)
"""RGB of the first classes, bright, and told apart by colour-blind people too; the page in the browser has the same."""
OWN_COLORS = len(_FIRST_COLORS)
"""Labels from 1 on whose colours are fewseg's own; later ones have VOC's."""
FOREGROUND_COLOR = _FIRST_COLORS[0]
"""RGB of the foreground in overlays: the first class's."""


def read_image(file: File, rule: PictureRule = AS_IT_IS) -> Image.Image:
    """A picture file as 8-bit RGB, upright as its EXIF orientation says, transparent parts on white.

    `clip.mp4@12.5s` is the frame of a video at 12.5 seconds. `rule` says how deep pictures (16-bit, float) are scaled,
    and which bands and page are read. DataError where the file is missing, broken, not a picture or beyond Pillow's
    limit of 179 megapixels.
    """
    return read_oriented(file, rule)[0]


def read_oriented(file: File, rule: PictureRule = AS_IT_IS) -> tuple[Image.Image, int]:
    """As `read_image`, with the EXIF orientation (1..8) that was applied; `align_mask` needs it."""
    if isinstance(file, str | Path) and (found := moment(file)):
        return frame_at(*found), 1
    if isinstance(file, str | Path) and Path(file).suffix.lower() in VIDEO_SUFFIXES and Path(file).is_file():
        raise DataError(f"{file} is a video: name a frame of it by its time, as in {Path(file).name}@2.5s")
    raster = decode(file, rule)
    try:
        image = to_rgb(raster.filled(np.nan), rule)
    except DataError as error:
        raise DataError(f"{name_of(file)}: {error}") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{name_of(file)}: its colours are not understood; save it as an RGB PNG or JPEG") from error
    return (
        image.transpose(UPRIGHT[raster.orientation]) if raster.orientation in UPRIGHT else image
    ), raster.orientation


def read_labels(file: File) -> NDArray[np.uint8]:
    """A label map file as (H, W) uint8: indices of a palette PNG (as VOC's), grey values, or 0/1 of a 1-bit picture.

    DataError where the file has no class ids to read: true colours, values above 255, or a lossy format.
    """
    raster = decode(file)
    raster.check_mask(file)
    image = raster.filled(IGNORE if raster.missing else 0)
    if isinstance(image, Image.Image) and image.format in LOSSY:
        raise DataError(f"{name_of(file)}: {image.format} changes pixel values, so class ids cannot be read; use PNG")
    channels = np.atleast_3d(np.asarray(image))
    if isinstance(image, Image.Image) and image.mode in ("LA", "PA", "RGBA"):
        channels = channels[..., :-1]
    values = channels[..., 0]
    if (channels[..., 1:] != channels[..., :1]).any():
        raise DataError(f"{name_of(file)}: coloured pixels are no class ids; save a palette or grey PNG")
    if values.min() < 0 or values.max() > 255 or (values % 1).any():
        raise DataError(
            f"{name_of(file)}: values {values.min():g} to {values.max():g} are no class ids; use whole 0 to 255"
        )
    return values.astype(np.uint8)


def align_mask(
    mask: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    orientation: int = 1,
    name: str = "the mask",
    source: object = None,
) -> NDArray[np.uint8]:
    """A mask (H, W) turned as its photo was turned, if need be, to the photo's `size` (width, height).

    A mask of the upright photo's size is taken as it is, with a DataWarning where it may as well be of the photo as it
    is stored, before the EXIF orientation: it tells of `source`, if that is given, once for all its masks. One of the
    size that the photo has in its file is turned like the photo; any other size is a DataError.
    """
    stored = size if orientation >= 5 else size[::-1]
    turns = orientation in UPRIGHT and mask.shape == stored
    turned = np.asarray(Image.fromarray(mask).transpose(UPRIGHT[orientation])) if turns else mask
    if mask.shape == (size[1], size[0]):
        if not np.array_equal(turned, mask):
            _tell_both_ways(name, source)
        return mask
    if turns:
        return turned
    given = f"{mask.shape[1]} x {mask.shape[0]}" if mask.ndim == 2 else f"of shape {mask.shape}"
    raise DataError(f"{name} is {given} but its image is {size[0]} x {size[1]} pixels; give a mask of the image's size")


def _tell_both_ways(name: str, source: object) -> None:
    whose = f"{name} fits its photo" if source is None else f"masks of {source} fit their photos"
    warnings.warn(
        f"{whose} both before and after the turn that the photo's EXIF orientation says: taken as drawn on the "
        "upright photo; where that is wrong, save the photo upright, without an orientation, and its mask like it",
        DataWarning,
        stacklevel=3,
    )


def write_image(image: Image.Image, path: Path, **options: Any) -> None:
    """Save a picture in the format of its suffix, whole or not at all; `options` are Pillow's for that format."""
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format is None:
        raise UsageError(f"{path}: {path.suffix!r} is no picture format that can be written; use .png or .jpg")
    encoded = io.BytesIO()  # Pillow itself takes a JPEG for written of which a full disk took a part
    image.save(encoded, format=file_format, **options)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def write_labels(labels: NDArray[np.uint8], path: Path) -> None:
    """Save a label map (H, W) uint8 as a palette PNG in the colours of `label_colors`; `read_labels` gives it back."""
    write_image(palette_picture(labels), path)


def mask_picture(labels: NDArray[np.uint8], *, several: bool) -> Image.Image:
    """Labels (H, W) as they are written: 0/255 of one class, a palette label map of several."""
    return palette_picture(labels) if several else Image.fromarray(labels * np.uint8(255))


def palette_picture(labels: NDArray[np.uint8]) -> Image.Image:
    """A label map (H, W) as a palette picture in the colours of `label_colors`."""
    image = Image.fromarray(labels).convert("L")
    image.putpalette(label_colors().tobytes())
    return image


def label_colors() -> NDArray[np.uint8]:
    """(256, 3) RGB of label values: black for 0, eight bright colours, then VOC's.

    VOC's are the bits of a value spread over the three channels.
    """
    bit, channel = np.ogrid[:8, :3]
    bits = (np.arange(256)[:, None, None] >> (3 * bit + channel)) & 1
    colors = (bits << (7 - bit)).sum(1).astype(np.uint8)
    colors[1 : 1 + len(_FIRST_COLORS)] = _FIRST_COLORS
    return colors


def class_color(class_id: int) -> tuple[int, int, int]:
    """The RGB of a class in overlays and label maps: that of `label_colors`, from 255 on the first again."""
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
    for channel, value in enumerate(color):  # by a table: floats of a large photo's pixels take 24 times their bytes
        tinted = np.rint((1 - alpha) * np.arange(256, dtype=np.uint8) + alpha * np.float32(value)).astype(np.uint8)
        pixels[..., channel][inside] = tinted[pixels[..., channel][inside]]
    width = max(1, round(min(inside.shape) / 250))
    pixels[grown(inside, width) & ~inside] = 255  # white around the line keeps it visible on objects of its own colour
    pixels[inside & ~shrunk(inside, max(line, width))] = color
    return Image.fromarray(pixels)
