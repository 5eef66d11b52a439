import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from fewseg.config import load_config
from fewseg.data.episodes.sampling import training_images
from fewseg.data.sets.folder import Folder
from fewseg.errors import DataError, DataWarning, UsageError

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


@pytest.mark.parametrize(
    ("value", "told"), [(255, "255, void, is 9\\d % of them"), (4, r"\(p0\.png, p1\.png.* and \d more\)$")]
)
def test_label_maps_without_background_are_told(labels: Path, value: int, told: str) -> None:
    for file in sorted((labels / "labels").glob("*.png"))[:-1]:
        pixels = np.array(Image.open(file))
        pixels[pixels == 0] = value
        Image.fromarray(pixels).save(file)
    with pytest.warns(DataWarning, match=rf"11 of 12 label maps hold no 0, the background.*{told}"):
        _ = Folder(root=str(labels)).class_names


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
    for part in ("images/bolt/0.jpg", "masks/bolt/0.png"):
        (tmp_path / part).unlink()
    again = Folder(root=str(tmp_path), val_fraction=0.3, subset="test")
    assert set(again.index.ids) >= set(test.index.ids) - {"bolt/0"}
    with pytest.raises(UsageError, match=r"val_fraction=1.5"):
        Folder(root=str(tmp_path), val_fraction=1.5)


def test_what_is_wrong_with_a_folder_is_said(masks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data.root"):
        Folder()
    with pytest.raises(DataError, match=r"(?s)is not laid out as photos with masks.*masks/CLASS/NAME.png.*NAME_mask"):
        Folder(root=str(tmp_path / "images"))
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        Folder(root=str(tmp_path / "nowhere"))
    trees.write_png(trees.label_map({}), masks / "images/bolt/0.png")
    with pytest.raises(DataError, match=r"bolt/0.jpg and 0.png would share one mask"):
        Folder(root=str(masks))


def test_photos_and_masks_without_each_other_are_left_out_and_told(masks: Path) -> None:
    (masks / "masks/nut/3.png").unlink()
    (masks / "images/clip/0.jpg").unlink()
    trees.write_jpg(trees.label_map({}), masks / "images/screw/0.jpg")
    with pytest.warns(DataWarning) as told:
        source = Folder(root=str(masks))
    texts = [str(warning.message) for warning in told]
    assert "2 photos without a mask, left out (the first: " in texts[0]
    assert "masks without a photo, left out (one: " in texts[1]
    assert len(source.index.ids) == 22
    assert source.class_names == NAMES


def test_masks_of_other_names_are_an_error_with_examples(masks: Path) -> None:
    for path in (masks / "masks").rglob("*.png"):
        path.rename(path.with_name(f"object_{path.name}"))
    with pytest.raises(DataError, match=r"24 photos have no mask and 24 masks have no photo.*bolt/0.jpg.*object_0.png"):
        Folder(root=str(masks))


@pytest.mark.parametrize("ending", [".png", ".JPG", ".tif", ".bmp", ".gif", "_mask.png", "-Mask.PNG", ".jpg.png"])
def test_a_mask_may_have_any_pictures_ending(tmp_path: Path, ending: str) -> None:
    for n in range(3):
        mask = trees.label_map({1: 1024})
        trees.write_jpg(mask, tmp_path / f"images/part/{n}.jpg")
        (tmp_path / "masks/part").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask * 255).save(tmp_path / f"masks/part/{n}{ending}")
    source = Folder(root=str(tmp_path))
    assert source.ids == ("part/0", "part/1", "part/2")
    assert source.index.counts[:, 1].tolist() == pytest.approx([1024] * 3, abs=20)  # JPEG has soft edges


def test_two_masks_of_one_photo_are_refused(masks: Path) -> None:
    shutil.copy(masks / "masks/bolt/0.png", masks / "masks/bolt/0_mask.png")
    with pytest.raises(DataError, match=r"bolt/0.jpg has 2 masks: .*0.png and .*0_mask.png"):
        Folder(root=str(masks))


FLAT = [("images", "masks"), ("Images", "Masks"), ("img", "mask"), ("photos", "Ground Truth"), ("imgs", "gt")]


