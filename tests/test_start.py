"""A command imports what it uses before its first episode, and no more: `benchmarks/start.py` has the times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewseg.storage.saved import save_model
from helpers import SCENES, TINY, tiny_model

ROOT = Path(__file__).resolve().parents[1]
NEVER = {"IPython", "jinja2", "onnx", "onnxruntime", "pandas", "skimage", "starlette", "tensorboard", "uvicorn"}
OTHER_DATA = {"fewseg.data.annotations", "fewseg.data.sets.coco20i", "fewseg.data.sets.folder"}
OTHER_WORK = {"fewseg.report", "fewseg.segment", "fewseg.server"}


def imported(command: str, *words: object) -> set[str]:
    """The modules, and the packages that they are in, at the first episode."""
    environment = os.environ | {"START_MODULES": "1", "PYTHONPATH": f"{ROOT}/src"}
    process = [sys.executable, "-m", "benchmarks.start", "--hooked", command, *map(str, words)]
    told = subprocess.run(process, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return set(told.partition("ARRIVED\n")[2].splitlines()[1:])


@pytest.mark.slow
def test_an_evaluation_imports_no_plots_no_training_and_no_other_data(tmp_path: Path) -> None:
    model = save_model(tiny_model("lite"), tmp_path / "model")
    found = imported("evaluate", model, *SCENES, "--episodes", 4, "--workers", 0)
    absent = {"lightning_fabric", "matplotlib", "scipy.stats", "torchmetrics", "fewseg.training"}
    assert "fewseg.evaluation.scoring" in found
    assert not sorted(found & (NEVER | OTHER_DATA | OTHER_WORK | absent))


@pytest.mark.slow
def test_a_training_imports_no_plots_no_reports_and_no_other_data(tmp_path: Path) -> None:
    data = ("train.cache_features=false", "train.cache_views=2", "train.validation=none", "train.workers=0")
    found = imported("train", "lite", *SCENES, *TINY, *data, "--out", tmp_path / "run")
    assert {"fewseg.training.loop", "lightning_fabric"} <= found
    # lightning-fabric would import them to ask for a version
    assert not sorted(found & (NEVER | OTHER_DATA | OTHER_WORK | {"matplotlib", "torchmetrics"}))
