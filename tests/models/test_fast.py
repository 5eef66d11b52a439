"""The quick ways of a view, each against the plain computation, and whole views against their models."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d, StdConv2d
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg import registry
from fewseg.build import create_model
from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features
from fewseg.models.fast import accelerate, folding, fused, remember_images, winograd
from fewseg.models.fast.compiling import compile_backbone
from fewseg.models.fast.folding import FoldedCopy, conv_norm, run_folded
from fewseg.models.fast.matching import ForegroundNearest, ForegroundPrior
from fewseg.models.fast.pyramid import bin_averages
from fewseg.models.hdmnet import Bottleneck, CorrelationAttention, HDMNet
from fewseg.models.hub_model import plain_model
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.base_learner import BaseHead
from fewseg.models.parts.matching import CosinePrior, NearestCosines
from fewseg.models.parts.timm_backbones import TimmPyramid
from fewseg.predictor import FewShotPredictor
from fewseg.storage.saved import load_model, save_model
from helpers import Toy

SEEDS, SHARES, SIDES = st.integers(0, 2**16), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 9)
FEW = settings(max_examples=25, deadline=None)


def close(ours: Tensor, theirs: Tensor, *, rtol: float = 1e-4) -> None:
    """Within 1e-4 of the largest value: what "exact" means for a quick way."""
    scale = float(theirs.detach().abs().max()) if theirs.numel() else 0.0
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * scale + 1e-6)


@FEW
@given(SEEDS, st.integers(1, 3), SIDES, st.integers(1, 40), SHARES, st.sampled_from([1, 7, 50, 2**22]), st.booleans())
def test_votes_of_the_foreground_equal_the_whole_table(
    seed: int, batch: int, side: int, supports: int, share: float, table: int, as_gpu: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    q = F.normalize(torch.randn(batch, 2, side * side, 4, generator=g), dim=-1).requires_grad_()
    k = F.normalize(torch.randn(batch, 2, supports, 4, generator=g), dim=-1).requires_grad_()
    v = torch.randn(batch, 2, supports, 4, generator=g, requires_grad=True)
    fg = (torch.rand(batch, supports, generator=g) < share).float()
    attention = CorrelationAttention(8)
    found = [*_with_table(table, lambda: accelerate(attention).spread(q, k, v, fg), as_gpu=as_gpu)]
    wanted = [*attention.spread(q, k, v, fg)]
    weights = [torch.randn(w.shape, generator=g) for w in wanted]
    found += torch.autograd.grad(sum((w * f).sum() for w, f in zip(weights, found, strict=True)), (q, k, v))
    wanted += torch.autograd.grad(sum((w * f).sum() for w, f in zip(weights, wanted, strict=True)), (q, k, v))
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs)


@FEW
@given(
    SEEDS,
    st.integers(1, 2),
    st.integers(1, 3),
    SIDES,
    SIDES,
    SHARES,
    st.booleans(),
    st.sampled_from([1, 20, 2**22]),
    st.booleans(),
)
def test_nearness_to_the_foreground_equals_that_of_the_whole_table(
    seed: int, batch: int, shots: int, h: int, w: int, share: float, soft: bool, table: int, as_gpu: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    query, support = torch.randn(batch, 5, h, w, generator=g), torch.randn(batch, shots, 5, h + 1, w, generator=g)
    fg = (torch.rand(batch, shots, h + 1, w, generator=g) < share).float()
    soft_fg = fg * torch.rand(fg.shape, generator=g) if soft else fg
    prior = _with_table(table, lambda: ForegroundPrior()(query, support, soft_fg), as_gpu=as_gpu)
    close(prior, CosinePrior()(query, support, soft_fg))
    q, s, sides = F.normalize(query, dim=1), F.normalize(support, dim=2), torch.stack([fg, 1 - fg], 1)
    nearest = _with_table(table, lambda: ForegroundNearest()(q, s, sides), as_gpu=as_gpu)
    close(nearest, NearestCosines()(q, s, sides))


@FEW
@given(SEEDS, st.integers(1, 2), st.integers(1, 3), SIDES, SIDES, SHARES, st.sampled_from([1, 20, 2**22]))
def test_a_prior_in_half_precision_is_off_by_its_rounding(
    seed: int, batch: int, shots: int, h: int, w: int, share: float, table: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    query, support = torch.randn(batch, 64, h, w, generator=g), torch.randn(batch, shots, 64, h + 1, w, generator=g)
    fg = (torch.rand(batch, shots, h + 1, w, generator=g) < share) * torch.rand(batch, shots, h + 1, w, generator=g)
    with torch.autocast("cpu", torch.bfloat16):
        prior = _with_table(table, lambda: ForegroundPrior()(query, support, fg), as_gpu=True)
    assert prior.dtype == torch.float32
    torch.testing.assert_close(prior, CosinePrior()(query, support, fg), rtol=0, atol=0.01)


def _with_table(entries: int, run: Any, *, as_gpu: bool) -> Any:
    """With tables of at most so many entries, so that small inputs are taken in parts too, as on a CPU or a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewseg.models.fast.matching.TABLE", entries)
        patch.setattr("fewseg.models.fast.matching.GPU_TABLE", entries)
        patch.setattr("fewseg.models.fast.matching.keeps_background", lambda tensor: as_gpu)
        return run()