@pytest.mark.parametrize(("images", "folder"), FLAT)
def test_masks_of_one_class(tmp_path: Path, images: str, folder: str) -> None:
    root = tmp_path / "polyp"
    for n in range(3):
        trees.write_jpg(trees.label_map({1: 900}), root / images / f"{n}.jpg")
        trees.write_png(trees.label_map({1: 900}) * 255, root / folder / f"{n}.png", palette=False)
    source = Folder(root=str(root))
    with pytest.warns(DataWarning, match=r"its one class is called 'polyp' \(data.class_name=NAME to change it"):
        assert source.class_names == ("polyp",)
    assert source.fold(0).novel == (1,)
    assert source.index.counts[:, 1].tolist() == [900] * 3
    assert Folder(root=str(root), class_name="lesion").class_names == ("lesion",)
    trees.write_list(root / "classes.txt", ["background", "tumour"])
    assert Folder(root=str(root)).class_names == ("tumour",)
    assert source.describe()["layout"] == f"{images} + {folder}"


def test_flat_masks_with_a_list_of_classes_are_label_maps(tmp_path: Path) -> None:
    trees.write_labels(tmp_path, {f"p{n}": trees.label_map({1 + n % 2: 100}) for n in range(4)}, classes=["cow", "ox"])
    (tmp_path / "labels").rename(tmp_path / "masks")
    source = Folder(root=str(tmp_path))
    assert source.class_names == ("cow", "ox")
    assert source.index.counts[:, 1:].tolist() == [[100, 0], [0, 100]] * 2


def test_label_maps_of_0_and_255_are_of_one_class(tmp_path: Path) -> None:
    for n in range(3):
        trees.write_jpg(trees.label_map({}), tmp_path / f"images/{n}.jpg")
        trees.write_png(trees.label_map({}, void=300), tmp_path / f"labels/{n}.png", palette=False)
    source = Folder(root=str(tmp_path), class_name="rust")
    with pytest.warns(DataWarning, match="255 in its label maps is taken for the object"):
        assert source.index.counts.tolist() == [[4096 - 300, 300]] * 3
    assert source.load(0)[1].max() == 1
    trees.write_list(tmp_path / "classes.txt", ["rust", "dent"])
    with pytest.raises(
        DataError, match=r"hold only 0 and 255, and 255 is void, but classes.txt has 2 names. Write 1 for"
    ):
        _ = Folder(root=str(tmp_path)).class_names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((2, 1, 3), "hold 1, 2, 3 and no 0, the background"),  # trimaps of Oxford's pets
        ((255, 1, 1), "hold 1 and no 0, the background"),
        ((0, 128, 128), "levels rather than classes"),
    ],
)
def test_label_maps_that_are_rather_masks_are_asked_about(
    tmp_path: Path, values: tuple[int, int, int], message: str
) -> None:
    for n in range(3):
        label = np.full((40, 60), values[0], np.uint8)
        label[5:20, 5:20], label[20:24, 5:20] = values[1], values[2]
        trees.photo(label).save(trees.made(tmp_path / f"images/{n}.jpg"))
        Image.fromarray(label).save(trees.made(tmp_path / f"annotations/trimaps/{n}.png"))
    with pytest.raises(DataError, match=rf"{message}.*data\.label=VALUE.*classes\.txt"):
        _ = Folder(root=str(tmp_path)).class_names
    source = Folder(root=str(tmp_path), label=str(values[1]), class_name="cat")
    assert source.class_names == ("cat",)
    np.testing.assert_array_equal(source.mask_of(0, 1) == 1, label == values[1])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match=r"data\.label=1: .*classes\.txt names"):
        Folder(root=str(tmp_path), label="1")


def test_a_folder_of_labels_may_hold_masks_that_are_no_numbers(tmp_path: Path) -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[5:20, 5:20] = 255
    for n in range(3):
        trees.photo(truth).save(trees.made(tmp_path / f"images/{n}.png"))
        Image.fromarray(truth).save(trees.made(tmp_path / f"labels/{n}.jpg"), quality=90)
    source = Folder(root=str(tmp_path), class_name="polyp")
    np.testing.assert_array_equal(source.mask_of(0, 1) * 255, truth)


