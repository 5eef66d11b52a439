from pathlib import Path

import pytest
from torch import Tensor

import trees
from fewseg.build import create_source
from fewseg.config import load_config
from fewseg.episode import Episode, Prediction
from fewseg.errors import DataWarning, UsageError
from fewseg.training.loop import train
from fewseg.training.tasks import training_fold
from helpers import Toy, toy_config


def test_what_to_do_where_a_fold_leaves_no_base_class_is_said(tmp_path: Path) -> None:
    trees.write_masks(tmp_path, {f"erosion/{n}": trees.label_map({1: 900}) for n in range(3)})

    def fold(*words: str):
        config = load_config("folder", f"data.root={tmp_path}", *words)
        return training_fold(config, create_source(config, "train"))

    with pytest.raises(
        UsageError, match=r"one class leaves no base class: use the shipped lite .*lite-adapt.*all_classes=true$"
    ):
        fold("lite")
    with pytest.raises(UsageError, match=r"train.all_classes=true train.validation=none$"):
        fold("hdmnet")
    assert fold("lite", "train.all_classes=true").base == (1,)
    trees.write_masks(tmp_path, {f"crack/{n}": trees.label_map({1: 900}) for n in range(3)})
    with pytest.raises(UsageError, match=r"all 2 classes are novel in fold 0.*data.folds=2 or more"):
        fold("lite", "data.folds=1")
    assert fold("lite", "data.novel_classes=crack").base == (2,)
    with pytest.warns(DataWarning, match=r"trains on data.novel_classes=\['crack'\] as well; to leave them out"):
        assert fold("lite-adapt", "data.novel_classes=crack").base == (1, 2)


@pytest.mark.parametrize("cached", [False, True])
def test_a_loss_gets_whole_masks_with_kept_features_too(
    toy: type[Toy], cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Episode] = []
    plain = toy.loss

    def loss(self: Toy, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        seen.append(episode)
        return plain(self, prediction, episode)

    monkeypatch.setattr(toy, "loss", loss)
    words = (f"train.cache_features={cached}", "train.epochs=1", "train.validation=none", "data.shots=2")
    train(toy_config(*words), tmp_path / "run")
    for episode in seen:
        assert episode.query_mask is not None
        count, side = len(episode.class_id), episode.query_mask.shape[-1]
        assert episode.support_masks.shape == (count, 2, side, side)
        assert (episode.support_masks == 1).flatten(2).any(2).all()
        assert episode.support_images.shape[:3] == (count, 2, 3)
