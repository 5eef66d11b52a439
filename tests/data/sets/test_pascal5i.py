import io
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import trees
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import TrainingEpisodes, sample_episodes, training_images
from fewseg.data.sets.pascal5i import Pascal5i
from fewseg.data.source import Fold
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.progress import Bars

PERSON, SHEEP, BIRD, AEROPLANE = 15, 17, 3, 1

# In fold 0 classes 1..5 are novel. Every image says by its name which rule it is about.
TRAIN = {
    "base_2048": trees.label_map({PERSON: 2048}),
    "base_2047": trees.label_map({PERSON: 2047}),
    "base_and_novel": trees.label_map({PERSON: 2100, BIRD: 1}),
    "novel_only": trees.label_map({BIRD: 3000}),
    "void_only": trees.label_map({}, void=4096),
    "base_and_void": trees.label_map({SHEEP: 2048}, void=500),
}
VAL = {
    "val_2048": trees.label_map({BIRD: 2048}),
    "val_2047": trees.label_map({BIRD: 2047, PERSON: 2049}),
    "val_both": trees.label_map({BIRD: 2048, AEROPLANE: 2048}),
}
SBD_TRAIN = {
    "base_2048": trees.label_map({PERSON: 1}),  # VOC's own label map is preferred
    "sbd_new": trees.label_map({PERSON: 4000}),
    "val_2048": trees.label_map({PERSON: 4000}),  # VOC val: never trained on
}
SBD_VAL = {"sbd_val": trees.label_map({SHEEP: 4000}), "val_both": trees.label_map({SHEEP: 4000})}


def ids(source: Pascal5i, images: np.ndarray) -> set[str]:
    return {source.index.ids[i] for i in images}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    trees.write_voc(tmp_path, TRAIN, VAL)
    return tmp_path


@pytest.fixture
def voc_sbd(voc: Path) -> Path:
    trees.write_sbd(voc / "SBD" / "dataset", SBD_TRAIN, SBD_VAL)
    return voc


def test_voc_alone_needs_no_option(voc: Path) -> None:
    source = Pascal5i(root=str(voc))
    assert set(source.index.ids) == set(TRAIN)
    assert source.describe() | {"voc": ""} == {
        "name": "pascal5i",
        "subset": "train",
        "images": 6,
        "voc": "",
        "sbd": "none",
        "labels": {"SegmentationClass": 6},
    }


@pytest.mark.parametrize(
    ("found", "rule", "told"),
    [("voc", "none", "VOC's own training list, 6 images"), ("aug", "all", "SegmentationClassAug")],
)
def test_a_list_that_was_guessed_is_told(found: str, rule: str, told: str, request: pytest.FixtureRequest) -> None:
    root = str(request.getfixturevalue(found))
    for sbd in ("auto", rule):
        source, said = Pascal5i(root=root, sbd=sbd), io.StringIO()
        source.progress = Bars(Console(file=said, width=300))
        assert source.index.ids
        assert (told in said.getvalue()) == ("data.sbd=train_noval" in said.getvalue()) == (sbd == "auto")


@pytest.mark.parametrize("place", ["VOC2012", "VOCdevkit/VOC2012", "."])
def test_voc_is_found_in_all_its_places(tmp_path: Path, place: str) -> None:
    made = trees.write_voc(tmp_path / "made", TRAIN, VAL)
    target = tmp_path / "root" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    made.rename(target)
    assert len(Pascal5i(root=str(tmp_path / "root"), subset="test").index.ids) == 3


def test_hand_counted_lists(voc: Path) -> None:
    source = Pascal5i(root=str(voc))
    fold = source.fold(0)
    assert ids(source, training_images(source, fold, novel="drop")) == {"base_2048", "base_and_void"}
    for novel in ("background", "ignore"):
        kept = ids(source, training_images(source, fold, novel=novel))
        assert kept == {"base_2048", "base_and_void", "base_and_novel"}
    test = Pascal5i(root=str(voc), subset="test")
    assert ids(test, test.index.images_of(BIRD, min_pixels=2048)) == {"val_2048", "val_both"}
    assert ids(test, test.index.images_of(AEROPLANE, min_pixels=2048)) == {"val_both"}
    assert test.index.ids == tuple(VAL)


