"""What is particular to PANet, SSP, DCAMA and INSID3, and that vision transformers serve as back-ends."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fewseg.build import create_model
from fewseg.episode import Episode
from fewseg.errors import UsageError
from fewseg.metrics.presence import presence_auc
from fewseg.models.dcama import DCAMA, MaskAttention
from fewseg.models.insid3 import INSID3, regions
from fewseg.models.panet import PANet
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ops import resize_ac
from fewseg.models.parts.prototype_network import mean_features
from fewseg.models.ssp import SSP, adaptive_background, sure

TINY = "timm/test_resnet"
SWIN = "timm/swin_tiny_patch4_window7_224"
DINO = "timm/vit_tiny_patch16_dinov3_qkvb"
SEEDS = st.integers(0, 10_000)


def episode(*, shots: int = 1, side: int = 64, seed: int = 0) -> Episode:
    g = torch.Generator().manual_seed(seed)
    masks = (torch.rand(2, shots, side, side, generator=g) > 0.6).to(torch.uint8)
    images = torch.rand(2, 1 + shots, 3, side, side, generator=g)
    novel = torch.full((2,), -1)
    truth = torch.zeros(2, side, side, dtype=torch.uint8)
    truth[:, 10:40, 10:40] = 1
    return Episode(images[:, 0], images[:, 1:], masks, class_id=novel, base_index=novel, query_mask=truth)


def gradients(model: Any, batch: Episode) -> set[str]:
    torch.stack(list(model.loss(model.train()(batch), batch).values())).sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize(("name", "first"), [("panet", "layer4"), ("ssp", "layer3")])
def test_what_trained_names_is_trained_and_nothing_else(name: str, first: str) -> None:
    torch.manual_seed(0)
    part = create_model(name, backbone=TINY, image_size=64)
    taught = gradients(part, episode())
    assert taught
    assert all(n.startswith(f"backbone.net.{first}.") for n in taught)
    whole = create_model(name, backbone=TINY, image_size=64, trained="all")
    assert {n.split(".")[2] for n in gradients(whole, episode())} >= {"conv1", "layer1", "layer2", first}
    with pytest.raises(UsageError, match=rf"model.trained='layer2': choose all or .*{first}"):
        create_model(name, backbone=TINY, trained="layer2")


def test_panet_s_alignment_is_a_term_of_its_own_and_may_be_left_out() -> None:
    torch.manual_seed(0)
    model, batch = PANet(backbone=TINY, image_size=64).train(), episode(shots=2)
    terms = model.loss(model(batch), batch)
    half = PANet(backbone=TINY, image_size=64, alignment=0.5)
    half.load_state_dict(model.state_dict())
    torch.testing.assert_close(half.train().loss(half(batch), batch)["alignment"], terms["alignment"] / 2)
    none = PANet(backbone=TINY, image_size=64, alignment=0.0)
    assert none.loss(none(batch), batch).keys() == {"final"}


@pytest.mark.slow
def test_panet_s_vgg_keeps_an_eighth_of_the_side() -> None:
    levels = create_backbone("vgg16", output_stride=8)(torch.rand(1, 3, 97, 65))
    assert {maps.shape[-2:] for maps in levels.values()} == {(13, 9)}


@cache
def untrained() -> PANet:
    return PANet(backbone=TINY)


@settings(deadline=None)
@given(SEEDS)
def test_pixels_to_ignore_count_for_neither_side(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    model = untrained()
    maps, masks = torch.randn(1, 1, 5, 4, 4, generator=g), torch.randint(0, 2, (1, 1, 16, 16), generator=g)
    masks[..., :8, :] = 255  # the upper half
    found = model.prototypes(maps, masks.to(torch.uint8))
    assert torch.allclose(found, model.prototypes(maps[..., 2:, :], masks[..., 8:, :].to(torch.uint8)), atol=1e-5)


@settings(deadline=None)
@given(SEEDS, st.floats(0.05, 0.95))
def test_ssp_is_sure_of_what_is_above_the_threshold_or_of_the_likeliest(seed: int, threshold: float) -> None:
    p = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed))
    p[0] *= threshold  # none is above it
    found = sure(p, threshold)
    assert found[0].sum() == 1
    assert found[0].flatten()[p[0].argmax()]
    assert all(torch.equal(found[b], p[b] > threshold) for b in (1, 2) if (p[b] > threshold).any())


def test_ssp_s_adaptive_background_is_what_looks_alike() -> None:
    a, b = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    maps = torch.stack([a, a, b, b, (a + 0.1 * b)], 1).view(1, 8, 1, 5)
    background = torch.tensor([[[True, False, True, False, False]]])
    found = F.normalize(adaptive_background(maps, background), dim=1)[0, :, 0]
    assert (found[:, 4] @ a) > (found[:, 4] @ b)
    assert (found[:, 3] @ b) > (found[:, 3] @ a)
    only = adaptive_background(maps, torch.tensor([[[True, False, False, False, False]]]))
    torch.testing.assert_close(only, a.view(1, 8, 1, 1).expand_as(only))


def test_self_support_terms_teach_and_may_be_left_out() -> None:
    torch.manual_seed(0)
    model, batch = SSP(backbone=TINY, image_size=64).train(), episode(shots=2)
    assert model.loss(model(batch), batch).keys() == {"final", "query", "support"}
    plain = SSP(backbone=TINY, image_size=64, query_weight=0.0, support_weight=0.0)
    assert plain.loss(plain(batch), batch).keys() == {"final"}


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.integers(1, 3), st.sampled_from([0.0, 1.0]))
def test_dcama_gathers_mask_values(seed: int, shots: int, value: float) -> None:
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    attention = MaskAttention(8, 4)
    query, support = torch.randn(2, 8, 3, 4, generator=g), torch.randn(2, shots, 8, 5, 3, generator=g)
    with torch.no_grad():
        one_sided = attention(query, support, torch.full((2, shots, 5, 3), value))
        mixed = attention(query, support, torch.rand(2, shots, 5, 3, generator=g))
    torch.testing.assert_close(one_sided, torch.full((2, 3, 4), value))
    assert mixed.min() >= 0
    assert mixed.max() <= 1


def test_dcama_starts_from_the_likeness_of_features() -> None:
    """Untrained, it gathers more of the mask where the query looks like the support's foreground."""
    torch.manual_seed(0)
    model = DCAMA(backbone=TINY, image_size=64).eval()
    photo, mask = torch.rand(1, 3, 64, 64) * 0.2, torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    photo[..., 16:48, 16:48] += torch.tensor([0.6, 0.1, 0.0]).view(3, 1, 1)
    mask[..., 16:48, 16:48] = 1
    with torch.no_grad():
        found = model.match(model.encode_query(photo.flip(-1)), model.encode_support(photo[None], mask), size=(64, 64))
    finest = resize_ac(found.correlations[-1][:, None], (64, 64)).flatten().numpy()
    assert presence_auc(finest.astype(np.float64), mask.flatten().numpy() == 1) > 0.8


