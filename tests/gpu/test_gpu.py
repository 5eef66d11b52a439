"""On a CUDA device: the CPU's numbers, training and resuming, the view, half precision, memory.

`FEWSEG_GPU_TESTS_ON=cpu` runs them without one, to see that they run. What was measured beside a bound is a property
of the test in `--junitxml`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from fewseg import registry
from fewseg.build import configured_model, create_model, create_source
from fewseg.config import Config, load_config
from fewseg.episode import Episode, Prediction
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.metrics.iou import foreground_wins
from fewseg.models.base import FewShotSegmenter
from fewseg.models.fast import accelerate
from fewseg.models.fast.folding import conv_norm
from fewseg.predictor import FewShotPredictor
from fewseg.storage.released import load_released
from fewseg.storage.saved import load_model
from fewseg.training import graphs, loop, tasks
from fewseg.training.objectives import EpisodeObjective
from helpers import BACKBONE, SHORT, assert_equal, weights
from parity import METHODS, check_output, outputs, read_vector, released_state
from parity.fill import inputs

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the process's first matrix product
DEVICE = os.environ.get("FEWSEG_GPU_TESTS_ON", "cuda")
CASES = [(name, BACKBONE, 2) for name in sorted(registry.classes("model"))] + [
    ("hdmnet", "resnet50-ds", 1),
    ("hdmnet", "resnet50-ds", 5),
    ("bam", "lite0", 1),
    ("hsnet", "resnet50", 1),
    ("lite", "lite0", 5),
]
"""Method, back-end, shots."""
TRAINED = {"hdmnet": ("hdmnet", "model.base_learner=false"), "lite": ("lite", "model.output_stride=null")}
FEATURES = ("train.cache_features=true", "train.cache_views=2", "augment.crop=false")
Recorder = Callable[[str, object], None]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """No TF32: its ten bits would hide what these tests look for."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


def test_the_device_is_what_is_tested(record_property: Recorder) -> None:
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE
    record_property("device", name)
    record_property("torch", str(torch.__version__))


# The released networks


@pytest.mark.parametrize("method", METHODS)
def test_outputs_equal_the_released_network(method: str, tmp_path: Path) -> None:
    meta, expected = read_vector(method)
    state = released_state(meta, prefix="module.")
    path = tmp_path / "released.pth"
    torch.save(state if method == "hsnet" else {"state_dict": state}, path)
    backbone = "resnet50" if method == "hsnet" else "resnet50-ds"
    model: Any = load_released(method, path, backbone=backbone, shots=1)
    path.unlink()
    query, supports, masks, *_ = (
        torch.from_numpy(a) for a in inputs(meta["image_size"], meta["shot"], meta["batch"], meta["input_seed"])
    )
    mean, std = model.backbone.pixel_mean, model.backbone.pixel_std  # the vectors' images are normalised already
    episode = Episode(
        query_image=query * std + mean,
        support_images=supports * std + mean,
        support_masks=masks.to(torch.uint8),
        class_id=torch.ones(len(query), dtype=torch.long),
        base_index=torch.full((len(query),), -1),
    ).to(DEVICE)
    model.to(DEVICE)
    for network in (model, accelerate(model)):
        with torch.inference_mode():
            found = {name: value.cpu() for name, value in outputs(network(episode)).items()}
        for name in expected:
            if not name.startswith(("loss", "grad")):
                check_output(found, expected[name], name)


# Views and precisions