def test_void_is_counted_nowhere(voc: Path) -> None:
    source = Pascal5i(root=str(voc))
    counts = dict(zip(source.index.ids, source.index.counts, strict=True))
    assert counts["void_only"].sum() == 0
    assert counts["base_and_void"][[0, SHEEP]].tolist() == [4096 - 2548, 2048]


@pytest.mark.parametrize(
    ("sbd", "extra"),
    [("auto", {"sbd_new"}), ("train_noval", {"sbd_new"}), ("all", {"sbd_new", "sbd_val"}), ("none", set())],
)
def test_sbd_rules_leave_voc_val_out(voc_sbd: Path, sbd: str, extra: set[str]) -> None:
    source = Pascal5i(root=str(voc_sbd), sbd=sbd)
    assert set(source.index.ids) == set(TRAIN) | extra
    assert source.sbd == ("train_noval" if sbd == "auto" else sbd)
    person = ids(source, source.index.images_of(PERSON, min_pixels=2048))
    assert person == {"base_2048", "base_and_novel"} | (extra & {"sbd_new"})


def test_sbd_labels_and_photos_come_from_its_own_files(voc_sbd: Path) -> None:
    source = Pascal5i(root=str(voc_sbd))
    image, labels = source.load(source.index.ids.index("sbd_new"))
    assert image.size == (64, 64)
    np.testing.assert_array_equal(labels, SBD_TRAIN["sbd_new"])


def test_train_noval_list_is_preferred(voc_sbd: Path) -> None:
    trees.write_list(voc_sbd / "SBD" / "dataset" / "train_noval.txt", ["sbd_val"])
    assert set(Pascal5i(root=str(voc_sbd)).index.ids) == {*TRAIN, "sbd_val"}


@pytest.fixture
def aug(voc: Path) -> Path:
    for image_id, labels in (SBD_VAL | SBD_TRAIN | TRAIN | VAL).items():
        trees.write_png(labels, voc / "VOC2012" / "SegmentationClassAug" / f"{image_id}.png", palette=False)
    return voc


def test_aug_alone_is_all_of_sbd(aug: Path) -> None:
    source = Pascal5i(root=str(aug))
    assert source.sbd == "all"
    assert set(source.index.ids) == {*TRAIN, "sbd_new", "sbd_val"}
    assert source.describe()["labels"] == {"SegmentationClassAug": 8}


def test_aug_with_sbd_lists_needs_no_mat_files(aug: Path) -> None:
    trees.write_sbd(aug / "SBD", SBD_TRAIN, SBD_VAL, mats=False)
    assert set(Pascal5i(root=str(aug)).index.ids) == {*TRAIN, "sbd_new"}


def test_asked_for_but_absent_sbd_says_what_to_put_where(voc: Path) -> None:
    with pytest.raises(DataError, match=r"sbd=train_noval needs SBD's train.txt or train_noval.txt in .*SBD"):
        _ = Pascal5i(root=str(voc), sbd="train_noval").index
    with pytest.raises(DataError, match=r"sbd=all needs SBD's train.txt and val.txt"):
        _ = Pascal5i(root=str(voc), sbd="all").index


def test_lists_without_label_files_name_the_first(voc: Path) -> None:
    trees.write_sbd(voc / "SBD", SBD_TRAIN, SBD_VAL, mats=False)
    with pytest.raises(DataError, match=r"1 of 7 images .* have no label map, the first is sbd_new"):
        _ = Pascal5i(root=str(voc)).index


def test_an_id_without_any_file_is_told_as_that(voc: Path) -> None:
    listed = voc / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_text(f"{listed.read_text()}\nnobody\n")
    with pytest.raises(DataError, match=r"1 of \d+ images .*neither photo nor label map, the first is nobody; put"):
        _ = Pascal5i(root=str(voc), subset="test").index