def test_dcama_takes_copies_of_a_support_as_the_one() -> None:
    torch.manual_seed(0)
    model, one = DCAMA(backbone=TINY, image_size=64).eval(), episode()
    copies = Episode(
        one.query_image,
        one.support_images.expand(-1, 3, -1, -1, -1),
        one.support_masks.expand(-1, 3, -1, -1),
        one.class_id,
        one.base_index,
    )
    with torch.no_grad():
        torch.testing.assert_close(model(copies).logits, model(one).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"])
@pytest.mark.parametrize("name", ["panet", "ssp", "dcama", "insid3"])
@pytest.mark.slow
def test_other_back_ends(name: str, backbone: str) -> None:
    options = {"trained": "all"} if name == "panet" else {}
    model = create_model(name, backbone=backbone, base_classes=3, **options).eval()
    masks = torch.zeros(1, 1, 97, 75, dtype=torch.uint8)
    masks[..., 30:60, 20:50] = 1
    novel = torch.tensor([-1])
    with torch.no_grad():
        found = model(Episode(torch.rand(1, 3, 97, 75), torch.rand(1, 1, 3, 97, 75), masks, novel, novel))
    assert found.logits.shape == (1, 2, 97, 75)
    assert found.logits.isfinite().all()


@pytest.mark.slow
def test_dcama_looks_at_every_block_of_a_swin_of_any_size() -> None:
    model = DCAMA(backbone=SWIN).eval()
    assert [len(names) for names in model.blocks.values()] == [2, 6, 2]
    novel = torch.tensor([-1])
    with torch.no_grad():
        masks = torch.ones(1, 1, 70, 93, dtype=torch.uint8)
        found = model(Episode(torch.rand(1, 3, 70, 93), torch.rand(1, 1, 3, 70, 93), masks, novel, novel))
    assert found.logits.shape == (1, 2, 70, 93)


def test_dcama_refuses_dilated_back_ends() -> None:
    with pytest.raises(UsageError, match="take resnet50, not resnet50-ds"):
        DCAMA(backbone="resnet50-ds")


@pytest.mark.parametrize("name", [DINO, "timm/test_vit"])
@pytest.mark.slow
def test_a_transformer_s_last_level_is_timm_s_own(name: str) -> None:
    torch.manual_seed(0)
    backbone: Any = create_backbone(name).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        levels = backbone(image)
        theirs = backbone.net.forward_features(image)[:, backbone.net.num_prefix_tokens :]
    torch.testing.assert_close(levels["layer4"].flatten(2).transpose(1, 2), theirs, rtol=1e-4, atol=1e-5)
    assert levels["layer2"].shape[-2:] == (4, 6)
    blocks = backbone.net.blocks
    assert backbone.stage_of("layer4") == [*blocks[len(blocks) * 3 // 4 :], backbone.net.norm]


@pytest.mark.parametrize("name", ["timm/test_vit_relpos", "timm/test_maxvit"])
def test_a_back_end_of_one_size_says_so_in_the_data_s_words(name: str) -> None:
    side = timm.get_pretrained_cfg(name.removeprefix("timm/")).input_size[-1]  # type: ignore[union-attr]
    model = create_model("dense", backbone=name).eval()
    with pytest.raises(UsageError, match=rf"made for {side} x {side}: set model.image_size={side}"):
        model.extract_query(torch.rand(1, 3, 97, 75))
    assert model.extract_query(torch.rand(1, 3, side, side))["features"].isfinite().all()


def test_regions_are_positions_that_look_alike() -> None:
    g = torch.Generator().manual_seed(0)
    kinds = F.normalize(torch.randn(3, 16, generator=g), dim=1)
    truth = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 2, 1]])
    features = kinds[truth].permute(2, 0, 1) + 0.02 * torch.randn(16, 3, 4, generator=g)
    found = regions(F.normalize(features, dim=0), 0.6)
    assert found.min() == 0
    pairs = {(int(a), int(b)) for a, b in zip(found.flatten(), truth.flatten(), strict=True)}
    assert len(pairs) == 3  # one region for one kind
    assert regions(features[:, :1, :1], 0.6).tolist() == [[0]]


