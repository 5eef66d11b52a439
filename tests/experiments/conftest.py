"""Plans that end in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.experiments import Plan

TINY = """
model: {name: hdmnet, backbone: timm/test_resnet, weights: null, image_size: 64, base_learner: false}
data: {images: 60, size: 64, level: mixed, novel: ignore}
train: {epochs: 1, episodes_per_epoch: 4, batch_size: 2, workers: 0, validation: none}
"""
TINY_BASE = """
model: {name: base, backbone: timm/test_resnet, weights: null, image_size: 64}
data: {novel: background}
train: {epochs: 1, episodes_per_epoch: 4, batch_size: 2, optimizer: sgd, lr: 0.02, val_episodes: 4}
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_base_recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "base.yaml"
    path.write_text(TINY_BASE)
    return path


@pytest.fixture(scope="session")
def tiny_plan(tiny_recipe):
    """Makes a plan on scenes: HDMNet without a base learner on a tiny back-end, one fold, six test episodes."""

    def make(out: Path, *words: str, **changes) -> Plan:
        settings = {"folds": (0,), "episodes": 6, "workers": 0}
        return Plan("scenes", out=out, words=(str(tiny_recipe), *words), **(settings | changes))

    return make
