"""The quick ways that the models take, each against the plain computation."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.build import create_model
from fewseg.episode import Episode
from fewseg.models.base import Features, image_by_image
from fewseg.models.fast import winograd
from fewseg.models.fast.compiling import compile_backbone
from fewseg.models.fast.folding import FoldedCopy, conv_norm, run_folded
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.base_learner import BaseHead
from fewseg.models.parts.matching import cosine_prior, spread_votes
from fewseg.models.parts.ops import resize_ac
from fewseg.predictor import FewShotPredictor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the plain network is a benchmark's, not the package's
from benchmarks.plain import plain_copy

SEEDS, SHARES, SIDES = st.integers(0, 2**16), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 9)
FEW = settings(max_examples=25, deadline=None)


def close(ours: Tensor, theirs: Tensor, *, rtol: float = 1e-4) -> None:
    """Within 1e-4 of the largest value: what "exact" means for a quick way."""
    scale = float(theirs.detach().abs().max()) if theirs.numel() else 0.0
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * scale + 1e-6)


def whole_table(q: Tensor, k: Tensor, v: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
    """Matching as the spec writes it."""
    scores = q @ k.transpose(-2, -1) / 0.1
    columns = fg[:, None, None, :]
    correlation = (scores * columns).sum(-1) / (columns.sum(-1) + 1e-9)
    return (scores.softmax(-2) * columns) @ v, correlation


@FEW
@given(SEEDS, st.integers(1, 3), SIDES, st.integers(1, 40), SHARES, st.sampled_from([1, 7, 50, 2**22]))
def test_votes_of_the_foreground_equal_the_whole_table(
    seed: int, batch: int, side: int, supports: int, share: float, table: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    q = F.normalize(torch.randn(batch, 2, side * side, 4, generator=g), dim=-1).requires_grad_()
    k = F.normalize(torch.randn(batch, 2, supports, 4, generator=g), dim=-1).requires_grad_()
    v = torch.randn(batch, 2, supports, 4, generator=g, requires_grad=True)
    fg = (torch.rand(batch, supports, generator=g) < share).float()
    found = [*_with_table(table, lambda: spread_votes(q, k, v, fg, temperature=0.1))]
    wanted = [*whole_table(q, k, v, fg)]
    weights = [torch.randn(w.shape, generator=g) for w in wanted]
    found += torch.autograd.grad(sum((w * f).sum() for w, f in zip(weights, found, strict=True)), (q, k, v))
    wanted += torch.autograd.grad(sum((w * f).sum() for w, f in zip(weights, wanted, strict=True)), (q, k, v))
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs)


@FEW
@given(
    SEEDS, st.integers(1, 2), st.integers(1, 3), SIDES, SIDES, SHARES, st.booleans(), st.sampled_from([1, 20, 2**22])
)
def test_the_prior_of_the_foreground_equals_that_of_the_whole_table(
    seed: int, batch: int, shots: int, h: int, w: int, share: float, soft: bool, table: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    query, support = torch.randn(batch, 5, h, w, generator=g), torch.randn(batch, shots, 5, h + 1, w, generator=g)
    fg = (torch.rand(batch, shots, h + 1, w, generator=g) < share).float()
    fg = fg * torch.rand(fg.shape, generator=g) if soft else fg
    found = _with_table(table, lambda: cosine_prior(query, support, fg))
    s = (support * fg.unsqueeze(2)).flatten(3)
    dot = torch.einsum("bcl,bkcm->bklm", query.flatten(2), s)
    norms = query.flatten(2).norm(dim=1)[:, None, :, None] * s.norm(dim=2).unsqueeze(2)
    close(found, (dot / (norms + 1e-7)).amax(3).view(batch, shots, h, w))


def _with_table(entries: int, run: Any) -> Any:
    """With tables of at most so many entries, so that small inputs are taken in parts too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewseg.models.parts.matching.TABLE", entries)
        return run()


def plain_head(head: BaseHead, f4: Tensor) -> Tensor:
    """f5 from all 2C channels."""
    pooled = [resize_ac(pool(f4), f4.shape[-2:]) for pool in head.ppm.features]
    return head.reduce(torch.cat([f4, *pooled], 1))


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
    ours, theirs = head(f4), plain_head(head, f4)
    close(ours, theirs)
    weight = torch.randn(ours.shape)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        close(a, b)


@FEW
@given(SEEDS, st.integers(1, 2), st.integers(1, 13), st.integers(1, 13), SHARES)
def test_f5_at_the_foreground_is_f5(seed: int, batch: int, h: int, w: int, share: float) -> None:
    head = random_head(seed)
    f4, fg = torch.randn(batch, 8, h, w), torch.rand(batch, h, w) < share
    with torch.no_grad():
        close(head(f4, fg), plain_head(head, f4) * fg.unsqueeze(1))


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
    x, weight = torch.randn(b, 7, h, w, generator=g), torch.randn(5, 7, 3, 3, generator=g)
    added = torch.randn(5, generator=g) if bias else None
    with patch.object(winograd, "KERNELS_AT_ONCE", 15), patch.object(winograd, "CHANNELS_AT_ONCE", 3):
        found = winograd.convolve(x, weight, added, dilation=dilation)
    close(found, F.conv2d(x, weight, added, padding=dilation, dilation=dilation))


