"""Models written as ONNX: four graphs that take photos as they are, and one file of weights, checked against PyTorch.

    query.onnx    image (H, W, 3) uint8 of any size --> the photo's features; the graph squeezes it itself
    support.onnx  mask (H, W) uint8 {0, 1, 255}, and its image or that one's features --> a support's features
    match.onnx    a photo's features, those of K supports side by side --> lead (S, S): how far the foreground's logit
                  is above the background's; presence (1,), the logit of the class being there at all, where the model
                  tells it; correlation maps, coarse to fine
    dense.onnx, prototype.onnx  of a lite model: the same from the same features, without what was trained (its
                  linear classifier needs no graph: fewseg.linear)
    draw.onnx     lead, size: H and W --> proba (H, W), the foreground's probability

The weights lie in `weights.bin`, each once, whichever graphs need it; `half` stores large ones in 16 bits, from which
the graphs make 32. `fewseg-onnx.json` tells the rest, with the hash of the weights that the graphs were made of. K is
free but for a model with trained shot weights (BAM, HDMNet with K > 1), which hold for their own K alone.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from fewseg.errors import DataError, UsageError, first_line
from fewseg.files import replacing, replacing_files
from fewseg.linear import classifies
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.fast.exporting import SizeFreeOperations
from fewseg.models.hub_model import plain_model
from fewseg.models.parts.ensemble import ShotWeights
from fewseg.models.untrained import as_method, methods_of
from fewseg.runtime.engine import Answer, Engine
from fewseg.runtime.graphs import (
    DRAW,
    FORMAT,
    GRAPHS,
    MATCH,
    QUERY,
    RECORD,
    SUPPORT,
    WEIGHTS,
    OnnxSegmenter,
    graph_of,
    needed_library,
)
from fewseg.runtime.torch_engine import TorchEngine

_TOLERANCE, _TOLERANCE_HALF = 1e-3, 2e-2
"""Most that a foreground probability may differ between onnxruntime and PyTorch, the latter with weights in 16 bits."""
_LARGE = 1024
"""Values from which on a tensor lies in the file of weights: norms' stay in the graph."""
_HALVED = 16384
"""Values from which on a tensor is stored in 16 bits if that is wanted: small ones, such as those of depthwise
convolutions, cost a tenth of the file, and half of the difference."""


class _Query(nn.Module):
    """A photo to what it is matched by, and to what a support is made of where the model masks features."""

    def __init__(self, model: FewShotSegmenter) -> None:
        super().__init__()
        self.model = model
        self.names: list[str] = []

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        extracted = self.model.extract_query(_squeezed(image, self.model.image_size))
        found = _prefixed("query", self.model.embed_query(extracted))
        if self.model.masks_features:
            found |= _prefixed("extracted", extracted)
        self.names = list(found)
        return tuple(found.values())


