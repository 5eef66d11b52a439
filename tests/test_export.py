"""Exported graphs give PyTorch's masks at any size and number of shots; what 8 bits cost is told."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from fewseg.checkpoints import create_model
from fewseg.errors import DataError, UsageError
from fewseg.export import Agreement, OnnxSegmenter, agreement, export_onnx
from fewseg.predictor import FewShotPredictor
from test_predictor import ColorSegmenter, scene

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnxscript", reason="needs the extra `onnx`")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def model(name, **options):
    torch.manual_seed(0)
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