def test_convolution_by_tiles_takes_part_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(128, 128, 3, padding=2, dilation=2, bias=False), fixed(nn.BatchNorm2d(128))
    x = torch.randn(1, 128, 25, 21)
    assert winograd.suits(x, conv)
    assert not winograd.suits(x[..., :9], conv)  # few positions: the kernel's evaluation would cost more
    with torch.no_grad():
        close(conv_norm(conv, norm, x), norm(conv(x)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not winograd.suits(x, conv)
    for other in (nn.Conv2d(128, 128, 3), nn.Conv2d(128, 128, 3, 2, 1), nn.Conv2d(128, 128, 3, padding=1, groups=2)):
        assert not winograd.suits(x, other)


@pytest.mark.parametrize("name", ["lite0", "timm/test_efficientnet", "timm/mobilenetv3_small_050"])
def test_a_folded_copy_follows_its_network(name: str) -> None:
    torch.manual_seed(0)
    backbone: Any = create_backbone(name).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            fixed(module)
    x, folds = torch.rand(1, 3, 64, 96), FoldedCopy()

    def check() -> None:
        with torch.no_grad():
            folded = backbone(x)
            with patch.object(FoldedCopy, "of", lambda self, net, x: net):
                plain = backbone(x)
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
        copied = folds.of(backbone.net, x)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in copied.modules())
        assert not any(p.requires_grad for p in copied.parameters())
        assert folds.of(backbone.net, x) is copied
    assert folds.of(backbone.net, x) is backbone.net, "with a gradient wanted"


def test_what_is_trained_is_not_folded() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    run_folded([conv, norm, nn.ReLU()], torch.randn(2, 3, 5, 5)).sum().backward()
    assert conv.weight.grad is not None
    assert not torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


def test_images_apart_are_the_batch_in_its_layout() -> None:
    class Net:
        @image_by_image
        def extract(self, image: Tensor, fg: Tensor | None = None) -> Features:
            return {"f": image.contiguous(memory_format=torch.channels_last) * 2, "n": image.sum((2, 3))} | (
                {} if fg is None else {"fg": fg}
            )

    image, fg = torch.rand(3, 4, 5, 6), torch.rand(3, 5, 6)
    features = Net().extract(image, fg)
    assert torch.equal(features["f"], image * 2)
    assert features["f"].is_contiguous(memory_format=torch.channels_last)
    close(features["n"], image.sum((2, 3)))
    assert torch.equal(features["fg"], fg)
    assert "fg" not in Net().extract(image)


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


@pytest.fixture(scope="module", params=[1, 2])
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = create_model("hdmnet", backbone="resnet50-ds", shots=request.param, image_size=65).eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            fixed(module)
            module.weight.data.mul_(0.3)
    plain = plain_copy(model, backbone="resnet50-ds", base_classes=15, shots=request.param)
    for module in plain.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model, plain


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_hdmnet_equals_the_plain_network(both: tuple[Any, Any], share: float) -> None:
    model, plain = both
    episode = small_episode(2, model.shots, share)
    with torch.inference_mode():
        ours, theirs = model.eval()(episode), plain.eval()(episode)
    close(ours.logits, theirs.logits)
    for name in ("meta", "base"):
        close(ours.aux[name], theirs.aux[name])
    for a, b in zip(ours.correlations, theirs.correlations, strict=True):
        close(a, b)


def test_a_training_step_has_the_plain_gradients(both: tuple[Any, Any]) -> None:
    model, plain = both[0].train(), both[1].train()
    episode = small_episode(2, model.shots, 0.2)
    ours = torch.stack(list(model.loss(model(episode), episode).values())).sum()
    theirs = plain.loss(plain(episode), episode.query_mask)
    close(ours, theirs)
    gradients = []
    for network, loss in ((model, ours), (plain, theirs)):
        network.zero_grad()
        loss.backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    close(*(torch.cat([g[n].flatten() for n in sorted(g)]) for g in gradients))


def test_bfloat16_keeps_losses_finite_and_close(both: tuple[Any, Any]) -> None:
    model, episode = both[0].train(), small_episode(2, both[0].shots, 0.2)
    exact = model.loss(model(episode), episode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.loss(model(episode), episode)
    for name, term in rounded.items():
        assert term.isfinite()
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, exact[name], rtol=0.1, atol=0.1)
    torch.stack(list(rounded.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_compiling_that_fails_is_told_and_undone(both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, episode = both[0].eval(), small_episode(1, both[0].shots, 0.2)
    with torch.inference_mode():
        before = model(episode).logits

    def fails(self: nn.Module) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(nn.Module, "compile", fails)
    with pytest.warns(UserWarning, match="the back-end is not compiled: no compiler"):
        FewShotPredictor(model, compile=True)
    with torch.inference_mode():
        assert torch.equal(model(episode).logits, before)


def test_a_compiled_back_end_gives_the_same(both: tuple[Any, Any]) -> None:
    model, episode = both[0].eval(), small_episode(1, both[0].shots, 0.2)
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
