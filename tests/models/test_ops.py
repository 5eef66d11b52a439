from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fewseg.models.parts.ensemble import BaseEnsemble, ShotWeights, base_foreground
from fewseg.models.parts.matching import CosinePrior
from fewseg.models.parts.ops import (
    cross_entropy,
    foreground,
    gram,
    gram_distance,
    masked_average,
    min_max,
    resize_ac,
    tile,
    unmarked_as_background,
)

SEEDS = st.integers(0, 10_000)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_only_1_is_foreground() -> None:
    assert foreground(torch.tensor([0, 1, 2, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_resize_ac_keeps_corners_and_equal_sizes() -> None:
    maps = normal(1, 2, 5, 7)
    assert torch.equal(resize_ac(maps, (5, 7)), maps)
    larger = resize_ac(maps, (11, 9))
    assert larger.shape == (1, 2, 11, 9)
    torch.testing.assert_close(larger[..., (0, 0, -1, -1), (0, -1, 0, -1)], maps[..., (0, 0, -1, -1), (0, -1, 0, -1)])


@given(SEEDS)
def test_masked_average_is_the_mean_over_the_mask(seed: int) -> None:
    maps, fg = normal(2, 3, 4, 5, seed=seed), (normal(2, 1, 4, 5, seed=seed + 1) > 0).float()
    for b in range(2):
        inside = maps[b][:, fg[b, 0].bool()].double().numpy()
        expected = inside.sum(1) / (inside.shape[1] + 0.0005)
        np.testing.assert_allclose(masked_average(maps, fg)[b].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_masked_average_of_nothing_is_zero() -> None:
    assert masked_average(normal(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).eq(0).all()


@given(SEEDS)
def test_cosine_prior_is_the_best_foreground_cosine_of_every_position(seed: int) -> None:
    query, support = normal(1, 4, 3, 2, seed=seed), normal(1, 2, 4, 2, 3, seed=seed + 1)
    fg = (normal(1, 2, 2, 3, seed=seed + 2) > 0).float()
    prior = CosinePrior()(query, support, fg)
    assert prior.shape == (1, 2, 3, 2)
    for k in range(2):
        for y in range(3):
            for x in range(2):
                q = query[0, :, y, x]
                cosines = [
                    float(F.cosine_similarity(q, support[0, k, :, v, u], dim=0)) * float(fg[0, k, v, u])
                    for v in range(2)
                    for u in range(3)
                ]
                assert float(prior[0, k, y, x]) == pytest.approx(max(cosines), abs=1e-4)


def test_min_max_spans_0_to_1_per_map_and_survives_a_flat_one() -> None:
    maps = torch.stack([normal(4, 5), torch.full((4, 5), 3.0)])
    scaled = min_max(maps)
    assert scaled[0].min() == 0
    assert scaled[0].max() == pytest.approx(1, abs=1e-5)
    assert scaled[1].eq(0).all()


def test_gram_distance_is_0_for_the_same_image_and_grows_with_the_difference() -> None:
    query, other = gram(normal(1, 6, 5, 5)), gram(normal(1, 6, 5, 5, seed=3))
    torch.testing.assert_close(query.diagonal(dim1=1, dim2=2), torch.ones(1, 6), atol=1e-4, rtol=0)
    distance = gram_distance(query, torch.stack([query, other], 1))
    assert distance[0, 0] == 0
    expected = torch.linalg.matrix_norm(query - other)[0] / 6
    torch.testing.assert_close(distance[0, 1], expected)


def test_gram_ignores_the_size_of_the_maps() -> None:
    maps = normal(1, 4, 5, 5)
    torch.testing.assert_close(gram(maps), gram(maps.repeat(1, 1, 2, 2)), atol=1e-5, rtol=1e-5)


def test_cross_entropy_leaves_255_out_and_is_0_without_any_label() -> None:
    logits, labels = normal(1, 2, 2, 2), torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8)
    torch.testing.assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels.long(), ignore_index=255))
    assert cross_entropy(logits, torch.full_like(labels, 255)) == 0


@given(st.integers(0, 2**32 - 1))
def test_unmarked_classes_count_as_background(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 6, 2, 2, generator=rng)  # of three heads and five classes
    known = torch.rand(2, 5, generator=rng) < 0.5
    merged, before = (x.softmax(2) for x in (unmarked_as_background(logits, known), logits))
    for b in range(2):
        marked = [1 + n for n, k in enumerate(known[b].tolist()) if k]
        unmarked = [0, *(1 + n for n, k in enumerate(known[b].tolist()) if not k)]
        assert torch.allclose(merged[b, :, 0], before[b, :, unmarked].sum(1), atol=1e-6)
        assert torch.allclose(merged[b, :, marked], before[b, :, marked], atol=1e-6)
    assert torch.equal(unmarked_as_background(logits, torch.ones(2, 5, dtype=torch.bool)), logits)


def test_tile_repeats_a_vector_at_every_position() -> None:
    vectors = normal(2, 3)
    tiled = tile(vectors, normal(2, 8, 4, 5))
    assert tiled.shape == (2, 3, 4, 5)
    assert tiled[:, :, 3, 2].equal(vectors)


def test_base_foreground_leaves_out_the_background_and_the_episodes_own_class() -> None:
    logits = normal(3, 5, 2, 2)  # background and 4 base classes
    p = logits.softmax(1)
    found = base_foreground(logits, torch.tensor([-1, 0, 3]))
    torch.testing.assert_close(found[0], p[0, 1:].sum(0, keepdim=True))
    torch.testing.assert_close(found[1], p[1, 2:].sum(0, keepdim=True))
    torch.testing.assert_close(found[2], p[2, 1:4].sum(0, keepdim=True))
    torch.testing.assert_close(base_foreground(logits), p[:, 1:].sum(1, keepdim=True))


def test_an_untrained_ensemble_leaves_the_meta_prediction_alone() -> None:
    meta, base = normal(2, 2, 4, 4), normal(2, 4, 3, 3)
    with torch.no_grad():
        final = BaseEnsemble()(meta, base, torch.rand(2))
    torch.testing.assert_close(final, meta.softmax(1))


@given(seed=SEEDS, shots=st.integers(2, 5))
def test_shot_weights_follow_their_shots(seed: int, shots: int) -> None:
    torch.manual_seed(seed)
    weights, distance = ShotWeights(shots), torch.rand(2, shots)
    order = torch.randperm(shots)
    with torch.no_grad():
        plain, shuffled = weights(distance), weights(distance[:, order])
        ascending = weights(distance, restore_order=False)
    torch.testing.assert_close(plain.sum(1), torch.ones(2))
    torch.testing.assert_close(plain[:, order], shuffled)
    for b in range(2):  # the shot with the smallest distance gets the first sorted weight
        torch.testing.assert_close(plain[b, distance[b].argsort()], ascending[b])


def test_one_shot_weighs_1_and_an_untrained_number_of_shots_weighs_the_same() -> None:
    assert ShotWeights(1)(torch.rand(2, 1)).eq(1).all()
    assert ShotWeights(5)(torch.rand(2, 4)).eq(0.25).all()
