"""The pooled mIoU and FB-IoU against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fewseg.metrics import (
    FewShotIoU,
    base_confusion,
    bootstrap_interval,
    bootstrap_miou,
    class_iou,
    episode_counts,
    episode_iou,
    fb_iou,
    foreground_wins,
    miou,
    winners,
)
from fewseg.metrics.intervals import miou_interval, seeds_p_value

CLASSES = (2, 5, 9)
Drawn = tuple[NDArray[np.bool_], NDArray[np.uint8], int]


@st.composite
def episodes(draw: st.DrawFn) -> list[Drawn]:
    drawn = []
    for _ in range(draw(st.integers(0, 6))):
        shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        truth = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
        drawn.append((draw(arrays(np.bool_, shape)), truth, draw(st.sampled_from(CLASSES))))
    return drawn


def by_hand(drawn: list[Drawn]) -> dict[str, float]:
    """The definition, pixel by pixel."""
    sums: dict[tuple[int | str, str], int] = {}
    for prediction, truth, class_id in drawn:
        for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
            if t == 255:
                continue
            for key, a, b in ((class_id, p, t == 1), ("fg", p, t == 1), ("bg", not p, t == 0)):
                sums[key, "i"] = sums.get((key, "i"), 0) + int(a and b)
                sums[key, "u"] = sums.get((key, "u"), 0) + int(a or b)

    def share(key: int | str) -> float:
        return sums.get((key, "i"), 0) / max(sums.get((key, "u"), 0), 1)

    return {"miou": sum(share(c) for c in CLASSES) / len(CLASSES), "fb_iou": (share("fg") + share("bg")) / 2}


def measured(drawn: list[Drawn]) -> FewShotIoU:
    metric = FewShotIoU(CLASSES)
    for prediction, truth, class_id in drawn:
        metric.update(torch.from_numpy(prediction), torch.from_numpy(truth), class_id)
    return metric


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric FewShotIoU was called before")
@given(episodes())
def test_the_numbers_are_those_of_a_plain_loop(drawn: list[Drawn]) -> None:
    assert measured(drawn).compute() == pytest.approx(by_hand(drawn))


@given(episodes())
def test_the_table_keeps_every_episode_in_order(drawn: list[Drawn]) -> None:
    table = measured(drawn).table()
    assert table.shape == (len(drawn), 5)
    assert table[:, 0].tolist() == [class_id for _, _, class_id in drawn]
    for row, (prediction, truth, _) in zip(table, drawn, strict=True):
        valid = truth != 255
        assert row[1] == (prediction & (truth == 1)).sum()
        assert row[2] == ((prediction & valid) | (truth == 1)).sum()
        assert row[3] == (~prediction & (truth == 0)).sum()
        assert row[4] == ((~prediction & valid) | (truth == 0)).sum()


def episode(prediction: list[int], truth: list[int], class_id: int) -> Drawn:
    return np.array([prediction], bool), np.array([truth], np.uint8), class_id


def test_a_class_never_drawn_counts_zero() -> None:
    metric = measured([episode([1, 0], [1, 0], 2)])
    assert metric.compute()["miou"] == pytest.approx(1 / 3)
    assert class_iou(metric.table(), CLASSES) == {2: 1.0, 5: 0.0, 9: 0.0}


def test_a_class_is_pooled_over_pixels_not_averaged_over_its_images() -> None:
    # one pixel missed entirely, eight found: 8 / 9 pooled, 1 / 2 if averaged per image
    drawn = [episode([0], [1], 2), episode([1] * 8, [1] * 8, 2)]
    assert class_iou(measured(drawn).table(), (2,))[2] == pytest.approx(8 / 9)


def test_void_pixels_change_nothing() -> None:
    plain = episode_counts(torch.tensor([[1, 0]]), torch.tensor([[1, 1]]), 2)
    void = episode_counts(torch.tensor([[1, 0, 1, 0]]), torch.tensor([[1, 1, 255, 255]]), 2)
    assert plain.tolist() == void.tolist()


def test_the_metric_starts_anew_after_reset() -> None:
    metric = measured([episode([0, 0], [1, 0], 2)])
    metric.compute()
    metric.reset()
    assert len(metric.table()) == 0
    metric.update(torch.tensor([[True]]), torch.tensor([[1]]), 5)
    assert metric.compute()["miou"] == pytest.approx(1 / 3)


def test_the_iou_of_single_episodes() -> None:
    table = measured([episode([1, 1], [1, 0], 2), episode([0, 0], [0, 0], 2), episode([0], [255], 2)]).table()
    assert episode_iou(table).tolist() == [0.5, 1.0, 1.0]


def random_table(episodes: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    union = rng.integers(50, 100, episodes)
    intersection = rng.integers(0, union)
    return np.stack([np.resize(CLASSES, episodes), intersection, union, union, union + 10], 1)


def test_the_interval_holds_the_mean_and_repeats() -> None:
    table = random_table(60)
    low, high = bootstrap_interval(table, CLASSES)
    assert low < miou(table, CLASSES) < high
    assert (low, high) == bootstrap_interval(table, CLASSES)
    assert bootstrap_interval(table, CLASSES, level=0.5)[0] > low
    wide = bootstrap_interval(table[:12], CLASSES)
    assert wide[1] - wide[0] > high - low


def test_two_tables_are_resampled_alike_so_that_methods_can_be_paired() -> None:
    table = random_table(30)
    better = table.copy()
    better[:, 1] += 1
    assert (bootstrap_miou(better, CLASSES, draws=50) > bootstrap_miou(table, CLASSES, draws=50)).all()


def test_no_episode_at_all_is_zero() -> None:
    table = np.zeros((0, 5), np.int64)
    assert miou(table, CLASSES) == 0.0
    assert fb_iou(table) == 0.0
    assert bootstrap_interval(table, CLASSES, draws=10) == (0.0, 0.0)


@given(st.data())
def test_base_confusion_is_that_of_a_plain_loop(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    prediction = data.draw(arrays(np.uint8, shape, elements=st.integers(0, 3)))
    truth = data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255])))
    valid = truth != 255
    expected = [
        [((prediction == c) & (truth == c) & valid).sum(), (((prediction == c) | (truth == c)) & valid).sum()]
        for c in range(4)
    ]
    assert base_confusion(torch.from_numpy(prediction), torch.from_numpy(truth), 3).tolist() == expected


def test_the_fast_argmax_is_argmax_with_ties_too() -> None:
    logits = torch.randint(0, 4, (3, 16, 20, 30), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(winners(logits).long(), logits.argmax(1))
    assert torch.equal(winners(logits[0]).long(), logits[0].argmax(0))
    assert torch.equal(foreground_wins(logits[:, :2]), logits[:, :2].argmax(1) == 1)


def test_an_interval_of_miou_is_within_what_an_iou_can_be_or_said_to_be_none() -> None:
    table = random_table(60)
    assert miou_interval([table], np.array([0.5]), CLASSES) == (
        bootstrap_interval(table, CLASSES),
        "bootstrap over episodes",
    )
    one_each, kind = miou_interval([table[: len(CLASSES)]], np.array([0.5]), CLASSES)
    assert one_each is None
    assert kind == "too few episodes: 1 of a class, an interval needs 5, or several repeats"
    assert miou_interval([table, table], np.array([0.01, 0.03]), CLASSES)[0] == (0.0, pytest.approx(0.147, abs=1e-3))
    assert miou_interval([table, table], np.array([0.99, 0.97]), CLASSES)[0] == (pytest.approx(0.853, abs=1e-3), 1.0)


def test_a_test_over_seeds_is_the_paired_t_test() -> None:
    ours, theirs = [0.62, 0.60, 0.66, 0.61], [0.55, 0.58, 0.57, 0.60]
    assert seeds_p_value(ours, theirs) == pytest.approx(float(scipy.stats.ttest_rel(ours, theirs).pvalue))
    assert seeds_p_value(ours[:1], theirs[:1]) is None
    assert seeds_p_value(ours, ours) is None
