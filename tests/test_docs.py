"""The pages of docs do what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from fewseg import registry
from fewseg.config import load_config
from fewseg.engine.evaluate import evaluate
from fewseg.engine.runs import open_target, open_test_data
from fewseg.engine.train import train

DOCS = Path(__file__).resolve().parents[1] / "docs"


def block(page: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"{page} has no {language} block"
    return found.group(1)


def test_a_method_added_as_the_page_says_trains_and_evaluates(tmp_path, monkeypatch):
    (tmp_path / "nearest_mean.py").write_text(block("add-a-method.md", "python"))
    (tmp_path / "nearest-mean.yaml").write_text(block("add-a-method.md", "yaml"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})
    registry.register("model", __import__("nearest_mean").NearestMean)
    config = load_config(
        str(tmp_path / "nearest-mean.yaml"),
        "scenes",
        *[
            "model.backbone=timm/test_resnet",
            "model.weights=null",
            "model.image_size=64",
            "data.images=40",
            "data.size=64",
        ],
        *[
            "train.epochs=1",
            "train.episodes_per_epoch=4",
            "train.batch_size=2",
            "train.workers=0",
            "train.validation=none",
        ],
    )
    run = train(config, tmp_path / "run")
    opened = open_target(str(run), [])
    source, fold = open_test_data(opened)
    report = evaluate(opened.model, source, fold, episodes=5, repeats=1, workers=0)
    assert report.method == "nearest-mean"
    assert 0 <= report.miou <= 1
    sys.modules.pop("nearest_mean")


def test_the_method_of_the_page_fulfils_the_contract(monkeypatch, tmp_path):
    contract = pytest.importorskip("models.test_contract")
    (tmp_path / "nearest_mean.py").write_text(block("add-a-method.md", "python"))
    monkeypatch.syspath_prepend(tmp_path)
    cls = __import__("nearest_mean").NearestMean
    torch.manual_seed(0)
    model = cls(backbone="timm/test_resnet", shots=2, image_size=64).eval()
    batch = contract.episode(2, 2)
    both = contract.predict(model, batch).logits
    assert both.shape == (2, 2, *contract.SIZE)
    assert torch.isfinite(both).all()
    sys.modules.pop("nearest_mean")
