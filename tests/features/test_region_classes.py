"""Regions: what labels leave unmarked becomes classes, and nothing that is marked changes."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fewseg.build import configured_model
from fewseg.config import load_config
from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.sampling import TrainingEpisodes
from fewseg.data.index import count_labels
from fewseg.data.region_classes import UNSURE, WithRegions
from fewseg.data.sets.folder import Folder
from fewseg.data.source import Fold, SourceIndex, labelled, mask_of
from fewseg.data.transforms import Squeeze
from fewseg.errors import StoppedError, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.features import region_classes
from fewseg.features.region_classes import SIDE, with_regions
from fewseg.progress import Silent
from fewseg.storage.opening import open_target, open_test_data
from fewseg.storage.saved import load_model
from fewseg.training.loop import train
from helpers import SCENES, SHORT, TINY

REGIONS = 3


class Held:
    """Label maps in memory."""

    name, subset, min_pixels = "held", "train", 1

    def __init__(self, maps: list[NDArray[Any]], classes: int = 2) -> None:
        self.maps, self.class_names = maps, tuple(f"thing {c}" for c in range(1, 1 + classes))
        counts = [count_labels(m, classes=classes, path=Path("m")) for m in maps]
        self.index = SourceIndex(tuple(map(str, range(len(maps)))), np.array(counts))

    def load(self, i: int) -> tuple[Image.Image, NDArray[Any]]:
        return Image.new("RGB", self.maps[i].shape[::-1]), self.maps[i]

    def fold(self, index: int) -> Fold:
        return Fold.of(index, [2], classes=len(self.class_names))


def regions_of(source: Held, maps: NDArray[np.uint8], images: list[int]) -> WithRegions:
    """Maps of the photos' own size."""
    counts = [np.bincount(m[source.maps[i] == 0], minlength=256)[:REGIONS] for i, m in zip(images, maps, strict=True)]
    return WithRegions(source, np.array(images), maps, np.array(counts, np.int64).reshape(-1, REGIONS))


SIZE = 6
LABELS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 255]), min_size=SIZE**2, max_size=SIZE**2)
MAPS = st.lists(st.sampled_from([0, 1, 2, UNSURE]), min_size=SIZE**2, max_size=SIZE**2)


@given(values=LABELS, map_=MAPS, classes=st.sampled_from([2, 253]))
def test_what_is_marked_stays_and_the_rest_is_regions(values: list[int], map_: list[int], classes: int) -> None:
    labels, regions = (np.array(v, np.uint8).reshape(SIZE, SIZE) for v in (values, map_))
    source = Held([labels, labels], classes)
    wrapped = regions_of(source, regions[None], [1])
    first = 1 + classes
    assert list(wrapped.regions) == [first, first + 1, first + 2]
    for i in (0, 1):
        found = wrapped.load(i)[1]
        void = np.iinfo(found.dtype).max
        assert found.dtype == (np.uint8 if classes == 2 else np.uint16)
        expected = labels.astype(int)
        expected[labels == 255] = void
        if i == 1:
            bare = labels == 0
            expected[bare] = np.where(regions == UNSURE, void, first + regions.astype(int))[bare]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(wrapped.labels(i), found)
        counts = count_labels(found, classes=len(wrapped.class_names), path=Path("m"))
        np.testing.assert_array_equal(wrapped.index.counts[i], counts)
        for c in (1, 2):
            told = mask_of(wrapped, i, c, found)
            np.testing.assert_array_equal(told == 1, labels == c)
            assert not (told[(labels != c) & (labels != 255)] == 1).any()
        np.testing.assert_array_equal(mask_of(wrapped, i, first, found) == 1, found == first)
    known = wrapped.labelled(1)[first:]
    for n in range(REGIONS):  # one that lies beneath labels alone is neither there nor absent
        beneath = (regions == n).any() and not ((regions == n) & (labels == 0)).any()
        assert known[n] == (not beneath)
    assert not wrapped.labelled(0)[first:].any()
    assert wrapped.labelled(0)[:first].all()


def test_classes_that_overlap_keep_their_masks() -> None:
    class Overlapping(Held):
        def mask_of(self, i: int, class_id: int, labels: NDArray[Any]) -> NDArray[np.uint8]:
            assert labels.dtype == np.uint8
            assert labels.max() <= 2
            return np.full(labels.shape, class_id == 2, np.uint8)

        def labelled(self, i: int) -> NDArray[np.bool_]:
            return np.array([True, True, False])

    source = Overlapping([np.zeros((SIZE, SIZE), np.uint8)])
    wrapped = regions_of(source, np.zeros((1, SIZE, SIZE), np.uint8), [0])
    found = wrapped.load(0)[1]
    assert mask_of(wrapped, 0, 2, found).all()
    assert not mask_of(wrapped, 0, 1, found).any()
    told = labelled(wrapped, 0)
    assert told is not None
    assert told.tolist() == [True, True, False, True, True, True]


