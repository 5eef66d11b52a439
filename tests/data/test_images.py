"""Pictures of every kind are read as people see them; masks by one documented rule; files are written whole."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fewseg
from fewseg.data.decoding import PictureRule, to_eight_bit, to_rgb
from fewseg.data.images import (
    align_mask,
    label_colors,
    overlay,
    read_image,
    read_labels,
    read_oriented,
    write_image,
    write_labels,
)
from fewseg.data.masks import marking_of, read_mask
from fewseg.errors import DataError, DataWarning, UsageError
from helpers import full_disk


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    assert mode is None or image.mode == mode
    image.save(path, **options)
    return path


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png16(pixels: np.ndarray) -> io.BytesIO:
    """A 16-bit RGB or RGBA PNG, which Pillow reads but cannot write."""
    height, width, bands = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2 if bands == 3 else 6, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


CORNER = np.zeros((2, 3), np.uint8)
CORNER[0, 0] = 255


def aligned(photo: Path, mask: Path) -> np.ndarray:
    image, orientation = read_oriented(photo)
    return align_mask(read_mask(mask), image.size, orientation=orientation, name=str(mask))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_photos_and_to_masks_of_the_stored_size(tmp_path, orientation):
    from PIL import ImageOps

    photo = Image.fromarray(CORNER)
    photo.save(tmp_path / "a.png", exif=with_orientation(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png"))[..., 0], expected)
    save(tmp_path / "upright.png", expected.copy())
    told = pytest.warns(DataWarning, match=r"upright\.png fits its photo both before and after the turn")
    with told if 1 < orientation < 5 else nullcontext():
        mask = aligned(tmp_path / "a.png", tmp_path / "upright.png")
    np.testing.assert_array_equal(mask, expected // 255)
    if orientation >= 5:
        save(tmp_path / "stored.png", CORNER)
        mask = aligned(tmp_path / "a.png", tmp_path / "stored.png")
        np.testing.assert_array_equal(mask, expected // 255)


def test_whether_a_mask_was_turned_is_never_guessed_in_silence() -> None:
    square = np.zeros((3, 3), np.uint8)
    square[0, 0] = 1
    with pytest.warns(DataWarning, match="masks of DIR fit their photos both before and after"):
        assert align_mask(square, (3, 3), orientation=6, source="DIR") is square
    assert align_mask(square.T @ square, (3, 3), orientation=5) is not None  # the same either way: nothing to tell
    align_mask(square, (3, 3))


@pytest.mark.parametrize("read", [read_mask, read_labels])
def test_a_mask_with_an_orientation_of_its_own_is_refused_where_its_size_does_not_tell(
    tmp_path: Path, read: Callable[[Path], np.ndarray]
) -> None:
    file = tmp_path / "m.png"
    Image.fromarray(CORNER).save(file, exif=with_orientation(3))
    with pytest.raises(DataError, match=r"m\.png has an EXIF orientation of its own \(3\)"):
        read(file)
    Image.fromarray(CORNER).save(file, exif=with_orientation(6))
    assert read(file).shape == CORNER.shape


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    save(tmp_path / "a.png", CORNER)
    save(tmp_path / "m.png", np.zeros((5, 4), np.uint8))
    with pytest.raises(DataError, match=r"m\.png is 4 x 5 but its image is 3 x 2"):
        aligned(tmp_path / "a.png", tmp_path / "m.png")
    with pytest.raises(DataError, match="3 x 2 but its image is 2 x 3"):
        align_mask(CORNER, (2, 3))  # not turned unless the photo was


def test_transparent_parts_are_white(tmp_path):
    rgba = np.zeros((1, 2, 4), np.uint8)
    rgba[0, 1] = (10, 20, 30, 255)
    path = save(tmp_path / "a.png", rgba, "RGBA")
    assert np.asarray(read_image(path)).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    path = save(tmp_path / "la.png", np.array([[[0, 0], [7, 255]]], np.uint8), "LA")
    assert np.asarray(read_image(path))[..., 0].tolist() == [[255, 7]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("L")
    palette.putpalette([9, 9, 9, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(read_image(tmp_path / "p.png")).tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
def test_deep_pictures_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        assert np.asarray(read_image(save(tmp_path / name, values)))[..., 0].tolist() == [[0, 100, 255]]
    save(tmp_path / "f.tif", np.array([[0, 0.5, 1]], np.float32), "F")
    assert np.asarray(read_image(tmp_path / "f.tif"))[..., 0].tolist() == [[0, 128, 255]]
    save(tmp_path / "i.tif", np.array([[0, 65535]], np.int32), "I")
    assert np.asarray(read_image(tmp_path / "i.tif"))[..., 0].tolist() == [[0, 255]]
    pixels = np.array([[[0, 257 * 50, 65535]]])
    assert np.asarray(read_image(png16(pixels))).tolist() == [[[0, 50, 255]]]


@given(st.sampled_from(["<u2", ">u2", "<i2", "<f4", "<f8", "<u4"]), st.integers(-9, 9), st.integers(3, 12), st.data())
@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
def test_any_range_of_a_deep_picture_fills_the_range_of_a_shown_one(dtype, low, bits, data):
    low = low if np.dtype(dtype).kind != "u" else abs(low)
    top = data.draw(st.integers(1, 60)) / 3 if dtype[1] == "f" else 2**bits
    numbers = np.linspace(low, low + top, 400).reshape(20, 20).astype(dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, numbers)
    shown = np.asarray(read_image(file))[..., 0].ravel().astype(int)
    assert shown[0] == 0
    assert shown[-1] == 255
    assert (np.diff(shown) >= 0).all()


def test_the_rule_for_deep_pictures_is_told_and_can_be_given(tmp_path):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.array([[100, 200], [300, 1100]], np.uint16))
    with pytest.warns(DataWarning, match=r"0\.1 and 99\.9 percentiles.*--range LOW,HIGH"):
        read_image(file)
    shown = read_image(file, PictureRule(range=(100, 1100)))
    assert np.asarray(shown)[..., 0].tolist() == [[0, 26], [51, 255]]
    with pytest.raises(UsageError, match="empty"):
        PictureRule(range=(3, 3))


def test_bands_and_pages_are_told_and_can_be_chosen(tmp_path):
    bands = np.stack([np.full((4, 5), 10 * n, np.uint8) for n in range(1, 6)], -1)
    tifffile.imwrite(tmp_path / "b.tif", bands, photometric="minisblack", planarconfig="contig")
    with pytest.warns(DataWarning, match="5 bands: bands 1, 2 and 3 are read as red, green and blue"):
        assert np.asarray(read_image(tmp_path / "b.tif"))[0, 0].tolist() == [10, 20, 30]
    chosen = read_image(tmp_path / "b.tif", PictureRule(bands=(5, 3, 1)))
    assert np.asarray(chosen)[0, 0].tolist() == [50, 30, 10]
    with pytest.raises(DataError, match=r"b\.tif.*band 6 was asked for, but there are 5"):
        read_image(tmp_path / "b.tif", PictureRule(bands=(6, 1, 1)))
    tifffile.imwrite(tmp_path / "p.tif", np.stack([np.full((4, 5), n, np.uint8) for n in (7, 8)]))
    with pytest.warns(DataWarning, match="2 pages: the first is read"):
        assert np.asarray(read_image(tmp_path / "p.tif"))[0, 0, 0] == 7
    assert np.asarray(read_image(tmp_path / "p.tif", PictureRule(page=2)))[0, 0, 0] == 8
    with pytest.raises(DataError, match="2 pages; page 3"):
        read_image(tmp_path / "p.tif", PictureRule(page=3))


def test_sixteen_bit_colours_keep_their_lower_bits(tmp_path):
    colours = np.array([[[0, 50, 100], [150, 200, 255]]], np.uint16)  # all of it in the lower byte
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    rule = PictureRule(range=(0, 255))
    assert np.asarray(read_image(tmp_path / "a.tif", rule)).tolist() == colours.tolist()
    with pytest.raises(DataError, match=r"lower bits.*save it as TIFF"):
        read_image(png16(colours))
    with pytest.raises(DataError, match=r"lower bits"):  # an opaque alpha is no colour
        read_image(png16(np.dstack([colours, np.full((1, 2), 65535, np.uint16)])))
    with pytest.warns(DataWarning, match="upper 8 bits"):
        assert np.asarray(read_image(png16(colours * 257))).tolist() == colours.tolist()


def test_places_without_a_value_do_not_darken_the_rest(tmp_path):
    height = np.linspace(2, 3, 100).reshape(10, 10).astype(np.float32)
    height[:3] = -9999
    tifffile.imwrite(tmp_path / "a.tif", height, extratags=[(42113, "s", 0, "-9999", True)])
    with pytest.warns(DataWarning, match="percentiles"):
        shown = np.asarray(read_image(tmp_path / "a.tif"))[..., 0]
    assert shown[-1, -1] == 255
    assert shown[:3].max() == 0
    assert 0 <= shown[3, 0] < 5


@pytest.mark.filterwarnings("ignore:pictures deeper than 8 bit")
@pytest.mark.parametrize("nodata", ["-3.40282346600000016e+38", None])
def test_missing_values_that_floats_cannot_hold_exactly(tmp_path, nodata):
    height = np.linspace(2, 3, 100).reshape(10, 10).astype(np.float32)
    height[:3] = np.finfo(np.float32).min
    tags = [(42113, "s", 0, nodata, True)] if nodata else []
    tifffile.imwrite(tmp_path / "a.tif", height, extratags=tags)
    shown = np.asarray(read_image(tmp_path / "a.tif"))[..., 0]
    assert len(np.unique(shown[3:])) > 60


@pytest.mark.filterwarnings("ignore:pictures deeper than 8 bit")
def test_deep_pictures_whose_zero_is_white(tmp_path):
    values = np.arange(100, dtype=np.uint16).reshape(10, 10)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert np.asarray(read_image(tmp_path / "a.tif"))[0, 0, 0] == 255


def test_numbers_that_are_all_the_same_or_missing_do_not_fail():
    with pytest.warns(DataWarning):
        assert to_eight_bit(np.full((2, 2), -7.0)).tolist() == [[0, 0], [0, 0]]
    with pytest.warns(DataWarning):
        assert to_eight_bit(np.array([np.nan, 1.0, 2.0])).tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I", "F", "I;16"]
)
@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
def test_every_colour_mode_is_read(mode):
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"
    black = Image.new("RGB", (3, 2)).convert(mode) if mode in ("YCbCr", "CMYK") else Image.new(mode, (3, 2))
    assert marking_of(black).share == 0


def test_cmyk_jpeg_and_the_first_frame_of_animations(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, _ = np.asarray(read_image(tmp_path / "a.jpg"))[4, 4].tolist()
    assert red > 200
    assert green < 60
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(DataWarning, match="GIF of 2 frames: the first is read"):
        assert np.asarray(read_image(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_photos_of_phones_and_of_browsers_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    pillow_heif.from_pillow(Image.new("RGB", (32, 16), (250, 20, 20))).save(tmp_path / "a.heic")
    red, green, _ = np.asarray(read_image(tmp_path / "a.heic"))[8, 16].tolist()
    assert red > 200
    assert green < 60
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.jfif", format="JPEG")
    assert read_image(tmp_path / "b.jfif").size == (8, 8)


def test_formats_that_run_programs_are_no_pictures(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", format="EPS")
    with pytest.raises(DataError, match=r"a\.jpg is not a picture that can be read"):
        read_image(tmp_path / "a.jpg")


def test_bad_files_say_which_and_what_to_do(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    good = save(tmp_path / "good.jpg", rng.integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:900])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    cases = {
        "missing.png": "no such file",
        "cut.jpg": "damaged or cut off",
        "text.png": "use JPEG or PNG",
        "empty.png": "use JPEG or PNG",
        ".": "is a folder",
    }
    for name, message in cases.items():
        for read in (read_image, read_labels, read_mask):
            with pytest.raises(DataError, match=message) as error:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(error.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert read_image(good).size == (64, 64)  # between the limit and twice the limit Pillow only warns
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large"):
        read_image(good)


def test_a_broken_exif_block_does_not_hide_the_photo(tmp_path):
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=b"Exif\0\0broken")
    assert read_image(tmp_path / "a.jpg").size == (4, 2)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=12))
def test_label_maps_survive_being_written(tmp_path_factory, values):
    labels = np.array([values], np.uint8)
    path = tmp_path_factory.mktemp("labels") / "a.png"
    write_labels(labels, path)
    np.testing.assert_array_equal(read_labels(path), labels)
    Image.fromarray(labels).save(path)
    np.testing.assert_array_equal(read_labels(path), labels)
    Image.fromarray(np.repeat(labels[..., None], 3, -1)).save(path)
    np.testing.assert_array_equal(read_labels(path), labels)


def test_labels_of_one_bit_and_sixteen(tmp_path):
    assert read_labels(save(tmp_path / "1.png", np.array([[True, False]]))).tolist() == [[1, 0]]
    assert read_labels(save(tmp_path / "16.png", np.array([[3, 255]], np.uint16))).tolist() == [[3, 255]]


def test_what_is_no_label_map_is_refused(tmp_path):
    with pytest.raises(DataError, match="coloured"):
        read_labels(save(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8)))
    with pytest.raises(DataError, match="0 to 300"):
        read_labels(save(tmp_path / "b.png", np.array([[0, 300]], np.uint16)))
    with pytest.raises(DataError, match="JPEG changes pixel values"):
        read_labels(save(tmp_path / "c.jpg", CORNER))


def test_a_format_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.xyz"):
        write_image(Image.new("L", (2, 2)), tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["nef", "CR2", "dng"])
def test_the_preview_in_a_camera_s_raw_picture_is_not_taken_for_the_photo(tmp_path, ending):
    Image.new("RGB", (16, 12)).save(tmp_path / "preview.tif")
    raw = (tmp_path / "preview.tif").rename(tmp_path / f"a.{ending}")
    with pytest.raises(DataError, match=rf"a\.{ending}: raw pictures of cameras are not read .* as JPEG or TIFF"):
        read_image(raw)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_picture_is_written_wholly_or_not_at_all_where_the_disk_is_full(tmp_path, suffix):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    write_image(noise, tmp_path / f"whole{suffix}")
    size = (tmp_path / f"whole{suffix}").stat().st_size
    for most in (0, 1, size // 2, size - 1):
        with full_disk(most), pytest.raises(OSError, match="File too large"):
            write_image(noise, tmp_path / f"part{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"whole{suffix}"]


def test_overlay_tints_outlines_and_leaves_the_rest(tmp_path):
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 1
    mask[0, 0] = 255
    pixels = np.asarray(overlay(image, mask, color=(200, 0, 0), alpha=0.5))
    assert pixels[10, 10].tolist() == [150, 50, 50]
    assert pixels[5, 10].tolist() == [200, 0, 0]
    assert pixels[4, 10].tolist() == [255, 255, 255]
    assert pixels[2, 10].tolist() == pixels[0, 0].tolist() == [100, 100, 100]
    assert np.asarray(image)[10, 10].tolist() == [100, 100, 100]
    with pytest.raises(UsageError, match="20 x 20"):
        overlay(image, np.zeros((3, 3)))


def test_label_colours_begin_with_the_page_s_and_go_on_with_voc_s():
    page = (Path(fewseg.__file__).parent / "web/page/colors.js").read_text()
    assert f"const COLORS = {label_colors()[1:9].tolist()};" in page
    assert label_colors()[[0, 15, 255]].tolist() == [
        [0, 0, 0],
        [192, 128, 128],
        [224, 224, 192],
    ]