class _Support(nn.Module):
    """One support's mask, and its photo or `names` of what was extracted from that, to its features."""

    def __init__(self, model: FewShotSegmenter, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.extracted = model, [name.partition("_")[2] for name in names]
        self.names: list[str] = []

    def forward(self, mask: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        side = self.model.image_size
        masks = _nearest(mask, side)[None, None]
        if self.extracted:
            features = self.model.as_support(dict(zip(self.extracted, given, strict=True)), masks)
        else:
            features = self.model.extract_support(_squeezed(given[0], side)[None], masks)
        found = _prefixed("support", self.model.embed_support(features))
        self.names = list(found)
        return tuple(found.values())


class _Match(nn.Module):
    """A photo's features and its supports', `names` of both, to the foreground's lead and what else is told."""

    def __init__(self, model: FewShotSegmenter, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sides: dict[str, Features] = {"query": {}, "support": {}}
        for name, value in zip(self.names, given, strict=True):
            side, _, rest = name.partition("_")
            sides[side][rest] = value
        size = (self.model.image_size, self.model.image_size)
        prediction = self.model.match(sides["query"], sides["support"], size=size)
        presence = () if prediction.presence is None else (prediction.presence,)
        lead = prediction.logits[0, 1] - prediction.logits[0, 0]
        return (lead, *presence, *(correlation[0] for correlation in prediction.correlations))


def export_onnx(
    model: FewShotSegmenter, folder: str | Path, *, int8: bool = False, half: bool = False, source: str = ""
) -> Path:
    """Write a model's graphs into a folder and check them against PyTorch at other sizes and numbers of shots.

    With `int8` weights are stored in 8 bits and activations quantised as they come (onnxruntime's dynamic
    quantisation); `agreement` measures what that costs. `half` stores large ones in 16 bits. `source`, the hash of the
    file that the model was read from, is kept. UsageError where onnx, onnxscript or onnxruntime are missing or the
    method cannot be exported, DataError where the graphs compute something else.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        needed_library(library)
    out = Path(folder)
    model = plain_model(model).cpu().eval()
    if model.takes_classes:
        raise UsageError(f"{model.name} takes the names of classes, which graphs do not hold; use it with torch")
    weighted = any(isinstance(m, ShotWeights) and m.shots > 1 for m in model.modules())
    shots = model.shots if weighted else None
    with replacing_files(out, last=RECORD) as work:
        _export(model, work, shots=shots)
        record = {"format": FORMAT, "method": model.name, "image_size": model.image_size, "shots": shots}
        record |= {"methods": methods_of(model), "presence": model.tells_presence, "source_sha256": source}
        (work / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _check(TorchEngine(model), OnnxSegmenter(work), tolerance=_TOLERANCE)
        if int8:
            _quantise(work)
        _share_weights(work, half=half)
        if not int8:
            _check(TorchEngine(model), OnnxSegmenter(work), tolerance=_TOLERANCE_HALF if half else _TOLERANCE)
    return out


def _export(model: FewShotSegmenter, out: Path, *, shots: int | None) -> None:
    """Write the graphs, each with its weights; `shots` None leaves the number of shots free."""
    what = f"{type(model).__name__} ({getattr(type(model), 'name', '')})"
    (image, mask), *_ = _example(1)
    sides: dict[int, Any] = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    query = _Query(model)
    with torch.no_grad():
        found = query(image)
    features = dict(zip(query.names, found, strict=True))
    of_query = {name: value for name, value in features.items() if name.startswith("query_")}
    extracted = {name: value for name, value in features.items() if name not in of_query}
    _write(query, (image,), out / QUERY, ["image"], query.names, (sides,), what=f"the query encoder of {what}")
    support = _Support(model, list(extracted))
    given = tuple(extracted.values()) or (image,)
    free = tuple({} for _ in extracted) or (sides,)
    with torch.no_grad():
        found = support(mask, given)
    of_support = dict(zip(support.names, found, strict=True))
    inputs = ["mask", *(list(extracted) or ["image"])]
    _write(support, (mask, given), out / SUPPORT, inputs, support.names, (sides, free), what=f"the support's of {what}")
    several = {name: torch.cat([value] * (shots or 2), 1) for name, value in of_support.items()}
    for method in methods_of(model):
        if not classifies(method):
            path = out / (MATCH if method == model.name else graph_of(method))
            view = as_method(model, method)
            _write_match(view, path, of_query, several, any_shots=shots is None, what=f"{method} of {what}")
    _write_draw(out / DRAW)


def _write_match(
    model: FewShotSegmenter, path: Path, query: Features, support: Features, *, any_shots: bool, what: str
) -> None:
    match = _Match(model, [*query, *support])
    k = {1: Dim.DYNAMIC} if any_shots else {}
    free = (*({} for _ in query), *(k for _ in support))
    told = ["lead", "presence"] if model.tells_presence else ["lead"]
    given = ((*query.values(), *support.values()),)
    _write(match, given, path, list(match.names), told, (free,), what=f"the matcher {what}")


def _prefixed(prefix: str, features: Features) -> Features:
    return {f"{prefix}_{name}": value for name, value in features.items()}


def _squeezed(image: Tensor, side: int) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, side, side) in [0, 1] as `ops.resize` would: no float copy of a whole photo is made."""
    (top, bottom, down), (left, right, across) = (_between(image.shape[axis], side) for axis in (0, 1))

    def row(numbers: Tensor) -> Tensor:
        pixels = image.index_select(0, numbers)
        one, other = (pixels.index_select(1, columns).permute(2, 0, 1).float() for columns in (left, right))
        return one * (1 - across) + other * across

    down = down.unsqueeze(1)
    return (row(top) * (1 - down) + row(bottom) * down).unsqueeze(0) / 255


def _between(length: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every position of a linear resize the two that it lies between, and the share of the second."""
    place = ((torch.arange(side) + 0.5) * (length / side) - 0.5).clamp(min=0)
    first = place.long().clamp(max=length - 1)
    return first, (first + 1).clamp(max=length - 1), place - first


def _nearest(mask: Tensor, side: int) -> Tensor:
    """(H, W) to (side, side) by the nearest pixels."""
    rows, columns = ((torch.arange(side).float() * (n / side)).long().clamp(max=n - 1) for n in mask.shape)
    return mask.index_select(0, rows).index_select(1, columns)


def _example(count: int, *, larger: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Photos of noise and their masks; no two sides agree, which the tracer would take for a rule."""
    generator = torch.Generator().manual_seed(int(larger))
    height, width = (391, 523) if larger else (301, 417)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[height // 4 : 3 * height // 4, width // 3 : 3 * width // 4] = 1
    sizes = [(height, width, 3)] * count
    return [(torch.randint(0, 256, size, dtype=torch.uint8, generator=generator), mask) for size in sizes]


def _write(
    graph: nn.Module,
    example: tuple[Any, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    free: tuple[Any, ...],
    *,
    what: str,
) -> None:
    """Write one graph; `free` are the sides of its inputs that may be any."""
    with _quiet(), torch.no_grad(), SizeFreeOperations():
        names: dict[str, Any] = {"input_names": inputs, "output_names": outputs, "dynamic_shapes": free}
        try:
            torch.onnx.export(graph, example, path, dynamo=True, external_data=False, verbose=False, **names)
        except Exception as error:  # the exporter raises its own errors for what ONNX cannot say
            raise UsageError(
                f"{what} cannot be exported to ONNX ({first_line(error)}); run it in PyTorch, or export another method"
            ) from error


def _write_draw(path: Path) -> None:
    """The graph that brings a lead to a photo's size, corners on corners, and makes it a probability."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    bilinear = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    nodes = [
        helper.make_node("Unsqueeze", ["lead", "first"], ["map"]),
        helper.make_node("Concat", ["ones", "size"], ["whole"], axis=0),
        helper.make_node("Resize", ["map", "", "", "whole"], ["large"], **bilinear),
        helper.make_node("Squeeze", ["large", "first"], ["drawn"]),
        helper.make_node("Sigmoid", ["drawn"], ["proba"]),
    ]
    lead = helper.make_tensor_value_info("lead", TensorProto.FLOAT, ["S", "S"])
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [2])
    proba = helper.make_tensor_value_info("proba", TensorProto.FLOAT, ["H", "W"])
    constants = {"first": [0, 1], "ones": [1, 1]}
    initializers = [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "draw", [lead, size], [proba], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def _share_weights(folder: Path, *, half: bool) -> None:
    """Move the large tensors of all graphs into one file, each once; with `half` in 16 bits."""
    import onnx
    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    places: dict[bytes, int] = {}
    with (folder / WEIGHTS).open("wb") as file:
        for path in sorted(folder.glob("*.onnx"), key=lambda path: (path.name not in GRAPHS, path.name)):
            model = onnx.load(path)
            casts = []
            for tensor in model.graph.initializer:
                values = numpy_helper.to_array(tensor)
                if values.size < _LARGE:
                    continue
                stored, given = tensor.name, values
                if half and values.dtype == np.float32 and values.size >= _HALVED:
                    stored, given = f"{tensor.name}_16", values.astype(np.float16)
                    casts.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
                tensor.CopyFrom(numpy_helper.from_array(given, stored))
                if tensor.raw_data not in places:
                    file.write(bytes(-file.tell() % 64))
                    places[tensor.raw_data] = file.tell()
                    file.write(tensor.raw_data)
                place, length = places[tensor.raw_data], len(tensor.raw_data)
                external_data_helper.set_external_data(tensor, WEIGHTS, place, length)
                tensor.ClearField("raw_data")
            nodes = [*casts, *model.graph.node]
            del model.graph.node[:]
            model.graph.node.extend(nodes)
            for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
                part.ClearField("metadata_props")  # where in torch each came from: half of the file
            model.graph.ClearField("value_info")
            used = {name for node in model.graph.node for name in node.input}
            inputs = [entry for entry in model.graph.input if entry.name in used]
            del model.graph.input[:]
            model.graph.input.extend(inputs)  # a method without training takes a few of the model's features
            onnx.save(model, path)


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


def _check(expected: Engine, found: OnnxSegmenter, *, tolerance: float) -> None:
    """DataError unless both give the same probabilities, and presence, at two sizes and numbers of shots."""
    for larger, count in ((False, found.shots or 1), (True, found.shots or 3)):
        (query, _), *supports = [(image.numpy(), mask.numpy()) for image, mask in _example(1 + count, larger=larger)]
        answers = []
        for engine in (expected, found):
            squeezed = [(image, _nearest(torch.from_numpy(mask), found.image_size).numpy()) for image, mask in supports]
            both = engine.encode_query(query), engine.encode_support(squeezed)
            answers.append([engine.match(*both, size=query.shape[:2], method=method) for method in engine.methods])
        worst = max(_furthest(*pair) for pair in zip(*answers, strict=True))
        if not worst <= tolerance:
            raise DataError(
                f"the exported graphs differ from PyTorch by up to {worst:.2g} in probability at {query.shape[:2]} "
                f"and {count} shots; do not use them"
            )


def _furthest(one: Answer, other: Answer) -> float:
    """The largest difference of two answers in probability or presence."""
    there = [0.0 if answer.presence is None else answer.presence for answer in (one, other)]
    return max(float(np.abs(one.proba - other.proba).max()), abs(there[0] - there[1]))


def _quantise(folder: Path) -> None:
    """Replace the graphs that hold weights by ones with 8-bit weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in (QUERY, SUPPORT, MATCH):  # no others hold any
        with replacing(folder / name) as temporary, _quiet():
            # unsigned: onnxruntime has no convolution with signed 8-bit weights on the CPU
            quantize_dynamic(folder / name, temporary, weight_type=QuantType.QUInt8)