def test_masks_of_different_values_are_asked_about(tmp_path: Path) -> None:
    trees.write_labels(tmp_path, {f"p{n}": trees.label_map({1 + n % 2: 100}) for n in range(4)}, classes=NAMES)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "labels").rename(tmp_path / "masks")
    with pytest.raises(DataError, match=r"1 in .*p0\.png and 2 in .*p1\.png.*classes\.txt.*data\.label=any"):
        Folder(root=str(tmp_path))
    assert Folder(root=str(tmp_path), label="any", class_name="part").index.counts[:, 1].tolist() == [100] * 4


def test_masks_of_everything_or_nothing_are_told(masks: Path) -> None:
    for name, value in (("bolt/1", 255), ("clip/2", 0)):
        Image.fromarray(np.full((64, 64), value, np.uint8)).save(masks / f"masks/{name}.png")
    with (
        pytest.warns(DataWarning, match=r"masks leave nothing as background .*bolt.1\.png"),
        pytest.warns(DataWarning, match=r"masks mark nothing .*clip.2\.png"),
    ):
        _ = Folder(root=str(masks)).index


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("images/21_training.tif", "1st_manual/21_manual1.gif"),  # DRIVE's
        ("Challenge_Training_Input/ISIC_7.jpg", "Challenge_Training_GroundTruth/ISIC_7_segmentation.png"),
        ("train/car_7.jpg", "train_masks/car_7_mask.gif"),  # Carvana's
        ("images/image_7.png", "masks/mask_7.png"),
    ],
)
def test_masks_of_one_class_as_data_sets_name_them(tmp_path: Path, photo: str, mask: str) -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[5:20, 5:20] = 255
    for n in range(21, 24):
        trees.photo(truth).save(trees.made(tmp_path / photo.replace("21", "7").replace("7", str(n))))
        Image.fromarray(truth).save(trees.made(tmp_path / mask.replace("21", "7").replace("7", str(n))))
    view = trees.made(tmp_path / "mask/21_training_mask.gif")  # DRIVE's field of view is no truth
    if mask.startswith("1st"):
        Image.fromarray(np.full((40, 60), 255, np.uint8)).save(view)
    source = Folder(root=str(tmp_path), class_name="thing")
    assert len(source.ids) == 3
    np.testing.assert_array_equal(source.mask_of(0, 1) * 255, truth)


def test_mvtecs_folders_and_a_root_one_too_high(tmp_path: Path) -> None:
    for name in ("scratch/000", "crack/000", "good/000"):
        label = trees.label_map({1: 100 + len(name)})
        trees.photo(label).save(trees.made(tmp_path / f"bottle/test/{name}.png"))
        if "good" not in name:
            Image.fromarray(label * 255).save(trees.made(tmp_path / f"bottle/ground_truth/{name}_mask.png"))
    with pytest.warns(DataWarning, match="photos without a mask"):
        assert Folder(root=str(tmp_path / "bottle")).class_names == ("crack", "scratch")
    trees.write_labels(tmp_path / "voc/VOC2012", {"a": trees.label_map({1: 100})})
    with pytest.raises(DataError, match=r"one folder down: give data\.root=.*VOC2012"):
        Folder(root=str(tmp_path / "voc"))


def test_photos_and_masks_side_by_side(tmp_path: Path) -> None:
    for name in ("a/0", "a/1", "b/0"):
        trees.write_jpg(trees.label_map({1: 500}), tmp_path / f"{name}.jpg")
        mask = "_mask" if name == "a/1" else ""
        trees.write_png(trees.label_map({1: 500}) * 255, tmp_path / f"{name}{mask}.png", palette=False)
    source = Folder(root=str(tmp_path))
    assert (source.ids, source.class_names) == (("a/0", "a/1", "b/0"), ("a", "b"))
    assert source.index.counts[:, 1:].tolist() == [[500, 0], [500, 0], [0, 500]]
    one = Folder(root=str(tmp_path / "a"), class_name="a")
    assert one.ids == ("0", "1")
    trees.write_list(tmp_path / "a/_classes.csv", ["Pixel Value, Class", "0, background", "255, void"])
    with pytest.raises(DataError, match=r"_classes.csv must have lines VALUE,NAME"):
        Folder(root=str(tmp_path / "a"))


