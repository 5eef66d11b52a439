import json
from pathlib import Path

import numpy as np
import pytest

import trees
from fewseg.data.inspect.check import check_classes, check_source
from fewseg.data.inspect.sheet import contact_sheet
from fewseg.data.inspect.stats import all_folds, fold_statistics
from fewseg.data.sets.coco20i import Coco20i
from fewseg.data.sets.folder import Folder
from fewseg.data.sets.fss1000 import Fss1000
from fewseg.data.sets.pascal5i import Pascal5i
from fewseg.errors import DataError, DataWarning

CATEGORIES = {c: f"class {c}" for c in range(1, 81)}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    train = trees.many(range(1, 21), 2) | {"mixed": trees.label_map({6: 2048, 1: 2048})}
    trees.write_voc(tmp_path, train, trees.many([1, 2, 8], 3, prefix="v"))
    return tmp_path


def test_statistics_by_hand(voc: Path) -> None:
    statistics = fold_statistics(Pascal5i(root=str(voc)), Pascal5i(root=str(voc), subset="test"))
    numbers = [{k: v for k, v in fold.items() if k != "classes"} for fold in statistics]
    assert numbers == [
        {"fold": 0, "train_drop": 30, "train_background": 31, "test": 6},
        {"fold": 1, "train_drop": 30, "train_background": 31, "test": 3},
        {"fold": 2, "train_drop": 31, "train_background": 31, "test": 0},
        {"fold": 3, "train_drop": 31, "train_background": 31, "test": 0},
    ]
    first = statistics[0]["classes"]
    assert first["aeroplane"] == {"role": "novel", "train_drop": 0, "train_background": 0, "test": 3}
    assert first["bus"] == {"role": "base", "train_drop": 2, "train_background": 3, "test": 0}
    assert json.loads(json.dumps(statistics)) == statistics


def test_folds_are_counted(voc: Path, tmp_path: Path) -> None:
    assert all_folds(Pascal5i(root=str(voc))) == [0, 1, 2, 3]
    trees.write_fss(tmp_path / "fss", {"train": ["a"], "val": ["b"], "test": ["c"]}, images=2)
    assert all_folds(Fss1000(root=str(tmp_path / "fss"))) == [0]


def test_a_sound_data_set_has_no_problem(voc: Path) -> None:
    assert check_source(Pascal5i(root=str(voc))) == []


def test_every_problem_is_listed_with_its_path(voc: Path) -> None:
    base = voc / "VOC2012"
    (base / "JPEGImages" / "01_0.jpg").unlink()
    (base / "JPEGImages" / "02_0.jpg").write_bytes(b"no picture")
    trees.write_png(trees.label_map({3: 9}, side=60), base / "SegmentationClass" / "03_0.png")
    trees.write_png(trees.label_map({77: 9}), base / "SegmentationClass" / "04_0.png")
    (base / "SegmentationClass" / "05_0.png").unlink()
    (base / "SegmentationClass" / "06_0.png").write_bytes(b"no picture")
    problems = check_source(Pascal5i(root=str(voc)))
    assert [(p.image_id, p.kind) for p in problems] == [
        ("01_0", "missing"),
        ("02_0", "unreadable"),
        ("03_0", "size"),
        ("04_0", "labels"),
        ("05_0", "missing"),
        ("06_0", "labels"),
    ]
    assert all(f"{p.image_id}" in p.text for p in problems)
    assert "values [77] are no classes (0 to 20 and 255 are)" in problems[3].text
    assert "64 x 64 pixels, its labels are 60 x 60" in problems[2].text


def test_own_data_is_checked_too(tmp_path: Path) -> None:
    trees.write_masks(tmp_path, {f"{name}/{n}": trees.label_map({1: 100}) for name in ("a", "b") for n in range(4)})
    (tmp_path / "masks/a/0.png").unlink()
    trees.write_png(trees.label_map({1: 9}, side=50), tmp_path / "masks/b/1.png")
    trees.write_png(trees.label_map({}), tmp_path / "masks/b/2.png", palette=False)
    trees.write_png(trees.label_map({1: 4096}) * 255, tmp_path / "masks/b/3.png", palette=False)
    with pytest.warns(DataWarning, match="photos without a mask"):
        source = Folder(root=str(tmp_path))
    problems = check_source(source)
    found = [("a/0", "missing"), ("b/1", "size"), ("b/2", "empty"), ("b/3", "full")]
    assert [(p.image_id, p.kind) for p in problems] == found
    assert check_source(source, but={p.path for p in problems}) == []


def test_a_damaged_label_map_is_a_problem_and_the_others_are_checked(tmp_path: Path) -> None:
    trees.write_labels(tmp_path, trees.many([1, 2], 3), classes=["one", "two"])
    (tmp_path / "labels/01_1.png").write_bytes(b"no picture")
    trees.write_png(trees.label_map({1: 9}, side=60), tmp_path / "labels/02_2.png")
    problems = check_source(Folder(root=str(tmp_path)))
    assert [(p.image_id, p.kind) for p in problems] == [("01_1", "labels"), ("02_2", "size")]


def test_classes_with_too_few_images_are_named(tmp_path: Path) -> None:
    masks = {f"{name}/{n}": trees.label_map({1: 100}) for name in ("a", "b") for n in range(3)}
    trees.write_masks(tmp_path, masks | {"c/0": trees.label_map({1: 100}), "c/1": trees.label_map({1: 3})})
    sources = [Folder(root=str(tmp_path), subset=subset) for subset in ("train", "test")]
    (text,) = check_classes(sources, shots=1)
    assert "need 2 images with at least 64 pixels of their class; there are fewer of: 'c' 1. These classes" in text
    with pytest.raises(DataError, match="fewer of: 'a' 3, 'b' 3, 'c' 1"):
        check_classes(sources, shots=5)
    assert check_classes(sources[:1], shots=1) == [text]


def test_coco_photos_of_another_size_and_missing_ones(tmp_path: Path) -> None:
    images = {f"{n}.jpg": [(1, trees.square(2, 2, 9))] for n in range(3)}
    path = tmp_path / "annotations" / "instances_train2014.json"
    trees.write_coco(path, images, categories=CATEGORIES, photos=tmp_path / "train2014")
    trees.write_jpg(trees.label_map({}, side=30), tmp_path / "train2014" / "1.jpg")
    (tmp_path / "train2014" / "2.jpg").unlink()
    assert [(p.image_id, p.kind) for p in check_source(Coco20i(root=str(tmp_path)))] == [
        ("1", "size"),
        ("2", "missing"),
    ]


def test_contact_sheet(voc: Path) -> None:
    sheet = contact_sheet(Pascal5i(root=str(voc)), count=7, columns=4, cell=80)
    assert sheet.width == 4 * 88 + 8
    assert sheet.height > 2 * 88
    again = contact_sheet(Pascal5i(root=str(voc)), count=7, columns=4, cell=80)
    np.testing.assert_array_equal(np.asarray(sheet), np.asarray(again))
    cell = np.asarray(sheet)[8:88, 8:88]
    assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 50
