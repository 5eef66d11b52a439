"""Pictures that are read in windows: masks where the picture lies, whatever the windows, and outlines in its CRS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from fewseg.data.decoding import PictureRule
from fewseg.errors import DataError, DataWarning, UsageError, install_line
from fewseg.predictor import Result
from fewseg.runtime.memory import peak_memory, reset_peak_memory
from fewseg.segment import segment_large_folder
from fewseg.segment.large import Cut, outputs, segment_large
from fewseg.segment.windows import count_windows, windows
from fewseg.storage.saved import save_model
from helpers import RED, Fewseg, full_disk, iou, scene, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = from_origin(500_000, 5_200_000, 0.5, 0.5)


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 300), st.integers(8, 200))
def test_every_pixel_is_decided_once_by_a_window_that_sees_beyond_it(height: int, width: int, side: int) -> None:
    decided = np.zeros((height, width), int)
    found = list(windows(height, width, side))
    for w in found:
        assert 0 <= w.top <= w.core_top < w.core_bottom <= w.bottom <= height
        assert 0 <= w.left <= w.core_left < w.core_right <= w.right <= width
        assert (w.bottom - w.top, w.right - w.left) == (min(side, height), min(side, width))
        decided[w.core_top : w.core_bottom, w.core_left : w.core_right] += 1
        if side >= 16 and w.bottom < height:
            assert w.bottom - w.core_bottom >= side // 10
    assert (decided == 1).all()
    assert len(found) == count_windows(height, width, side)


class Colours:
    """Finds colours, one for each class, whatever lies around them."""

    runtime, support_files, support_side = "eyes", frozenset[Path](), 64
    support_names = frozenset[str]()

    def __init__(self, *names: str) -> None:
        self.names = names or None
        self.pictures, self.engine, self.looked = PictureRule(), SimpleNamespace(lanes=2), 0

    def predict_each(self, image: Any) -> dict[str, Result]:
        self.looked += 1
        far = [np.abs(image.astype(int) - colour).sum(2) for colour in (RED, (40, 40, 220))]
        found = [Result(d < 90, np.where(d < 90, 0.9, 0.1).astype(np.float32), (), None) for d in far]
        return dict(zip(self.names or ("object",), found, strict=False))


def painted(seed: int, height: int = 150, width: int = 230) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (H, W, 3) with boxes of two colours, and its labels."""
    rng = np.random.default_rng(seed)
    pixels, labels = np.full((height, width, 3), 120, np.uint8), np.zeros((height, width), np.uint8)
    for n in range(14):
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
        box = np.s_[top : top + rng.integers(2, 40), left : left + rng.integers(2, 60)]
        labels[box], pixels[box] = 1 + n % 2, (RED, (40, 40, 220))[n % 2]
    return pixels, labels


def write(path: Path, pixels: NDArray[Any], *, crs: str | None = "EPSG:32633", **how: Any) -> Path:
    place = {"crs": crs, "transform": UTM} if crs else {}
    shape = {"height": pixels.shape[0], "width": pixels.shape[1], "count": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **how) as target:
        target.write(np.moveaxis(pixels, 2, 0))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("side", [64, 90, 1000])