def test_a_list_of_paths_is_told_as_that(voc: Path) -> None:
    listed = voc / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    count = len(ids := listed.read_text().split())
    listed.write_text("\n".join(f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png" for i in ids))
    for subset in ("train", "test"):
        told = rf"val.txt lists paths.*\(/JPEGImages/{ids[0]}.jpg, {count} of {count} lines\).* {ids[0]}$"
        with pytest.raises(DataError, match=told):
            _ = Pascal5i(root=str(voc), subset=subset).ids


def test_wrong_options_are_refused(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown sbd 'yes'; choose auto, train_noval, all, none"):
        Pascal5i(root=str(voc), sbd="yes")
    with pytest.raises(UsageError, match="unknown subset 'val'"):
        Pascal5i(root=str(voc), subset="val")
    with pytest.raises(UsageError, match=r"data.root"):
        Pascal5i()
    with pytest.raises(DataError, match="no VOC 2012 in"):
        Pascal5i(root=str(tmp_path / "nothing"))


def test_labels_that_are_no_class_are_named(voc: Path) -> None:
    path = voc / "VOC2012" / "SegmentationClass" / "base_2048.png"
    trees.write_png(trees.label_map({21: 5}), path)
    with pytest.raises(DataError, match=r"base_2048.png: label value 21 is no class; allowed are 0 .* 1 to 20 and 255"):
        _ = Pascal5i(root=str(voc)).index


def test_index_needs_no_photos(tmp_path: Path) -> None:
    trees.write_voc(tmp_path, TRAIN, VAL, photos=False)
    source = Pascal5i(root=str(tmp_path))
    assert len(source.index.ids) == 6
    with pytest.raises(DataError, match="no such file"):
        source.load(0)


def test_damaged_mat_file_is_named(voc_sbd: Path) -> None:
    (voc_sbd / "SBD/dataset/cls/sbd_new.mat").write_bytes(b"not a matlab file" * 20)
    with pytest.raises(DataError, match=r"sbd_new.mat is not a label file of SBD"):
        _ = Pascal5i(root=str(voc_sbd)).index


def test_hsnets_lists_look_at_every_32nd_pixel(voc: Path) -> None:
    wide, scattered = np.zeros((128, 128), np.uint8), np.zeros((128, 128), np.uint8)
    wide[1:31, :] = BIRD  # 3840 pixels, none of them looked at
    scattered[0:1, 0:65:32] = BIRD  # three pixels, all of them looked at
    two = np.where(np.arange(128)[None] < 64, scattered, 0).astype(np.uint8)
    trees.write_voc(voc, {}, {"wide": wide, "scattered": scattered, "two": two, "more": scattered})
    source = Pascal5i(root=str(voc), subset="test")
    fold = Fold.of(0, (BIRD,), classes=20)
    protocol = get_protocol("hsnet", dataset="pascal5i")
    listed = sample_episodes(source, fold, protocol=protocol, seed=0, shots=1, episodes=10)
    assert ids(source, np.array([spec.query for spec in listed.specs])) == {"scattered", "more"}
    assert source.coarse.counts[:, BIRD].tolist() == [0, 3, 2, 3]
    # COCO's are drawn by pixels
    assert get_protocol("hsnet", dataset="coco20i").listed == "min_pixels"


VOC_MINI = Path(os.environ.get("FEWSEG_VOC_MINI", Path(__file__).parents[4] / "shared" / "data" / "voc_mini"))


@pytest.mark.slow
@pytest.mark.skipif(not VOC_MINI.is_dir(), reason=f"{VOC_MINI} is not there (set FEWSEG_VOC_MINI)")
def test_real_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train, test = Pascal5i(root=str(VOC_MINI)), Pascal5i(root=str(VOC_MINI), subset="test")
    assert (len(train.index.ids), len(test.index.ids)) == (2099, 767)
    assert not set(train.index.ids) & set(test.index.ids)
    for i in range(4):
        fold = train.fold(i)
        episodes = sample_episodes(test, fold, protocol=get_protocol("fewseg", dataset="pascal5i"), seed=0, shots=5)
        assert {spec.class_id for spec in episodes.specs} == set(fold.novel)
        assert len(TrainingEpisodes(train, fold, shots=1)) > 900
    with pytest.warns(
        DataWarning, match=r"class 'diningtable' has 3 images; 5-shot episodes need 6 .*data.novel=backg"
    ):
        TrainingEpisodes(train, train.fold(1), shots=5)
    image, labels = test.load(0)
    assert image.size == labels.shape[::-1]
