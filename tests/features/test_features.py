"""Features computed once equal those computed every time."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.config import load_config
from fewseg.data.dataset import GlobalSampler
from fewseg.data.transforms import Squeeze
from fewseg.errors import DataError
from fewseg.features.cache import FeatureCache, nbytes
from fewseg.features.overflow import FeatureFile
from fewseg.features.training_set import TrainingFeatures
from fewseg.models.fast import accelerate
from fewseg.models.lite import Lite
from fewseg.progress import Silent
from fewseg.runtime.threads import in_lanes
from fewseg.training.tasks import EpisodeTask
from helpers import SCENES, TINY, Toy, assert_equal, hdmnet_config, toy_config

IMAGES = torch.rand(5, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MASKS = torch.ones(1, 2, 64, 64, dtype=torch.uint8)


class Counting(Toy):
    """Counts what is encoded."""

    name = "counting"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.queries, self.shots_encoded = 0, 0

    def encode_query(self, image: torch.Tensor) -> Any:
        self.queries += 1
        return super().encode_query(image)

    def encode_support(self, images: torch.Tensor, masks: torch.Tensor) -> Any:
        self.shots_encoded += 1
        return super().encode_support(images, masks)


def test_what_is_kept_is_not_computed_again() -> None:
    model = accelerate(Counting().eval())
    cache = FeatureCache(model)
    first = cache.query("a", IMAGES[0])
    assert cache.query("a", IMAGES[0]) is first
    assert model.queries == 1
    cache.support([("a", 1), ("b", 1)], IMAGES[:2].transpose(0, 1), MASKS)
    cache.support([("b", 1), ("a", 1)], IMAGES[:2].flip(0).transpose(0, 1), MASKS)
    assert model.shots_encoded == 2
    cache.support([("b", 2), ("a", 1)], IMAGES[:2].transpose(0, 1), MASKS)  # of another class: another mask
    assert model.shots_encoded == 3


def test_the_budget_holds_and_the_least_recently_used_goes_first() -> None:
    model = accelerate(Counting().eval())
    size = nbytes(model.encode_query(IMAGES[0]))
    cache = FeatureCache(model, gigabytes=2.5 * size / 1e9)
    model.queries = 0
    for key in (0, 1, 0, 2):  # 2 drives out 1
        cache.query(key, IMAGES[key])
        assert cache.used <= cache.budget
    assert model.queries == 3
    cache.query(0, IMAGES[0])
    assert model.queries == 3
    cache.query(1, IMAGES[1])
    assert model.queries == 4


@pytest.mark.parametrize("gigabytes", [0.0, 1e-9])
def test_without_a_budget_nothing_is_kept(gigabytes: float) -> None:
    model = accelerate(Counting().eval())
    cache = FeatureCache(model, gigabytes=gigabytes)
    for _ in range(3):
        cache.query(0, IMAGES[0])
    assert (model.queries, cache.used) == (3, 0)


@pytest.mark.parametrize("make", [toy_config, lambda *w: hdmnet_config("model.base_learner=false", *w)])
def test_training_features_are_those_of_the_images(toy: type[Toy], make: Any) -> None:
    task = EpisodeTask(make("train.cache_features=true", "data.shots=2"), progress=Silent())
    task.module.train()
    (batch,) = task.batches(GlobalSampler(0, 4, batch=4), progress=Silent())
    assert isinstance(task.features, TrainingFeatures)
    assert task.module.training
    model, squeeze = task.model.eval(), Squeeze(64)
    flipped = 0
    for b, g in enumerate(range(4)):
        spec = task.episodes.spec(g)
        images, masks = [], []
        for i in (spec.query, *spec.support):
            image, labels = task.source.load(i)
            mask = np.where(labels == 255, 255, labels == spec.class_id).astype(np.uint8)
            pixels, maps = squeeze(image, mask[None])
            images.append(pixels)
            masks.append(maps[0])
        query = model.extract_query(images[0][None])
        mirrored = model.extract_query(images[0].flip(-1)[None])
        some = next(iter(query))
        flip = not torch.equal(batch.query[some][b], query[some][0])
        flipped += flip
        for name, expected in (mirrored if flip else query).items():
            torch.testing.assert_close(batch.query[name][b], expected[0])
        assert torch.equal(batch.labels.query_mask[b], masks[0].flip(-1) if flip else masks[0])
        assert batch.labels.class_id[b] == spec.class_id
        for k, (image, mask) in enumerate(zip(images[1:], masks[1:], strict=True)):
            either = [
                model.extract_support(x[None, None], m[None, None])
                for x, m in ((image, mask), (image.flip(-1), mask.flip(-1)))
            ]
            assert any(all(torch.allclose(e[n][0, 0], batch.support[n][b, k]) for n in e) for e in either)
    assert 0 < flipped < 4


def test_cached_training_draws_the_same_flips_whatever_the_batch(toy: type[Toy]) -> None:
    task = EpisodeTask(toy_config("train.cache_features=true"), progress=Silent())
    (large,) = task.batches(GlobalSampler(0, 4, batch=4), progress=Silent())
    small = list(task.batches(GlobalSampler(0, 4, batch=2), progress=Silent()))
    assert torch.equal(large.query["maps"], torch.cat([s.query["maps"] for s in small]))
    assert torch.equal(large.support["maps"], torch.cat([s.support["maps"] for s in small]))


def batches(config_words: tuple[str, ...], folder: Path | None = None) -> list[Any]:
    torch.manual_seed(0)
    task = EpisodeTask(toy_config("train.cache_features=true", "data.shots=2", *config_words), progress=Silent())
    return list(task.batches(GlobalSampler(0, 8, batch=4), progress=Silent(), folder=folder))


def test_features_in_the_file_are_those_in_memory(toy: type[Toy], tmp_path: Path) -> None:
    for ours, theirs in zip(batches(()), batches(("train.cache_gb=0",), tmp_path), strict=True):
        assert_equal(ours.query, theirs.query)
        assert_equal(ours.support, theirs.support)
        assert_equal(ours.labels.as_dict(), theirs.labels.as_dict())
    assert not list(tmp_path.iterdir())


def test_two_lanes_extract_the_same(toy: type[Toy]) -> None:
    one, threads = batches(()), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = batches(("train.workers=1",))
    finally:
        torch.set_num_threads(threads)
    for ours, theirs in zip(one, two, strict=True):
        assert_equal(ours.query, theirs.query)
        assert_equal(ours.support, theirs.support)


def test_features_that_fit_nowhere_are_refused_before_the_work(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"GB more than train\.cache_gb.*train\.cache_features=false"):
        batches(("train.cache_gb=0",), tmp_path)


def some_features() -> dict[str, torch.Tensor]:
    maps = torch.rand(2, 5, 4, 3).to(memory_format=torch.channels_last)
    return {
        "maps": maps,
        "shots": maps.unflatten(0, (1, 2)),
        "cut": torch.rand(1, 6, 4)[:, ::2],
        "fg": torch.rand(3, 3) > 0.5,
        "ids": torch.arange(7),
        "none": torch.rand(0, 4),
    }


def test_the_file_gives_back_values_and_layout(tmp_path: Path) -> None:
    file = FeatureFile(limit=1e6, folder=tmp_path)
    for _ in range(3):
        given = some_features()
        found = file.put(given)
        assert found is not None
        for name, tensor in given.items():
            assert torch.equal(found[name], tensor)
            assert found[name].dtype == tensor.dtype
            assert found[name].stride() == tensor.stride() or name == "cut"
    assert not list(tmp_path.iterdir())


def test_a_full_file_and_a_full_disk_take_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 * 1024
    file = FeatureFile(limit=2.5 * size, folder=tmp_path)
    features = {"maps": torch.rand(size // 4)}
    assert [file.put(features) is None for _ in range(3)] == [False, False, True]

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    file = FeatureFile(limit=1e6, folder=tmp_path)
    assert file.put(features) is None


def test_expected_features_go_to_the_file_and_are_not_computed_again() -> None:
    model = accelerate(Counting().eval())
    size = nbytes(model.encode_query(IMAGES[0]))
    cache = FeatureCache(model, gigabytes=2.5 * size / 1e9)
    keys = [0, 1, 2, 3, 0, 1, 2, 3]
    cache.expect(("query", key) for key in keys)
    model.queries = 0
    found = [cache.query(key, IMAGES[key]) for key in keys]
    assert model.queries == 4
    assert cache.used <= cache.budget
    for ours, again in zip(found[:4], found[4:], strict=True):
        assert_equal(ours, again)
    cache.query(4, IMAGES[4])  # nobody waits for it: it drives out what has no use left, and is not filed
    assert not cache.full


def test_lanes_keep_the_order_and_the_threads() -> None:
    def work(n: int) -> tuple[int, int]:
        time.sleep(0.002 * (n % 3))
        return n, torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = list(in_lanes(work, range(9), lanes=2))
        assert found == [(n, 1) for n in range(9)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


LITE = ("train.cache_views=4", "augment.area=[0.4,1.0]", "augment.keep_foreground=0.5")


def lite_batches(*words: str, start: int = 0) -> list[Any]:
    torch.manual_seed(0)
    config = load_config(
        "lite",
        *SCENES,
        *TINY,
        *LITE,
        "data.shots=2",
        "train.most_shots=null",
        "train.workers=0",
        *words,
    )
    task = EpisodeTask(config, progress=Silent())
    return list(task.batches(GlobalSampler(start, 16, batch=4), progress=Silent()))


def assert_same_batches(ours: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert_equal(a.query, b.query)
        assert_equal(a.support, b.support)
        assert_equal(a.labels.as_dict(), b.labels.as_dict())


@pytest.mark.slow
def test_one_pass_over_an_image_serves_as_query_and_support(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    plain = Lite.extract_query
    monkeypatch.setattr(Lite, "extract_query", lambda self, image: passes.append(len(image)) or plain(self, image))
    batches = lite_batches()
    queries = {tuple(q.flatten()[:8].tolist()) for b in batches for q in b.query["layer3"]}
    supports = {tuple(s.flatten()[:8].tolist()) for b in batches for k in b.support["layer3"] for s in k}
    assert len(passes) == len(queries | supports)
    assert all(b.support["mask"].shape == (4, 2, 64, 64) for b in batches)


@pytest.mark.slow
def test_features_that_another_run_stored_are_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = lite_batches()
    stored = f"train.cache_dir={tmp_path}"
    assert_same_batches(fresh, lite_batches(stored))
    passes: list[int] = []
    plain = Lite.extract_query
    monkeypatch.setattr(Lite, "extract_query", lambda self, image: passes.append(len(image)) or plain(self, image))
    assert_same_batches(fresh, lite_batches(stored))
    assert_same_batches(fresh[2:], lite_batches(start=8))  # as a resumed run draws them
    assert len(passes) > 0
    before = len(passes)
    lite_batches(stored, "data.fold=1", "train.seed=5")  # what another fold and seed need and is there is taken
    assert len(passes) - before < 48
    damaged = next(tmp_path.rglob("query-*.features"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert_same_batches(fresh, lite_batches(stored))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("word", ["model.image_size=32", "augment.jitter=0.1", "data.images=61"])
def test_stored_features_of_other_settings_are_not_taken(word: str, tmp_path: Path) -> None:
    stored = f"train.cache_dir={tmp_path}"
    lite_batches(stored)
    assert_same_batches(lite_batches(word), lite_batches(stored, word))
    assert len(list(tmp_path.iterdir())) == 2


class Logged(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def folder_batches(data: Path, *words: str) -> tuple[list[Any], list[str]]:
    """The first batches of a toy method on a folder of photos, and what was told."""
    torch.manual_seed(0)
    own = ("folder", f"data.root={data}", "data.novel_classes=[c0]", "data.min_pixels=1", "train.cache_features=true")
    config = load_config(
        "model.name=toy", "model.weights=null", "train.validation=none", *own, "train.workers=0", *words
    )
    told = Logged()
    return list(EpisodeTask(config, progress=told).batches(GlobalSampler(0, 4, batch=2), progress=told)), told.lines


def write_photos(data: Path, *, seed: int) -> None:
    """Photos of three classes, the same masks for every seed."""
    rng, marks = np.random.default_rng(seed), np.random.default_rng(0)
    for name in ("c0", "c1", "c2"):
        for n in range(3):
            parts = {"images": rng.integers(0, 256, (32, 32, 3)), "masks": 255 * marks.integers(0, 2, (32, 32))}
            for part, pixels in parts.items():
                file = data / part / name / f"{name}{n}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)


def test_replaced_photos_and_changed_code_are_not_taken_from_a_store(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, stored = tmp_path / "data", f"train.cache_dir={tmp_path / 'store'}"
    write_photos(data, seed=1)
    first, told = folder_batches(data, stored)
    assert not told
    again, told = folder_batches(data, stored)
    assert not told
    assert_same_batches(first, again)
    write_photos(data, seed=2)
    replaced, told = folder_batches(data, stored)
    assert len(told) == 1
    assert "(photos)" in told[0]
    assert "extracted anew" in told[0]
    assert_same_batches(replaced, folder_batches(data)[0])
    assert not torch.equal(replaced[0].query["maps"], first[0].query["maps"])
    monkeypatch.setattr("fewseg.features.store.code_fingerprint", lambda *_: "changed")
    assert "(code)" in folder_batches(data, stored)[1][0]
