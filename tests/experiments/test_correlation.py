"""Correlation maps in pictures and as a score."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewseg.errors import UsageError
from fewseg.experiments import run_correlation, run_episodes
from fewseg.experiments.correlation import roc_area


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("correlation") / "out"


@pytest.fixture(scope="module")
def found(out, tiny_plan):
    return run_correlation(tiny_plan(out), rows=2)


@pytest.mark.slow
def test_both_models_are_trained_and_drawn_on_the_same_episodes(found, out):
    assert len(found.rows) == 2
    for row in found.rows:
        assert list(row) == ["distilled", "not distilled"]
        captions = {panel.caption for panel in row.values()}
        assert len(captions) == 1
        for panel in row.values():
            sizes = [m.shape[0] for m in panel.correlations]
            assert sizes == sorted(sizes)
            assert len(sizes) == 3
    assert len({row["distilled"].class_name for row in found.rows}) == 2
    assert (out / "correlation.png").stat().st_size > 1000
    assert json.loads((out / "correlation.json").read_text())["episode_sha256"] == found.episode_sha256


@pytest.mark.slow
def test_every_stage_of_every_model_has_a_score_with_an_interval(found):
    assert [(s.model, s.stage) for s in found.scores] == [
        (name, stage) for name in ("distilled", "not distilled") for stage in (3, 2, 1)
    ]
    assert all(0 <= s.interval[0] <= s.area <= s.interval[1] <= 1 for s in found.scores)


@pytest.mark.slow
def test_one_run_is_enough(found, out, tiny_plan, tmp_path):
    one = run_correlation(tiny_plan(tmp_path, episodes=6), runs=[str(out / "cells" / "fold0-distilled")], rows=1)
    assert [s.model for s in one.scores] == ["hdmnet"] * 3
    assert [s.area for s in one.scores] == [s.area for s in found.scores[:3]]
    with pytest.raises(UsageError, match="one, or two"):
        run_correlation(tiny_plan(tmp_path), runs=["a", "b", "c"])


@pytest.mark.slow
def test_runs_are_drawn_again_on_their_own_folds(found, out, tiny_plan, tmp_path):
    run = str(out / "cells" / "fold0-distilled")
    spread = run_episodes(tiny_plan(tmp_path, episodes=2, repeats=2), runs=[run])
    assert [(s.line, s.fold) for s in spread.spreads] == [("hdmnet, fold 0", 0)] * 2
    assert all(s.checkpoint for s in spread.spreads)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (6, 7)).astype(np.float32)
    truth = rng.choice([0, 1, 255], (6, 7)).astype(np.uint8)
    inside, outside = values[truth == 1], values[truth == 0]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside]
    assert roc_area(values, truth) == pytest.approx(np.mean(pairs))
    assert roc_area(values, np.zeros_like(truth)) == 0.5
