"""A class of a COCO file is all that is annotated as it, wherever annotations overlap and in whatever order."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trees
from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.lists import EpisodeSpec
from fewseg.data.sets.coco20i import Coco20i
from fewseg.data.sets.coco_json import CocoJson
from fewseg.data.source import class_mask, mask_of
from fewseg.data.transforms import Augment, AugmentConfig, Squeeze
from fewseg.errors import DataError, DataWarning
from fewseg.evaluation.benchmark import Benchmark

WALL, PANE = 1, 2
SHAPES = [(WALL, trees.square(8, 8, 50)), (PANE, trees.square(20, 20, 10)), (WALL, trees.square(2, 2, 12))]


def own_data(root: Path, *, shapes=SHAPES, count: int = 1, **extra: object) -> CocoJson:
    images = {f"{n}.jpg": shapes for n in range(count)}
    trees.write_coco(
        root / "a.json", images, categories={3: "wall", 5: "pane"}, photos=root / "images", extra=dict(extra)
    )
    content = json.loads((root / "a.json").read_text())
    for entry in content["annotations"]:
        entry["category_id"] = {WALL: 3, PANE: 5}[entry["category_id"]]
    (root / "a.json").write_text(json.dumps(content))
    return CocoJson(root=str(root), folds=2, min_pixels=1)


def test_no_order_changes_masks_label_maps_or_the_index(tmp_path: Path) -> None:
    wall = np.zeros((64, 64), np.uint8)
    wall[8:58, 8:58], wall[2:14, 2:14] = 1, 1
    pane = np.zeros((64, 64), np.uint8)
    pane[20:30, 20:30] = 1
    for number, shapes in enumerate(itertools.permutations(SHAPES)):
        source = own_data(tmp_path / str(number), shapes=list(shapes))
        _, labels = source.load(0)
        np.testing.assert_array_equal(source.mask_of(0, WALL, labels), wall)
        np.testing.assert_array_equal(source.mask_of(0, PANE), pane)
        np.testing.assert_array_equal(labels, np.where(pane, PANE, WALL * wall))  # the smaller one on top
        assert source.index.counts.tolist() == [[4096 - int(wall.sum()), int(wall.sum()), 100]]


def test_episodes_have_the_whole_class_also_from_cached_views(tmp_path: Path) -> None:
    source = own_data(tmp_path, shapes=[(PANE, trees.square(20, 20, 10)), (WALL, trees.square(20, 20, 10))], count=2)
    fold = source.fold(0)
    spec = EpisodeSpec(0, WALL, (1,))
    data = EpisodeDataset(source, fold, spec_of=lambda _: spec, length=1, transform=Squeeze(64))
    episode = data[0].episode
    assert episode.query_mask is not None
    assert int((episode.query_mask == 1).sum()) == int((episode.support_masks == 1).sum()) == 100
    for labels in (labels for _, labels in data.load_views(0, (0, 1)).values()):
        assert [int((data.class_maps(labels, c)[0] == 1).sum()) for c in (WALL, PANE)] == [100, 100]
    augmented = EpisodeDataset(
        source, fold, spec_of=lambda _: spec, length=1, transform=Augment(AugmentConfig(), 64), novel="ignore"
    )
    assert torch.equal(augmented[0].episode.support_masks, augmented[0].episode.support_masks)


def test_a_source_without_masks_of_its_own_is_asked_for_its_label_map() -> None:
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(mask_of(object(), 0, 2, labels), [[0, 0, 1, 255]])  # type: ignore[arg-type]
    np.testing.assert_array_equal(class_mask(labels, 1), [[0, 1, 0, 255]])


def test_the_papers_take_the_later_annotation_and_fewseg_the_whole_class(tmp_path: Path) -> None:
    shapes = [(1, trees.compressed(trees.label_map({1: 2500}))), (2, trees.compressed(trees.label_map({1: 2100})))]
    images = {f"{n}.jpg": [shapes[0]] if n else shapes for n in range(3)}
    for year in ("train2014", "val2014"):
        path = tmp_path / "annotations" / f"instances_{year}.json"
        trees.write_coco(path, images, categories={c: str(c) for c in range(1, 81)}, photos=tmp_path / year)
    source = Coco20i(root=str(tmp_path), subset="test")
    fold = source.fold(0)
    drawn = {
        name: Benchmark.draw(source, fold, protocol=name, episodes=3, repeats=1, classes=(1,))
        for name in ("hdmnet", "fewseg")
    }
    assert drawn["hdmnet"].source is source
    assert source.index.counts[:, 1].tolist() == [400, 2500, 2500]
    whole = drawn["fewseg"].source
    assert whole.index.counts[:, 1].tolist() == [2500, 2500, 2500]
    assert whole.index.ids == source.index.ids
    for one, pixels in ((source, 400), (whole, 2500)):
        _, labels = one.load(0)
        assert int(mask_of(one, 0, 1, labels).sum()) == pixels
        assert int((labels == 1).sum()) == 400


# photos


def upright_and_stored(root: Path) -> None:
    """Two phone photos that are stored lying; one is annotated as stored, one as shown."""
    images = {"1.jpg": [(1, [[0, 0, 10, 0, 10, 20, 0, 20]])], "2.jpg": [(1, [[0, 0, 10, 0, 10, 20, 0, 20]])]}
    trees.write_coco(root / "a.json", images, categories={1: "part"}, photos=root)
    content = json.loads((root / "a.json").read_text())
    for image, (width, height) in zip(content["images"], ((96, 64), (64, 96)), strict=True):
        image |= {"width": width, "height": height}
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (96, 64)).save(root / image["file_name"], exif=exif)
    (root / "a.json").write_text(json.dumps(content))


def test_annotations_are_turned_as_their_photos_are(tmp_path: Path) -> None:
    upright_and_stored(tmp_path)
    source = CocoJson(root=str(tmp_path), folds=1)
    turned = np.zeros((96, 64), np.uint8)
    turned[:10, 44:] = 1
    shown = np.zeros((96, 64), np.uint8)
    shown[:20, :10] = 1
    for i, expected in enumerate((turned, shown)):
        image, labels = source.load(i)
        assert image.size == (64, 96)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(source.mask_of(i, 1, labels), expected)


@pytest.mark.parametrize("name", ["images/{}.jpg", r"images\{}.jpg", "{}.jpg", "/data/upload/1/1a2b3c4d-{}.jpg"])
def test_photos_are_found_as_in_an_export(tmp_path: Path, name: str) -> None:
    source = own_data(tmp_path, count=3)
    content = json.loads((tmp_path / "a.json").read_text())
    for n, image in enumerate(content["images"]):
        image["file_name"] = name.format(n)
    (tmp_path / "a.json").write_text(json.dumps(content))
    for options in ({}, {"images": "images"}):
        source = CocoJson(root=str(tmp_path), folds=2, **options)
        assert [source.image_path(i) for i in range(3)] == [tmp_path / f"images/{n}.jpg" for n in range(3)]


def test_photos_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    own_data(tmp_path, count=3)
    (tmp_path / "images/1.jpg").unlink()
    with pytest.warns(DataWarning, match=r"photos were not found .* \(one: '1.jpg'\)"):
        source = CocoJson(root=str(tmp_path), folds=2)
    assert source.index.ids == ("0.jpg", "2.jpg")
    assert source.index.counts.shape == (2, 3)
    assert source.load(1)[0].size == (64, 64)
    for n in (0, 2):
        (tmp_path / f"images/{n}.jpg").unlink()
    with pytest.raises(DataError, match=r"3 photos were not found .*data.images=FOLDER"):
        CocoJson(root=str(tmp_path), folds=2)


# classes


def test_a_project_named_like_a_class_and_unused_categories(tmp_path: Path) -> None:
    images = {f"{n}.jpg": [(1 + n % 3, trees.square(3, 3, 20))] for n in range(9)}
    names = {0: "cat", 1: "cat", 2: "unused", 3: "dog", 4: "cow", 5: "spare"}
    trees.write_coco(tmp_path / "a.json", images, categories=names, photos=tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    for entry in content["annotations"]:
        entry["category_id"] = {1: 1, 2: 3, 3: 4}[entry["category_id"]]
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = CocoJson(root=str(tmp_path), folds=3)
    assert source.class_names == ("cat", "unused", "dog", "cow", "spare")
    assert (source.index.counts[:, 1:] > 0).sum(0).tolist() == [3, 0, 3, 3, 0]
    folds = [source.fold(i) for i in range(3)]
    assert sorted(c for fold in folds for c in fold.novel) == [1, 3, 4]
    assert all({2, 5} <= set(fold.base) for fold in folds)
    assert CocoJson(root=str(tmp_path), novel_classes=["cat"]).fold(0).novel == (1,)


def test_background_is_no_class_and_ignored_pixels_are_void(tmp_path: Path) -> None:
    images = {"a.jpg": [(c, trees.square(4 * c, 4, 12)) for c in (1, 2, 3)]}
    trees.write_coco(
        tmp_path / "a.json", images, categories={1: "background", 2: "__ignore__", 3: "cat"}, photos=tmp_path
    )
    with pytest.warns(DataWarning, match="annotations mark the background, which is no class, left out"):
        source = CocoJson(root=str(tmp_path), folds=1)
    assert source.class_names == ("cat",)
    _, labels = source.load(0)
    assert [int((labels == v).sum()) for v in (1, 255)] == [144, 48]
    np.testing.assert_array_equal(source.mask_of(0, 1, labels), labels)
    assert source.index.counts.tolist() == [[4096 - 144 - 48, 144]]


def test_ids_in_any_order_give_the_same_classes(tmp_path: Path) -> None:
    names = {c: f"class {c}" for c in random.Random(3).sample(range(1, 30), 12)}
    trees.write_coco(
        tmp_path / "a.json", {"a.jpg": [(min(names), trees.square(1, 1, 5))]}, categories=names, photos=tmp_path
    )
    assert CocoJson(root=str(tmp_path)).class_names == tuple(f"class {c}" for c in sorted(names))
