"""Parts of objects as classes, objects cut out as images: pascal_part and paco_part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import target_trees
from fewseg import registry
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.inspect.check import check_source
from fewseg.data.inspect.stats import all_folds
from fewseg.data.source import ImageSource, mask_of, shape_of
from fewseg.errors import DataError, DataWarning, UsageError

WRITERS = {"pascal_part": target_trees.write_pascal_part, "paco_part": target_trees.write_paco}


def opened(name: str, root: Path, subset: str = "test"):
    return registry.create("source", name, root=str(root), subset=subset)


@pytest.mark.parametrize("name", WRITERS)
def test_an_image_is_an_object_and_its_classes_are_its_parts(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    source = opened(name, tmp_path)
    assert isinstance(source, ImageSource)
    assert all_folds(source) == [0, 1, 2, 3]
    for i in range(len(source.ids)):
        image, labels = source.load(i)
        assert (image.height, image.width) == labels.shape == shape_of(source, i)
        for c in range(1, 1 + len(source.class_names)):
            assert mask_of(source, i, c, labels).sum() == source.index.counts[i, c] == (labels == c).sum()
        assert source.index.counts[i].sum() == labels.size
    assert check_source(source) == []
    protocol = get_protocol("matcher", dataset=name)
    for spec in sample_episodes(source, source.fold(0), protocol=protocol, seed=0, shots=1, episodes=40).specs:
        assert source.image_path(spec.query) != source.image_path(spec.support[0])
    with pytest.raises(UsageError, match="folds 0 to 3"):
        source.fold(4)


def test_pascal_parts_folds_are_groups_of_objects(tmp_path: Path) -> None:
    target_trees.write_pascal_part(tmp_path)
    source = opened("pascal_part", tmp_path)
    assert source.class_names == ("bird+FACE", "bird+WING", "cat+FACE", "bottle+BODY", "person+ARM", "aeroplane+BODY")
    assert [source.fold(f).novel for f in range(4)] == [(1, 2, 3), (4,), (5,), (6,)]
    assert len(source.ids) == 25  # the object without parts is none
    i = source.ids.index("2008_val_bird_1_1")
    assert shape_of(source, i) == (40, 30)
    assert source.index.counts[i].tolist() == [1200 - 120, 60, 60, 0, 0, 0, 0]
    assert np.flatnonzero(source.mask_of(i, 2).any(0)).tolist() == [6, 7, 8, 9, 10]
    assert np.flatnonzero(source.mask_of(i, 2).any(1)).tolist() == [*range(5, 11), *range(25, 31)]
    assert (source.labelled(i)[1:] == [1, 1, 0, 0, 0, 0]).all()


def test_pacos_folds_take_every_fourth_part_that_train_has(tmp_path: Path) -> None:
    target_trees.write_paco(tmp_path)
    source = opened("paco_part", tmp_path)
    assert source.class_names == (*(f"mug:part{p}" for p in range(1, 6)), "lamp:shade")
    assert [source.fold(f).novel for f in range(4)] == [(1,), (2,), (3,), (4,)]
    assert len(source.ids) == 7
    assert len(opened("paco_part", tmp_path, "train").ids) == 11
    assert source.cut_from.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert source.index.counts[:, 1].tolist() == [16, 16, 0, 16, 0, 16, 0]
    assert np.argwhere(source.mask_of(2, 2)).min(0).tolist() == [6, 10]
    assert source.image_path(0) == tmp_path / "coco" / "val2017" / "000000000101.jpg"


@pytest.mark.parametrize(("name", "expected"), [("pascal_part", "all_obj_part"), ("paco_part", "paco_lvis_v1_train")])
def test_what_is_missing_is_told(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=rf"{name} expects {expected}.* holds holiday/. Fetch"):
        opened(name, tmp_path)


def test_odd_files_are_told(tmp_path: Path) -> None:
    target_trees.write_pascal_part(tmp_path)
    folder = tmp_path / "VOCdevkit/VOC2010/Annotations_Part_json_merged_part_classes"
    file = folder / "2008_val_cat_1.json"
    content = json.loads(file.read_text())
    content["object"][0]["bndbox"] |= {"xmax": "2"}
    file.write_text(json.dumps(content))
    with pytest.warns(DataWarning, match="objects with an empty box, left out"):
        assert len(opened("pascal_part", tmp_path).ids) == 24
    content["object"][0]["parts"][0]["mask"][0]["size"] = [64, 65]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"2008_val_cat_1.json: an object is not built as Matcher's are"):
        _ = opened("pascal_part", tmp_path).ids
    file.unlink()
    with pytest.raises(DataError, match=r"2008_val_cat_1.json is missing; all_obj_part_to_image.json names its photo"):
        _ = opened("pascal_part", tmp_path).ids
    (folder.parent / "all_obj_part_to_image.json").write_text('{"animals": 1}')
    with pytest.raises(DataError, match="is not built as Matcher's file is"):
        opened("pascal_part", tmp_path)
