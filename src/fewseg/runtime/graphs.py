"""Exported graphs as a model, run by onnxruntime (`fewseg.storage.onnx_graphs` writes them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewseg.episode import Episode, Prediction
from fewseg.errors import DataError, UsageError, first_line
from fewseg.models.base import Features, FewShotSegmenter

SUPPORT, MATCH, RECORD = "support.onnx", "match.onnx", "fewseg-onnx.json"
"""The files of an exported model's folder."""


class OnnxSegmenter(FewShotSegmenter):
    """Exported graphs as a model: `FewShotPredictor(OnnxSegmenter(folder))` segments photos through onnxruntime."""

    name = "onnx"
    trainable = False

    def __init__(self, folder: str) -> None:
        super().__init__()
        ort: Any = needed_library("onnxruntime")
        path = Path(folder)
        try:
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            self.image_size, self.shots = record["image_size"], record["shots"] or 1
            self.fixed_shots = record["shots"] is not None
            self.features: list[str] = record["features"]
            self.tells_presence = record.get("presence", False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no exported model ({error}); fewseg export RUN --onnx {path}") from error
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        self.encoder, self.matcher = (
            ort.InferenceSession(str(path / name), options, providers=["CPUExecutionProvider"])
            for name in (SUPPORT, MATCH)
        )

    @property
    def device(self) -> torch.device:
        """The CPU: that is where these graphs run."""
        return torch.device("cpu")

    def extract_query(self, image: Tensor) -> Features:
        return {"image": image}

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        found = _run(self.encoder, {"images": images.numpy(), "masks": masks.numpy()})
        return {name: torch.from_numpy(np.asarray(value)) for name, value in zip(self.features, found, strict=True)}

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        given = query | {f"support_{name}": support[name] for name in self.features}
        inputs = {entry.name: given[entry.name].numpy() for entry in self.matcher.get_inputs()}
        logits, *others = (torch.from_numpy(value) for value in _run(self.matcher, inputs))
        presence = others.pop(0) if self.tells_presence else None
        return Prediction(logits, correlations=tuple(others), presence=presence)

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        raise UsageError("an exported model cannot be trained; train the run that it was exported from")


def _run(session: Any, inputs: dict[str, Any]) -> list[Any]:
    try:
        return session.run(None, inputs)
    except Exception as error:  # onnxruntime's own exceptions
        shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
        raise DataError(f"the exported graph cannot take {shapes} ({first_line(error)})") from error


def needed_library(name: str) -> Any:
    """An imported library; UsageError that says how to install it where it is missing."""
    try:
        return __import__(name)
    except ImportError as error:
        raise UsageError(f"exporting needs {name} ({error}); install it with: pip install 'fewseg[onnx]'") from error
