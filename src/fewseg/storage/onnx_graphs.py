"""Models written as ONNX: support encoder and query matcher, two graphs of any image size, checked against PyTorch.

    support.onnx  images (1, K, 3, H, W) in [0, 1], masks (1, K, H, W) uint8 {0, 1, 255} --> the support's features
    match.onnx    image (1, 3, H, W) in [0, 1], the support's features --> logits (1, 2, H, W), correlation maps;
                  where the model tells it, presence (1,) comes second: the logit of the class being there at all

The support is encoded once and matched with as many queries as there are. `fewseg-onnx.json` names inputs and outputs.
K is free but for a model with trained shot weights (BAM, HDMNet with K > 1), which hold for their own K alone.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fewseg.episode import Episode
from fewseg.errors import DataError, UsageError, first_line
from fewseg.files import replacing, replacing_files
from fewseg.models.base import FewShotSegmenter
from fewseg.models.fast.exporting import SizeFreeOperations, onnx_padding
from fewseg.models.hub_model import plain_model
from fewseg.models.parts.ensemble import ShotWeights
from fewseg.runtime.graphs import MATCH, RECORD, SUPPORT, OnnxSegmenter, needed_library

_TOLERANCE = 1e-3
"""Most that a foreground probability may differ between onnxruntime and PyTorch."""


class _SupportEncoder(nn.Module):
    def __init__(self, model: FewShotSegmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode_support(images, masks).values())


class _QueryMatcher(nn.Module):
    def __init__(self, model: FewShotSegmenter, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, image: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        support = dict(zip(self.names, features, strict=True))
        size = (image.shape[-2], image.shape[-1])
        prediction = self.model.match(self.model.encode_query(image), support, size=size)
        presence = () if prediction.presence is None else (prediction.presence,)
        return (prediction.logits, *presence, *prediction.correlations)


def export_onnx(model: FewShotSegmenter, folder: str | Path, *, int8: bool = False) -> Path:
    """Write a model's two graphs into a folder and check them against PyTorch at other sizes and numbers of shots.

    With `int8` weights are stored in 8 bits and activations quantised as they come (onnxruntime's dynamic
    quantisation); `agreement` measures what that costs. UsageError where onnx, onnxscript or onnxruntime are missing
    or the method cannot be exported, DataError where the graphs compute something else.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        needed_library(library)
    out = Path(folder)
    model = plain_model(model).cpu().eval()
    with replacing_files(out, last=RECORD) as work:
        weighted = any(isinstance(m, ShotWeights) and m.shots > 1 for m in model.modules())
        _export(model, work, shots=model.shots if weighted else None)
        if int8:
            _quantise(work)
    return out


def _export(model: FewShotSegmenter, out: Path, *, shots: int | None) -> None:
    """Write and check both graphs; `shots` None leaves the number of shots free."""
    images, masks, query = _example(model, shots=shots or 2)
    with torch.no_grad():
        features = model.encode_support(images, masks)
        others = model.encode_support(*_example(model, shots=shots or 3, larger=True)[:2])
    names = list(features)
    k = {} if shots else {1: Dim.AUTO}
    what = f"{type(model).__name__} ({getattr(type(model), 'name', '')})"
    _write(
        _SupportEncoder(model),
        (images, masks),
        out / SUPPORT,
        input_names=["images", "masks"],
        output_names=[f"support_{name}" for name in names],
        dynamic_shapes=(k | {3: Dim.AUTO, 4: Dim.AUTO}, k | {2: Dim.AUTO, 3: Dim.AUTO}),
        what=f"the support encoder of {what}",
    )
    _write(
        _QueryMatcher(model, names),
        (query, tuple(features.values())),
        out / MATCH,
        input_names=["image", *(f"support_{name}" for name in names)],
        output_names=["logits", "presence"] if model.tells_presence else ["logits"],
        dynamic_shapes=({2: Dim.AUTO, 3: Dim.AUTO}, tuple(_free(features[n], others[n]) for n in names)),
        what=f"the query matcher of {what}",
    )
    record = {"method": model.name, "image_size": model.image_size, "shots": shots, "features": names}
    record["presence"] = model.tells_presence
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _check(model, OnnxSegmenter(str(out)), shots=shots)


def _free(one: Tensor, other: Tensor) -> dict[int, Any]:
    """The dimensions that differ between two sizes and numbers of shots."""
    return {i: Dim.AUTO for i, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b}


def _example(model: FewShotSegmenter, *, shots: int, larger: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Support images, masks and a query of noise; no two sides agree, and none ends as a single position, both of which
    the tracer would take for a rule.
    """
    generator = torch.Generator().manual_seed(0)
    side = max(model.image_size, 288)
    height, width = (side + 64 * larger, side + 64 + 96 * larger)
    images = torch.rand(1, shots, 3, height, width, generator=generator)
    masks = torch.zeros(1, shots, height, width, dtype=torch.uint8)
    masks[..., height // 4 : 3 * height // 4, width // 3 : 3 * width // 4] = 1
    return images, masks, torch.rand(1, 3, height + 96, width, generator=generator)


def _write(graph: nn.Module, example: tuple[Any, ...], path: Path, *, what: str, **options: Any) -> None:
    """Write one graph; `options` are those of torch.onnx.export."""
    with _quiet(), torch.no_grad(), onnx_padding(graph), SizeFreeOperations():
        try:
            torch.onnx.export(graph, example, path, dynamo=True, external_data=False, verbose=False, **options)
        except Exception as error:  # the exporter raises its own errors for what ONNX cannot say
            raise UsageError(
                f"{what} cannot be exported to ONNX ({first_line(error)}); run it in PyTorch, or export another method"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks are not for users: what it gets wrong shows in the check."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _check(model: FewShotSegmenter, exported: FewShotSegmenter, *, shots: int | None) -> None:
    """DataError unless both give the same probabilities, and presence, at the model's own size and at another one."""
    for larger, count in ((False, shots or 1), (True, shots or 3)):
        images, masks, query = _example(model, shots=count, larger=larger)
        none = torch.tensor([-1])
        episode = Episode(query, images, masks, none, none)
        with torch.inference_mode():
            expected, found = (m(episode) for m in (model, exported))
        worst = float((expected.logits.softmax(1) - found.logits.softmax(1)).abs().max())
        if expected.presence is not None and found.presence is not None:
            worst = max(worst, float((expected.presence.sigmoid() - found.presence.sigmoid()).abs().max()))
        if not worst <= _TOLERANCE:
            raise DataError(
                f"the exported graphs differ from PyTorch by up to {worst:.2g} in probability at {tuple(query.shape)} "
                f"and {count} shots; do not use them"
            )


def _quantise(folder: Path) -> None:
    """Replace both graphs by ones with 8-bit weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in (SUPPORT, MATCH):
        with replacing(folder / name) as temporary, _quiet():
            # unsigned: onnxruntime has no convolution with signed 8-bit weights on the CPU
            quantize_dynamic(folder / name, temporary, weight_type=QuantType.QUInt8)