def test_masks_lie_where_the_picture_does_whatever_the_windows(place: Path, side: int) -> None:
    pixels, labels = painted(side)
    path = write(place / "a.tif", pixels)
    summary = segment_large_folder(
        Colours("red", "blue"), path, place / "out", formats=["gpkg", "geojson"], window=side, min_area=1
    )
    assert [(q.name, m.name) for q, m in summary.written] == [("a.tif", "a.tif")]
    with rasterio.open(place / "out/a.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), labels)
        assert (mask.crs.to_epsg(), mask.transform, mask.profile["tiled"]) == (32633, UTM, True)
        assert mask.colormap(1)[1] != mask.colormap(1)[2]
    assert (place / "out/classes.txt").read_text() == "red\nblue\n"
    info = pyogrio.read_info(place / "out/a.gpkg")
    assert info["crs"] == "EPSG:32633"
    west, south, east, north = info["total_bounds"]
    rows, columns = np.nonzero(labels)
    assert (west, north) == tuple(UTM * (columns.min(), rows.min()))
    assert (east, south) == tuple(UTM * (columns.max() + 1, rows.max() + 1))
    features = json.loads((place / "out/a.geojson").read_text())["features"]
    assert len(features) == info["features"]
    for number, name in enumerate(("red", "blue"), start=1):
        of_class = [f["properties"]["pixels"] for f in features if f["properties"]["class"] == name]
        assert sum(of_class) == (labels == number).sum()


def test_deep_values_are_stretched_alike_and_pixels_without_one_are_background(place: Path) -> None:
    pixels, labels = painted(5)
    deep = pixels.astype(np.uint16) * 200
    deep[:, :100] = 0
    path = write(place / "deep.tif", np.concatenate([deep, deep[..., :1]], 2), nodata=0)
    eyes = Colours()
    eyes.pictures = PictureRule(range=(0, 51000))
    with pytest.warns(UserWarning, match="bands 1, 2 and 3"):
        segment_large(
            eyes, path, outputs("deep", place, formats=[], overlay=True) | {"geotiff": place / "m.tif"}, Cut(64)
        )
    truth = (labels == 1) * 255
    truth[:, :100] = 0
    with rasterio.open(place / "m.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), truth)
    assert eyes.looked < count_windows(150, 230, 64)  # not where nothing is known
    with Image.open(place / "deep_overlay.jpg") as shown:
        assert shown.width == 230


def test_small_parts_are_dropped_where_they_end_within_a_window(place: Path) -> None:
    pixels = np.full((128, 200, 3), 120, np.uint8)
    pixels[10:13, 10:13] = RED  # a speck
    pixels[60:62, 20:180] = RED  # thin, but long
    path = write(place / "a.tif", pixels, crs=None)
    summary = segment_large_folder(Colours(), path, place / "out", window=64, min_area=100, overlay=False)
    with rasterio.open(summary.written[0][1]) as mask:
        found = mask.read(1) > 0
    assert not found[:20].any()
    assert found[60:62, 20:180].all()


def test_a_palette_is_read_as_its_colours_and_pixels_are_coordinates_without_a_crs(place: Path) -> None:
    picture = Image.fromarray(painted(1)[0]).quantize(8)
    picture.save(place / "p.png")
    with pytest.warns(DataWarning) as told:
        summary = segment_large_folder(
            Colours(), place / "p.png", place / "out", formats=["geojson", "gpkg"], window=80
        )
    assert [str(each.message) for each in told] == [f"{place / 'p.png'} has no CRS: its polygons are in pixels, y down"]
    with rasterio.open(summary.written[0][1]) as mask:
        assert iou(mask.read(1) > 0, painted(1)[1] == 1) > 0.99
    found = json.loads((place / "out/p.geojson").read_text())
    assert "crs" not in found
    corners = np.array(found["features"][0]["geometry"]["coordinates"][0])
    assert corners.min() >= 0
    assert corners.max() <= 230


def test_what_cannot_be_read_in_windows_is_listed_and_goes_on(place: Path) -> None:
    (place / "in").mkdir()
    write(place / "in/b.tif", painted(1)[0])
    (place / "in/a.tif").write_text('<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>')
    (place / "in/c.tif").write_bytes((place / "in/b.tif").read_bytes()[:300])
    summary = segment_large_folder(Colours(), place / "in", place / "out", window=64)
    assert [query.name for query, _ in summary.written] == ["b.tif"]
    assert [query.name for query, _ in summary.failed] == ["a.tif", "c.tif"]
    again = segment_large_folder(Colours(), place / "in", place / "out", window=64, resume=True)
    assert (again.skipped, len(again.failed)) == (1, 2)


@pytest.mark.parametrize("formats", [("geotiff",), ("geotiff", "gpkg")])
def test_masks_and_outlines_are_written_wholly_or_not_at_all_where_the_disk_is_full(
    place: Path, formats: tuple[str, ...]
) -> None:
    path = write(place / "a.tif", np.random.default_rng(0).choice([(120, 120, 120), RED], (700, 700)).astype(np.uint8))
    how: dict[str, Any] = {"formats": formats, "overlay": False, "window": 350}
    segment_large_folder(Colours(), path, place / "whole", **how)
    size = max(file.stat().st_size for file in (place / "whole").iterdir())
    for share in (0.3, 0.7, 0.9, 0.98):
        with full_disk(int(share * size)), pytest.raises(OSError, match=r"not written wholly|File too large"):
            segment_large_folder(Colours(), path, place / "out", **how)
        assert not [file for file in (place / "out").rglob("*") if file.is_file()]


def test_what_is_of_pictures_read_whole_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(place / "a.tif", painted(1)[0])
    for how, told in [
        ({"formats": ["png"]}, "format png of a picture that is read in windows: choose geotiff, gpkg, geojson"),
        ({"window": 20}, "give at least 64"),
    ]:
        with pytest.raises(UsageError, match=told):
            segment_large_folder(Colours(), path, place / "out", **how)
    with pytest.raises(UsageError, match="is an input and would be overwritten"):
        segment_large_folder(Colours(), path, place)
    eyes = Colours()
    eyes.support_side = None
    with pytest.raises(UsageError, match="give --window SIDE"):
        segment_large_folder(eyes, path, place / "out")
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(UsageError, match=re.escape(install_line("geo"))):
        segment_large_folder(Colours(), path, place / "out")
    assert not (place / "out").exists()


def test_the_command_looks_at_a_map_as_at_its_supports(place: Path, fewseg: Fewseg) -> None:
    model = save_model(tiny_model("dense"), place / "tiny")
    photo, mask = scene(size=(96, 80), box=(20, 20, 60, 60))
    Image.fromarray(photo).save(place / "s.png")
    Image.fromarray(mask).save(place / "m.png")
    (place / "maps").mkdir()
    wide = np.concatenate([photo] * 3, 1)
    wide[:, -96:] = 0  # NODATA
    write(place / "maps/map.tif", wide, nodata=0)
    (place / "maps/torn.tif").write_bytes((place / "maps/map.tif").read_bytes()[:300])
    words = ("segment", place / "maps", "--support", place / "s.png", "--mask", place / "m.png", "--model", model)
    done = fewseg(*words, "--format", "gpkg", "--out", place / "out")
    assert done.code == 1, done.err
    assert "windows of 96 x 96 pixels, as large as the supports' photos" in " ".join(done.err.split())
    with rasterio.open(place / "out/map.tif") as found:
        labels = found.read(1) > 0
        assert (found.crs.to_epsg(), found.transform) == (32633, UTM)
    assert iou(labels[:, :-96], np.concatenate([mask] * 2, 1)) > 0.3
    assert not labels[:, -96:].any()
    info = pyogrio.read_info(place / "out/map.gpkg")
    *_, pixels = pyogrio.raw.read(place / "out/map.gpkg", columns=["pixels"])
    assert (info["crs"], pixels[0].sum()) == ("EPSG:32633", labels.sum())
    assert "torn.tif" in (place / "out/failures.csv").read_text()
    words = ("segment", place / "maps/map.tif", *words[2:])
    for more, told in [
        (("--instances", "--window", "96"), "--instances is of pictures that are read whole"),
        (("--format", "coco", "--window", "96"), "format coco"),
    ]:
        wrong = fewseg(*words, *more, "--out", place / "other")
        assert wrong.code == 2
        assert told in " ".join(wrong.err.split())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(place: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one of `python -m benchmarks.soak gigapixel`: 110 MB of pixels more, and 37 of their mask."""
    monkeypatch.setattr("fewseg.segment.large._CACHE", 16 * 2**20)  # which fills, and no more
    tile, labels = painted(1, 512, 512)
    Image.fromarray(tile).save(place / "s.png")
    Image.fromarray((labels == 1).astype(np.uint8)).save(place / "m.png")
    words = ["--support", place / "s.png", "--mask", place / "m.png", "--window", 512, "--no-overlay"]
    words += ["--model", save_model(tiny_model("dense"), place / "tiny"), "--out", place / "out"]
    used = []
    for count in (2, 12):
        path, side = place / f"{count}.tif", 512 * count
        how = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "tiled": True}
        with rasterio.open(path, "w", **how) as target:
            for top, left in np.ndindex(count, count):
                target.write(np.moveaxis(tile, 2, 0), window=Window(512 * left, 512 * top, 512, 512))
        reset_peak_memory()
        before = peak_memory(torch.device("cpu"))
        done = fewseg("segment", path, *words)
        assert done.code == 0, done.err
        after = peak_memory(torch.device("cpu"))
        if before is None or after is None:
            pytest.skip("this system does not tell a process's peak memory")
        used.append((after - before) / 1e6)
    assert used[1] < used[0] + 50, used


def test_a_transform_that_is_turned_is_kept(place: Path) -> None:
    turned = Affine.translation(1000, 2000) * Affine.rotation(30) * Affine.scale(2, -2)
    pixels, labels = painted(3)
    with rasterio.open(
        place / "t.tif", "w", driver="GTiff", height=150, width=230, count=3, dtype="uint8", crs=3857, transform=turned
    ) as target:
        target.write(np.moveaxis(pixels, 2, 0))
    summary = segment_large_folder(Colours(), place / "t.tif", place / "out", formats=["geojson"], overlay=False)
    with rasterio.open(summary.written[0][1]) as mask:
        assert mask.transform.almost_equals(turned)
    features = json.loads((place / "out/t.geojson").read_text())["features"]
    assert sum(f["properties"]["pixels"] for f in features) == (labels == 1).sum()


def test_a_picture_without_colours_is_refused(place: Path) -> None:
    path = write(place / "c.tif", np.ones((80, 90, 1), np.complex64))
    summary = segment_large_folder(Colours(), path, place / "out", window=64)
    assert "which is no picture" in summary.failed[0][1]
    with pytest.raises(DataError):
        segment_large(Colours(), path, outputs("c", place / "out", formats=[], overlay=False), Cut(64))