def striped(root: Path) -> Folder:
    """Photos of a red square on water above and brick below, or the other way round; in the last another class."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("square\nother\n")
    for n in range(9):
        water = np.stack([rng.integers(0, 60, (48, 96)), rng.integers(60, 120, (48, 96)), np.full((48, 96), 220)], -1)
        brick = np.full((48, 96, 3), (160, 90, 40))
        brick[::8], brick[:, ::16] = 230, 230
        photo = np.concatenate([water, brick] if n % 2 else [brick, water]).astype(np.uint8)
        labels = np.zeros((96, 96), np.uint8)
        x = 8 * n
        photo[32:64, x : x + 32], labels[32:64, x : x + 32] = (220, 20, 20), 1 if n < 8 else 2
        Image.fromarray(photo).save(root / "images" / f"{n}.png")
        Image.fromarray(labels).save(root / "labels" / f"{n}.png")
    return Folder(subset="train", root=str(root), novel_classes=["other"])


class Bars(Silent):
    """Remembers the bars."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def __call__(self, items: Any, title: str, total: int | None = None) -> Any:
        self.titles.append(title)
        return items


@pytest.mark.slow
def test_like_parts_of_photos_become_one_region_and_are_found_once(tmp_path: Path) -> None:
    source, bars = striped(tmp_path), Bars()
    options = "model.backbone=lite0", "model.image_size=96"
    model = configured_model(load_config("lite", *options), base_classes=1)
    wrapped, fold = with_regions(model, source, source.fold(0), count=2, novel="drop", progress=bars)
    assert wrapped.class_names == ("square", "other", "region 1", "region 2")
    assert (fold.base, fold.novel) == ((1, 3, 4), (2,))
    above = [np.bincount(wrapped.labels(i)[:20].ravel(), minlength=256)[3:5].argmax() for i in range(8)]
    below = [np.bincount(wrapped.labels(i)[-20:].ravel(), minlength=256)[3:5].argmax() for i in range(8)]
    assert above == [above[0], below[0]] * 4
    assert below == [below[0], above[0]] * 4
    assert [bool((wrapped.labels(i) == 1).sum() == 1024) for i in range(8)] == [True] * 8
    assert len(bars.titles) >= 2
    assert set(np.unique(wrapped.labels(8))) == {0, 2}
    again = Bars()
    other, _ = with_regions(model, source, source.fold(0), count=2, novel="drop", progress=again)
    assert not again.titles
    np.testing.assert_array_equal(other.maps, wrapped.maps)
    episodes = TrainingEpisodes(pickle.loads(pickle.dumps(wrapped)), fold, draw="class", apart=(wrapped.regions, 0.5))
    dataset = EpisodeDataset(
        wrapped, fold, spec_of=episodes.spec, length=40, transform=Squeeze(64), novel="drop", seed=0
    )
    of_regions = [g for g in range(40) if dataset[g].specs[0].class_id in wrapped.regions]
    assert 12 < len(of_regions) < 28
    for g in range(40):
        episode = dataset[g].episode
        assert episode.query_mask is not None
        assert (episode.query_mask == 1).any()
        assert (episode.support_masks == 1).any()


@pytest.mark.slow
def test_a_run_with_regions_is_measured_on_the_data_set_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = (*SCENES, *SHORT, *TINY, "train.draw=class", "train.negatives=0.5", "train.validation=base")
    config = load_config("lite", *options, "train.regions=4", "train.held_out=2", "train.cache_views=2")
    run = train(config, tmp_path / "run")
    model: Any = load_model(run)
    source, fold = open_test_data(open_target(str(run), []))
    assert model.base_heads.excluded.shape[1] - 1 == len(fold.base) + 4
    results = evaluate(model, Benchmark.draw(source, fold, episodes=4, repeats=1), workers=0)
    assert results.tables[0].shape[0] == 4


@pytest.mark.parametrize(
    ("recipe", "options", "told"),
    [
        ("hdmnet", ("train.draw=class",), "takes a base learner"),
        ("lite", ("train.draw=image",), "train.draw=class, not with image"),
    ],
)
def test_regions_that_cannot_be_trained_on_are_refused(
    recipe: str, options: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        train(load_config(recipe, *SCENES, *SHORT, *TINY, "train.regions=4", *options), tmp_path / "run")


def test_a_signal_ends_the_search_for_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*_: object) -> NDArray[np.uint8]:
        os.kill(os.getpid(), signal.SIGTERM)
        return np.full((SIDE, SIDE), UNSURE, np.uint8)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(region_classes, "_on_superpixels", ends)
    config = load_config("lite", *SCENES, *TINY, *SHORT, "train.regions=3", "train.draw=class")
    with pytest.raises(StoppedError, match="finding regions was stopped by SIGTERM"):
        train(config, tmp_path / "run")
