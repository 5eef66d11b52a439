"""Every data set goes the whole way from its files: statistics, check, an episode list, one optimiser step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import trees
from fewseg.data.dataset import EpisodeDataset, GlobalSampler, make_loader
from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import TrainingEpisodes, sample_episodes
from fewseg.data.index import Indexed
from fewseg.data.inspect.check import check_source
from fewseg.data.inspect.stats import fold_statistics
from fewseg.data.sets.coco20i import Coco20i
from fewseg.data.sets.coco_json import CocoJson
from fewseg.data.sets.folder import Folder
from fewseg.data.sets.fss1000 import Fss1000
from fewseg.data.sets.pascal5i import Pascal5i
from fewseg.data.transforms import Augment, AugmentConfig
from fewseg.registry import create

NAMES = ("bolt", "clip", "nut", "ring")


def voc(root: Path) -> dict[str, object]:
    trees.write_voc(root, trees.many(range(1, 21), 2), trees.many(range(1, 6), 2, prefix="v"))
    return {"name": "pascal5i"}


def voc_sbd(root: Path) -> dict[str, object]:
    trees.write_voc(root, trees.many([6, 7], 2), trees.many(range(1, 6), 2, prefix="v"))
    trees.write_sbd(root / "SBD", trees.many(range(8, 21), 2, prefix="s"), trees.many([3], 2, prefix="sv"))
    return {"name": "pascal5i", "sbd": "train_noval"}


def voc_aug(root: Path) -> dict[str, object]:
    train, val = trees.many(range(6, 21), 2), trees.many(range(1, 6), 2, prefix="v")
    base = trees.write_voc(root, train, val)
    for name, labels in (train | val).items():
        trees.write_png(labels, base / "SegmentationClassAug" / f"{name}.png", palette=False)
    return {"name": "pascal5i", "sbd": "all"}


def coco(root: Path) -> dict[str, object]:
    for year, classes in (("train2014", range(1, 81)), ("val2014", range(1, 81, 4))):
        shapes = (trees.square(4, 4, 50), trees.compressed(trees.label_map({1: 2048})))
        crowd = trees.uncompressed(trees.label_map({1: 2100}))
        images = {f"{c}_{n}.jpg": [(c, crowd if c == 7 else shapes[n])] for c in classes for n in range(2)}
        path = root / "annotations" / f"instances_{year}.json"
        trees.write_coco(path, images, categories={c: str(c) for c in range(1, 81)}, photos=root / year)
    return {"name": "coco20i"}


def fss(root: Path) -> dict[str, object]:
    trees.write_fss(root, {"train": ["ant", "bee"], "val": ["cow"], "test": ["dog"]}, images=3)
    return {"name": "fss1000"}


def masks(root: Path) -> dict[str, object]:
    trees.write_masks(root, {f"{name}/{n}": trees.label_map({1: 900}) for name in NAMES for n in range(3)})
    return {"name": "folder", "folds": 2}


def label_maps(root: Path) -> dict[str, object]:
    trees.write_labels(root, trees.many(range(1, 5), 3), classes=NAMES)
    return {"name": "folder", "novel_classes": ["nut"]}


def coco_json(root: Path) -> dict[str, object]:
    images = {f"{c}_{n}.jpg": [(c, trees.square(9, 9, 30))] for c in range(1, 5) for n in range(3)}
    trees.write_coco(root / "my.json", images, categories=dict(enumerate(NAMES, 1)), photos=root / "images")
    return {"name": "coco_json", "folds": 2}


FORMATS = (voc, voc_sbd, voc_aug, coco, fss, masks, label_maps, coco_json)
SOURCES = (Pascal5i, Coco20i, Fss1000, Folder, CocoJson)


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_the_whole_way(tmp_path: Path, write: Callable[[Path], dict[str, object]]) -> None:
    options = write(tmp_path) | {"root": str(tmp_path)}
    train, test = (create("source", subset=subset, **options) for subset in ("train", "test"))
    assert isinstance(train, SOURCES)
    assert isinstance(train, Indexed)
    assert check_source(train) == check_source(test) == []
    statistics = fold_statistics(train, test)
    fold = train.fold(0)
    assert statistics[0]["train_drop"] > 0
    assert statistics[0]["test"] > 0
    episodes = sample_episodes(
        test, fold, protocol=get_protocol("fewseg", dataset=train.name), seed=0, shots=1, episodes=10
    )
    episodes.save(tmp_path / "episodes.csv")
    assert EpisodeList.load(tmp_path / "episodes.csv", test) == episodes
    training = TrainingEpisodes(train, fold, shots=1)
    data = EpisodeDataset(
        train, fold, spec_of=training.spec, length=len(training), transform=Augment(AugmentConfig(), 32)
    )
    model = torch.nn.Conv2d(6, 2, 3, padding=1)
    before = model.weight.detach().clone()
    batch = next(iter(make_loader(data, GlobalSampler(0, 4, batch=4)))).episode
    fg = batch.support_images[:, 0] * (batch.support_masks == 1)
    logits = model(torch.cat([batch.query_image, fg.mean((2, 3), keepdim=True).expand_as(batch.query_image)], 1))
    torch.nn.functional.cross_entropy(logits, batch.query_mask.long(), ignore_index=255).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(before, model.weight)
    assert torch.isfinite(model.weight).all()
