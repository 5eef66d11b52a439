"""Queries without the class, and supports that are boxes, scribbles and points."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fewseg.build import create_model
from fewseg.data.sets.scenes import Scenes
from fewseg.data.weak_supports import marks_of, weak_mask
from fewseg.errors import DataWarning, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.results import Results, results_name
from fewseg.metrics.presence import false_at_recall, presence_auc
from fewseg.models.parts.ops import resize_ac
from helpers import ColorSegmenter, Fewseg


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=60, size=64)


def draw(source: Scenes, **how: Any) -> Benchmark:
    return Benchmark.draw(source, source.fold(0), **({"episodes": 20, "repeats": 1} | how))


def test_a_share_of_the_queries_lacks_the_class_and_all_others_stay(source: Scenes) -> None:
    plain, varied = draw(source, episodes=200), draw(source, episodes=200, absent=0.3)
    pairs = list(zip(plain.lists[0].specs, varied.lists[0].specs, strict=True))
    lacks = [not source.index.counts[b.query, b.class_id] for _, b in pairs]
    assert 40 <= sum(lacks) <= 80
    assert all(a == b for (a, b), lacking in zip(pairs, lacks, strict=True) if not lacking)
    assert all(a.class_id == b.class_id and b.query not in b.support for a, b in pairs)
    assert draw(source).lists[0].sha256 == draw(source, absent=0.0).lists[0].sha256
    assert "absent" not in plain.protocol.as_dict()
    assert varied.protocol.as_dict()["absent"] == 0.3
    assert "fewseg+absent0.3" in results_name(varied)


def test_a_class_that_is_everywhere_is_told_and_drawn_as_ever(source: Scenes) -> None:
    full = copy.copy(source)
    counts = source.index.counts.copy()
    counts[:, 1] += 1  # a pixel of class 1 in every image
    full.__dict__["index"] = replace(source.index, counts=counts)
    with pytest.warns(DataWarning, match=f"is known to lack {source.class_names[0]}: all queries"):
        varied = draw(full, episodes=60, absent=0.5)
    lacks = {c: [not counts[s.query, c] for s in varied.lists[0].specs if s.class_id == c] for c in (1, 2)}
    assert not any(lacks[1])
    assert any(lacks[2])


@pytest.mark.parametrize("presence", [False, True])
def test_it_is_told_whether_the_class_is_there(presence: bool, source: Scenes, tmp_path: Any) -> None:
    varied = draw(source, absent=0.5)
    results = evaluate(ColorSegmenter(64, presence=presence), varied, workers=0)
    p = results.presence
    table = results.tables[0]
    lacking = np.array([not source.index.counts[s.query, s.class_id] for s in varied.lists[0].specs])
    assert (p["by"], p["lacking"], p["holding"]) == (
        "presence" if presence else "mask",
        lacking.sum(),
        (~lacking).sum(),
    )
    assert (table[lacking, 1] == 0).all()
    assert p["marked"] == pytest.approx((table[lacking, 2] > 0).mean())
    assert 0 <= p["auc"] <= 1
    assert Results.load(results.save(tmp_path / "a.json")).presence_told == results.presence_told
    assert f"{lacking.sum()} of 20 queries lack the class" in results.presence_told[0]
    assert "AUC" in results.presence_told[1]
    few = replace(results, presence=p | {"lacking": 1, "holding": 19}).presence_told[1]
    assert ("AUC" in few, "too few queries to tell: it takes 5 with the class" in few) == (False, True)
    assert evaluate(ColorSegmenter(64), draw(source, episodes=2), workers=0).presence_told == []


@given(arrays(np.float64, 12, elements=st.integers(0, 5).map(float)), arrays(np.bool_, 12), st.floats(0.1, 1))
def test_presence_is_counted_as_a_plain_loop_does(scores: Any, present: Any, recall: float) -> None:
    holding, lacking = scores[present], scores[~present]
    if not len(holding) or not len(lacking):
        assert np.isnan(presence_auc(scores, present))
        assert np.isnan(false_at_recall(scores, present, recall))
        return
    wins = [(a > b) + 0.5 * (a == b) for a in holding for b in lacking]
    assert presence_auc(scores, present) == pytest.approx(np.mean(wins))
    threshold = max(t for t in holding if (holding >= t).mean() >= recall - 1e-9)
    assert false_at_recall(scores, present, recall) == (lacking >= threshold).mean()


@pytest.mark.parametrize("kind", ["box", "scribble", "point"])
@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 3))
def test_marks_made_from_a_mask_lie_on_it(kind: str, seed: int, parts: int) -> None:
    rng, mask = np.random.default_rng(seed), np.zeros((40, 50), bool)
    for _ in range(parts):
        top, left = rng.integers(0, 35), rng.integers(0, 45)
        mask[top : top + rng.integers(1, 20), left : left + rng.integers(1, 20)] = True
    marks = marks_of(mask, kind)
    if kind == "scribble":
        assert marks.scribble is not None
        assert (marks.scribble > 0).any()
        assert mask[marks.scribble > 0].all()
    for x, y in marks.points:
        assert mask[int(y), int(x)]
    for left, top, right, bottom in marks.boxes:
        inside = mask[int(top) : int(bottom), int(left) : int(right)]
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    photo = Image.fromarray(np.where(mask[..., None], np.uint8(200), np.uint8(40)).repeat(3, 2))
    weak = weak_mask(photo, mask.astype(np.uint8), kind)
    assert set(np.unique(weak)) <= {0, 1}
    assert (mask & (weak == 1)).any()


def test_supports_are_marked_and_truth_stays_the_mask(source: Scenes) -> None:
    plain, boxes = draw(source, episodes=5), draw(source, episodes=5, supports="box")
    assert plain.lists[0].sha256 == boxes.lists[0].sha256
    given, boxed = (one.dataset(64)[0].episode for one in (plain, boxes))
    assert torch.equal(given.query_mask, boxed.query_mask)
    assert not torch.equal(given.support_masks, boxed.support_masks)
    one, other = (evaluate(ColorSegmenter(64), drawn, workers=0) for drawn in (plain, boxes))
    assert one.miou != other.miou
    for r in (one, other):  # a pixel is in the foreground's union or in both backgrounds
        assert (r.tables[0][:, 2] + r.tables[0][:, 3]).tolist() == [
            int((source.load(s.query)[1] != 255).sum()) for s in plain.lists[0].specs
        ]


def test_what_a_protocol_cannot_take_is_refused(source: Scenes) -> None:
    with pytest.raises(UsageError, match="share of the episodes"):
        draw(source, absent=1.0)
    with pytest.raises(UsageError, match="supports"):
        draw(source, supports="circle")
    with pytest.raises(UsageError, match="takes neither absent classes, weak supports"):
        draw(source, protocol="fewseg-generalised", supports="box")


def test_two_ways_are_scored_in_one_map(source: Scenes, tmp_path: Path) -> None:
    """Against a loop: every pixel goes to the class whose foreground leads most, and the plain loop agrees."""
    benchmark = draw(source, ways=2, episodes=12)
    torch.manual_seed(0)
    model = create_model("dense", backbone="timm/test_resnet", image_size=64).eval()
    results = evaluate(model, benchmark, workers=0, batch_size=2)
    (listed,), data = benchmark.lists, benchmark.dataset(64)
    assert len(listed) == 24
    for e in range(0, 24, 2):
        labels, leads = source.load(listed.specs[e].query)[1], []
        for n in (e, e + 1):
            with torch.no_grad():
                logits = resize_ac(model(data[n].episode).logits, labels.shape)[0].numpy()
            leads.append(logits[1] - logits[0])
        told = np.where(np.max(leads, 0) > 0, 1 + np.argmax(leads, 0), 0)
        for w, spec in enumerate(listed.specs[e : e + 2], 1):
            both = ((told == w) & (labels == spec.class_id)).sum()
            either = (((told == w) | (labels == spec.class_id)) & (labels != 255)).sum()
            np.testing.assert_allclose(results.tables[0][e + w - 1][1:3], [both, either], atol=2)
    assert results.tables[0][:, 2].sum() > 0
    plain = evaluate(model, benchmark, plain=True)
    np.testing.assert_allclose(plain.tables[0], results.tables[0], atol=2)
    listed.save(tmp_path / "ways.csv")
    assert draw(source, file=tmp_path / "ways.csv", episodes=None, repeats=None, ways=2).lists == benchmark.lists
    with pytest.raises(UsageError, match="give ways=2"):
        draw(source, file=tmp_path / "ways.csv", episodes=None, repeats=None)


SMALL = ("data.images=60", "data.size=64", "model.backbone=timm/test_resnet", "model.weights=null")


@pytest.mark.slow
def test_several_references_and_ways_are_compared_and_cross_validated(fewseg: Fewseg, tmp_path: Path) -> None:
    drawn = (*SMALL, "model.image_size=64", "--episodes", 9, "--repeats", 1, "--workers", 0)
    alone = fewseg("evaluate", "dense", "scenes", *drawn, "--references", 3, "--out", tmp_path / "alone.json")
    assert alone.code == 0, alone.err
    results = Results.load(tmp_path / "alone.json")
    assert [len(results.tables[0]), len(results.independent[0])] == [27, 9]
    both = fewseg("compare", "prototype", "dense", "scenes", *drawn, "--references", 3)
    assert both.code == 0, both.err
    assert "protocol fewseg+3references" in both.out
    assert results.repeats[0].episode_sha256[:16] in both.out
    assert "dense: mIoU with the worst supports of every query" in both.out
    for how, protocol in ((("--references", 3), "fewseg+3references"), (("--ways", 2), "fewseg+2way")):
        out = tmp_path / protocol
        done = fewseg("cross-validate", "dense", "scenes", *drawn, *how, "data.fold=0", "--out", out)
        assert done.code == 0, done.err
        assert f"protocol {protocol}" in done.out
        (file,) = (out / "runs").glob(f"*/results-scenes-{protocol}-*.json")
        if how == ("--references", 3):
            assert "dense, 1-shot, fold 0: mIoU with the worst supports" in done.out
            assert Results.load(file).repeats[0].episode_sha256 == results.repeats[0].episode_sha256
    refused = fewseg("cross-validate", "hdmnet", "scenes", *drawn, "--ways", 9, "--out", tmp_path / "wide")
    assert (refused.code, "give fewer ways" in refused.err, (tmp_path / "wide").exists()) == (2, True, False)


def test_two_ways_on_the_command_line(fewseg: Fewseg, tmp_path: Path) -> None:
    words = ("dense", "scenes", *SMALL)
    how = ("--ways", 2, "--episodes", 3, "--repeats", 2, "--workers", 0, "--out", tmp_path / "two.json")
    result = fewseg("evaluate", *words, "model.image_size=64", *how)
    assert result.code == 0, result.err
    assert "protocol fewseg+2way" in result.out
    assert [r.episodes for r in Results.load(tmp_path / "two.json").repeats] == [6, 6]
    refused = fewseg("evaluate", *words, "--ways", 9)
    assert (refused.code, "give fewer ways" in refused.err) == (2, True)