def matcher(**options: Any) -> INSID3:
    torch.manual_seed(0)
    return INSID3(backbone=TINY, image_size=64, **options).eval()


def test_what_tells_of_a_place_is_left_out_and_made_anew_for_other_weights() -> None:
    model = matcher(rank=2)
    features = F.normalize(torch.randn(1, model.backbone.channels["layer4"], 2, 2), dim=1)
    left: Tensor = model.without_place(features)
    before = model.place.clone()  # type: ignore[union-attr]
    torch.testing.assert_close(torch.einsum("cs,bchw->bshw", before, left), torch.zeros(1, 2, 2, 2), rtol=0, atol=1e-5)
    assert torch.equal(matcher(rank=0).without_place(features), features)
    other = INSID3(backbone=TINY, image_size=64, rank=2).eval()
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model.without_place(features), other.without_place(features))
    with pytest.raises(UsageError, match=r"model.rank=\d+: .* give 0 to"):
        matcher(rank=model.backbone.channels["layer4"])


def test_the_seed_is_marked_and_what_resembles_it_and_the_support_joins_it() -> None:
    model = matcher()
    kinds = torch.eye(4)
    near = F.normalize(kinds[0] + 0.3 * kinds[1], dim=0)  # like the object, in another region
    own = torch.stack([kinds[0], near, kinds[2], kinds[3]])  # (L, C): object, its like, two of the background
    clusters = torch.arange(4).view(1, 4)
    support = torch.stack([kinds[0], kinds[2], kinds[3]])

    def mask(fg: list[bool]) -> list[float]:
        return model._segment(own, own, clusters, support, torch.tensor(fg))[0].flatten().tolist()

    assert mask([True, False, False]) == [1, 1, -1, -1]
    assert mask([False, True, False]) == [-1, -1, 1, -1]
    assert mask([False, False, False]) == [-1, -1, -1, -1]


def test_masks_average_to_what_they_cover() -> None:
    maps, weights = torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[[[1.0, 0], [0, 1]], [[0, 0], [0, 0]]]])
    torch.testing.assert_close(mean_features(maps, weights)[0, :, 0], torch.tensor([1.5, 0]), atol=1e-4, rtol=0)
