from pathlib import Path

import pytest

import trees
from fewseg.build import create_source
from fewseg.config import load_config
from fewseg.errors import UsageError
from fewseg.training.tasks import training_fold


def test_what_to_do_where_a_fold_leaves_no_base_class_is_said(tmp_path: Path) -> None:
    trees.write_masks(tmp_path, {f"erosion/{n}": trees.label_map({1: 900}) for n in range(3)})

    def fold(*words: str):
        config = load_config("folder", f"data.root={tmp_path}", *words)
        return training_fold(config, create_source(config, "train"))

    with pytest.raises(UsageError, match=r"one class leaves no base class: use the shipped lite .*all_classes=true$"):
        fold("lite")
    with pytest.raises(UsageError, match=r"train.all_classes=true train.validation=none$"):
        fold("hdmnet")
    assert fold("lite", "train.all_classes=true").base == (1,)
    trees.write_masks(tmp_path, {f"crack/{n}": trees.label_map({1: 900}) for n in range(3)})
    with pytest.raises(UsageError, match=r"all 2 classes are novel in fold 0.*data.folds=2 or more"):
        fold("lite", "data.folds=1")
    assert fold("lite", "data.novel_classes=crack").base == (2,)
