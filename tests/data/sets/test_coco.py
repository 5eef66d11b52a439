import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

import trees
from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.episodes.sampling import training_images
from fewseg.data.sets.coco20i import Coco20i
from fewseg.data.sets.coco_json import CocoJson
from fewseg.data.sets.folder import Folder
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.progress import Silent

# Eighty categories with gaps, as COCO's, not in order.
CATEGORIES = {c: f"class {c}" for c in sorted(range(1, 161, 2), key=lambda c: (c % 7, c))}
MASK = np.zeros((64, 64), np.uint8)
MASK[10:30, 5:55] = 1


def category(class_id: int) -> int:
    return 2 * class_id - 1


IMAGES = {
    "base_2048.jpg": [(category(2), trees.compressed(trees.label_map({1: 2048})))],
    "base_2047.jpg": [(category(2), trees.compressed(trees.label_map({1: 2047})))],
    "base_and_novel.jpg": [
        (category(2), trees.compressed(trees.label_map({1: 2100}))),
        (category(1), trees.square(60, 60, 2)),
    ],
    "crowd.jpg": [(category(3), trees.uncompressed(trees.label_map({1: 3000})))],
    "covered.jpg": [
        (category(2), trees.compressed(trees.label_map({1: 2100}))),
        (category(4), trees.compressed(trees.label_map({1: 100}))),
    ],
    "nothing.jpg": [],
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for year in ("train2014", "val2014"):
        path = tmp_path / "annotations" / f"instances_{year}.json"
        trees.write_coco(path, IMAGES, categories=CATEGORIES, photos=tmp_path / year)
    return tmp_path


def test_polygons_run_lengths_crowds_and_order(coco: Path) -> None:
    source = Coco20i(root=str(coco))
    assert source.class_names == tuple(f"class {c}" for c in range(1, 161, 2))
    assert source.index.ids == tuple(name[:-4] for name in IMAGES)
    counts = {
        i: {c: int(n) for c, n in enumerate(row) if n and c}
        for i, row in zip(source.ids, source.index.counts, strict=True)
    }
    assert counts == {
        "base_2048": {2: 2048},
        "base_2047": {2: 2047},
        "base_and_novel": {1: 4, 2: 2100},
        "crowd": {3: 3000},
        "covered": {2: 2000, 4: 100},
        "nothing": {},
    }
    image, labels = source.load(4)
    assert image.size == (64, 64)
    np.testing.assert_array_equal(labels, np.where(trees.label_map({1: 100}), 4, 2 * trees.label_map({1: 2100})))
    assert all((np.bincount(source.labels(i).ravel(), minlength=81) == source.index.counts[i]).all() for i in range(6))


def test_lists_by_the_2048_pixel_rule(coco: Path) -> None:
    source = Coco20i(root=str(coco))
    fold = source.fold(0)
    assert fold.novel[:3] == (1, 5, 9)
    assert Coco20i(root=str(coco), scheme="contiguous").fold(1).novel == tuple(range(21, 41))
    names = {
        rule: [source.ids[i] for i in training_images(source, fold, novel=rule)] for rule in ("drop", "background")
    }
    assert names["drop"] == ["base_2048", "crowd"]
    assert names["background"] == ["base_2048", "base_and_novel", "crowd"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@given(
    polygons=st.lists(
        st.lists(st.floats(-20, 90).map(lambda x: round(x, 2)), min_size=6, max_size=24).filter(
            lambda p: len(p) % 2 == 0
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_drawn_as_pycocotools_draws(tmp_path_factory: pytest.TempPathFactory, polygons: list[list[float]]) -> None:
    root = tmp_path_factory.mktemp("one")
    trees.write_coco(root / "a.json", {"x.jpg": [(1, polygons)]}, categories={1: "thing"}, photos=root)
    expected = rle.decode(rle.merge(rle.frPyObjects(polygons, 64, 64)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(CocoFile(root / "a.json", root=root, key="a").labels(0), expected)


@given(seed=st.integers(0, 10**6), density=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_run_lengths_of_any_mask(tmp_path_factory: pytest.TempPathFactory, seed: int, density: float) -> None:
    root = tmp_path_factory.mktemp("one")
    mask = (np.random.default_rng(seed).random((64, 64)) < density).astype(np.uint8)
    images = {"a.jpg": [(1, trees.compressed(mask))], "b.jpg": [(1, trees.uncompressed(mask))]}
    trees.write_coco(root / "a.json", images, categories={1: "thing"}, photos=root)
    file = CocoFile(root / "a.json", root=root, key="a")
    np.testing.assert_array_equal(file.labels(0), mask)
    np.testing.assert_array_equal(file.labels(1), mask)


@pytest.mark.slow
def test_many_images_are_counted_by_processes(tmp_path: Path) -> None:
    images = {f"{n}.jpg": [(1 + n % 3, trees.square(n % 7, 3, 2 + n % 20))] for n in range(1100)}
    path = tmp_path / "a.json"
    trees.write_coco(path, images, categories={c: str(c) for c in (1, 2, 3)}, photos=tmp_path, side=32)
    file = CocoFile(path, root=tmp_path, key="a")
    counts = file.index(file.files, Silent()).counts
    assert [(int(row.argmax()) + 1, int(row.max())) for row in counts[:, 1:]] == [
        (1 + n % 3, (2 + n % 20) ** 2) for n in range(1100)
    ]


def test_changed_annotations_are_read_again(coco: Path) -> None:
    assert len(Coco20i(root=str(coco)).index.ids) == 6
    path = coco / "annotations" / "instances_train2014.json"
    trees.write_coco(path, dict(list(IMAGES.items())[:2]), categories=CATEGORIES, photos=coco / "train2014")
    os.utime(path, ns=(1, 1))
    assert len(Coco20i(root=str(coco)).index.ids) == 2


def test_label_maps_are_kept_on_request(coco: Path) -> None:
    source = Coco20i(root=str(coco), cache_labels=True)
    first = source.labels(4)
    assert len(list((coco / ".fewseg").glob("labels-train-*/covered.png"))) == 1
    np.testing.assert_array_equal(source.labels(4), first)


def test_text_beyond_ascii_and_odd_entries(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    extra = {"info": {"über": ["x", {"y": None}]}, "licenses": [], "more": [1, [2], "3"]}
    images = {"größe/ä.jpg": [(5, trees.square(1, 1, 3)), (5, [[1, 2, 3, 4]])], "b.jpg": [(9, trees.square(0, 0, 4))]}
    trees.write_coco(path, images, categories={9: "Käfer", 5: "Öl"}, photos=tmp_path / "images", extra=extra)
    path.write_bytes(b"\xef\xbb\xbf \n" + path.read_bytes())
    with pytest.warns(DataWarning, match="entries of 'annotations' left out .*neither an outline .* nor a box"):
        source = CocoJson(root=str(tmp_path), folds=2)
    assert source.class_names == ("Öl", "Käfer")
    assert source.index.ids == ("größe/ä.jpg", "b.jpg")
    assert source.index.counts[:, 1:].tolist() == [[9, 0], [0, 16]]
    assert source.load(0)[0].size == (64, 64)


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "6 images and 0 categories"),
        ({"categories": [{"id": 2, "name": "x"}]}, "7 annotations are of categories that are not listed"),
        ({"images": [{"id": 0}]}, "entries of 'images' left out .* lacks 'height'"),
        (
            {"annotations": [{"image_id": 99, "category_id": 1, "segmentation": [[1, 1, 2, 2, 3, 3]]}]},
            "annotations are of images that are not listed",
        ),
        ({"annotations": [{"image_id": 3, "category_id": 1, "segmentation": [["a"] * 6]}]}, "neither an outline"),
        (
            {"annotations": [{"image_id": 3, "category_id": 1, "segmentation": {"size": [64, 64], "counts": [9]}}]},
            "run lengths cover 9 pixels, the image has 4096",
        ),
        (
            {"annotations": [{"image_id": 3, "category_id": 1, "segmentation": {"size": [2, 2], "counts": [4]}}]},
            "run lengths of another size than their image",
        ),
    ],
)
def test_broken_annotations_are_told(coco: Path, changes: dict[str, object], message: str) -> None:
    edited(coco / "annotations" / "instances_train2014.json", **changes)
    with pytest.raises(DataError, match=message):
        _ = Coco20i(root=str(coco)).index


def test_missing_and_cut_off_files_are_told(coco: Path) -> None:
    path = coco / "annotations" / "instances_train2014.json"
    for content in (path.read_text()[:3000], "[]", ""):
        path.write_text(content)
        with pytest.raises(DataError, match=r"no valid JSON|must be one JSON object|is empty"):
            Coco20i(root=str(coco))
    path.unlink()
    with pytest.raises(DataError, match=r"instances_train2014.json is missing; fetch COCO 2014 with"):
        Coco20i(root=str(coco))
    with pytest.raises(UsageError, match="unknown scheme 'odd'"):
        Coco20i(root=str(coco), scheme="odd")


def test_own_data_is_divided_like_a_folder(tmp_path: Path) -> None:
    images = {f"{n}.jpg": [(1 + n % 4, trees.square(3, 3, 20))] for n in range(40)}
    trees.write_coco(tmp_path / "a.json", images, categories={c: f"c{c}" for c in range(1, 5)}, photos=tmp_path)
    train, test = (CocoJson(root=str(tmp_path), subset=subset, val_fraction=0.3) for subset in ("train", "test"))
    assert not set(train.index.ids) & set(test.index.ids)
    assert len(train.index.ids) + len(test.index.ids) == 40
    assert test.load(0)[1].max() == test.index.classes_in(0)[0]
    assert CocoJson(root=str(tmp_path), novel_classes=["c2"]).fold(0).novel == (2,)
    (tmp_path / "b.json").write_text('{"theme": "dark"}')
    with pytest.warns(DataWarning, match="JSON files are not of COCO's format and are left out .*b.json"):
        assert len(CocoJson(root=str(tmp_path)).index.ids) == 40
    (tmp_path / "b.json").write_text('{"images": []}')
    with pytest.raises(
        DataError,
        match=r"must hold one .json file of COCO's format, found: a.json, b.json; name it with data.annotations",
    ):
        CocoJson(root=str(tmp_path))
    assert len(CocoJson(root=str(tmp_path), annotations="a.json").index.ids) == 40


def test_another_tools_export_is_told_from_cocos(tmp_path):
    for content, kind in (
        ('{"shapes": [], "imagePath": "a.jpg"}', "LabelMe"),
        ('[{"file_upload": ""}]', "Label Studio"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=rf"a\.json is {kind}'s; a data set .* is an export in COCO's format"):
            CocoJson(root=str(tmp_path))
        with pytest.raises(DataError, match=r"holds an annotation tool's export .* take coco_json"):
            Folder(root=str(tmp_path))
