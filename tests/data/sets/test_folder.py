from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from fewseg.data.sets.folder import Folder
from fewseg.errors import DataError, UsageError

NAMES = ("bolt", "clip", "nut", "ring")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    trees.write_masks(tmp_path, {f"{name}/{n}": trees.label_map({1: 100 + n}) for name in NAMES for n in range(6)})
    return tmp_path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    images = {f"p{n}": trees.label_map({1: 100, 2 + n % 3: 200}, void=7) for n in range(12)}
    trees.write_labels(tmp_path, images, classes=NAMES)
    return tmp_path


def test_masks_by_class(masks: Path) -> None:
    source = Folder(root=str(masks))
    assert source.class_names == NAMES
    assert source.index.ids[7] == "clip/1"
    assert source.index.counts[7].tolist() == [4096 - 101, 0, 101, 0, 0]
    image, label_map = source.load(7)
    assert image.size == (64, 64)
    np.testing.assert_array_equal(label_map, trees.label_map({2: 101}))


def test_label_maps(labels: Path) -> None:
    source = Folder(root=str(labels))
    assert source.class_names == NAMES
    i = source.index.ids.index("p4")
    assert source.index.counts[i].tolist() == [4096 - 307, 100, 0, 200, 0]
    np.testing.assert_array_equal(source.load(i)[1], trees.label_map({1: 100, 3: 200}, void=7))


def test_label_maps_without_names(labels: Path) -> None:
    (labels / "classes.txt").unlink()
    source = Folder(root=str(labels))
    assert source.class_names == ("class_1", "class_2", "class_3", "class_4")
    assert source.index.counts.shape == (12, 5)


def test_mask_follows_the_photos_orientation(masks: Path) -> None:
    raw = np.zeros((40, 60), np.uint8)
    raw[:10, :20] = 1
    exif = Image.Exif()
    exif[0x0112] = 6
    trees.photo(raw).save(masks / "images/bolt/0.jpg", exif=exif)
    trees.write_png(raw * 255, masks / "masks/bolt/0.png", palette=False)
    image, label_map = Folder(root=str(masks)).load(0)
    assert image.size == (40, 60)
    np.testing.assert_array_equal(label_map, np.rot90(raw, -1))


def test_folds_are_a_partition_that_the_seed_decides(masks: Path) -> None:
    folds = [Folder(root=str(masks), folds=2, fold_seed=3).fold(i) for i in range(2)]
    assert sorted(folds[0].novel + folds[1].novel) == [1, 2, 3, 4]
    assert folds[0].base == folds[1].novel
    in_order = Folder(root=str(masks), folds=2, fold_seed=None)
    assert in_order.fold(1).novel == (3, 4)
    drawn = {Folder(root=str(masks), folds=2, fold_seed=seed).fold(0).novel for seed in range(20)}
    assert len(drawn) > 3


def test_folds_by_name(masks: Path) -> None:
    source = Folder(root=str(masks), novel_classes=["ring", "bolt"])
    assert (source.fold(0).novel, source.fold(0).base) == ((1, 4), (2, 3))
    with pytest.raises(UsageError, match="makes one fold"):
        source.fold(1)
    with pytest.raises(UsageError, match=r"unknown novel class 'blot'; choose .* Did you mean 'bolt'"):
        Folder(root=str(masks), novel_classes=["blot"]).fold(0)
    with pytest.raises(UsageError, match="4 classes cannot be divided into 5 folds"):
        Folder(root=str(masks), folds=5).fold(0)


def test_val_fraction_divides_images_by_their_ids(tmp_path: Path) -> None:
    trees.write_masks(tmp_path, {f"{name}/{n}": trees.label_map({1: 100}) for name in NAMES for n in range(30)})
    train = Folder(root=str(tmp_path), val_fraction=0.3)
    test = Folder(root=str(tmp_path), val_fraction=0.3, subset="test")
    assert not set(train.index.ids) & set(test.index.ids)
    assert len(train.index.ids) + len(test.index.ids) == 120
    assert 20 < len(test.index.ids) < 52
    for class_id in range(1, 5):
        assert len(train.index.images_of(class_id)) > 0
        assert len(test.index.images_of(class_id)) > 0
    assert train.load(0)[1].max() == 1
    (tmp_path / "images/bolt/0.jpg").unlink()
    assert set(Folder(root=str(tmp_path), val_fraction=0.3, subset="test").index.ids) >= set(test.index.ids) - {
        "bolt/0"
    }
    with pytest.raises(UsageError, match=r"val_fraction=1.5"):
        Folder(root=str(tmp_path), val_fraction=1.5)


def test_what_is_wrong_with_a_folder_is_said(masks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data.root"):
        Folder()
    with pytest.raises(DataError, match="neither masks/ nor labels/"):
        Folder(root=str(tmp_path / "images"))
    (masks / "masks/nut/3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 24 photos have no label file, the first missing is .*masks/nut/3.png"):
        _ = Folder(root=str(masks)).index
    trees.write_png(trees.label_map({}), masks / "images/bolt/0.png")
    with pytest.raises(DataError, match=r"would share one label file"):
        Folder(root=str(masks))


def test_label_values_beyond_the_names_are_refused(labels: Path) -> None:
    trees.write_png(trees.label_map({9: 5}), labels / "labels/p3.png")
    with pytest.raises(DataError, match=r"p3.png: label value 9 is no class"):
        _ = Folder(root=str(labels)).index
