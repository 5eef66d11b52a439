"""Reads the parity vectors, and compares numbers with them (README.md says what they are)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parity import fill

METHODS = ("hdmnet", "bam", "pfenet", "hsnet")
VECTORS = Path(os.environ.get("FEWSEG_PARITY", Path(__file__).parent))
"""The vectors of this folder, or others of the same names."""


def read_vector(method: str) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """What is told of a released network, and its outputs."""
    name = f"{method}_resnet50_pascal_1shot"
    return json.loads((VECTORS / f"{name}.json").read_text()), dict(np.load(VECTORS / f"{name}.npz"))


def released_state(meta: dict[str, Any], *, prefix: str = "") -> dict[str, Tensor]:
    """The network's state dict under the released names."""
    return {
        prefix + n: torch.from_numpy(np.array(fill.parameter(n, tuple(shape))))
        for n, shape in meta["state_dict"].items()
    }


def outputs(prediction: Any) -> dict[str, Tensor]:
    """Everything that the vectors may hold, by their names."""
    found = {"final": prediction.logits, "vote": prediction.mask.long(), **prediction.aux}
    if "shots" in prediction.aux:
        found |= {f"logits_shot{k}": logits for k, logits in enumerate(prediction.aux["shots"].unbind(1))}
    return found | {f"correlation_stage{3 - i}": c for i, c in enumerate(prediction.correlations)}


def check(actual: Any, expected: NDArray[np.generic], name: str) -> None:
    """Fails unless all numbers agree within the vectors' tolerance."""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4, err_msg=name)


def check_output(found: dict[str, Tensor], expected: NDArray[np.generic], name: str) -> None:
    """As `check`, for an output by its name in the vector: one that ends in `[..., ::4, ::4]` is that slice of it."""
    whole = found[name.removesuffix("[..., ::4, ::4]")]
    check(whole[..., ::4, ::4] if name.endswith("]") else whole, expected, name)