def made(name: str, backbone: str, shots: int, *, side: int = 97) -> Any:
    """A method without dropout, whose back-end keeps the scale of what passes through it."""
    torch.manual_seed(0)
    options = {"image_size": side, "shots": shots, "weights": "imagenet" if backbone == "lite0" else None}
    model: Any = create_model(name, backbone=backbone, **options).eval()
    without_dropout(model)
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and backbone != "lite0":
            nn.init.uniform_(module.weight, 0.1, 0.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.to(DEVICE)


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0


def episode_of(batch: int, shots: int, *, side: int = 97, share: float = 0.2) -> Episode:
    g = torch.Generator().manual_seed(3)
    masks = torch.zeros(batch, shots, side, side, dtype=torch.uint8)
    length = round(side * share**0.5)
    masks[..., 5 : 5 + length, 9 : 9 + length] = 1
    return Episode(
        query_image=torch.rand(batch, 3, side, side, generator=g),
        support_images=torch.rand(batch, shots, 3, side, side, generator=g),
        support_masks=masks,
        class_id=torch.zeros(batch, dtype=torch.long),
        base_index=torch.arange(batch) - 1,
        query_mask=torch.randint(0, 2, (batch, side, side), generator=g, dtype=torch.uint8),
        query_base_mask=torch.randint(0, 9, (batch, side, side), generator=g, dtype=torch.uint8),
    ).to(DEVICE)


def everything(prediction: Prediction) -> dict[str, Tensor]:
    maps = {f"correlation {i}": c for i, c in enumerate(prediction.correlations)}
    told = {} if prediction.presence is None else {"presence": prediction.presence}
    return {"logits": prediction.logits, **told, **prediction.aux, **maps}


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize(("name", "backbone", "shots"), CASES)
def test_a_view_has_the_numbers_of_its_model(name: str, backbone: str, shots: int, record_property: Recorder) -> None:
    model = made(name, backbone, shots)
    view = accelerate(model)
    worst = 0.0
    for share in (0.05, 0.2, 0.8):
        episode = episode_of(2, shots, share=share)
        with torch.inference_mode():
            ours, theirs = everything(view(episode)), everything(model(episode))
        worst = max(worst, *(difference(ours[part], theirs[part]) for part in theirs if theirs[part].any()))
    record_property("difference", worst)
    assert worst < 1e-4


@pytest.mark.parametrize("name", ["hdmnet", "lite"])
def test_one_image_is_recorded_until_the_network_changes(name: str) -> None:
    model = made(name, BACKBONE, 1)
    view: Any = accelerate(model)
    for seed in range(3):
        episode = replace(episode_of(1, 1), query_image=torch.rand(1, 3, 97, 97, device=DEVICE))
        with torch.inference_mode():
            ours, theirs = everything(view(episode)), everything(model(episode))
        assert max(difference(ours[part], theirs[part]) for part in theirs if theirs[part].any()) < 1e-4
        if DEVICE == "cuda":
            assert {key[0] for key in view._recordings._graphs} == {"encode_query", "encode_support"}
        with torch.no_grad():  # trained further
            for p in model.parameters():
                p.mul_(0.9 if seed else 1.1)


@pytest.mark.parametrize("name", ["hdmnet", "lite", "bam", "pfenet", "hsnet"])
def test_a_view_has_the_gradients_of_its_model(name: str, record_property: Recorder) -> None:
    model = made(name, BACKBONE, 2)
    episode, gradients = episode_of(2, 2), []
    for network in (accelerate(model).train(), model.train()):
        network.zero_grad()
        torch.stack(list(network.loss(network(episode), episode).values())).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    record_property("difference", difference(*gradients))
    assert difference(*gradients) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(("name", "backbone", "shots"), CASES)
def test_half_precision_is_near(
    name: str, backbone: str, shots: int, dtype: torch.dtype, record_property: Recorder
) -> None:
    model = accelerate(made(name, backbone, shots))
    episode = episode_of(2, shots)
    with torch.inference_mode():
        exact = model(episode).logits
        with torch.autocast(DEVICE, dtype=dtype):
            rounded = model(episode).logits.float()
    assert rounded.isfinite().all()
    # the margin tells which side wins, whether a method's logits are scores or probabilities
    margin, ours = (logits[:, 1] - logits[:, 0] for logits in (exact, rounded))
    # what is not trained compares features that random weights leave all alike: their cosines are the scale
    scale = margin.abs().mean() if model.trainable else exact.abs().mean()
    off = float((ours - margin).abs().mean() / scale)
    agreement = float((((ours > 0) == (margin > 0)) | (margin.abs() < 0.1 * scale)).float().mean())
    record_property("mean difference of margins", off)
    record_property("agreement", agreement)
    assert off < {torch.bfloat16: 0.15, torch.float16: 0.03}[dtype]
    assert agreement > 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["hdmnet", "lite", "bam", "pfenet", "hsnet"])
