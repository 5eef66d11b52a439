"""Polygons, YOLO and GeoJSON give the masks back; classes are named, resumed runs do nothing twice."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage
from skimage.draw import polygon as pixels_of

from fewseg.data.images import read_labels
from fewseg.data.winners import label_map
from fewseg.errors import DataWarning, UsageError
from fewseg.predictor import FewShotPredictor
from fewseg.segment import formats, segment_folder
from fewseg.segment.books import BOOKS
from fewseg.segment.polygons import is_hole, joined, polygons
from helpers import BLUE, RED, ColorSegmenter, iou, scene
from segment.test_run import files, photo


def drawn(corners, size):
    mask = np.zeros(size, bool)
    mask[pixels_of(corners[:, 1] - 0.5, corners[:, 0] - 0.5, size)] = True
    return mask


def blobs(seed, size=(60, 90), smooth=2.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), smooth)
    return noise > 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 1.0, 3.0]))
def test_rings_with_their_holes_give_the_mask_back(seed, smooth):
    mask = blobs(seed, smooth=smooth) if smooth else np.random.default_rng(seed).random((12, 17)) > 0.6
    back, total = np.zeros_like(mask), 0
    for rings, count in polygons(mask):
        part = np.zeros_like(mask)
        for ring in rings:
            assert (ring[0] == ring[-1]).all()
            part ^= drawn(ring, mask.shape)
        assert part.sum() == count
        total += count
        back |= part
    np.testing.assert_array_equal(back, mask)
    assert total == mask.sum()


def test_yolo_lines_are_read_back_with_holes():
    mask = blobs(3, smooth=3.0)
    mask[20:40, 20:40] = True
    mask[26:34, 26:34] = False
    back = np.zeros_like(mask)
    for line in formats.yolo(mask.astype(np.uint8)).splitlines():
        number, *values = line.split()
        assert number == "0"
        corners = np.array(values, float).reshape(-1, 2)
        assert 0 <= corners.min() <= corners.max() <= 1
        back |= drawn(corners * (mask.shape[1], mask.shape[0]), mask.shape)
    assert iou(back, mask) > 0.98
    assert not back[28:32, 28:32].any()


def test_parts_that_touch_at_a_corner_and_holes_join_to_one_ring():
    mask = np.zeros((12, 12), bool)
    mask[1:5, 1:5] = mask[5:9, 5:9] = True
    mask[2:4, 2:4] = False
    ((rings, count),) = polygons(mask)
    assert (len(rings), count) == (3, 28)
    assert [is_hole(ring) for ring in rings].count(True) == 1
    np.testing.assert_array_equal(drawn(joined(rings), mask.shape), mask)


def test_geojson_follows_the_standard_and_names_classes():
    labels = np.zeros((40, 50), np.uint8)
    labels[5:30, 5:30], labels[10:20, 10:20] = 1, 0
    labels[2:9, 35:45] = 2
    content = json.loads(formats.geojson(labels, ["ring", "box"]))
    assert content["type"] == "FeatureCollection"
    assert content["image"] == {"width": 50, "height": 40}
    ring, box = content["features"]
    assert ring["properties"] == {"class": "ring", "class_id": 1, "pixels": 525}
    assert ring["geometry"]["type"] == box["geometry"]["type"] == "Polygon"
    outer, hole = (np.array(r) for r in ring["geometry"]["coordinates"])
    assert (outer.min(), outer.max(), hole.min(), hole.max()) == (5, 30, 10, 20)
    assert not is_hole(outer)
    assert is_hole(hole)
    np.testing.assert_array_equal(drawn(outer, (40, 50)) & ~drawn(hole, (40, 50)), labels == 1)


def test_label_maps_by_threshold_and_size():
    first, second = np.zeros((9, 9), np.float32), np.full((9, 9), 0.3, np.float32)
    first[0, 0], first[3:7, 3:7] = 0.9, 0.7
    assert label_map([first, second]).max() == 1
    assert label_map([second, first]).max() == 2
    low = label_map([first, second], threshold=0.25)
    assert (low == 2).sum() == 81 - 17
    kept = label_map([first], threshold=0.5, min_area=2)
    assert kept.sum() == 16
    assert kept[0, 0] == 0
    assert label_map([first], threshold=0.8).sum() == 1


@pytest.fixture
def predictor():
    predictor = FewShotPredictor(ColorSegmenter())
    predictor.set_support({"red": scene(RED), "blue": scene(BLUE)})
    return predictor


def test_all_formats_of_a_run_agree(predictor, tmp_path, capsys):
    photo(tmp_path / "in/r.png", RED)
    photo(tmp_path / "in/sub/b.png", BLUE)
    summary = segment_folder(predictor, tmp_path / "in", tmp_path / "out", formats=formats.FORMATS, overlay=False)
    beside = ["classes.txt", "results.csv", *(name for name, _ in BOOKS.values())]
    stems = [f"{stem}.{ending}" for stem in ("r", "sub/b") for ending in ("geojson", "json", "png", "txt")]
    assert files(tmp_path / "out") == sorted(beside + stems)
    assert (tmp_path / "out/classes.txt").read_text() == "red\nblue\n"
    labels = read_labels(tmp_path / "out/sub/b.png")
    assert (tmp_path / "out/sub/b.txt").read_text().startswith("1 ")
    (feature,) = json.loads((tmp_path / "out/sub/b.geojson").read_text())["features"]
    assert feature["properties"] == {"class": "blue", "class_id": 2, "pixels": int((labels == 2).sum())}
    assert [a["category_id"] for a in COCO(str(summary.annotations)).dataset["annotations"]] == [1, 2]


def test_a_run_that_goes_on_tells_of_masks_that_were_made_otherwise(predictor, tmp_path, recwarn):
    for name in ("a", "b"):
        photo(tmp_path / f"in/{name}.png", RED)
    go = partial(segment_folder, predictor, tmp_path / "in", tmp_path / "out", overlay=False)
    go()
    go(resume=True)
    assert not recwarn.list
    with pytest.warns(DataWarning, match=r"2 of 2 masks that are there, and stay, .*threshold 0.5.*threshold 0.7"):
        go(resume=True, threshold=0.7)
    mask = photo(tmp_path / "support.png", BLUE)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    predictor.set_support(tmp_path / "support.png", tmp_path / "mask.png")
    with pytest.warns(DataWarning, match=r"2 of 2 masks .* this run by .*supports [0-9a-f]{8}, threshold 0.5"):
        go(resume=True)


def test_resume_does_only_what_is_missing_and_the_annotations_are_whole(predictor, tmp_path):
    for name in ("a", "b"):
        photo(tmp_path / f"in/{name}.png", RED)
    options = {"formats": ("png", "coco"), "overlay": False}
    first = segment_folder(predictor, tmp_path / "in", tmp_path / "out", **options)
    whole = first.annotations.read_text()
    (tmp_path / "out/b.png").unlink()
    photo(tmp_path / "in/c.png", RED)
    again = segment_folder(predictor, tmp_path / "in", tmp_path / "out", resume=True, **options)
    assert (again.skipped, [q.name for q, _ in again.written]) == (1, ["b.png", "c.png"])
    (tmp_path / "in/c.png").unlink()
    with pytest.warns(DataWarning, match=r"photos that this run was not given \(c\.png\)"):
        segment_folder(predictor, tmp_path / "in", tmp_path / "out", resume=True, **options)
    (tmp_path / "out/c.png").unlink()
    assert first.annotations.read_text() == whole
    with pytest.raises(UsageError, match="add --format png"):
        segment_folder(predictor, tmp_path / "in", tmp_path / "out", resume=True, formats=["coco"])
    with pytest.raises(
        UsageError, match=r"format svg: choose one or several of png, coco, yolo, geojson.*; or geotiff, gpkg"
    ):
        segment_folder(predictor, tmp_path / "in", tmp_path / "out", formats=["svg"])