def test_vocs_folders_by_any_name_and_its_lists(tmp_path: Path) -> None:
    for n in range(6):
        trees.write_jpg(trees.label_map({}), tmp_path / f"JPEGImages/{n}.jpg")
        trees.write_png(trees.label_map({1 + n % 2: 100}, void=9), tmp_path / f"SegmentationClass/{n}.png")
    trees.write_list(tmp_path / "class_names.txt", ["_background_", "cow", "ox"])
    trees.write_list(tmp_path / "ImageSets/Segmentation/train.txt", ["0", "1.jpg", "2"])
    trees.write_list(tmp_path / "ImageSets/Segmentation/val.txt", ["3", "4"])
    with pytest.warns(DataWarning) as told:
        test = Folder(root=str(tmp_path), subset="test")
    texts = [str(warning.message) for warning in told]
    assert any("photos in neither train.txt nor val.txt, left out (one: 5)" in text for text in texts)
    assert any("train.txt and val.txt divide the images: 3 to train on, 2 to test on" in text for text in texts)
    with pytest.warns(DataWarning, match="the background's, is that of 0, and 'cow' that of 1"):
        assert test.class_names == ("cow", "ox")
    assert test.ids == ("3", "4")
    assert test.index.counts[:, 1:].tolist() == [[0, 100], [100, 0]]