def random_head(seed: int) -> BaseHead:
    torch.manual_seed(seed)
    head = BaseHead(8, 3, width=6).eval()
    norm: Any = head.reduce[1]
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.weight, 0.5, 2)
    return head


@FEW
@given(SEEDS, st.integers(1, 2), st.integers(1, 13), st.integers(2, 13))  # PyTorch's BatchNorm errs on one column
def test_the_folded_pyramid_equals_the_convolution_of_all_channels(seed: int, batch: int, h: int, w: int) -> None:
    head = random_head(seed)
    f4 = torch.randn(batch, 8, h, w, requires_grad=True)
    inputs = (f4, *(p for p in head.parameters() if p is not head.classifier.weight and p is not head.classifier.bias))
    ours, theirs = accelerate(head)(f4), head(f4)
    close(ours, theirs)
    weight = torch.randn(ours.shape)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        close(a, b)


@FEW
@given(SEEDS, st.integers(1, 2), st.integers(1, 13), st.integers(1, 13))
def test_averages_by_a_product_are_torch_s(seed: int, batch: int, h: int, w: int) -> None:
    maps = torch.randn(batch, 3, h, w, generator=torch.Generator().manual_seed(seed))
    for bins, ours in zip((1, 2, 3, 6), bin_averages(maps, (1, 2, 3, 6)), strict=True):
        close(ours, F.adaptive_avg_pool2d(maps, bins))


@FEW
@given(SEEDS, st.integers(1, 2), st.integers(1, 13), st.integers(1, 13), SHARES)
def test_f5_at_the_foreground_is_f5(seed: int, batch: int, h: int, w: int, share: float) -> None:
    head = random_head(seed)
    f4, fg = torch.randn(batch, 8, h, w), torch.rand(batch, h, w) < share
    with torch.no_grad():
        close(accelerate(head)(f4, fg), head(f4) * fg.unsqueeze(1))


def fixed(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for parameter in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(parameter)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.2, 3)  # type: ignore[arg-type]
    return norm.eval()


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_follows_its_weights(bias: bool) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, 2, 1, bias=bias), fixed(nn.BatchNorm2d(8))
    x = torch.randn(2, 3, 9, 7)

    def check() -> None:
        with torch.no_grad():
            close(conv_norm(conv, norm, x), norm(conv(x)))
            plus = norm(conv(x)) - 1
            close(conv_norm(conv, norm, x, plus=plus.clone(), relu=True), (norm(conv(x)) + plus).relu())
            weight, added = fused.in_half(conv, norm, folding._fold)  # what a GPU keeps
            close(F.conv2d(x, weight.float(), added.float(), 2, 1), norm(conv(x)), rtol=0.02)

    check()
    with torch.inference_mode():
        close(conv_norm(conv, norm, x), norm(conv(x)))
    with torch.no_grad():
        conv.weight.mul_(2)
    check()
    norm.running_mean.add_(1)  # type: ignore[union-attr]
    check()
    conv.load_state_dict({n: t + 1 for n, t in conv.state_dict().items()})
    check()
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1)
    conv_norm(conv, norm, x).sum().backward()
    optimizer.step()
    check()
    other = copy.deepcopy(conv)
    nn.init.ones_(other.weight)
    with torch.no_grad():
        close(conv_norm(other, norm, x), norm(other(x)))
    assert set(conv.state_dict()) <= {"weight", "bias"}


