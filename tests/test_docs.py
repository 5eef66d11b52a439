"""The pages of docs do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from fewseg.config import load_config
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.storage.opening import open_target
from fewseg.training.loop import train
from helpers import SHORT, TINY, compared, page_block

WORDS = ("scenes", "data.images=40", "data.size=64", *TINY)
BRIEF = (*SHORT, "train.epochs=1", "train.validation=none")


@pytest.fixture
def page(nearest_mean: None, tmp_path: Path) -> Path:
    """The page's YAML in a directory of its own, its method registered; the package is not edited."""
    (tmp_path / "nearest-mean.yaml").write_text(page_block("add-a-method.md", "yaml"))
    return tmp_path


@pytest.mark.slow
def test_a_method_added_as_the_page_says_trains_evaluates_and_is_compared(page: Path) -> None:
    words = (str(page / "nearest-mean.yaml"), *WORDS, *BRIEF)
    run = train(load_config(*words), page / "run")
    still = train(load_config(*words, "train.lr=0"), page / "still")
    trained, untrained = (load_file(r / "last" / "model.safetensors")["project.weight"] for r in (run, still))
    assert (trained - untrained).abs().max() > 1e-4
    entries = compared([str(run), "prototype"], WORDS, episodes=5, repeats=1, workers=0)
    assert [e.name for e in entries] == ["nearest-mean", "prototype"]
    opened = open_target(str(run), [])
    report = evaluate(opened.model, Benchmark.of(opened, episodes=5, repeats=1), workers=0)
    assert report.miou == entries[0].results.miou
    assert report.repeats[0].episode_sha256 == entries[1].results.repeats[0].episode_sha256
    assert 0 <= report.miou <= 1


def test_a_method_is_found_by_its_path_too(page: Path) -> None:
    config = load_config(*WORDS, *BRIEF, "model.name=nearest_mean:NearestMean", "model.width=8")
    assert config.model.options["width"] == 8
