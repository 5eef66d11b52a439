"""Runs and models that fewseg 0.1 wrote load, resume and measure as they did: `runs_of_0_1/` holds a finished run with
its evaluation and the same one stopped at batch 26.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fewseg.config import load_config
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.results import Results
from fewseg.storage.opening import open_target
from fewseg.storage.saved import load_model
from fewseg.training.loop import train
from helpers import Toy, weights

RUNS = Path(__file__).parent / "runs_of_0_1"


@pytest.fixture(autouse=True)
def _known(toy: type[Toy]) -> None:
    """Its method is the tests' own."""


def test_its_model_loads_and_measures_the_same() -> None:
    opened = open_target(str(RUNS / "finished"), [])
    benchmark = Benchmark.of(opened, episodes=20, repeats=1)
    report = evaluate(opened.model, benchmark, workers=0, weights=opened.weights)
    kept = Results.load(RUNS / "finished" / "report.json")
    assert kept.miou == pytest.approx(0.293847387866575)
    assert report.miou == kept.miou
    assert report.repeats == kept.repeats
    assert all(np.array_equal(a, b) for a, b in zip(report.tables, kept.tables, strict=True))


@pytest.mark.slow
def test_it_resumes_to_the_weights_of_the_undisturbed_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUNS / "stopped", run)
    train(load_config(str(run / "config.yaml")), run, resume=True)
    # another kind of processor rounds otherwise: 2e-6 was seen, where other batches would tell by hundredths
    torch.testing.assert_close(weights(run / "last"), weights(RUNS / "finished" / "last"), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_model_that_comes_along_is_of_that_format() -> None:
    assert load_model("lite").image_size == 384