def test_half_precision_keeps_losses_near_and_gradients_finite(name: str, dtype: torch.dtype) -> None:
    model, episode = accelerate(made(name, BACKBONE, 2)).train(), episode_of(2, 2)
    exact = model.loss(model(episode), episode)
    with torch.autocast(DEVICE, dtype=dtype):
        rounded = model.loss(model(episode), episode)
    for term, value in rounded.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[term], rtol=0.1, atol=0.1)
    torch.stack(list(rounded.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_fused_convolution_is_off_by_its_rounding(kernel: int, dtype: torch.dtype, record_property: Recorder) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(32, 64, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(64).eval()
    nn.init.normal_(norm.bias)
    conv, norm = conv.to(DEVICE, memory_format=torch.channels_last), norm.to(DEVICE)
    x, plus = (torch.randn(2, c, 31, 29, device=DEVICE).contiguous(memory_format=torch.channels_last) for c in (32, 64))
    with torch.inference_mode():
        for given in ({}, {"relu": True}, {"plus": plus}, {"plus": plus, "relu": True}):
            exact = conv_norm(conv, norm, x, **{name: v.clone() if name == "plus" else v for name, v in given.items()})
            with torch.autocast(DEVICE, dtype=dtype):
                rounded = conv_norm(conv, norm, x, **given).float()
            off = float((rounded - exact).norm() / exact.norm())
            record_property(" and ".join(["difference", *given]), off)
            assert off < 0.01


# Training


def recipe(name: str, device: str, *words: str) -> Config:
    method, *options = TRAINED[name]
    own = (
        *options,
        f"model.backbone={BACKBONE}",
        "model.weights=null",
        "model.image_size=97",
        "model.all_stages=false",
    )
    own = own if method == "lite" else own[:-1]
    fixed = ("train.validation=none", "train.cache_features=false", "train.cache_views=2", "train.save_every=1")
    data = ("scenes", "data.images=60", "data.size=96")
    return load_config(method, *data, *SHORT, *own, *fixed, f"train.accelerator={device}", *words)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices draw other random numbers."""

    def create(*args: Any, **options: Any) -> FewShotSegmenter:
        model = configured_model(*args, **options)
        without_dropout(model)
        return model

    monkeypatch.setattr(tasks, "configured_model", create)


@pytest.mark.parametrize("words", [(), FEATURES], ids=["images", "features"])
@pytest.mark.parametrize("name", sorted(TRAINED))
@pytest.mark.usefixtures("no_dropout")
def test_a_run_has_the_losses_of_the_cpu(
    name: str, words: tuple[str, ...], tmp_path: Path, record_property: Recorder
) -> None:
    config = ("train.epochs=1", *words)
    runs = [loop.train(recipe(name, device, *config), tmp_path / device) for device in (DEVICE, "cpu")] if (
        DEVICE != "cpu"
    ) else [loop.train(recipe(name, "cpu", *config), tmp_path / str(n)) for n in range(2)]  # fmt: skip
    ours, theirs = ([line for line in lines(run) if "lr" in line] for run in runs)
    assert len(ours) == len(theirs) == 3
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        terms = [key for key in b if key.startswith("loss")]
        assert terms
        worst = max(worst, *(abs(a[key] - b[key]) / abs(b[key]) for key in terms))
    record_property("difference of losses", worst)
    assert worst < 1e-4


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_three_steps_have_the_losses_of_the_cpu(name: str, record_property: Recorder) -> None:
    found: list[list[float]] = []
    start = made(name, BACKBONE, 1).state_dict()
    for device in (DEVICE, "cpu"):
        model = made(name, BACKBONE, 1).to(device)
        model.load_state_dict(start)
        objective, batch = EpisodeObjective(model).train(), episode_of(2, 1).to(device).as_dict()
        optimizer = torch.optim.SGD(model.trainable_parameters(), lr=1e-3, momentum=0.9)
        found.append([])
        for _ in range(3):
            loss = torch.stack(list(objective(batch)["losses"].values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found[-1].append(float(loss.detach()))
    worst = max(abs(a - b) / abs(b) for a, b in zip(*found, strict=True))
    record_property("difference of losses", worst)
    assert worst < 1e-4


SHOTS = ("train.batch_size=4", "train.most_shots=2", "train.epochs=4")


@pytest.mark.parametrize("words", [(), SHOTS], ids=["one shot", "shots by turns"])
@pytest.mark.parametrize("name", sorted(TRAINED))
def test_recorded_steps_are_the_plain_ones(
    name: str, words: tuple[str, ...], tmp_path: Path, record_property: Recorder
) -> None:
    if DEVICE != "cuda":
        pytest.skip("CUDA graphs are for GPUs")
    config = recipe(name, DEVICE, "train.deterministic=true", *FEATURES, *words, "train.save_every=100")
    recorded, plain = [], graphs.GraphedObjective._recorded

    def record(*given: Any) -> Any:
        recorded.append(plain(*given))
        return recorded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs.GraphedObjective, "_recorded", record)
        run = loop.train(config, tmp_path / "recorded")
    assert recorded
    assert all(step is not None for step in recorded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", Fails(5).wrap(loop.training_step))
        with pytest.raises(Exception, match="stopped at once"):
            loop.train(config, tmp_path / "resumed")
    loop.train(config, tmp_path / "resumed", resume=True)
    assert_equal(weights(tmp_path / "resumed" / "last"), weights(run / "last"))
    config.train.graphs = False
    ours, theirs = lines(run)[-1], lines(loop.train(config, tmp_path / "plain"))[-1]
    terms = [key for key in theirs if key.startswith("loss")]
    worst = max(abs(ours[key] - theirs[key]) / abs(theirs[key]) for key in terms)
    record_property("difference of losses", worst)
    assert worst < 1e-3


@dataclass
class Fails:
    """Raises at one of its calls."""

    at: int
    calls: int = 0

    def wrap(self, plain: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt
            return plain(*args, **options)

        return call


@pytest.mark.parametrize("words", [(), FEATURES], ids=["images", "features"])
@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_stopped_run_resumes_to_the_same_bits(name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    config = recipe(name, DEVICE, "train.deterministic=true", *words)
    whole, run = loop.train(config, tmp_path / "whole"), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", Fails(4).wrap(loop.training_step))
        with pytest.raises(Exception, match="stopped at once; 3 of 6 batches"):
            loop.train(config, run)
    loop.train(config, run, resume=True)
    assert_equal(weights(run / "last"), weights(whole / "last"))
    assert lines(run) == lines(whole)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_run_in_half_precision_has_finite_losses(precision: str, tmp_path: Path) -> None:
    if DEVICE == "cpu" and precision == "16-mixed":
        pytest.skip("Fabric's 16-mixed is for GPUs")
    run = loop.train(recipe("hdmnet", DEVICE, "train.epochs=1", f"train.precision={precision}"), tmp_path / "run")
    assert len(lines(run)) == 3
    assert all(np.isfinite(value) for line in lines(run) for key, value in line.items() if key.startswith("loss"))


@pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning")  # it says itself that it is no error
def test_one_process_under_ddp_is_the_plain_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("hdmnet", DEVICE, "train.epochs=1", "train.deterministic=true")
    plain = loop.train(config, tmp_path / "plain")
    for key in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)  # undone after the test: Fabric sets them

    def fabric(*, precision: Any, **_: Any) -> Fabric:
        return Fabric(accelerator=DEVICE, devices=1, precision=precision, strategy=DDPStrategy())

    monkeypatch.setattr(loop, "create_fabric", fabric)
    try:
        run = loop.train(config, tmp_path / "run")
        assert distributed.is_initialized()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for key in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(key, None)
    assert_equal(weights(run / "last"), weights(plain / "last"))


# Use


@pytest.fixture(scope="module")
def scenes() -> Benchmark:
    config = load_config("lite", "scenes", "data.images=24", "data.size=160")
    source = create_source(config, "test")
    return Benchmark.draw(source, source.fold(0), shots=1, episodes=24, repeats=1)


def test_an_evaluation_has_the_numbers_of_the_cpu(scenes: Benchmark, record_property: Recorder) -> None:
    ours, theirs = (evaluate(load_model("lite").to(device), scenes, workers=0) for device in (DEVICE, "cpu"))
    record_property("mIoU", ours.miou)
    record_property("mIoU on the CPU", theirs.miou)
    assert theirs.miou > 0.2
    assert abs(ours.miou - theirs.miou) < 0.001
    assert abs(ours.fb_iou - theirs.fb_iou) < 0.001
    assert ours.parameters == theirs.parameters


def test_episodes_in_batches_are_scored_the_same(scenes: Benchmark) -> None:
    one, eight = (evaluate(load_model("lite").to(DEVICE), scenes, workers=0, batch_size=b) for b in (1, 8))
    assert abs(one.miou - eight.miou) < 0.001


@pytest.mark.parametrize("flip", [False, True])
def test_a_predictor_has_the_masks_of_the_cpu(scenes: Benchmark, flip: bool, record_property: Recorder) -> None:
    agreements = []
    predictors = [FewShotPredictor(load_model("lite"), device=device, flip=flip) for device in (DEVICE, "cpu")]
    for spec in scenes.lists[0].specs[:4]:
        support, labels = scenes.source.load(spec.support[0])
        query, _ = scenes.source.load(spec.query)
        masks = []
        for predictor in predictors:
            predictor.set_support(support, labels == spec.class_id)
            masks.append(predictor.predict(query))
        agreements.append(float((masks[0] == masks[1]).mean()))
    record_property("agreement", min(agreements))
    assert min(agreements) > 0.995


@pytest.mark.parametrize(("way", "bound"), [("view", 4e9), ("plain", 6e9)])
def test_five_shots_of_473_pixels_take_bounded_memory(way: str, bound: float, record_property: Recorder) -> None:
    side = 473 if DEVICE == "cuda" else 97
    model = made("hdmnet", "resnet50-ds", 5, side=side)
    network, episode = accelerate(model) if way == "view" else model, episode_of(1, 5, side=side)
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        mask = foreground_wins(network(replace(episode, query_mask=None)).logits)
    assert mask.shape == (1, side, side)
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated()
        record_property("peak in GB", peak / 1e9)
        assert peak < bound