@FEW
@given(SEEDS, st.integers(1, 2), st.integers(1, 17), st.integers(1, 17), st.sampled_from([1, 2, 3, 4]), st.booleans())
def test_convolution_by_tiles_is_the_convolution(seed: int, b: int, h: int, w: int, dilation: int, bias: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    given = [torch.randn(shape, generator=g).requires_grad_() for shape in ((b, 7, h, w), (5, 7, 3, 3), (5,))]
    x, weight, added = given if bias else (*given[:2], None)
    upward = torch.randn(b, 5, h, w, generator=g)
    with patch.object(winograd, "KERNELS_AT_ONCE", 15), patch.object(winograd, "CHANNELS_AT_ONCE", 3):
        found = winograd.convolve(x, weight, added, dilation=dilation)
        gradients = torch.autograd.grad(found, given[: 2 + bias], upward)
    expected = F.conv2d(x, weight, added, padding=dilation, dilation=dilation)
    close(found, expected)
    for gradient, right in zip(gradients, torch.autograd.grad(expected, given[: 2 + bias], upward), strict=True):
        close(gradient, right)


def test_convolution_by_tiles_takes_part_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(128, 128, 3, padding=2, dilation=2, bias=False), fixed(nn.BatchNorm2d(128))
    x = torch.randn(1, 128, 25, 21)
    assert not winograd.suits(x, conv)  # to be trained, the kernel is evaluated three times
    assert winograd.suits(x.repeat(2, 1, 1, 1), conv)
    wide = nn.Conv2d(128, 128, 3, padding=12, dilation=12)
    with torch.no_grad():
        assert winograd.suits(x, conv)
        assert not winograd.suits(x[..., :9], conv)  # few positions: the kernel's evaluation would cost more
        assert not winograd.suits(x, wide)  # most of its taps read beyond the border, and are left out as it is
        close(conv_norm(conv, norm, x), norm(conv(x)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not winograd.suits(x, conv)
    for other in (nn.Conv2d(128, 128, 3), nn.Conv2d(128, 128, 3, 2, 1), nn.Conv2d(128, 128, 3, padding=1, groups=2)):
        assert not winograd.suits(x, other)


@pytest.mark.parametrize("name", ["lite0", "timm/test_efficientnet", "timm/mobilenetv3_small_050"])
@pytest.mark.slow
def test_a_folded_copy_follows_its_network(name: str) -> None:
    torch.manual_seed(0)
    backbone: Any = create_backbone(name).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            fixed(module)
    x, view, folds = torch.rand(1, 3, 64, 96), accelerate(backbone), FoldedCopy()

    def check() -> None:
        with torch.no_grad():
            folded, plain = view(x), backbone(x)
        for level, maps in folded.items():
            assert (maps - plain[level]).abs().max() < 1e-4 * plain[level].abs().max()

    check()
    names = set(backbone.state_dict())
    for change in (
        lambda: next(backbone.parameters()).mul_(2),
        lambda: next(m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)).running_mean.add_(1),
        lambda: backbone.load_state_dict({n: t * 0.9 for n, t in backbone.state_dict().items()}),
        lambda: backbone.load_state_dict({n: t * 0.9 for n, t in backbone.state_dict().items()}, assign=True),
        lambda: backbone.half().float(),
    ):
        with torch.no_grad():
            change()
        check()
    assert set(backbone.state_dict()) == names
    with torch.no_grad():
        copied = folds.of(backbone.net)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in copied.modules())
        assert not any(p.requires_grad for p in copied.parameters())
        assert folds.of(backbone.net) is copied
    assert folds.of(backbone.net) is backbone.net, "with a gradient wanted"


@FEW
@given(SEEDS, SIDES, SIDES, st.sampled_from([2, 8]))
def test_a_bottleneck_without_activations_is_one_convolution(seed: int, h: int, w: int, outputs: int) -> None:
    torch.manual_seed(seed)
    after = (nn.BatchNorm2d(8).eval(), nn.ReLU()) if outputs == 8 else ()
    plain = Bottleneck(8, outputs, *after).eval()
    for norm in (m for m in plain if isinstance(m, nn.BatchNorm2d)):
        fixed(norm)
    x = torch.randn(2, 8, h, w, requires_grad=True)
    ours, theirs = accelerate(plain)(x), plain(x)
    close(ours, theirs)
    weights = torch.randn_like(theirs)
    wanted = [x, *plain.parameters()]
    for a, b in zip(
        *(torch.autograd.grad((y * weights).sum(), wanted, retain_graph=True) for y in (ours, theirs)), strict=True
    ):
        close(a, b)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_quick_dropout_keeps_the_mean_and_drops_the_share(share: float) -> None:
    ones = torch.ones(4, 8, 50, 51).contiguous(memory_format=torch.channels_last).requires_grad_()
    view = accelerate(nn.Sequential(nn.Dropout(share), nn.Conv2d(8, 8, 1)))[0].train()
    torch.manual_seed(0)
    out = view(ones)
    dropped = (out == 0).float()
    assert abs(float(dropped.mean()) - share) < 0.01
    assert float(dropped.mean((2, 3)).sub(share).abs().max()) < 0.05  # in every channel of every image
    assert torch.allclose(out[out > 0], torch.tensor(1 / (1 - share)), rtol=1e-4)
    out.sum().backward()
    assert ones.grad is not None
    assert ones.grad.equal(out.detach())
    torch.manual_seed(0)
    assert view(ones).equal(out)
    assert view.eval()(ones).equal(ones)


@pytest.mark.slow
def test_several_models_see_an_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, dict[str, Any]] = {"prototype": {}, "lite": {"all_stages": True}, "hdmnet": {}}
    models = [create_model(name, backbone="lite0", image_size=64, **more).eval() for name, more in options.items()]
    for model in models[1:]:
        model.backbone.load_state_dict(models[0].backbone.state_dict())
    images = torch.rand(2, 3, 64, 64)
    runs: list[int] = []
    stages = TimmPyramid.stages
    monkeypatch.setattr(TimmPyramid, "stages", lambda self, x: (runs.append(len(x)), stages(self, x))[1])
    alone = [accelerate(model).extract_query(images) for model in models]
    runs.clear()
    with remember_images():
        again = [accelerate(model).extract_query(images) for model in models]
        assert runs == [1, 1]
        other = create_model("prototype", backbone="lite0", image_size=64)  # other weights: nothing seen serves it
        accelerate(other.eval()).extract_query(images)
        assert runs == [1, 1, 1, 1]
    with remember_images(gigabytes=0):
        for _ in range(2):
            accelerate(models[0]).extract_query(images)
        assert runs[4:] == [1] * 4
    for ours, theirs in zip(again, alone, strict=True):
        for name in theirs:
            close(ours[name], theirs[name])


