"""How many episodes: repeats of n and 10 n."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.source import Fold
from fewseg.errors import UsageError
from fewseg.experiments import Plan, run_episodes
from fewseg.experiments.episode_count import episodes_needed
from fewseg.models.prototype import Prototype
from helpers import TINY

WORDS = ("prototype", *TINY, "data.images=100", "data.size=64", "data.level=simple")


def plan(out, **changes):
    settings = {"folds": (0, 2), "episodes": 4, "repeats": 3, "workers": 0}
    return Plan("scenes", out=out, words=WORDS, **(settings | changes))


@pytest.fixture
def encoded(monkeypatch):
    """Counts the images that are encoded."""
    calls = []
    extract = Prototype.extract_query
    monkeypatch.setattr(Prototype, "extract_query", lambda self, image: calls.append(1) or extract(self, image))
    return calls


@pytest.mark.slow
def test_a_method_without_training_is_drawn_again_and_again_on_every_fold(tmp_path, encoded):
    torch.manual_seed(0)
    found = run_episodes(plan(tmp_path))
    assert [(s.line, s.episodes) for s in found.spreads] == [(f"fold {f}", n) for f in (0, 2) for n in (4, 40)]
    for s in found.spreads:
        assert len(s.values) == 3
        assert s.mean == pytest.approx(np.mean(s.values))
        assert s.deviation == pytest.approx(np.std(s.values, ddof=1))
        assert s.range == pytest.approx(max(s.values) - min(s.values))
        assert s.deviation_interval[0] < s.deviation < s.deviation_interval[1]
    # 3 x 40 episodes a fold, each of two images, but 25 images hold a novel class: once as query, once as support
    assert len(encoded) <= 2 * 2 * 25
    source = plan(tmp_path).source("test")
    protocol = get_protocol("fewseg", dataset="scenes")
    for s, n in zip(found.spreads[2:], (4, 40), strict=True):
        lists = [
            sample_episodes(source, source.fold(2), protocol=protocol, seed=r, shots=1, episodes=n) for r in s.seeds
        ]
        assert s.hashes == tuple(listed.sha256 for listed in lists)
    record = json.loads((tmp_path / "episodes.json").read_text())
    assert record["seeds"] == [0, 1, 2]
    assert (tmp_path / "episodes.png").stat().st_size > 1000


def test_half_the_width_needs_four_times_the_episodes():
    rng = np.random.default_rng(0)
    union = np.full(400, 1000)
    hit = rng.integers(0, 1000, 400)
    table = np.stack([np.resize([1, 2], 400), hit, union, union, union], 1)
    fold = Fold(0, (1, 2), (3,))
    wide, narrow = (episodes_needed([table[:200], table[200:]], fold, half_width=w) for w in (0.02, 0.01))
    assert narrow == pytest.approx(4 * wide, rel=0.01)
    # IoU of an episode is uniform on [0, 1]: deviation 0.289 / sqrt(N)
    assert wide == pytest.approx((1.96 * 0.289 / 0.02) ** 2, rel=0.15)


def test_more_repeats_than_the_protocol_has_seeds_get_seeds_of_their_own(tmp_path):
    seeds = plan(tmp_path, repeats=7).seeds(plan(tmp_path).config())
    assert seeds == (0, 1, 2, 3, 4, 5, 6)
    seeds = plan(tmp_path, repeats=12, protocol="hdmnet").seeds(plan(tmp_path).config())
    assert len(set(seeds)) == 12


def test_what_cannot_be_measured_is_told(tmp_path):
    with pytest.raises(UsageError, match="2 or more"):
        run_episodes(plan(tmp_path, repeats=1))
    with pytest.raises(UsageError, match="must be trained first"):
        run_episodes(Plan("scenes", out=tmp_path, words=("hdmnet",), repeats=2))
    with pytest.raises(UsageError, match="must be trained first"):
        run_episodes(Plan("scenes", out=tmp_path, repeats=2))
