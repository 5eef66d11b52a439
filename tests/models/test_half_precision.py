"""A model in 16 bits: near the exact one, in fp32 outside, and told in what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewseg.errors import UsageError
from fewseg.features.cache import FeatureCache
from fewseg.models.fast import accelerate
from fewseg.models.half_precision import in_precision
from fewseg.models.hub_model import model_options
from fewseg.predictor import FewShotPredictor
from helpers import TINY, Fewseg, scene, tiny_model


def test_fp32_is_the_model_itself_and_what_is_no_precision_is_refused() -> None:
    model: Any = tiny_model("lite")
    assert in_precision(model, "fp32") is model
    with pytest.raises(UsageError, match="precision 'int8'; choose fp32, bf16, fp16"):
        in_precision(model, "int8")


@pytest.mark.parametrize("name", ["lite", "hdmnet", "pfenet", "dense"])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_in_bf16_are_nearly_the_exact_ones(name: str, flip: bool) -> None:
    model: Any = tiny_model(name)
    (image, mask), (query, _) = scene(size=(90, 70), box=(20, 10, 60, 50)), scene(size=(80, 90), box=(10, 20, 60, 70))
    found = []
    for precision in ("fp32", "bf16"):
        predictor = FewShotPredictor(model, flip=flip, precision=precision)
        predictor.set_support(image, mask)
        found.append(predictor.predict_proba(query))
    exact, rounded = found
    assert isinstance(exact, np.ndarray)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < 0.1


def test_kept_features_take_less_memory_and_come_back_from_the_file() -> None:
    model: Any = tiny_model("hdmnet")
    half: Any = accelerate(in_precision(model, "bf16"))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        exact, rounded = FeatureCache(model), FeatureCache(half)
        expected = rounded.query(0, image)
        exact.query(0, image)
        assert rounded.used < 0.7 * exact.used
        filing = FeatureCache(half, gigabytes=1e-9)
        filing.expect([("query", 0)] * 2)
        filing.query(0, image)
        assert filing.filed > 0
        for name, feature in filing.query(0, image).items():
            assert feature.dtype == expected[name].dtype
            assert torch.equal(feature, expected[name])


def test_results_say_in_which_precision_they_were_made(fewseg: Fewseg, tmp_path: Path) -> None:
    assert model_options(in_precision(tiny_model("lite"), "bf16"))["precision"] == "bf16"  # type: ignore[arg-type]
    words = ("dense", "scenes", "data.images=40", "data.size=64", *TINY)
    words = (*words, "--episodes", 4, "--repeats", 1, "--workers", 0)
    told = fewseg("evaluate", *words, "--precision", "bf16", "--out", tmp_path / "r.json")
    assert told.code == 0, told.err
    assert '"precision": "bf16"' in (tmp_path / "r.json").read_text()
    wrong = fewseg("evaluate", *words, "--precision", "half", "--out", tmp_path / "s.json")
    assert wrong.code == 2
    assert "choose fp32, bf16, fp16" in wrong.err