def test_what_is_trained_is_not_folded() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    run_folded([conv, norm, nn.ReLU()], torch.randn(2, 3, 5, 5)).sum().backward()
    assert conv.weight.grad is not None
    assert not torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


def test_images_one_by_one_are_the_batch_in_its_layout() -> None:
    class Net(HDMNet):
        def extract_query(self, image: Tensor) -> Features:
            seen.append(len(image))
            return {"f": image.contiguous(memory_format=torch.channels_last) * 2, "n": image.sum((2, 3))}

        def extract_support(self, images: Tensor, masks: Tensor) -> Features:
            f = self.extract_query(images.flatten(0, 1))
            return {name: x.unflatten(0, masks.shape[:2]) for name, x in f.items()} | {"fg": masks == 1}

    seen: list[int] = []
    view = accelerate(Net(backbone="timm/test_resnet", base_learner=False))
    image, masks = torch.rand(3, 4, 5, 6), torch.randint(0, 2, (3, 1, 5, 6))
    features = view.extract_query(image)
    assert torch.equal(features["f"], image * 2)
    assert features["f"].is_contiguous(memory_format=torch.channels_last)
    close(features["n"], image.sum((2, 3)))
    shots, fg = image[None], masks[:, 0][None]
    supports = view.extract_support(shots, fg)
    assert torch.equal(supports["f"], shots * 2)
    assert torch.equal(supports["fg"], fg == 1)
    assert seen == [1] * 6


