from pathlib import Path

import numpy as np
import pytest
import torch

import trees
from fewseg.data.dataset import BaseDataset, EpisodeDataset
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import TrainingEpisodes, sample_episodes
from fewseg.data.sets.fss1000 import Fss1000
from fewseg.data.transforms import Squeeze
from fewseg.errors import DataError, UsageError

PARTS = {"train": ["abacus", "zebra", "cat"], "val": ["bee"], "test": ["apple", "yak"]}


@pytest.fixture
def fss(tmp_path: Path) -> Path:
    trees.write_fss(tmp_path, PARTS)
    return tmp_path


def test_published_division(fss: Path) -> None:
    train, test = Fss1000(root=str(fss)), Fss1000(root=str(fss), subset="test")
    assert train.class_names == test.class_names == ("abacus", "apple", "bee", "cat", "yak", "zebra")
    fold = train.fold(0)
    assert (fold.base, fold.held_out, fold.novel) == ((1, 4, 6), (3,), (2, 5))
    assert len(train.index.ids) == 40
    assert test.index.ids[:3] == ("apple/1", "apple/2", "apple/3")
    assert test.index.counts[9].tolist() == [4096 - 310, 0, 310, 0, 0, 0, 0]
    with pytest.raises(UsageError, match="one fold"):
        train.fold(1)


def test_lists_are_found_where_other_code_keeps_them(fss: Path) -> None:
    (fss / "splits" / "fss").mkdir(parents=True)
    for part, name in (("train", "trn"), ("val", "val"), ("test", "test")):
        (fss / f"{part}.txt").rename(fss / "splits" / "fss" / f"{name}.txt")
    assert len(Fss1000(root=str(fss)).index.ids) == 40
    (fss / "splits" / "fss" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"list of FSS-1000's val classes is missing: put val.txt"):
        Fss1000(root=str(fss))


def test_what_is_missing_is_told(fss: Path, tmp_path: Path) -> None:
    trees.write_list(fss / "val.txt", ["bee", "cat"])
    with pytest.raises(DataError, match="class 'cat' occurs twice"):
        Fss1000(root=str(fss))
    trees.write_list(fss / "val.txt", ["wasp"])
    with pytest.raises(DataError, match="class 'wasp' has no masks in"):
        _ = Fss1000(root=str(fss)).index
    with pytest.raises(DataError, match="FSS-1000 has no stable host"):
        Fss1000(root=str(tmp_path / "nothing"))


@pytest.mark.slow
def test_a_thousand_classes_do_not_fit_a_byte(tmp_path: Path) -> None:
    names = [f"{n:04d}" for n in range(300)]
    trees.write_fss(tmp_path, {"train": names[:280], "val": names[280:290], "test": names[290:]}, images=2)
    train, test = Fss1000(root=str(tmp_path)), Fss1000(root=str(tmp_path), subset="test")
    fold = train.fold(0)
    episodes = TrainingEpisodes(train, fold, shots=1)
    data = EpisodeDataset(train, fold, spec_of=episodes.spec, length=len(episodes), transform=Squeeze(64))
    g = next(g for g in range(len(data)) if episodes.spec(g).class_id == 255)
    episode = data[g].episode
    assert episode.query_mask is not None
    assert episode.base_index.tolist() == [254]
    assert sorted(torch.unique(episode.query_mask).tolist()) == [0, 1]
    drawn = sample_episodes(
        test, fold, protocol=get_protocol("fewseg", dataset="fss1000"), seed=0, shots=1, episodes=20
    )
    tested = EpisodeDataset(test, fold, spec_of=drawn.specs.__getitem__, length=20, transform=Squeeze(64))
    truths = [tested.read(spec.query, spec.class_id)[2][0] for spec in drawn.specs]
    assert {int((truth == 1).sum()) for truth in truths} == {301, 302}
    assert train.load(0)[1].dtype == np.uint16
    with pytest.raises(UsageError, match="280 base classes; a base learner takes 254 at most"):
        BaseDataset(train, fold, transform=Squeeze(64))
