"""What masks mean: read right where one reading is possible, asked about where several are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewseg.data.images import write_labels
from fewseg.data.masks import marking_of, read_marking, read_mask
from fewseg.errors import UsageError

DISC = ((np.indices((40, 60)) - np.array([20, 30])[:, None, None]) ** 2).sum(0) < 150
RING = ~DISC & (((np.indices((40, 60)) - np.array([20, 30])[:, None, None]) ** 2).sum(0) < 220)
SQUARE = np.zeros_like(DISC)
SQUARE[2:9, 2:12] = True


def save(path: Path, array: NDArray[Any], **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def painted(disc: int = 0, ring: int = 0, square: int = 0, *, other: int = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    values = np.full(DISC.shape, other, dtype)
    values[DISC], values[RING], values[SQUARE] = disc or other, ring or other, square or other
    return values


@pytest.mark.parametrize("value", [1, 2, 12, 100, 127, 128, 200, 254, 255])
@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif"])
def test_one_value_beside_0_is_the_object(tmp_path: Path, value: int, ending: str) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / f"m.{ending}", painted(value))), DISC)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_mask_that_marks_what_is_around_the_object_is_told(tmp_path: Path, ending: str) -> None:
    inside = np.where(DISC, np.uint8(255), np.uint8(0))
    right, swapped = (read_marking(save(tmp_path / f"{v[0, 0]}.{ending}", v)) for v in (inside, 255 - inside))
    assert "border" not in str(right)
    assert "with 100 % of the border (if that is background, invert the mask)" in str(swapped)
    assert "border" not in str(read_marking(tmp_path / f"255.{ending}", "any"))  # as was asked for


@pytest.mark.parametrize("value", [1, 12, 100])
def test_a_class_id_inside_void_is_the_object(tmp_path: Path, value: int) -> None:
    marking = read_marking(save(tmp_path / "m.png", painted(value, ring=255)))
    np.testing.assert_array_equal(marking.mask, np.where(RING, 255, DISC))
    assert str(marking).startswith(f"0, {value} and 255: {value} is the object, 255 is ignored; ")
    assert str(marking).endswith(f"{100 * DISC.mean():.3g} % marked")
    save(tmp_path / "rgb.png", np.repeat(painted(value, ring=255)[..., None], 3, -1))
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png"), marking.mask)


@pytest.mark.parametrize(
    "values",
    [
        painted(255, other=1),  # no background
        painted(65535, ring=32768, dtype=np.uint16),  # a trimap
        painted(1, square=2),
        painted(1, ring=255, square=2),
        painted(255, ring=128),  # a trimap
        painted(1, ring=3, other=2),  # another trimap
        painted(1, other=2),
        np.where(np.arange(2400).reshape(40, 60) < 9, 1, painted(255)).astype(np.uint8),  # strays beside 0/255
        np.linspace(0, 255, 2400).reshape(40, 60).astype(np.uint8),  # a probability, or a photo
    ],
)
def test_what_may_mean_several_things_is_asked_about(tmp_path: Path, values: NDArray[Any]) -> None:
    file = save(tmp_path / "m.png", values)
    with pytest.raises(UsageError, match=r"m\.png holds the values .*--label VALUE"):
        read_mask(file)
    for value in np.unique(values).tolist()[:3]:
        np.testing.assert_array_equal(read_mask(file, value) == 1, values == value)
    np.testing.assert_array_equal(read_mask(file, ">=128"), values >= 128)


def test_any_is_every_value_but_0_and_void(tmp_path: Path) -> None:
    file = save(tmp_path / "m.png", painted(1, ring=255, square=2))
    np.testing.assert_array_equal(read_mask(file, "any"), np.where(RING, 255, DISC | SQUARE))
    with pytest.raises(UsageError, match="none named 'cow'"):
        read_mask(file, "cow")


def test_two_values_of_which_one_is_grey_are_levels(tmp_path: Path) -> None:
    file = save(tmp_path / "m.png", painted(255, ring=128))
    np.testing.assert_array_equal(read_mask(file, "any"), DISC | RING)
    np.testing.assert_array_equal(read_mask(file, 255), DISC)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_ids_of_instances_are_all_the_object(tmp_path: Path, dtype: Any) -> None:
    ids = np.kron(np.arange(24).reshape(4, 6), np.ones((10, 10))).astype(dtype)
    ids[ids > 0] += 200
    ids[:, 9::10] = 0  # between cells
    marking = read_marking(save(tmp_path / "m.tif", ids))
    np.testing.assert_array_equal(marking.mask, ids > 0)
    assert marking.meaning == "23 ids of instances: all are the object"
    eight_bit = np.where(ids > 0, ids - 190, 0).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", eight_bit)), ids > 0)
    np.testing.assert_array_equal(marking_of(painted(1, square=2, dtype=dtype)).mask, DISC | SQUARE)


def test_soft_edges_and_a_lossy_format_are_cut_at_the_half(tmp_path: Path) -> None:
    big = Image.fromarray(painted(255)).resize((480, 320))
    soft = big.resize((90, 60), Image.Resampling.BILINEAR)
    soft.save(tmp_path / "soft.png")
    marking = read_marking(tmp_path / "soft.png")
    np.testing.assert_array_equal(marking.mask, np.asarray(soft) >= 128)
    assert marking.meaning == "0 to 255 with soft edges: the upper half is the object"
    big.save(tmp_path / "m.jpg", quality=60)
    assert (read_mask(tmp_path / "m.jpg") != (np.asarray(big) >= 128)).mean() < 0.01
    painted_jpeg = save(tmp_path / "small.jpg", painted(255, square=255), quality=95)
    np.testing.assert_array_equal(read_mask(painted_jpeg) == 1, DISC | SQUARE)  # hardly a pixel between black and white
    for name, value in (("black.jpg", 0), ("white.jpg", 255)):
        mask = read_mask(save(tmp_path / name, np.full((40, 60), value, np.uint8)))
        assert mask.min() == mask.max() == value // 255
    Image.fromarray(painted(1, ring=128, square=255)).resize((480, 320)).save(tmp_path / "three.jpg")
    with pytest.raises(UsageError, match="values"):
        read_mask(tmp_path / "three.jpg")


def test_thin_soft_lines_and_noise_of_a_former_jpeg_are_cut_at_the_half(tmp_path: Path) -> None:
    lines = Image.new("L", (640, 480))
    ImageDraw.Draw(lines).line([(10, 10), (600, 400), (300, 460)], fill=255, width=6)
    thin = lines.resize((320, 240), Image.Resampling.LANCZOS)
    thin.save(tmp_path / "thin.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "thin.png"), np.asarray(thin) >= 128)
    for quality in (40, 60, 95):
        lines.save(tmp_path / "thin.jpg", quality=quality)
        Image.open(tmp_path / "thin.jpg").save(tmp_path / "former.png")
        for name in ("thin.jpg", "former.png"):
            assert (read_mask(tmp_path / name) != (np.asarray(lines) >= 128)).sum() < 40
    noisy = painted(255)
    noisy[20, 28:32], noisy[0, :5] = 254, 1
    np.testing.assert_array_equal(read_mask(save(tmp_path / "noisy.png", noisy)), DISC)


def test_ids_in_a_lossy_format_are_no_black(tmp_path: Path) -> None:
    for name, options in (("m.webp", {"lossless": True}), ("m.jpg", {"quality": 95})):
        file = save(tmp_path / name, np.repeat(painted(1, square=2)[..., None], 3, -1), **options)
        with pytest.raises(UsageError, match="0, 1"):
            read_mask(file)
    with pytest.raises(UsageError, match="values"):  # the white ring is void, not the object
        read_mask(save(tmp_path / "void.jpg", np.kron(painted(12, ring=255), np.ones((5, 5), np.uint8)), quality=95))


def test_pixels_without_a_value_are_ignored(tmp_path: Path) -> None:
    def geotiff(nodata: str, values: NDArray[Any]) -> Path:
        tifffile.imwrite(tmp_path / "m.tif", values, extratags=[(42113, "s", 0, nodata, True)])
        return tmp_path / "m.tif"

    np.testing.assert_array_equal(read_mask(geotiff("0", painted(1, dtype=np.uint16))), DISC)
    void = np.where(RING, 255, DISC)
    for nodata, values in (
        ("65535", painted(1, ring=65535, dtype=np.uint16)),
        ("-9999", painted(1, ring=-9999, dtype=np.float32)),
        ("nan", np.where(RING, np.nan, DISC).astype(np.float32)),
    ):
        marking = read_marking(geotiff(nodata, values))
        np.testing.assert_array_equal(marking.mask, void)
        assert marking.meaning == f"0 and 1: 1 is the object; {nodata}, which the file calls no value, is ignored"


def test_palettes_go_by_index_and_their_greys_as_seen(tmp_path: Path) -> None:
    write_labels(painted(15, ring=255), tmp_path / "voc.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "voc.png"), np.where(RING, 255, DISC))
    write_labels(painted(1, square=2), tmp_path / "two.png")
    with pytest.raises(UsageError, match=r"0, 1 and 2: which"):
        read_mask(tmp_path / "two.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "two.png", 2), SQUARE)
    white_first = Image.fromarray(1 - painted(1))
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    white_first.save(tmp_path / "seen.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "seen.png"), DISC)
    red_first = Image.fromarray(1 - painted(1))
    red_first.putpalette([255, 0, 0, 0, 0, 90])
    red_first.save(tmp_path / "colours.png")
    with pytest.raises(UsageError, match="index 0 may be the object"):
        read_mask(tmp_path / "colours.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "colours.png", 0), DISC)
    np.testing.assert_array_equal(read_mask(tmp_path / "colours.png", "#ff0000"), DISC)
    all_black = Image.fromarray(painted(1))
    all_black.putpalette([0, 0, 0] * 256)
    all_black.save(tmp_path / "unseen.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "unseen.png"), DISC)


def test_one_colour_on_black_is_the_object_and_several_are_asked_about(tmp_path: Path) -> None:
    colours = np.zeros((*DISC.shape, 3), np.uint8)
    colours[DISC] = (128, 0, 64)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "one.png", colours)), DISC)
    colours[SQUARE] = (0, 255, 0)
    with pytest.raises(UsageError, match=r"#000000, #800040, #00ff00: which is the object"):
        read_mask(save(tmp_path / "two.png", colours))
    np.testing.assert_array_equal(read_mask(tmp_path / "two.png", "#00ff00"), SQUARE)
    red = Image.fromarray(np.where(DISC[..., None], (255, 30, 0), 0).astype(np.uint8)).resize((480, 320))
    red.save(tmp_path / "red.jpg", quality=90)
    assert (read_mask(tmp_path / "red.jpg") != (np.asarray(red)[..., 0] >= 128)).mean() < 0.01


def test_a_cut_out_is_the_object(tmp_path: Path) -> None:
    cut = np.zeros((*DISC.shape, 4), np.uint8)
    cut[..., 3] = painted(255)  # black and opaque
    np.testing.assert_array_equal(read_mask(save(tmp_path / "cut.png", cut)), DISC)
    with pytest.raises(UsageError, match="cut-out"):
        read_mask(tmp_path / "cut.png", 1)
    cut[..., 3] = painted(100)  # a layer of an editor at 40 %
    np.testing.assert_array_equal(read_mask(save(tmp_path / "cut.png", cut)), DISC)
    cut[..., 3], cut[..., :3] = ~SQUARE * 255, painted(255)[..., None]
    with pytest.raises(UsageError, match="without transparency"):
        read_mask(save(tmp_path / "cut.png", cut))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (DISC, DISC),
        (DISC.astype(np.float32), DISC),
        (DISC[None], DISC),
        (DISC * np.float32(1 / 255), DISC),
        (np.where(DISC, 0.7, 0.2), DISC),
        (DISC.astype(np.int64) * 7, DISC),
        (DISC[..., None] * np.uint8(255), DISC),
        (np.repeat(DISC[..., None], 3, -1) * np.uint8(255), DISC),
        (np.dstack([painted(255)] * 3 + [np.full_like(painted(), 255)]), DISC),
        (painted(12, ring=255, dtype=np.float64), np.where(RING, 255, DISC)),
    ],
)
def test_arrays_follow_the_same_rule(array: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(marking_of(array).mask, expected)


def test_a_label_of_shares_and_of_truth_values() -> None:
    np.testing.assert_array_equal(marking_of(np.where(DISC, 0.7, np.where(RING, 0.6, 0)), ">=0.65").mask, DISC)
    np.testing.assert_array_equal(marking_of(DISC, 0).mask, ~DISC)


@pytest.mark.parametrize(
    "array",
    [
        painted(255, ring=128, dtype=np.int32),
        -painted(1, dtype=np.int32),
        painted(1, dtype=np.float64) * np.nan,
        painted(1)[..., None].repeat(2, -1),
    ],
)
def test_arrays_that_are_no_masks_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="mask"):
        marking_of(array)


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=6, unique=True),
    st.sampled_from([np.uint8, np.uint16, np.int64, np.float32]),
)
def test_no_values_give_a_mask_of_everything_or_nothing_without_a_word(values: list[int], dtype: Any) -> None:
    """Whatever a mask holds: the object is one value, the upper half of black and white, or all ids, as told, or
    there is a question.
    """
    array = np.kron(np.array([[*values]]), np.ones((6, 6))).astype(dtype)
    try:
        marking = marking_of(array)
    except UsageError:
        return
    inside = np.unique(array[marking.mask == 1]).astype(int).tolist()
    if len(inside) == 1 and set(values) != {0, 1}:
        assert f"{inside[0]} is the object" in marking.meaning
    elif "the upper half is the object" in marking.meaning:
        assert inside == sorted(value for value in values if value > 127)
    else:
        assert sorted(values) == sorted({*inside} | ({0} & {*values}))
    assert 0 not in inside