def small_episode(batch: int, shots: int, share: float, *, side: int = 65) -> Episode:
    g = torch.Generator().manual_seed(3)
    masks = (torch.rand(batch, shots, side // 5, side // 5, generator=g) < share).float()
    return Episode(
        query_image=torch.rand(batch, 3, side, side, generator=g),
        support_images=torch.rand(batch, shots, 3, side, side, generator=g),
        support_masks=F.interpolate(masks, size=(side, side)).to(torch.uint8),
        class_id=torch.zeros(batch, dtype=torch.long),
        base_index=torch.arange(batch) - 1,
        query_mask=torch.randint(0, 2, (batch, side, side), generator=g, dtype=torch.uint8),
    )


def without_dropout(name: str, backbone: str, shots: int) -> Any:
    """A method whose back-end's BatchNorms are no identities: lite0's trained ones, or random ones."""
    torch.manual_seed(0)
    weights = "imagenet" if backbone == "lite0" else None
    options: Any = {"presence": True, "imagenet_head": 4.0 * (backbone == "lite0")} if name == "lite" else {}
    model: Any = create_model(
        name, backbone=backbone, base_classes=3, shots=shots, image_size=65, weights=weights, **options
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and weights is None:
            fixed(module)
            module.weight.data.mul_(0.3)
    return model


def everything(prediction: Prediction) -> dict[str, Tensor]:
    maps = {f"correlation {i}": c for i, c in enumerate(prediction.correlations)}
    told = {} if prediction.presence is None else {"presence": prediction.presence}
    return {"logits": prediction.logits, **told, **prediction.aux, **maps}


METHODS = [
    *((name, "timm/test_resnet", 2) for name in sorted(registry.classes("model"))),
    ("hdmnet", "timm/test_vit", 1),
    ("lite", "lite0", 1),
    ("bam", "lite0", 1),
    pytest.param("hdmnet", "resnet50-ds", 1, marks=pytest.mark.slow),
    pytest.param("hdmnet", "resnet50-ds", 2, marks=pytest.mark.slow),
    pytest.param("hdmnet", "vgg16_bn", 1, marks=pytest.mark.slow),
    pytest.param("hsnet", "resnet50", 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "backbone", "shots"), METHODS)
@pytest.mark.slow
def test_a_view_has_the_numbers_and_gradients_of_its_model(name: str, backbone: str, shots: int) -> None:
    model = without_dropout(name, backbone, shots)
    view = accelerate(model)
    for share in (0.0, 0.2, 1.0):
        episode = small_episode(2, shots, share)
        with torch.inference_mode():
            ours, theirs = everything(view(episode)), everything(model(episode))
        assert ours.keys() == theirs.keys()
        for part in ours:
            close(ours[part], theirs[part])
    if not model.trainable:
        return
    episode, gradients = small_episode(2, shots, 0.2), []
    for network in (view.train(), model.train()):
        network.zero_grad()
        torch.stack(list(network.loss(network(episode), episode).values())).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    close(*(torch.cat([g[n].flatten() for n in sorted(g)]) for g in gradients))


def test_a_view_is_another_network_around_the_same_tensors() -> None:
    model = without_dropout("hdmnet", "timm/test_resnet", 1)
    view = accelerate(model)
    assert isinstance(view, HDMNet)
    assert accelerate(view) is view
    assert plain_model(view) is model
    assert plain_model(model) is model
    assert type(model.prior) is CosinePrior
    assert [(n, id(p)) for n, p in view.named_parameters()] == [(n, id(p)) for n, p in model.named_parameters()]
    view.train()
    assert view.encoder.training
    assert not model.encoder.training
    view.double()
    assert all(t.dtype == torch.float64 for t in model.state_dict().values() if t.is_floating_point())
    names = [n for n, _ in view.named_buffers()]
    assert names == [n for n, _ in model.named_buffers()]
    model.load_state_dict({n: torch.zeros_like(t) for n, t in model.state_dict().items()})
    assert not any(t.any() for t in view.state_dict().values())


class Foreign(Toy):
    """A user's method with layers that must not be folded as if they were torch's own."""

    name = "foreign"

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Sequential(*layers)  # type: ignore[assignment]


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)),
        lambda: (StdConv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)),
        lambda: (nn.Conv2d(6, 8, 1), BatchNormAct2d(8)),
        lambda: (Conv2dSame(6, 8, 3), nn.BatchNorm2d(8)),
        lambda: (nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8, affine=False)),
        lambda: (nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)),
        lambda: (nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8)),
    ],
)
def test_layers_of_a_users_own_give_what_they_give(layers: Callable[[], tuple[nn.Module, ...]]) -> None:
    torch.manual_seed(0)
    model = Foreign(*layers()).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
    episode = small_episode(1, 1, 0.2)
    with torch.inference_mode():
        close(accelerate(model)(episode).logits, model(episode).logits)


