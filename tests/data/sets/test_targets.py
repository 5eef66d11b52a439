"""The targets of cross-domain few-shot segmentation: deepglobe, isic2018, chest_xray, suim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import target_trees
from fewseg import registry
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.inspect.check import check_source
from fewseg.data.source import ImageSource
from fewseg.errors import DataError, DataWarning, UsageError

WRITERS = {
    "deepglobe": target_trees.write_deepglobe,
    "isic2018": lambda root: target_trees.write_isic(root, folders=True),
    "chest_xray": target_trees.write_chest_xray,
    "suim": lambda root: target_trees.write_suim(root, merged=True),
}


def opened(name: str, root: Path, **options: object):
    return registry.create("source", name, root=str(root), subset="test", **options)


@pytest.mark.parametrize("name", WRITERS)
def test_every_class_is_novel_and_every_image_a_test_image(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    source, train = opened(name, tmp_path), registry.create("source", name, root=str(tmp_path))
    assert isinstance(source, ImageSource)
    fold = source.fold(0)
    assert (fold.base, len(fold.novel)) == ((), len(source.class_names))
    assert train.index.ids == source.index.ids
    assert (source.index.counts[:, 1:].sum(0) > 0).all()
    for i in range(len(source.ids)):
        image, labels = source.load(i)
        assert labels.shape == (image.height, image.width)
        assert np.bincount(labels.ravel(), minlength=1 + len(fold.novel)).tolist() == source.index.counts[i].tolist()
    assert check_source(source) == []
    with pytest.raises(UsageError, match="has one fold, fold 0"):
        source.fold(1)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_something_else_is_refused_with_what_was_expected_and_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=rf"{name} expects .* in {tmp_path}; .* holds holiday/. Fetch"):
        _ = opened(name, tmp_path).index
    with pytest.raises(UsageError, match=f"{name} needs a directory: give data.root=DIR with"):
        registry.create("source", name)


def test_a_tile_in_several_class_folders_is_one_image(tmp_path: Path) -> None:
    target_trees.write_deepglobe(tmp_path)
    source = opened("deepglobe", tmp_path)
    assert len(source.ids) == 18
    i = source.ids.index("21_sat_05")
    assert np.flatnonzero(source.index.counts[i, 1:]).tolist() == [1, 2]
    assert source.index.counts[i, 2:4].tolist() == [501, 700]
    target_trees.binary(np.ones((64, 64), bool), tmp_path / "Deepglobe/3/test/groundtruth/21_sat_05.png")
    with pytest.raises(DataError, match=r"3/test/groundtruth/21_sat_05.png marks pixels that another class's mask"):
        opened("deepglobe", tmp_path).labels(i)
    (tmp_path / "Deepglobe/3/test/groundtruth/21_sat_05.png").unlink()
    with pytest.raises(DataError, match=r"image 21_sat_05 needs .*3/test/groundtruth/21_sat_05.png, which is missing"):
        _ = opened("deepglobe", tmp_path).index


def test_diagnoses_are_read_from_folders_or_from_the_list(tmp_path: Path) -> None:
    for folders in (True, False):
        target_trees.write_isic(tmp_path / str(folders), folders=folders)
    sorted_ones, listed = (opened("isic2018", tmp_path / name) for name in ("True", "False"))
    assert sorted_ones.index.sha256 == listed.index.sha256
    assert sorted_ones.class_names == ("seborrheic keratosis", "nevus", "melanoma")
    assert listed.index.counts[listed.ids.index("ISIC_00031"), 3] == 601
    file = tmp_path / "False" / "class_id.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([*rows[:-1], "ISIC_9,nevus"]))
    with (
        pytest.warns(DataWarning, match="rows without a photo, left out .one: ISIC_9"),
        pytest.warns(DataWarning, match="photos without a row, left out .one: ISIC_00032"),
    ):
        assert len(opened("isic2018", tmp_path / "False").ids) == 8
    file.write_text("image,label\nISIC_00011,1")
    with pytest.raises(DataError, match="expected the columns ID and Class, of seborrheic_keratosis, nevus, melanoma"):
        _ = opened("isic2018", tmp_path / "False").ids
    file.unlink()
    with pytest.raises(DataError, match=r"isic2018 expects class_id.csv in"):
        _ = opened("isic2018", tmp_path / "False").ids


@pytest.mark.slow
def test_masks_of_squeezed_photos_are_squeezed_and_told(tmp_path: Path) -> None:
    target_trees.write_isic(tmp_path, folders=True, squeezed=True)
    with pytest.warns(DataWarning, match="photos of 512 x 512 pixels are squeezed; their masks are squeezed too"):
        image, labels = opened("isic2018", tmp_path).load(0)
    assert (image.size, labels.shape) == ((512, 512), (512, 512))
    assert (labels == 1).sum() == 400 * 64


def test_x_rays_count_by_their_masks_names(tmp_path: Path) -> None:
    target_trees.write_chest_xray(tmp_path / "Lung Segmentation")
    assert len(opened("chest_xray", tmp_path).ids) == 4
    source = opened("chest_xray", tmp_path, montgomery=True)
    assert source.ids[-1] == "MCUCXR_0005_0"
    assert source.index.counts[:, 1].tolist() == [900, 901, 902, 903, 904, 905]


def test_suims_own_folders_and_the_merged_ones_are_the_same(tmp_path: Path) -> None:
    for merged in (True, False):
        target_trees.write_suim(tmp_path / str(merged), merged=merged)
    merged, own = (opened("suim", tmp_path / name) for name in ("True", "False"))
    assert merged.index.sha256 == own.index.sha256
    for i, labels in enumerate(dict(sorted(target_trees.suim_labels().items())).values()):
        assert np.array_equal(merged.labels(i), labels)
        assert np.array_equal(own.labels(i), labels)
    path = tmp_path / "True" / "masks" / "WR" / "hd_r_0_.bmp"
    Image.new("L", (9, 9), 255).save(path)
    with pytest.raises(DataError, match="are masks of one photo, but 64 x 64 and 9 x 9 pixels"):
        merged.labels(merged.ids.index("hd_r_0_"))


def test_patnets_numbers() -> None:
    for name, episodes, query in (
        ("deepglobe", 600, "turns"),
        ("isic2018", 600, "turns"),
        ("chest_xray", 600, "turns"),
        ("fss1000", 2400, "pairs"),
        ("suim", 3859, "turns"),
        ("pascal5i", 1000, "pairs"),
    ):
        protocol = get_protocol("patnet", dataset=name)
        assert (protocol.episodes, protocol.query, protocol.seeds) == (episodes, query, (0,))
        assert (protocol.input_size, protocol.scored_at, protocol.support) == (400, "input", "with_repeats")
