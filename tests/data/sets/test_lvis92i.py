from pathlib import Path

import numpy as np
import pytest

import target_trees
from fewseg.data.inspect.check import check_source
from fewseg.data.inspect.stats import all_folds
from fewseg.data.sets.lvis92i import Lvis92i
from fewseg.data.source import ImageSource, map_type, mask_of
from fewseg.errors import DataError, UsageError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lvis")
    target_trees.write_lvis(path)
    return path


def test_ten_folds_of_the_classes_with_two_images_in_both_subsets(root: Path) -> None:
    source = Lvis92i(root=str(root), subset="test")
    assert isinstance(source, ImageSource)
    assert source.enough == list(range(3, 204, 10))
    assert all_folds(source) == list(range(10))
    fold = source.fold(4)
    assert fold.novel == (43, 143)  # the fifth and the fifteenth; the twenty-first is of no fold
    assert len(fold.base) == 298
    assert 203 in fold.base
    with pytest.raises(UsageError, match="folds 0 to 9; fold 10"):
        source.fold(10)


def test_a_class_is_the_union_of_its_instances_and_of_others_nothing_is_known(root: Path) -> None:
    source = Lvis92i(root=str(root), subset="test")
    i = len(source.ids) - 1
    assert source.index.counts[i, [0, 255]].tolist() == [4096 - 800, 800]
    labels = source.labels(i)
    assert labels.dtype == map_type(300)
    assert np.unique(labels).tolist() == [0, 255]  # a class, not void
    assert mask_of(source, i, 255, labels).sum() == 800
    assert mask_of(source, i, 3, labels).sum() == 0
    assert np.flatnonzero(source.labelled(i)).tolist() == [0, 255]
    assert {source.image_path(i).parent.name for i in range(4)} == {"train2017", "val2017"}
    assert check_source(source) == []


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=r"lvis92i expects lvis_v1_train.json in .* holds holiday/. Fetch it with"):
        Lvis92i(root=str(tmp_path))
