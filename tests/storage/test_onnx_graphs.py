"""Exported graphs give PyTorch's masks of photos of any size and number of shots; what fewer bits cost is told."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from fewseg import registry
from fewseg.build import create_model
from fewseg.data.masks import Marking
from fewseg.errors import DataError, UsageError, install_line
from fewseg.evaluation.agreement import Agreement, agreement
from fewseg.models.fast.exporting import SizeFreeOperations
from fewseg.predictor import FewShotPredictor
from fewseg.runtime.engine import Engine
from fewseg.runtime.graphs import FILES, RECORD, WEIGHTS, OnnxSegmenter
from fewseg.runtime.torch_engine import TorchEngine
from fewseg.storage import onnx_graphs
from fewseg.storage.onnx_graphs import export_onnx
from fewseg.storage.saved import save_model
from helpers import ColorSegmenter, Fewseg, scene

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnxscript", reason="needs the extra `onnx`")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def model(name, **options):
    torch.manual_seed(0)
    options = {"presence": True} | options if name == "lite" else options
    return create_model(name, backbone="timm/test_resnet", image_size=160, **options).eval()


class Undecided(ColorSegmenter):
    """Looks at a number and decides in Python, which no graph can."""

    def match(self, query, support, *, size, base_index=None):
        darker = query["pixels"] if float(query["pixels"].mean()) < 0.5 else 1 - query["pixels"]
        return super().match({"pixels": darker}, support, size=size)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "dense"
    network = model("dense")
    plain, traced = onnx_graphs._export, folder.parent / "traced"

    def traced_once(given, out, **how):
        """The same graphs are what fewer bits are made of: tracing them takes seconds."""
        if given.name == network.name and traced.exists():
            shutil.copytree(traced, out, dirs_exist_ok=True)
            return
        plain(given, out, **how)
        if given.name == network.name:
            shutil.copytree(out, traced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graphs, "_export", traced_once)
        saved = save_model(network, folder.parent / "saved")
        assert Fewseg()("export", saved, "--onnx", folder).code == 0
        yield network, folder


def test_the_predictor_runs_on_exported_graphs(dense):
    network, folder = dense
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    exported = OnnxSegmenter(folder)
    assert isinstance(exported, Engine)
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
    assert sum(f.stat().st_size for f in small.iterdir()) < 0.8 * sum(f.stat().st_size for f in whole.iterdir())
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    cost = agreement(network, OnnxSegmenter(small), (image, mask), [query])
    assert isinstance(cost, Agreement)
    assert cost.pixels > 0.7


def picture(rng, size, box, *, noise):
    """Noise; or something red on blue under noise, for SSP: in noise alone no position is the likeliest by more than
    rounding, and it takes another prototype then.
    """
    if noise:
        return rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = np.full((*size, 3), (40.0, 90.0, 200.0))
    top, bottom, left, right = box
    found[top:bottom, left:right] = 230, 60, 20
    return (found + rng.normal(0, 60, found.shape)).clip(0, 255).astype(np.uint8)


def assert_alike(network, folder, *, shots):
    """Probabilities, presence and correlation maps at sizes that nothing was traced or checked with."""
    rng = np.random.default_rng(1)
    noise = network.name != "ssp"
    images = [picture(rng, (173, 131), (40, 120, 30, 100), noise=noise) for _ in range(shots)]
    query = picture(rng, (190, 141), (60, 150, 20, 90), noise=noise)
    mask = np.zeros((173, 131), np.uint8)
    mask[40:120, 30:100], mask[:9] = 1, 255
    for flip in (False, True):
        found = []
        for engine in (TorchEngine(network, flip=flip), OnnxSegmenter(folder, flip=flip)):
            predictor = FewShotPredictor(engine)
            predictor.set_support(images, [Marking(mask, "drawn")] * shots)
            found.append(predictor.predict_full(query))
        expected, exported = found
        np.testing.assert_allclose(exported.proba, expected.proba, atol=1e-3)
        assert (exported.presence is None) == (expected.presence is None) == (not network.tells_presence)
        if exported.presence is not None:
            assert exported.presence == pytest.approx(expected.presence, abs=1e-3)
        assert len(exported.correlations) == len(expected.correlations)
        for a, b in zip(exported.correlations, expected.correlations, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)


minutes_of_tracing = pytest.mark.skipif(
    "FEWSEG_EXPORT_ALL" not in os.environ, reason="torch's exporter takes minutes here: FEWSEG_EXPORT_ALL=1 runs it"
)
QUICK = ("dense",)
"""Whose graphs CI writes."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in QUICK else [minutes_of_tracing])
        for n in sorted(registry.classes("model"))
        if n != "insid3"  # it clusters with scipy
    ],
)
def test_every_method_s_graphs_hold_for_other_sizes_and_numbers_of_shots(name, dense, tmp_path):
    network, folder = dense
    if name != "dense":
        network = model(name)
        folder = export_onnx(network, tmp_path / "float")
    assert OnnxSegmenter(folder).shots is None
    for shots in (1, 2, 5):
        assert_alike(network, folder, shots=shots)