def test_sub_folders(tmp_path: Path) -> None:
    for name in ("train/0", "train/1", "val/0"):
        trees.write_jpg(trees.label_map({1: 500}), tmp_path / f"images/{name}.jpg")
        trees.write_png(trees.label_map({1: 500}) * 255, tmp_path / f"masks/{name}.png", palette=False)
    with pytest.warns(DataWarning, match="the folders train and val divide the images: 2 to train on, 1 to test on"):
        sources = [Folder(root=str(tmp_path), class_name="cow", subset=subset) for subset in ("train", "test")]
    assert [source.ids for source in sources] == [("train/0", "train/1"), ("val/0",)]
    trees.write_png(trees.label_map({1: 500}), tmp_path / "masks/train/cow/3.png")
    with pytest.raises(DataError, match=r"masks/train/cow is a folder inside masks/train: if its name is a class"):
        Folder(root=str(tmp_path))
    (tmp_path / "images").rename(tmp_path / "masks/train/images")
    with pytest.raises(DataError, match="has masks in masks/, but no folder of photos"):
        Folder(root=str(tmp_path))
    (tmp_path / "masks").rename(tmp_path / "parts")
    with pytest.raises(DataError, match=r"is divided into train and val: give one of them, data.root=.*/parts/train"):
        Folder(root=str(tmp_path / "parts"))


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """Four photos in two class folders with masks that overlap, and one photo of a dog alone."""
    dog, sofa = np.zeros((2, 64, 64), np.uint8)
    dog[:20, :20], sofa[10:50, 10:50] = 1, 1
    for n in range(5):
        for name, mask in (("dog", dog), ("sofa", sofa))[: 2 - n // 4]:
            trees.write_png(mask * 255, tmp_path / f"masks/{name}/{n}.png", palette=False)
            place = tmp_path / f"images/{name}/{n}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            trees.photo(dog, seed=n).save(place)
    return tmp_path


def test_a_photo_in_two_class_folders_is_one_image_of_two_classes(twice: Path) -> None:
    with pytest.warns(DataWarning, match=r"4 photos lie in several class folders.*dog/0.jpg and images/sofa/0.jpg"):
        source = Folder(root=str(twice), novel_classes=["sofa"])
    assert source.ids == tuple(f"dog/{n}" for n in range(5))
    assert source.index.counts[0].tolist() == [4096 - 400 - 1600 + 100, 400, 1600]
    labels = source.load(0)[1]
    assert (labels[15, 15], labels[5, 5], labels[40, 40]) == (1, 1, 2)
    assert [int((source.mask_of(0, c) == 1).sum()) for c in (1, 2)] == [400, 1600]
    assert source.mask_of(4, 2, source.load(4)[1]).max() == 0
    assert training_images(source, source.fold(0)).tolist() == [4]


def test_other_bytes_are_another_photo_and_the_cache_sees_it(twice: Path) -> None:
    with pytest.warns(DataWarning, match="4 photos"):
        Folder(root=str(twice))
    trees.photo(np.zeros((64, 64), np.uint8), seed=99).save(twice / "images/sofa/0.jpg")
    with pytest.warns(DataWarning, match="3 photos"):
        assert Folder(root=str(twice)).ids[-1] == "sofa/0"


def test_label_values_beyond_the_names_are_refused(labels: Path) -> None:
    trees.write_png(trees.label_map({9: 5}), labels / "labels/p3.png")
    with pytest.raises(
        DataError, match=r"classes.txt has 4 names but the label maps hold 1 to 9 \(.*p3.png: label value"
    ):
        _ = Folder(root=str(labels)).index


def test_names_of_values_that_are_not_there(labels: Path) -> None:
    trees.write_list(labels / "classes.txt", [*NAMES, "washer"])
    source = Folder(root=str(labels))
    with pytest.warns(DataWarning, match="5 names, but the label maps hold 1 to 4: 'washer' is nowhere"):
        assert len(source.class_names) == 5
    trees.write_list(labels / "classes.txt", ["background", *NAMES])
    with pytest.warns(DataWarning, match="is that of 0, and 'bolt' that of 1"):
        assert Folder(root=str(labels)).class_names == NAMES
    trees.write_list(labels / "classes.txt", ["background", *NAMES[:3]])
    with pytest.raises(DataError, match=r"has 4 names, the background's first, but the label maps hold 1 to 4"):
        _ = Folder(root=str(labels)).class_names
    (labels / "classes.txt").unlink()
    trees.write_png(trees.label_map({200: 5}), labels / "labels/p3.png")
    with pytest.warns(DataWarning, match="hold 1, 2, 3, 4, 200: these are class_1 to class_200"):
        assert len(Folder(root=str(labels)).class_names) == 200
    with pytest.raises(
        UsageError, match=r"data.class_name=x is the name of one class, 1, but the label maps hold 1, 2"
    ):
        _ = Folder(root=str(labels), class_name="x").class_names


def test_class_names_of_folders_are_text_and_not_to_be_given(masks: Path) -> None:
    (masks / "masks/nut").rename(masks / "masks/1")
    (masks / "images/nut").rename(masks / "images/1")
    config = load_config("folder", f"data.root={masks}", "data.novel_classes=1")
    source = Folder(root=str(masks), novel_classes=config.data.options["novel_classes"])
    assert [source.class_names[c - 1] for c in source.fold(0).novel] == ["1"]
    with pytest.raises(UsageError, match=r"data.class_name=x: the classes of .* have the names of their folders"):
        Folder(root=str(masks), class_name="x")


def test_cvats_coloured_label_maps(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)
    labels = trees.label_map({1: 100, 2: 50})
    (tmp_path / "SegmentationClass").mkdir()
    for n in range(2):
        trees.write_jpg(labels, tmp_path / f"JPEGImages/{n}.jpg")
        Image.fromarray(colours[labels]).save(tmp_path / f"SegmentationClass/{n}.png")
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "cow:250,50,83::", "ox:51,221,255::"]
    trees.write_list(tmp_path / "labelmap.txt", lines)
    source = Folder(root=str(tmp_path))
    with pytest.warns(DataWarning, match="is that of 0"):
        assert source.class_names == ("cow", "ox")
    np.testing.assert_array_equal(source.load(0)[1], labels)
    trees.write_list(tmp_path / "labelmap.txt", lines[:3])
    with pytest.raises(DataError, match=r"0.png: the colour \(51, 221, 255\) is not in labelmap.txt"):
        _ = Folder(root=str(tmp_path)).index


def test_a_label_says_which_value_of_the_masks_is_the_object(tmp_path: Path) -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[5:20, 5:20], ids[25:35, 30:50] = 1, 2
    for folder, pixels in (("images", np.zeros((40, 60, 3), np.uint8)), ("masks", ids)):
        (tmp_path / folder / "cell").mkdir(parents=True)
        for n in range(2):
            Image.fromarray(pixels + np.uint8(n) * (folder == "images")).save(tmp_path / folder / "cell" / f"{n}.png")
    with pytest.raises(UsageError, match=r"0\.png holds the values 0, 1 and 2.*data\.label= for a data set"):
        _ = Folder(root=str(tmp_path)).index
    for label, area in (("2", 200), ("any", 425)):  # the cache tells them apart
        assert Folder(root=str(tmp_path), label=label).index.counts[:, 1].tolist() == [area, area]
