from pathlib import Path

import numpy as np
import pytest
import torch

import trees
from fewseg.data.dataset import BaseDataset, EpisodeDataset, GlobalSampler, make_loader
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import TrainingEpisodes, sample_episodes
from fewseg.data.sets.pascal5i import Pascal5i
from fewseg.data.transforms import Augment, AugmentConfig, Squeeze
from fewseg.errors import DataError, UsageError

SIZE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("voc")
    train = trees.many(range(1, 21), 4) | {"mixed": trees.label_map({6: 2050, 1: 500}, void=100)}
    trees.write_voc(
        root, train, trees.many(range(1, 6), 4, prefix="v") | {"vmix": trees.label_map({1: 2050, 7: 600}, void=9)}
    )
    return str(root)


@pytest.fixture(scope="module")
def training(root: str) -> EpisodeDataset:
    source = Pascal5i(root=root)
    episodes = TrainingEpisodes(source, source.fold(0), shots=2, seed=1)
    return EpisodeDataset(
        source,
        source.fold(0),
        spec_of=episodes.spec,
        length=len(episodes),
        transform=Augment(AugmentConfig(), SIZE),
        seed=1,
    )


def test_a_training_episode(training: EpisodeDataset) -> None:
    sample = training[7]
    episode, (spec,) = sample.episode, sample.specs
    assert episode.query_image.shape == (1, 3, SIZE, SIZE)
    assert episode.support_images.shape == (1, 2, 3, SIZE, SIZE)
    assert episode.support_masks.shape == (1, 2, SIZE, SIZE)
    assert episode.query_mask is not None
    assert episode.query_base_mask is not None
    assert episode.query_mask.shape == episode.query_base_mask.shape == (1, SIZE, SIZE)
    assert episode.class_id.tolist() == [spec.class_id]
    assert episode.base_index.tolist() == [spec.class_id - 6]
    is_class = episode.query_base_mask == 1 + episode.base_index
    assert torch.equal(episode.query_mask == 1, is_class)
    assert training.read(spec.query, spec.class_id)[2].shape == (2, 64, 64)


def test_a_test_episode_scores_at_the_original_size(root: str) -> None:
    source = Pascal5i(root=root, subset="test")
    fold = source.fold(0)
    episodes = sample_episodes(
        source, fold, protocol=get_protocol("fewseg", dataset=source.name), seed=0, shots=1, episodes=60
    )
    data = EpisodeDataset(source, fold, spec_of=episodes.specs.__getitem__, length=60, transform=Squeeze(SIZE))
    mixed = next(g for g, spec in enumerate(episodes.specs) if source.index.ids[spec.query] == "vmix")
    spec = episodes.specs[mixed]
    _, _, (truth, base_truth) = data.read(spec.query, spec.class_id)
    labels = trees.label_map({1: 2050, 7: 600}, void=9)
    np.testing.assert_array_equal(truth, np.where(labels == 255, 255, labels == 1))
    np.testing.assert_array_equal(base_truth, np.where(labels == 7, 2, np.where(labels == 255, 255, 0)))
    assert data[mixed].episode.base_index.tolist() == [-1]


@pytest.mark.parametrize(("novel", "expected"), [("background", 0), ("ignore", 255)])
def test_novel_pixels_in_training(root: str, novel: str, expected: int) -> None:
    source = Pascal5i(root=root)
    fold = source.fold(0)
    episodes = TrainingEpisodes(source, fold, novel=novel)
    data = EpisodeDataset(source, fold, spec_of=episodes.spec, length=len(episodes), transform=Squeeze(64), novel=novel)
    g = next(g for g in range(len(data)) if source.index.ids[episodes.spec(g).query] == "mixed")
    novel_pixels = trees.label_map({6: 2050, 1: 500}) == 1
    episode = data[g].episode
    assert episode.query_mask is not None
    assert episode.query_base_mask is not None
    assert (episode.query_mask[0].numpy()[novel_pixels] == expected).all()
    assert (episode.query_base_mask[0].numpy()[novel_pixels] == expected).all()
    base = BaseDataset(source, fold, transform=Squeeze(64), novel=novel)
    order = [base[g][1] for g in range(len(base))]
    values = {tuple(labels.numpy()[novel_pixels].tolist()) for labels in order if (labels == 1).sum() == 2050}
    assert values == {(expected,) * 500}


def test_base_samples_are_every_image_once_per_epoch(root: str) -> None:
    source = Pascal5i(root=root)
    data = BaseDataset(source, source.fold(0), transform=Augment(AugmentConfig(crop=True, keep_foreground=0.0), SIZE))
    assert len(data) == 61
    image, labels = data[0]
    assert image.shape == (3, SIZE, SIZE)
    assert (labels.shape, labels.dtype) == ((SIZE, SIZE), torch.uint8)
    assert torch.equal(data[100][0], data[100][0])
    seen = [data[g][1].max().item() for g in range(61)]
    assert {v for v in seen if v != 255} <= set(range(16))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_output_never_depends_on_workers(training: EpisodeDataset, workers: int) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    alone = list(make_loader(training, GlobalSampler(5, 27, batch=4)))
    several = list(make_loader(training, GlobalSampler(5, 27, batch=4), workers=workers))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(batch.episode) for batch in alone] == [4, 4, 4, 4, 4, 2]
    for one, other in zip(alone, several, strict=True):
        assert one.specs == other.specs
        mine, theirs = one.episode.as_dict(), other.episode.as_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_base_samples_go_through_the_loader(root: str) -> None:
    source = Pascal5i(root=root)
    data = BaseDataset(source, source.fold(0), transform=Squeeze(SIZE))
    images, labels = next(iter(make_loader(data, GlobalSampler(0, 10, batch=5))))
    assert (images.shape, labels.shape) == ((5, 3, SIZE, SIZE), (5, SIZE, SIZE))


def test_ranks_divide_a_batch_and_a_resumed_run_continues() -> None:
    whole = list(GlobalSampler(0, 22, batch=4))
    assert [g for batch in whole for g in batch] == list(range(22))
    assert list(GlobalSampler(12, 22, batch=4)) == whole[3:]
    ranks = [list(GlobalSampler(0, 20, batch=4, rank=r, world=2)) for r in range(2)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == whole[:5]
    assert len(GlobalSampler(0, 22, batch=4)) == 6
    with pytest.raises(UsageError, match="a batch of 5 cannot be divided among 2 devices"):
        GlobalSampler(0, 20, batch=5, world=2)


def test_labels_of_another_size_are_named(tmp_path: Path) -> None:
    voc = trees.write_voc(tmp_path, trees.many(range(6, 21), 3), {})
    trees.write_png(trees.label_map({6: 2100}, side=70), voc / "SegmentationClass" / "06_0.png")
    source = Pascal5i(root=str(tmp_path))
    data = BaseDataset(source, source.fold(0), transform=Squeeze(SIZE))
    with pytest.raises(DataError, match="image '06_0' of pascal5i is 64 x 64 pixels, but its labels are 70 x 70"):
        [data[g] for g in range(len(data))]