@pytest.mark.slow
def test_what_clusters_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be exported to ONNX .*; run it in PyTorch"):
        export_onnx(model("insid3"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@minutes_of_tracing
def test_trained_shot_weights_hold_for_their_own_number_of_shots(tmp_path):
    network = model("bam", shots=2)
    with torch.no_grad():
        for layer in (network.ensemble.gram_merge, network.shot_weights.mix[2]):
            nn.init.normal_(layer.weight)  # as trained: the weights matter
    folder = export_onnx(network, tmp_path / "out")
    assert OnnxSegmenter(folder).shots == 2
    assert_alike(network, folder, shots=2)
    with pytest.raises(UsageError, match="for 2 supports of a class"):
        assert_alike(network, folder, shots=1)


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


def test_sixteen_bit_weights_are_smaller_and_change_little(dense, tmp_path):
    network, whole = dense
    half = export_onnx(network, tmp_path / "half", half=True, source="abc")
    assert (half / WEIGHTS).stat().st_size < 0.8 * (whole / WEIGHTS).stat().st_size
    assert OnnxSegmenter(half).record["source_sha256"] == "abc"
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    assert agreement(network, half, (image, mask), [query]).iou > 0.97


@pytest.mark.parametrize("pixels", [np.float32, torch.float32])
def test_a_picture_of_floats_is_taken_as_its_8_bits(dense, pixels):
    _, folder = dense
    predictor = FewShotPredictor(folder)
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    predictor.set_support(image, mask)
    torch_s = isinstance(pixels, torch.dtype)
    given = torch.tensor(query).permute(2, 0, 1).to(pixels) / 255 if torch_s else query.astype(pixels) / 255
    np.testing.assert_array_equal(predictor.predict_proba(given), predictor.predict_proba(query))


def test_damaged_folders_and_those_of_former_versions_are_refused(dense, tmp_path):
    _, folder = dense
    for change, told in (
        (lambda copy: (copy / WEIGHTS).unlink(), "is damaged"),
        (lambda copy: (copy / "match.onnx").write_bytes(b"no graph"), "is damaged"),
        (lambda copy: (copy / RECORD).write_text('{"image_size": 64, "shots": null}'), "another version of fewseg"),
        (lambda copy: (copy / RECORD).write_text('{"format": 2, "image_size": "a"}'), "holds no exported model"),
    ):
        copy = shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        change(copy)
        with pytest.raises(DataError, match=told):
            OnnxSegmenter(copy)


def test_memory_that_is_refused_is_no_damage(dense, monkeypatch):
    def refused(*given: object, **how: object) -> None:
        raise RuntimeError("Exception during initialization: std::bad_alloc")

    monkeypatch.setattr("onnxruntime.InferenceSession", refused)
    with pytest.raises(DataError, match=r"too little memory to open .*query\.onnx; let fewseg have more \(ulimit -v"):
        OnnxSegmenter(dense[1])


def test_the_command_takes_the_folder_as_a_model(dense, tmp_path, fewseg):
    _, folder = dense
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    for name, pixels in (("a", image), ("a_mask", mask), ("b", query)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    words = ("segment", tmp_path / "b.png", "--support", tmp_path / "a.png", "--mask", tmp_path / "a_mask.png")
    told = fewseg(*words, "--model", folder, "--flip", "--out", tmp_path / "out")
    assert told.code == 0, told.err
    assert "by graphs (onnxruntime" in told.out
    predictor = FewShotPredictor(folder, flip=True)
    predictor.set_support(image, mask)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/b.png")) > 0, predictor.predict(query))
    refused = fewseg(*words, "--model", folder, "--runtime", "graphs", "--device", "cuda", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "graphs run in fp32, on the CPU or a --provider; device cuda needs --runtime torch" in refused.err


def test_the_rule_takes_graphs_unless_torch_alone_can(dense, tmp_path):
    network, folder = dense
    saved = save_model(network, tmp_path / "saved")
    assert FewShotPredictor(folder).runtime.startswith("graphs (onnxruntime")
    assert FewShotPredictor(saved).runtime == FewShotPredictor(network).runtime == TorchEngine.runtime
    with pytest.raises(UsageError, match=r"has no graphs; write them \(fewseg export"):
        FewShotPredictor(saved, runtime="graphs")
    with pytest.raises(UsageError, match="precision bf16 needs --runtime torch"):
        FewShotPredictor(folder, precision="bf16", runtime="graphs")
    with pytest.raises(UsageError, match="holds exported graphs, which torch does not run: leave out device cuda"):
        FewShotPredictor(folder, "cuda")
    with pytest.raises(UsageError, match="unknown runtime 'onnx'"):
        FewShotPredictor(folder, runtime="onnx")
    with pytest.raises(UsageError, match="an engine runs as it was made"):
        FewShotPredictor(OnnxSegmenter(folder), flip=True)


def test_a_provider_that_is_not_there_or_does_not_start_is_refused(dense, monkeypatch):
    import onnxruntime

    network, folder = dense
    assert FewShotPredictor(folder, provider="cpu").device == "cpu"
    with pytest.raises(UsageError, match="unknown provider 'tpu'; choose cpu, cuda, coreml, directml, openvino"):
        FewShotPredictor(folder, provider="tpu")
    with pytest.raises(UsageError, match="provider cuda is for graphs, and torch runs"):
        FewShotPredictor(network, provider="cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match=r"has no provider cuda, but cpu; onnxruntime-gpu brings it"):
        FewShotPredictor(folder, provider="cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with warnings.catch_warnings(action="ignore"), pytest.raises(UsageError, match="provider cuda did not start"):
        FewShotPredictor(folder, provider="cuda")


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="holds no exported model"):
        OnnxSegmenter(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=re.escape(install_line("onnx"))):
        export_onnx(ColorSegmenter(), tmp_path)
