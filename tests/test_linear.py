"""The linear classifier: what it learns of supports, against torch's optimiser and by its rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fewseg.labels import IGNORE
from fewseg.linear import BIAS, DECAY, FINEST, classifier, classifies, lead, learnt


def features(seed: int, *, shots: int = 2, side: int = 8) -> dict[str, np.ndarray]:
    """Supports of which the fine level's first channel, and a coarser level's second, tell the object from the rest."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((shots, 4 * side, 4 * side), np.uint8)
    mask[:, side : 3 * side, side : 2 * side] = 1
    inside = mask[:, 2::4, 2::4].astype(np.float64)
    fine = rng.normal(0, 0.3, (shots, 3, side, side))
    fine[:, 0] += 2 * inside - 1
    coarse = rng.normal(0, 0.3, (shots, 4, side // 2, side // 2))
    coarse[:, 1] += 2 * inside[:, ::2, ::2] - 1
    unit = coarse / np.linalg.norm(coarse, axis=1, keepdims=True)
    arrays = {"layer3_unit": unit, FINEST: fine}
    return {name: value.astype(np.float32) for name, value in arrays.items()} | {"mask": mask}


def test_it_comes_to_the_loss_that_torch_finds():
    support = features(0)
    fine = support[FINEST] / np.linalg.norm(support[FINEST], axis=1, keepdims=True)
    maps = [torch.from_numpy(value).double() for value in (support["layer3_unit"], fine)]
    share = F.adaptive_avg_pool2d(torch.from_numpy(support["mask"])[None].double(), (8, 8))[0]

    def loss(weights: list[torch.Tensor], bias: torch.Tensor) -> torch.Tensor:
        scores = [torch.einsum("c,kchw->khw", w, m)[None] for w, m in zip(weights, maps, strict=True)]
        total = sum(F.interpolate(s, size=(8, 8), mode="bilinear", align_corners=False)[0] for s in scores) + bias
        decay = sum(w.square().sum() for w in weights) * DECAY / 2
        return F.binary_cross_entropy_with_logits(total, share) + decay

    free = [torch.zeros(n, dtype=torch.double, requires_grad=True) for n in (4, 3, 1)]
    optimiser = torch.optim.LBFGS(free, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(free[:2], free[2])
        value.backward()
        return value

    optimiser.step(closure)
    weights = classifier(support)
    found = loss([torch.from_numpy(weights[name]) for name in ("(4, 4)", FINEST)], torch.from_numpy(weights[BIAS]))
    best, nothing = float(closure().detach()), float(F.binary_cross_entropy_with_logits(torch.zeros_like(share), share))
    assert best <= float(found) + 1e-9
    assert float(found) - best < 0.05 * (nothing - best)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_it_finds_the_object_that_the_supports_show(seed, shots):
    support, query = features(seed, shots=shots), features(seed + 1, shots=1)
    mask = query.pop("mask")[0]
    found = lead({name: value[0] for name, value in query.items()}, classifier(support), (32, 32)) > 0
    assert (found & (mask == 1)).sum() / (found | (mask == 1)).sum() > 0.5


def test_what_is_void_teaches_nothing():
    support = features(3)
    levels = {name: value.astype(np.float64) for name, value in support.items() if name != "mask"}
    share, known = np.zeros((2, 8, 8)), np.ones((2, 8, 8))
    share[:, 2:5, 2:5], known[:, :, 6:] = 1, 0
    other = share + (1 - known)
    one, two = learnt(levels, share, known), learnt(levels, other, known)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value)


def test_positions_that_differ_little_teach_more_than_nothing():
    rng = np.random.default_rng(0)
    share, known = (rng.random((1, 24, 24)) < 0.25).astype(np.float64), np.ones((1, 24, 24))
    maps = rng.normal(0, 1, (1, 48, 24, 24))
    maps[:, 0] += 1.5 * share
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    weights = learnt({FINEST: maps}, share, known)

    def loss(scores: np.ndarray) -> float:
        return float((np.logaddexp(0, scores) - share * scores).mean())

    mean = share.mean()
    nothing = loss(np.full_like(share, np.log(mean / (1 - mean))))
    assert loss(np.einsum("c,kchw->khw", weights[FINEST], maps) + weights[BIAS]) < 0.8 * nothing


def test_of_a_position_that_is_void_in_part_the_rest_teaches():
    support = features(3)
    share = (support["mask"][:, 2::4, 2::4] == 1).astype(np.float64)
    support["mask"][:, 8:10] = IGNORE  # half of a row of positions, inside the object and beside it
    known = np.ones_like(share)
    known[:, 2] = 0.5
    fine = support[FINEST].astype(np.float64)
    levels = {"(4, 4)": support["layer3_unit"].astype(np.float64)}
    expected = learnt(levels | {FINEST: fine / np.linalg.norm(fine, axis=1, keepdims=True)}, share, known)
    for name, value in classifier(support).items():
        np.testing.assert_allclose(value, expected[name])


def test_photos_without_the_class_are_further_background():
    support, query = features(0), features(5, shots=1)
    without = {name: np.concatenate([value, features(5, shots=1)[name]]) for name, value in support.items()}
    without["mask"][-1] = 0
    photo = {name: value[0] for name, value in query.items() if name != "mask"}
    before, after = (lead(photo, classifier(some), (32, 32)) for some in (support, without))
    assert (after > 0).mean() < (before > 0).mean()


@pytest.mark.parametrize(
    ("method", "does"), [("linear", True), ("lite+linear", True), ("lite", False), ("bilinear", False)]
)
def test_its_names(method, does):
    assert classifies(method) == does
