from pathlib import Path

import numpy as np
import pytest

import target_trees
from fewseg.data.inspect.check import check_source
from fewseg.data.inspect.stats import all_folds
from fewseg.data.sets.isaid5i import Isaid5i
from fewseg.errors import DataError, UsageError


def test_three_folds_of_patches_in_either_layout(tmp_path: Path) -> None:
    target_trees.write_isaid(tmp_path / "a" / "iSAID_patches")
    target_trees.write_isaid(tmp_path / "b", by_kind=True)
    first, second = (Isaid5i(root=str(tmp_path / name), subset="test") for name in "ab")
    assert first.index.sha256 == second.index.sha256
    assert all_folds(first) == [0, 1, 2]
    assert first.fold(2).novel == (11, 12, 13, 14, 15)
    assert first.class_names[13] == "plane"
    i = first.ids.index("P0014_2_256_0_256")
    assert first.index.counts[i, [0, 14]].tolist() == [4096 - 2050 - 50, 2050]
    assert (first.labels(i) == 255).sum() == 50
    assert check_source(first) == []
    assert len(Isaid5i(root=str(tmp_path / "b")).ids) == 30
    with pytest.raises(UsageError, match="folds 0 to 2"):
        first.fold(3)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=rf"isaid5i expects train/ and val/ with images/.*{tmp_path} holds holiday/"):
        Isaid5i(root=str(tmp_path))
    target_trees.write_isaid(tmp_path)
    for path in (tmp_path / "val" / "semantic_png").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"expects label maps NAME_instance_color_RGB.png in .*semantic_png holds"):
        _ = Isaid5i(root=str(tmp_path), subset="test").index
    target_trees.write_png(np.full((64, 64), 16, np.uint8), tmp_path / "train/semantic_png/P_instance_color_RGB.png")
    with pytest.raises(DataError, match="label value 16 is no class"):
        _ = Isaid5i(root=str(tmp_path)).index
