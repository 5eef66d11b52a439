from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from fewseg.errors import UsageError
from fewseg.models.parts.backbone_weights import load_backbone_weights
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.imagenet_head import KINDS
from fewseg.models.parts.levels import LEVELS, Backbone

TINY = ("timm/test_resnet", "timm/test_efficientnet", "timm/test_vit", "lite0")


def make(name: str, **options: Any) -> Backbone:
    torch.manual_seed(0)
    backbone = create_backbone(name, **options).eval()
    for module in backbone.modules():  # statistics that are not the identity, as trained ones
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.9, 1.1)  # type: ignore[arg-type]
    return backbone


def run(backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return backbone(image)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("resnet50-ds", (17, 17, 17)),
        ("resnet50", (17, 17, 17)),
        ("vgg16_bn", (17, 9, 9)),
        ("vgg16", (17, 9, 9)),
        ("lite0", (17, 9, 5)),
        ("lite2", (17, 9, 5)),
        ("timm/test_resnet", (17, 9, 5)),
    ],
)
@pytest.mark.slow
def test_levels_have_the_promised_sizes_and_channels(name: str, sides: tuple[int, ...]) -> None:
    backbone = make(name)
    levels = run(backbone, torch.rand(1, 3, 129, 129))
    assert tuple(levels) == LEVELS
    assert [f.shape[1] for f in levels.values()] == [backbone.channels[level] for level in LEVELS]
    assert tuple(f.shape[-1] for f in levels.values()) == sides


@pytest.mark.parametrize(("name", "between"), [("lite0", (80, 192)), ("lite2", (88, 208)), ("timm/test_resnet", ())])
def test_stages_are_the_levels_and_what_lies_between_them(name: str, between: tuple[int, ...]) -> None:
    backbone, image = make(name), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        levels, stages = backbone(image), backbone.stages(image)
    others = {n: f for n, f in stages.items() if n not in LEVELS}
    assert [n for n in stages if n in LEVELS] == list(LEVELS)
    assert all(torch.equal(stages[n], levels[n]) for n in LEVELS)
    assert tuple(f.shape[1] for f in others.values()) == between
    assert [n.split("-")[0] for n in others] == list(LEVELS[1:])[: len(between)]


@pytest.mark.parametrize("name", ["lite0", "timm/test_resnet"])
def test_an_output_stride_dilates_the_same_network(name: str) -> None:
    plain, dilated = make(name), make(name, output_stride=16)
    dilated.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 128, 192)
    before, after = run(plain, image), run(dilated, image)
    assert torch.equal(before["layer3"], after["layer3"])
    assert before["layer4"].shape[-2:] == (4, 6)
    assert after["layer4"].shape[-2:] == (8, 12)


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet50", 16),
        ("vgg16_bn", 4),
        ("timm/vit_tiny_patch16_224", 8),
        ("lite0", 4),
        ("timm/swin_tiny_patch4_window7_224", 16),
    ],
)
def test_an_output_stride_that_a_network_does_not_have_is_refused(name: str, stride: int) -> None:
    with pytest.raises(UsageError, match=f"output_stride={stride}"):
        create_backbone(name, output_stride=stride)


@pytest.mark.parametrize("name", TINY)
def test_lower_then_upper_is_the_whole_and_a_mask_enters_between(name: str) -> None:
    backbone, image = make(name), torch.rand(1, 3, 64, 96)
    whole = run(backbone, image)
    with torch.no_grad():
        levels = backbone.lower(image)
        ones = torch.ones(1, 1, *levels["layer3"].shape[-2:])
        half = ones.clone()
        half[..., : half.shape[-1] // 2] = 0
        all_of_it, half_of_it = (levels | {"layer3": levels["layer3"] * mask} for mask in (ones, half))
        torch.testing.assert_close(backbone.upper(levels), whole["layer4"])
        torch.testing.assert_close(backbone.upper(all_of_it), whole["layer4"])
        assert not torch.allclose(backbone.upper(half_of_it), whole["layer4"])


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(("timm/test_resnet", "timm/test_vit")), h=st.integers(33, 90), w=st.integers(33, 90))
def test_any_image_size(name: str, h: int, w: int) -> None:
    levels = run(make(name), torch.rand(1, 3, h, w))
    assert all(f.isfinite().all() and f.ndim == 4 for f in levels.values())


@pytest.mark.slow
def test_deep_stem_dilates_every_block_and_keeps_stride_8() -> None:
    backbone: Any = make("resnet50-ds")
    for level, dilation in ((backbone.layer3, 2), (backbone.layer4, 4)):
        assert {block.conv2.dilation for block in level} == {(dilation, dilation)}
        assert {block.conv2.stride for block in level} == {(1, 1)}
    assert backbone.layer0[6].weight.shape == (128, 64, 3, 3)


