"""The pages of docs do what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fewseg import registry
from fewseg.config import load_config
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.storage.opening import open_target
from fewseg.training.loop import train
from helpers import SHORT, TINY, compared

WORDS = ("scenes", "data.images=40", "data.size=64", *TINY)
BRIEF = (*SHORT, "train.epochs=1", "train.validation=none")
DOCS = Path(__file__).resolve().parents[1] / "docs"


def block(page: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"{page} has no {language} block"
    return found.group(1)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's file and YAML in a directory of their own, its method registered; the package is not edited."""
    (tmp_path / "nearest_mean.py").write_text(block("add-a-method.md", "python"))
    (tmp_path / "nearest-mean.yaml").write_text(block("add-a-method.md", "yaml"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})
    registry.register("model", __import__("nearest_mean").NearestMean)
    yield tmp_path
    sys.modules.pop("nearest_mean")


def test_a_method_added_as_the_page_says_trains_evaluates_and_is_compared(page):
    words = (str(page / "nearest-mean.yaml"), *WORDS, *BRIEF)
    run = train(load_config(*words), page / "run")
    still = train(load_config(*words, "train.lr=0"), page / "still")
    trained, untrained = (load_file(r / "last" / "model.safetensors")["project.weight"] for r in (run, still))
    assert (trained - untrained).abs().max() > 1e-4
    entries = compared([str(run), "prototype"], WORDS, episodes=5, repeats=1, workers=0)
    assert [e.name for e in entries] == ["nearest-mean", "prototype"]
    opened = open_target(str(run), [])
    report = evaluate(opened.model, Benchmark.of(opened, episodes=5, repeats=1), workers=0)
    assert report.miou == entries[0].report.miou
    assert report.repeats[0].episode_sha256 == entries[1].report.repeats[0].episode_sha256
    assert 0 <= report.miou <= 1


def test_a_method_is_found_by_its_path_too(page):
    config = load_config(*WORDS, *BRIEF, "model.name=nearest_mean:NearestMean", "model.width=8")
    assert config.model.options["width"] == 8


def test_the_method_of_the_page_fulfils_the_contract(page):
    contract = pytest.importorskip("models.test_contract")
    for check in (
        contract.test_a_batch_of_two_equals_two_of_one,
        contract.test_labels_of_the_query_never_reach_the_prediction,
        contract.test_every_trainable_parameter_is_in_one_group_and_gets_a_finite_gradient,
        contract.test_frozen_weights_and_statistics_survive_a_step,
        contract.test_cached_halves_equal_forward,
    ):
        for shots in contract.SHOTS:
            check("nearest-mean", shots)
    contract.test_the_order_of_the_supports_does_not_matter("nearest-mean", [2, 0, 1])
