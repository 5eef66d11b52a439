"""What is particular to single methods: votes, generalised labels, bins, and that untrained peers find objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewseg.build import create_model
from fewseg.episode import Episode
from fewseg.errors import UsageError
from fewseg.models.hsnet import HSNet, vote
from fewseg.models.pfenet import COCO_BINS, PASCAL_BINS, PFENet


def episode(query: Tensor, supports: Tensor, masks: Tensor) -> Episode:
    novel = torch.full((len(query),), -1)
    return Episode(query, supports, masks, class_id=novel, base_index=novel)


def discs(seed: int, *, shots: int) -> tuple[Episode, Tensor]:
    """Red textured discs on green texture; the query's mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    images, masks = [], []
    for _ in range(1 + shots):
        cy, cx = rng.uniform(30, 66, 2)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < 22**2
        colour = np.where(inside[..., None], (0.85, 0.1, 0.1), (0.1, 0.6, 0.2)) + rng.normal(0, 0.05, (96, 96, 3))
        images.append(torch.from_numpy(colour.clip(0, 1)).float().permute(2, 0, 1))
        masks.append(torch.from_numpy(inside).to(torch.uint8))
    supports, support_masks = torch.stack(images[1:])[None], torch.stack(masks[1:])[None]
    return episode(images[0][None], supports, support_masks), masks[0].bool()


@pytest.mark.parametrize("name", ["prototype", "dense"])
@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.slow
def test_peers_without_training_find_a_plain_object(name: str, shots: int) -> None:
    model = create_model(name, weights="imagenet", shots=shots, levels=["layer2", "layer3"]).eval()
    for seed in range(3):
        batch, truth = discs(seed, shots=shots)
        mask = model(batch).mask[0]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6


def test_dense_matching_keeps_an_object_smaller_than_a_position() -> None:
    model = create_model("dense", backbone="timm/test_resnet").eval()
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    masks[..., 20:23, 40:43] = 1
    support = model.extract_support(torch.rand(1, 1, 3, 64, 64), masks)
    assert support["fg"].sum() == 1


@pytest.mark.parametrize("levels", [[], ["layer9"]])
def test_wrong_levels_are_refused(levels: list[str]) -> None:
    with pytest.raises(UsageError, match="choose one or several of layer2, layer3, layer4"):
        create_model("prototype", backbone="timm/test_resnet", levels=levels)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_vote_is_the_papers_rule(seed: int, shots: int) -> None:
    logits = torch.randn(2, shots, 2, 4, 5, generator=torch.Generator().manual_seed(seed))
    masks = logits.argmax(2).numpy()
    for b in range(2):
        votes = masks[b].sum(0)
        expected = votes / max(1, votes.max()) >= 0.5
        np.testing.assert_array_equal(vote(logits)[b].argmax(0).bool().numpy(), expected)


def test_vote_without_any_foreground_is_background() -> None:
    logits = torch.tensor([1.0, -1.0]).view(1, 1, 2, 1, 1).expand(2, 5, 2, 3, 3)
    assert not vote(logits).argmax(1).any()


def test_hsnet_votes_over_its_shots_each_on_its_own() -> None:
    torch.manual_seed(0)
    model = HSNet(backbone="timm/test_resnet", shots=3).eval()
    query, supports = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 3, 64, 64)
    masks = (torch.rand(2, 3, 64, 64) > 0.5).to(torch.uint8)
    with torch.no_grad():
        together = model(episode(query, supports, masks))
        for k in range(3):
            alone = model(episode(query, supports[:, k : k + 1], masks[:, k : k + 1]))
            torch.testing.assert_close(together.aux["shots"][:, k], alone.logits)
    assert together.mask.equal(vote(together.aux["shots"]).argmax(1).bool())


def test_hsnet_refuses_dilated_back_ends() -> None:
    with pytest.raises(UsageError, match="take resnet50, not resnet50-ds"):
        HSNet(backbone="resnet50-ds")


def test_pfenet_takes_the_data_sets_bins_unless_told() -> None:
    def bins(**options: Any) -> tuple[float, ...]:
        return PFENet(backbone="timm/test_resnet", **options).enrichment.bins

    assert bins(base_classes=15) == PASCAL_BINS
    assert bins(base_classes=60) == COCO_BINS
    assert bins(base_classes=15, bins=[1.0, 0.5]) == (1.0, 0.5)
    with pytest.raises(UsageError, match="whole numbers"):
        bins(bins=[60, 2.5])


def test_pfenet_bins_are_absolute_or_shares_of_the_map() -> None:
    query, prototype, prior = torch.rand(1, 256, 9, 9), torch.rand(1, 256), torch.rand(1, 1, 9, 9)
    absolute = PFENet(backbone="timm/test_resnet", bins=[12, 4]).enrichment  # larger than the map as well
    shares = PFENet(backbone="timm/test_resnet", bins=[1.0, 0.5, 0.1]).enrichment
    with torch.no_grad():
        enriched, inner = absolute(query, prototype, prior)
        assert [i.shape[-1] for i in inner] == [12, 4]
        assert all(e.shape == query.shape for e in enriched)
        assert [i.shape[-1] for i in shares(query, prototype, prior)[1]] == [9, 4, 1]


@pytest.mark.parametrize("backbone", ["timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"])
@pytest.mark.parametrize("name", ["pfenet", "bam", "hsnet", "prototype", "dense"])
def test_other_back_ends(name: str, backbone: str) -> None:
    model = create_model(name, backbone=backbone, base_classes=3).eval()
    masks = torch.zeros(1, 1, 97, 75, dtype=torch.uint8)
    masks[..., 30:60, 20:50] = 1
    with torch.no_grad():
        found = model(episode(torch.rand(1, 3, 97, 75), torch.rand(1, 1, 3, 97, 75), masks))
    assert found.logits.shape == (1, 2, 97, 75)
    assert found.logits.isfinite().all()