class Own(HDMNet):
    """A user's own method, derived from one of ours."""

    name = "own"


@pytest.mark.slow
def test_a_view_is_saved_pickled_and_copied_as_its_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Own(backbone="timm/test_resnet", base_learner=False, image_size=65).eval()
    view, episode = FewShotPredictor(model).model, small_episode(1, 1, 0.2)
    with torch.inference_mode():
        wanted = view(episode).logits
        for other in (
            load_model(save_model(view, tmp_path / "saved")),
            pickle.loads(pickle.dumps(view)),
            copy.deepcopy(view),
        ):
            assert isinstance(other, Own)
            close(other(episode).logits, wanted)
    assert type(accelerate(model)) is type(accelerate(model))


@pytest.mark.parametrize("soft", [False, True])
def test_votes_are_weighted_as_the_mask_says(soft: bool) -> None:
    torch.manual_seed(0)
    attention = CorrelationAttention(8)
    q, k, v = (F.normalize(torch.randn(1, 2, n, 4), dim=-1) for n in (9, 40, 40))
    fg = torch.rand(1, 40) if soft else (torch.rand(1, 40) < 0.3).float()
    for ours, theirs in zip(accelerate(attention).spread(q, k, v, fg), attention.spread(q, k, v, fg), strict=True):
        close(ours, theirs)


@pytest.fixture(scope="module")
def view() -> Any:
    return accelerate(without_dropout("hdmnet", "resnet50-ds", 1))


@pytest.mark.slow
def test_bfloat16_keeps_losses_finite_and_close(view: Any) -> None:
    model, episode = view.train(), small_episode(2, 1, 0.2)
    exact = model.loss(model(episode), episode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.loss(model(episode), episode)
    for name, term in rounded.items():
        assert term.isfinite()
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, exact[name], rtol=0.1, atol=0.1)
    torch.stack(list(rounded.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
def test_compiling_that_fails_is_told_and_undone(view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, episode = view.eval(), small_episode(1, 1, 0.2)
    with torch.inference_mode():
        before = model(episode).logits

    def fails(self: nn.Module) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(nn.Module, "compile", fails)
    with pytest.warns(UserWarning, match="the back-end is not compiled: no compiler"):
        FewShotPredictor(model, compile=True)
    with torch.inference_mode():
        assert torch.equal(model(episode).logits, before)


@pytest.mark.slow
def test_a_compiled_back_end_gives_the_same(view: Any) -> None:
    model, episode = view.eval(), small_episode(1, 1, 0.2)
    with torch.inference_mode():
        before = model(episode).logits
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        compiled.append(1)
        return graph.forward  # no C++ compiler needed: what dynamo makes of the back-end is what may differ

    monkey = pytest.MonkeyPatch()
    compile_module = nn.Module.compile
    monkey.setattr(nn.Module, "compile", lambda self: compile_module(self, backend=backend))
    try:
        assert compile_backbone(model) is None
        with torch.inference_mode():
            close(model(episode).logits, before)
        assert compiled
    finally:
        model.backbone._compiled_call_impl = None
        monkey.undo()
