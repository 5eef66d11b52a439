"""A plan's counts are those of the evaluation, and no more than a few images are touched for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fewseg.data.episodes.protocols import get_protocol
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import count_episodes, episode_score
from fewseg.evaluation.rehearsal import plan_evaluation
from fewseg.features.cache import FeatureCache
from helpers import CountedLoads, Counting, Fewseg

WAYS: dict[str, dict[str, Any]] = {
    "everything kept": {},
    "workers": {"workers": 2},
    "several at once": {"batch_size": 3},
    "nothing kept": {"cache_gb": 0.0},
    "all in the file": {"cache_gb": 1e-6},
    "some in the file": {"cache_gb": 4e-4},
    "little memory, a small file": {"cache_gb": 2e-4, "file_gb": 2e-4},
    "memory for some, no file": {"cache_gb": 4e-4, "file_gb": 0.0},
    "no file, workers": {"cache_gb": 4e-4, "file_gb": 0.0, "workers": 1},
}


@pytest.fixture(scope="module")
def source() -> CountedLoads:
    """It keeps what it has drawn."""
    return CountedLoads(subset="test", level="complex", images=40, size=72)


OTHER_PROTOCOLS = [(way, name) for way in ("nothing kept", "some in the file") for name in ("pfenet", "hsnet")]


@pytest.mark.parametrize(("way", "protocol"), [(way, "fewseg") for way in WAYS] + OTHER_PROTOCOLS)
def test_what_is_planned_is_done(way: str, protocol: str, source: CountedLoads) -> None:
    torch.set_num_threads(1)  # one lane
    model = Counting().eval()
    rules = replace(get_protocol(protocol, dataset="scenes"), input_size=None)
    benchmark = Benchmark.draw(source, source.fold(0), protocol=rules, shots=2, episodes=20, seeds=(0, 1))
    options = {"workers": 0} | WAYS[way]
    plan = plan_evaluation(model, benchmark, score=episode_score(benchmark), **options)
    model.encoded[:] = [0, 0]
    source.loads = 0
    budgets = {"gigabytes": options.pop("cache_gb", 2.0), "file_gigabytes": options.pop("file_gb", 16.0)}
    cache = FeatureCache(model, **budgets)
    count_episodes(cache, benchmark, **options)
    planned = {part.what.split(",")[0]: part.count for part in (plan.read, *plan.computed)}
    assert [planned["queries encoded"], planned["supports encoded"]] == model.encoded
    if not options["workers"]:
        assert planned["images read"] == source.loads
    assert planned["scored"] == plan.episodes == 40
    assert planned["matched"] == (40 if "batch_size" not in options else 14)
    assert plan.filed == cache.filed
    assert cache.used <= plan.kept <= budgets["gigabytes"] * 1e9


def test_few_images_are_read_for_a_plan() -> None:
    source, model = CountedLoads(subset="test", level="simple", images=60, size=72), Counting().eval()
    benchmark = Benchmark.draw(source, source.fold(0), episodes=300, repeats=2)
    plan = plan_evaluation(model, benchmark, score=episode_score(benchmark))
    assert source.loads <= 8
    assert 0 < plan.seconds < plan.read.total + sum(part.total for part in plan.computed) + 1e-6
    assert plan.images <= 60


@pytest.mark.slow
def test_the_command_prints_it_and_stops(fewseg: Fewseg, tmp_path: Any) -> None:
    words = ("evaluate", "dense", "scenes", "data.images=40", "data.size=64", "model.backbone=timm/test_resnet")
    more = ("model.weights=null", "model.image_size=64", "--episodes", "12", "--repeats", "2", "--workers", "0")
    result = fewseg(*words, *more, "--plan", "--out", tmp_path / "r.json")
    assert result.code == 0, result.err
    assert "2 x 12 episodes of " in result.out
    assert "queries encoded" in result.out
    assert "of --cache-gb 2" in result.out
    assert "of work, done side by side in" in result.out
    assert not list(tmp_path.iterdir())
