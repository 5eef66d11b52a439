"""Exported graphs give PyTorch's masks at any size and number of shots; what 8 bits cost is told."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewseg import registry
from fewseg.build import create_model
from fewseg.episode import Episode
from fewseg.errors import DataError, UsageError
from fewseg.evaluation.agreement import Agreement, agreement
from fewseg.models.fast.exporting import SizeFreeOperations
from fewseg.predictor import FewShotPredictor
from fewseg.runtime.graphs import OnnxSegmenter
from fewseg.storage import onnx_graphs
from fewseg.storage.onnx_graphs import export_onnx
from helpers import ColorSegmenter, scene

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnxscript", reason="needs the extra `onnx`")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def model(name, **options):
    torch.manual_seed(0)
    options = {"presence": True} | options if name == "lite" else options
    return create_model(name, backbone="timm/test_resnet", image_size=64, **options).eval()


class Undecided(ColorSegmenter):
    """Looks at a number and decides in Python, which no graph can."""

    def match(self, query, support, *, size, base_index=None):
        darker = query["pixels"] if float(query["pixels"].mean()) < 0.5 else 1 - query["pixels"]
        return super().match({"pixels": darker}, support, size=size)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "dense"
    network = model("dense")
    return network, export_onnx(network, folder)


def test_the_predictor_runs_on_exported_graphs(dense):
    network, folder = dense
    assert sorted(path.name for path in folder.iterdir()) == ["fewseg-onnx.json", "match.onnx", "support.onnx"]
    exported = OnnxSegmenter(str(folder))
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    for shots in (1, 3):
        found = []
        for m in (network, exported):
            predictor = FewShotPredictor(m)
            predictor.set_support([image] * shots, [mask] * shots)
            found.append(predictor.predict_full(query))
        np.testing.assert_allclose(found[0].proba, found[1].proba, atol=1e-4)
        np.testing.assert_allclose(found[0].correlations[0], found[1].correlations[0], atol=1e-4)
    same = agreement(network, exported, (image, mask), [query, query])
    assert (same.photos, same.iou) == (2, 1.0)


def test_eight_bit_weights_are_smaller_and_close(dense, tmp_path):
    network, whole = dense
    small = export_onnx(network, tmp_path / "int8", int8=True)
    assert (small / "match.onnx").stat().st_size < 0.6 * (whole / "match.onnx").stat().st_size
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    cost = agreement(network, OnnxSegmenter(str(small)), (image, mask), [query])
    assert isinstance(cost, Agreement)
    assert cost.pixels > 0.7


def assert_alike(network, exported, *, shots):
    """Probabilities and correlation maps of noise at sizes that nothing was traced or checked with."""
    generator = torch.Generator().manual_seed(1)
    images, query = (torch.rand(*shape, generator=generator) for shape in ((1, shots, 3, 173, 131), (1, 3, 190, 141)))
    masks = torch.zeros(1, shots, 173, 131, dtype=torch.uint8)
    masks[:, :, 40:120, 30:100] = 1
    masks[:, :, :9] = 255
    with torch.inference_mode():
        expected, found = (m(Episode(query, images, masks, *torch.tensor([[-1], [-1]]))) for m in (network, exported))
    torch.testing.assert_close(found.logits.softmax(1), expected.logits.softmax(1), atol=1e-3, rtol=0)
    assert (found.presence is None) == (expected.presence is None) == (not network.tells_presence)
    if found.presence is not None:
        torch.testing.assert_close(found.presence, expected.presence, atol=1e-3, rtol=1e-3)
    assert len(found.correlations) == len(expected.correlations)
    for a, b in zip(found.correlations, expected.correlations, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


minutes_of_tracing = pytest.mark.skipif(
    "FEWSEG_EXPORT_ALL" not in os.environ, reason="torch's exporter takes minutes here: FEWSEG_EXPORT_ALL=1 runs it"
)
QUICK = ("dense",)
"""Whose graphs CI writes."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [minutes_of_tracing]) for n in sorted(registry.classes("model"))],
)
def test_every_method_s_graphs_hold_for_other_sizes_and_numbers_of_shots(name, dense, tmp_path):
    network, folder = dense
    if name != "dense":
        network = model(name)
        folder = export_onnx(network, tmp_path / "float")
    exported = OnnxSegmenter(str(folder))
    assert not exported.fixed_shots
    for shots in (1, 2, 5):
        assert_alike(network, exported, shots=shots)
    small = tmp_path / "int8"
    shutil.copytree(folder, small)
    onnx_graphs._quantise(small)
    assert sum(f.stat().st_size for f in small.iterdir()) < sum(f.stat().st_size for f in folder.iterdir())
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    assert 0 <= agreement(network, OnnxSegmenter(str(small)), (image, mask), [query]).pixels <= 1


@minutes_of_tracing
def test_the_default_back_end_s_padding_follows_the_photo_s_sides(tmp_path):
    torch.manual_seed(0)
    network = create_model("prototype", backbone="lite0", image_size=64).eval()
    exported = OnnxSegmenter(str(export_onnx(network, tmp_path / "out")))
    assert_alike(network, exported, shots=2)
    assert "forward" not in {name for m in network.modules() for name in vars(m)}


@minutes_of_tracing
def test_trained_shot_weights_hold_for_their_own_number_of_shots(tmp_path):
    network = model("bam", shots=2)
    with torch.no_grad():
        for layer in (network.ensemble.gram_merge, network.shot_weights.mix[2]):
            nn.init.normal_(layer.weight)  # as trained: the weights matter
    exported = OnnxSegmenter(str(export_onnx(network, tmp_path / "out")))
    assert (exported.fixed_shots, exported.shots) == (True, 2)
    assert_alike(network, exported, shots=2)


@pytest.mark.parametrize("size", [(17, 11), (6, 5), (3, 2)])
@pytest.mark.parametrize("bins", [1, 4, (6, 3), (None, 2)])
def test_pooling_of_any_size_is_torch_s(size, bins):
    maps = torch.rand(2, 3, *size)
    expected = F.adaptive_avg_pool2d(maps, bins)
    with SizeFreeOperations():
        torch.testing.assert_close(nn.AdaptiveAvgPool2d(bins)(maps), expected)
        torch.testing.assert_close(F.adaptive_avg_pool2d(maps[0], bins), expected[0])


def test_a_method_that_cannot_be_exported_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(UsageError, match=r"Undecided.*cannot be exported to ONNX"):
        export_onnx(Undecided(), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="holds no exported model"):
        OnnxSegmenter(str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"pip install 'fewseg\[onnx\]'"):
        export_onnx(ColorSegmenter(), tmp_path)