@pytest.mark.slow
def test_undilated_resnet_is_torchvisions() -> None:
    backbone: Any = make("resnet50", output_stride=32)
    theirs = torchvision.models.resnet50(weights=None).eval()
    state = backbone.state_dict()
    names = {"layer0.0.": "conv1.", "layer0.1.": "bn1."}
    for ours, name in names.items():
        state = {n.replace(ours, name, 1) if n.startswith(ours) else n: t for n, t in state.items()}
    theirs.load_state_dict(state | {n: t for n, t in theirs.state_dict().items() if n.startswith("fc.")})
    seen: list[Tensor] = []
    for level in (theirs.layer2, theirs.layer3, theirs.layer4):
        for block in level:  # type: ignore[union-attr]
            block.register_forward_hook(lambda _m, _i, out: seen.append(out))
    image = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        theirs(image)
        blocks = dict(backbone.blocks(image))
    assert Counter(name.split(".")[0] for name in blocks) == {"layer2": 4, "layer3": 6, "layer4": 3}
    for ours, expected in zip(blocks.values(), seen, strict=True):
        assert (ours < 0).any()  # before the last ReLU
        torch.testing.assert_close(ours.relu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_hsnet_takes_vggs_convolutions_before_their_relu_and_the_last_pool() -> None:
    from fewseg.models.hsnet import HSNet

    torch.manual_seed(0)
    backbone: Any = HSNet(backbone="vgg16").backbone
    theirs = make_layers(cfgs["D"]).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), backbone.state_dict().values(), strict=True)))
    x, expected = torch.rand(1, 3, 70, 101), {}
    with torch.no_grad():
        blocks = dict(backbone.blocks(x))
        for index, module in enumerate(theirs):
            x = nn.functional.relu(x) if isinstance(module, nn.ReLU) else module(x)
            expected[index] = x
    indices = {"layer2.0": 17, "layer2.1": 19, "layer2.2": 21, "layer3.0": 24, "layer3.1": 26, "layer3.2": 28}
    assert list(blocks) == [*indices, "layer4.0"]
    for name, index in (indices | {"layer4.0": 30}).items():
        torch.testing.assert_close(blocks[name], expected[index], rtol=1e-3, atol=1e-4)


def test_lite0_gives_hsnet_all_blocks_of_its_three_strides() -> None:
    backbone = make("lite0")
    blocks = dict(backbone.blocks(torch.rand(1, 3, 64, 64)))
    sides = {name: f.shape[-1] for name, f in blocks.items()}
    assert Counter(name.split(".")[0] for name in blocks) == {"layer2": 2, "layer3": 6, "layer4": 5}
    assert all(side == {"layer2": 8, "layer3": 4, "layer4": 2}[name.split(".")[0]] for name, side in sides.items())


@pytest.mark.parametrize("name", ["resnet50-ds", "vgg16_bn"])
@pytest.mark.slow
def test_last_relu_off_gives_the_sums_before_it(name: str) -> None:
    on, off = make(name), make(name, last_relu=False)
    off.load_state_dict(on.state_dict())
    image = torch.rand(1, 3, 65, 65)
    with_relu, without = run(on, image), run(off, image)
    for level in LEVELS:
        assert (without[level] < 0).any()
        torch.testing.assert_close(off.activate(without[level]), with_relu[level])


def test_residual_sum_changes_nothing_but_the_last_relu() -> None:
    torch.manual_seed(0)
    block = create_backbone("resnet50").layer2[0].eval()  # type: ignore[index,union-attr]
    x = torch.randn(1, 256, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(block.residual_sum(x.clone()).relu(), Bottleneck.forward(block, x.clone()))


def test_normalise_uses_the_back_ends_own_statistics() -> None:
    image = torch.full((1, 3, 2, 2), 0.5)
    vit, resnet = create_backbone("timm/test_vit"), create_backbone("resnet50")
    torch.testing.assert_close(vit.normalise(image), (image - vit.pixel_mean) / vit.pixel_std)
    assert not torch.equal(create_backbone("lite0").normalise(image), resnet.normalise(image))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {}, "choose one of lite0"),
        ("timm/no_such_net", {}, "timm has no model"),
        ("lite0", {"last_relu": False}, "last_relu=false"),
        ("resnet50", {"head": True}, "head is known of lite0, lite1, lite2, not of resnet50"),
    ],
)
def test_a_wrong_name_or_option_says_what_is_allowed(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_backbone(name, **options)


def test_the_imagenet_head_finds_a_bird_more_like_another_bird_than_like_a_ship() -> None:
    backbone = create_backbone("lite2", head=True)
    load_backbone_weights(backbone, "lite2", "imagenet")
    head = backbone.head
    birds = {*range(7, 25), *range(80, 101), *range(127, 147)}  # of ImageNet's thousand, from cock to albatross
    finest = head.kinds[:, -KINDS[-1] :]
    assert set(finest[:, finest[min(birds)].argmax()].nonzero().flatten().tolist()) == birds
    assert head.kinds.sum(1).eq(len(KINDS)).all()  # each name is in one group of each grouping
    hen, finch, liner = (8 * head.names.weight[name].clamp(min=0)[None] for name in (8, 11, 628))
    assert head.likeness(hen, hen) > head.likeness(hen, finch) + 0.2 > head.likeness(hen, liner) + 0.4
    unnamed = torch.full_like(hen, 0.1)
    torch.testing.assert_close(head.likeness(unnamed, unnamed), torch.ones(1), atol=0.1, rtol=0)
