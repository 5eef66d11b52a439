"""Evaluation: the numbers, what they may not depend on, and the results."""

from __future__ import annotations

import copy
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewseg.build import create_model
from fewseg.data.episodes.protocols import PROTOCOLS, EvaluationProtocol, get_protocol, is_generalised
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.sets.scenes import Scenes
from fewseg.data.source import Fold
from fewseg.data.transforms import Squeeze
from fewseg.episode import Episode
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.compare import Entry, describe
from fewseg.evaluation.evaluate import base_miou, count_episodes, evaluate
from fewseg.evaluation.feed import Feed
from fewseg.evaluation.results import Results
from fewseg.features.cache import FeatureCache
from fewseg.features.overflow import FeatureFile
from fewseg.metrics import bootstrap_interval
from fewseg.models.parts.ops import resize_ac
from fewseg.report.comparison import comparison_page
from fewseg.report.html import render
from helpers import CountedLoads, Counting, Toy


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=60, size=72)


@pytest.fixture(scope="module")
def fold(source: Scenes) -> Fold:
    return source.fold(0)


def toy_model(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy(image_size=64).eval()


def numbers(report: Results) -> dict[str, object]:
    kept = report.as_dict()
    del kept["seconds_per_episode"]
    return kept


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


WAYS: dict[str, dict[str, Any]] = {
    "a worker": {"workers": 1},
    "nothing kept": {"workers": 2, "cache_gb": 0.0},
    "all in the file": {"cache_gb": 1e-6},
    "some in the file": {"cache_gb": 4e-4},
    "memory for some, no file": {"cache_gb": 4e-4, "file_gb": 0.0},
    "two lanes": {"threads": 2, "workers": 1},
    "two lanes, all in the file": {"threads": 2, "cache_gb": 1e-6},
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("hdmnet", "hsnet")]


@pytest.mark.parametrize("name", [*SLOW, "dense"])
@pytest.mark.slow
def test_the_digits_depend_on_neither_workers_nor_cache_nor_lanes(name: str, source: Scenes, fold: Fold) -> None:
    torch.manual_seed(0)
    model = create_model(name, backbone="timm/test_resnet", base_classes=15, image_size=64)
    benchmark = Benchmark.draw(source, fold, shots=2, episodes=8, repeats=2)

    def report(threads: int = 1, **options: Any) -> Results:
        torch.set_num_threads(threads)
        return evaluate(model, benchmark, **({"workers": 0} | options))

    with threads(1):
        first = report()
        assert (first.meta_miou is not None) == (first.base_miou is not None) == (name == "hdmnet")
        for way, options in WAYS.items():
            if name == "hdmnet" or "lanes" not in way:
                other = report(**options)
                assert numbers(other) == numbers(first), way
                for a, b in zip(other.tables, first.tables, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["hdmnet", "bam", "hsnet", "prototype"])
@pytest.mark.slow
def test_batches_give_the_printed_digits(name: str, source: Scenes, fold: Fold) -> None:
    torch.manual_seed(0)
    model = create_model(name, backbone="timm/test_resnet", base_classes=15, image_size=64)
    benchmark = Benchmark.draw(source, fold, shots=2, episodes=10, repeats=1)
    one, three = (evaluate(model, benchmark, workers=0, batch_size=size) for size in (1, 3))
    assert f"{100 * one.miou:.2f} {100 * one.fb_iou:.2f}" == f"{100 * three.miou:.2f} {100 * three.fb_iou:.2f}"
    # a pixel on the edge may fall to the other side
    np.testing.assert_allclose(one.tables[0], three.tables[0], atol=2)


@pytest.mark.parametrize("protocol", ["fewseg", "bam", "hsnet"])
def test_the_plain_loop_counts_what_the_scheduled_evaluation_counts(
    protocol: str, source: Scenes, fold: Fold, tmp_path: Path
) -> None:
    rules = replace(get_protocol(protocol, dataset="scenes"), input_size=64, seeds=(0, 1))
    benchmark = Benchmark.draw(source, fold, protocol=rules, shots=2, episodes=8, supports="box")
    model = create_model("dense", backbone="timm/test_resnet", image_size=64)
    scheduled, plain = (evaluate(model, benchmark, workers=0, plain=p, masks=tmp_path / str(p)) for p in (False, True))
    assert (
        f"{100 * plain.miou:.2f} {100 * plain.fb_iou:.2f}" == f"{100 * scheduled.miou:.2f} {100 * scheduled.fb_iou:.2f}"
    )
    for ours, theirs in zip(plain.tables, scheduled.tables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2)  # a pixel on the edge may fall to the other side
    assert [f.name for f in sorted((tmp_path / "True").iterdir())] == [
        f.name for f in sorted((tmp_path / "False").iterdir())
    ]


@pytest.mark.slow
def test_the_plain_loop_has_base_and_meta_learner_too(source: Scenes, fold: Fold) -> None:
    torch.manual_seed(0)
    model = create_model("bam", backbone="timm/test_resnet", base_classes=15, image_size=64)
    benchmark = Benchmark.draw(source, fold, episodes=6, repeats=1)
    scheduled, plain = (evaluate(model, benchmark, workers=0, plain=p) for p in (False, True))
    for part in ("miou", "meta_miou", "base_miou", "fb_iou"):
        assert getattr(plain, part) == pytest.approx(getattr(scheduled, part), abs=1e-4), part


def test_every_image_is_read_and_encoded_once_over_all_repeats(fold: Fold) -> None:
    source, model = CountedLoads(subset="test", level="simple", images=60, size=72), Counting().eval()
    benchmark, cache = Benchmark.draw(source, fold, shots=2, episodes=30, repeats=2), FeatureCache(model)
    count_episodes(cache, benchmark, workers=0)
    specs = [spec for listed in benchmark.lists for spec in listed.specs]
    queries = {spec.query for spec in specs}
    supports = {(i, spec.class_id) for spec in specs for i in spec.support}
    assert model.encoded == [len(queries), len(supports)]
    assert len(queries) < len(specs)
    assert len(supports) < 2 * len(specs)
    # of a simple scene's one class: a picture is read as a query and as a support, at most
    assert source.loads <= len(queries) + len(supports)
    loads = source.loads
    again = count_episodes(cache, replace(benchmark, lists=benchmark.lists[:1]), workers=0)
    assert (model.encoded, source.loads) == ([len(queries), len(supports)], loads)
    assert len(again[0].table) == len(benchmark.lists[0])


@pytest.mark.parametrize("gigabytes", [2.0, 0.0])
def test_what_a_step_lacks_is_encoded_as_a_batch(gigabytes: float, source: Scenes, fold: Fold) -> None:
    """As on a GPU; there test_episodes_in_batches_are_scored_the_same says the rest."""
    benchmark, model = Benchmark.draw(source, fold, shots=2, episodes=30, repeats=1), Counting()
    models = model, copy.deepcopy(model)
    one_by_one, at_once = (Feed(FeatureCache(m.eval(), gigabytes=gigabytes), benchmark, batch_size=6) for m in models)
    at_once.at_once = True
    with torch.inference_mode():
        for ours, theirs in zip(at_once.load(workers=0), one_by_one.load(workers=0), strict=True):
            found, expected = at_once.features(ours), one_by_one.features(theirs)
            assert found[0].keys() == expected[0].keys()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            at_once.done(ours)
            one_by_one.done(theirs)
    steps = len(at_once.steps)
    assert models[1].encoded[0] <= steps
    assert models[1].encoded[1] <= 2 * steps
    assert sum(models[0].encoded) >= 3 * sum(models[1].encoded)


def test_one_cache_serves_protocols_of_different_inputs(source: Scenes, fold: Fold) -> None:
    benchmark, model = Benchmark.draw(source, fold, episodes=6, repeats=1), toy_model()
    shared = FeatureCache(model)
    for name in ("fewseg", "bam", "hsnet"):
        protocol = get_protocol(name, dataset="scenes")
        protocol = replace(protocol, input_size=None if protocol.input_size is None else 64)
        with_shared, with_own = (
            count_episodes(cache, replace(benchmark, protocol=protocol), workers=0)[0].table
            for cache in (shared, FeatureCache(model))
        )
        np.testing.assert_array_equal(with_shared, with_own)


class Failing(Toy):
    """Fails at the fifth match."""

    matches = 0

    def match(self, *arguments: Any, **options: Any) -> Any:
        self.matches += 1
        if self.matches == 5:
            raise ZeroDivisionError("on purpose")
        return super().match(*arguments, **options)


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_error_ends_the_workers_and_leaves_no_file(
    lanes: int, source: Scenes, fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewseg.features.cache.FeatureFile", partial(FeatureFile, folder=tmp_path))
    cache = FeatureCache(Failing(image_size=64).eval(), gigabytes=1e-6)
    benchmark = Benchmark.draw(source, fold, episodes=30, repeats=1)
    with threads(lanes):
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            count_episodes(cache, benchmark, workers=1)
        assert torch.get_num_threads() == lanes
    assert not list(tmp_path.iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_scoring_at_original_size_is_that_of_a_plain_loop(source: Scenes, fold: Fold) -> None:
    model, protocol = toy_model(), get_protocol("fewseg", dataset="scenes")
    report = evaluate(model, Benchmark.draw(source, fold, episodes=10, repeats=1), workers=0)
    listed = sample_episodes(source, fold, protocol=protocol, seed=report.repeats[0].seed, shots=1, episodes=10)
    squeeze, sums = Squeeze(64), {c: [0, 0] for c in fold.novel}
    for spec, row in zip(listed.specs, report.tables[0], strict=True):
        images, masks = [], []
        for i in (spec.query, *spec.support):
            image, labels = source.load(i)
            mask = np.where(labels == 255, 255, labels == spec.class_id).astype(np.uint8)
            pixels, maps = squeeze(image, mask[None])
            images.append(pixels)
            masks.append((mask, maps[0]))
        episode = Episode(
            images[0][None], images[1][None, None], masks[1][1][None, None], torch.tensor([1]), torch.tensor([-1])
        )
        with torch.no_grad():
            found = resize_ac(model(episode).logits, masks[0][0].shape).argmax(1)[0].numpy() == 1
        truth = masks[0][0]
        intersection = ((truth == 1) & found).sum()
        union = (((truth == 1) | found) & (truth != 255)).sum()
        assert row[:3].tolist() == [spec.class_id, intersection, union]
        sums[spec.class_id][0] += intersection
        sums[spec.class_id][1] += union
    assert report.miou == pytest.approx(np.mean([i / max(u, 1) for i, u in sums.values()]))
    names = [source.class_names[c - 1] for c in fold.novel]
    assert report.class_iou == pytest.approx(dict(zip(names, [i / max(u, 1) for i, u in sums.values()], strict=True)))


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if not is_generalised(name)])
def test_every_protocol_runs(name: str, source: Scenes, fold: Fold) -> None:
    protocol = get_protocol(name, dataset="scenes")
    small = replace(protocol, input_size=None if protocol.input_size is None else 64)
    report = evaluate(toy_model(), Benchmark.draw(source, fold, protocol=small, episodes=5, repeats=1), workers=0)
    assert report.protocol["name"] == name
    assert (report.image_size, len(report.tables[0])) == (64, 5)
    assert 0 <= report.miou <= 1
    side = {"original": 72, "cropped": 72, "input": 64, "padded_square": 72}[protocol.scored_at]
    valid = report.tables[0][:, 2] + report.tables[0][:, 3]  # foreground's union and what is background in both
    assert (valid <= side**2).all()
    assert (valid > 0.5 * side**2).all()


class Perfect(Toy):
    """Knows the truth: blue marks the object in `Marked`."""

    name = "perfect"

    def match(self, query, support, *, size, base_index=None):  # type: ignore[no-untyped-def]
        from fewseg.episode import Prediction

        return Prediction(torch.cat([0.5 - query["image"][:, 2:], query["image"][:, 2:] - 0.5], 1))

    def encode_query(self, image):  # type: ignore[no-untyped-def]
        return {"image": image}


class Marked(Scenes):
    """Scenes whose novel things are blue on black."""

    def load(self, i: int):  # type: ignore[no-untyped-def]
        from PIL import Image

        labels = self.labels(i)
        marked = np.zeros((*labels.shape, 3), np.uint8)
        marked[np.isin(labels, self.fold(0).novel), 2] = 255
        return Image.fromarray(marked), labels


@pytest.mark.parametrize("name", ["hdmnet", "hsnet", "fewseg"])
def test_a_perfect_prediction_scores_nearly_all(name: str, fold: Fold) -> None:
    marked = Marked(subset="test", level="simple", images=60, size=96)
    protocol = get_protocol(name, dataset="scenes")
    small = replace(protocol, input_size=None if protocol.input_size is None else 96)
    model = Perfect(image_size=96).eval()
    report = evaluate(model, Benchmark.draw(marked, fold, protocol=small, episodes=10, repeats=1), workers=0)
    assert min(report.class_iou.values()) > 0.95
    assert report.fb_iou > 0.95


class Oblong(Marked):
    """The same, the upper two thirds of every picture; wider than it is high."""

    def load(self, i: int):  # type: ignore[no-untyped-def]
        image, labels = super().load(i)
        return image.crop((0, 0, image.width, 2 * image.height // 3)), labels[: 2 * labels.shape[0] // 3]


@pytest.mark.parametrize("paper", ["bam", "pfenet"])
@pytest.mark.slow
def test_cropping_the_padding_away_scores_a_perfect_prediction_that_the_papers_rule_does_not(
    paper: str, fold: Fold
) -> None:
    marked = Oblong(subset="test", level="simple", images=60, size=150)
    scores = {}
    for name in (paper, f"{paper}-cropped"):
        small = replace(get_protocol(name, dataset="scenes"), input_size=157)  # 8 n + 5, as 473 is
        rows = evaluate(
            Perfect(image_size=157).eval(),
            Benchmark.draw(marked, fold, protocol=small, episodes=20, repeats=1),
            workers=0,
        )
        scores[name] = min(v for v in rows.class_iou.values() if v > 0)
    assert scores[f"{paper}-cropped"] > 0.97
    assert scores[paper] < scores[f"{paper}-cropped"] - 0.02


def test_the_episodes_are_named_by_their_hash_and_can_be_given_as_a_file(
    source: Scenes, fold: Fold, tmp_path: Path
) -> None:
    drawn = evaluate(toy_model(), Benchmark.draw(source, fold, episodes=6, repeats=1), workers=0)
    protocol = get_protocol("fewseg", dataset="scenes")
    listed = sample_episodes(source, fold, protocol=protocol, seed=0, shots=1, episodes=6)
    assert drawn.repeats[0].episode_sha256 == listed.sha256
    assert re.fullmatch("[0-9a-f]{64}", listed.sha256)
    listed.save(tmp_path / "episodes.csv")
    given = evaluate(toy_model(), Benchmark.draw(source, fold, file=tmp_path / "episodes.csv"), workers=0)
    assert given.repeats == drawn.repeats
    assert given.interval == drawn.interval


def test_the_interval_says_what_it_is(source: Scenes, fold: Fold) -> None:
    one = evaluate(toy_model(), Benchmark.draw(source, fold, episodes=10, repeats=1), workers=0)
    assert one.interval is None
    assert one.interval_kind == "too few episodes: 2 of a class, an interval needs 5, or several repeats"
    many = evaluate(toy_model(), Benchmark.draw(source, fold, episodes=25, repeats=1), workers=0)
    assert many.interval_kind == "bootstrap over episodes"
    assert many.interval == bootstrap_interval(many.tables[0], fold.novel)
    three = evaluate(toy_model(), Benchmark.draw(source, fold, episodes=10, repeats=3), workers=0)
    assert three.interval_kind == "Student's t over 3 repeats"
    values = np.array([r.miou for r in three.repeats])
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)  # the 97.5 % point of Student's t with 2 degrees of freedom
    assert three.miou == pytest.approx(values.mean())
    assert three.interval == pytest.approx((max(0, values.mean() - half), min(1, values.mean() + half)))
    assert len({r.episode_sha256 for r in three.repeats}) == 3
    assert three.repeats[0] == one.repeats[0]


@pytest.mark.parametrize("repeats", [0, 6, -1])
def test_more_repeats_than_the_protocol_has_seeds(repeats: int, source: Scenes, fold: Fold) -> None:
    with pytest.raises(UsageError, match="give 1 to 5 repeats"):
        Benchmark.draw(source, fold, repeats=repeats, episodes=2)


def test_an_unknown_protocol(source: Scenes, fold: Fold) -> None:
    with pytest.raises(UsageError, match="unknown protocol 'hdment'; choose fewseg, whole, hdmnet"):
        Benchmark.draw(source, fold, protocol="hdment")


def test_the_results_are_a_json_file_with_all_that_is_needed_to_repeat_it(
    source: Scenes, fold: Fold, tmp_path: Path
) -> None:
    model = toy_model()
    report = evaluate(model, Benchmark.draw(source, fold, episodes=5, repeats=2), workers=0, weights={"sha256": "abc"})
    saved = json.loads(report.save(tmp_path / "deep" / "results.json").read_text())
    assert saved.pop("rows")["file"] == "results.csv"
    assert saved == json.loads(json.dumps(report.as_dict()))
    assert saved["miou"] == report.miou
    assert saved["fold"]["novel_names"] == [source.class_names[c - 1] for c in fold.novel]
    assert saved["protocol"]["scored_at"] == "original"
    assert saved["checkpoint"] == {"sha256": "abc"}
    assert [r["seed"] for r in saved["repeats"]] == [0, 1]
    assert {"torch", "fewseg", "python"} <= saved["versions"].keys()
    assert saved["parameters"] == {
        "all": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in (*model.embed.parameters(), *model.head.parameters())),
    }


@pytest.mark.parametrize("name", ["fewseg", "hdmnet"])
def test_classes_without_episodes_are_left_out_or_zero_by_the_protocol_and_named(
    name: str, source: Scenes, fold: Fold
) -> None:
    """Two episodes draw two of five classes at most."""
    protocol = replace(get_protocol(name, dataset="scenes"), input_size=None)
    benchmark = Benchmark.draw(source, fold, protocol=protocol, episodes=2, repeats=1)
    report = evaluate(Toy(image_size=64).eval(), benchmark, workers=0)
    drawn = {spec.class_id for spec in benchmark.lists[0].specs}
    names = [source.class_names[c - 1] for c in fold.novel]
    assert report.not_drawn == [n for c, n in zip(fold.novel, names, strict=True) if c not in drawn]
    own = [float(report.tables[0][row, 1] / report.tables[0][row, 2]) for row in range(2)]
    assert report.miou == pytest.approx(sum(own) / (2 if name == "fewseg" else 5))
    assert set(report.class_iou) == (set(names) - set(report.not_drawn) if name == "fewseg" else set(names))
    assert report.interval is None
    rule = "left out of the mean" if name == "fewseg" else "IoU 0 in the mean, as hdmnet has it"
    assert report.left_out == f"not drawn, {rule}: {', '.join(report.not_drawn)}"
    assert report.as_dict()["not_drawn"] == report.not_drawn
    entry = Entry("toy", report, None, None)
    page = comparison_page([entry])
    assert ("left out", report.left_out) in page.facts
    assert report.left_out in render(page)
    assert report.left_out in describe([entry])
    told = [scores.iou for scores in page.per_class if scores.name in report.not_drawn]
    assert all(math.isnan(iou) if name == "fewseg" else iou == 0 for iou in told)


def test_base_classes_without_truth_are_left_out_of_their_mean() -> None:
    pooled = np.array([[900, 950, 920], [30, 60, 40], [0, 10, 0], [20, 25, 25]])  # the second is predicted alone
    assert base_miou(pooled) == pytest.approx((30 / 60 + 20 / 25) / 2)


def test_evaluation_leaves_the_model_in_evaluation_mode_and_unchanged(source: Scenes, fold: Fold) -> None:
    model = toy_model().train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    first = evaluate(model, Benchmark.draw(source, fold, episodes=5, repeats=1), workers=0)
    assert not model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert numbers(evaluate(model, Benchmark.draw(source, fold, episodes=5, repeats=1), workers=0)) == numbers(first)


def test_a_protocol_of_one_s_own(source: Scenes, fold: Fold) -> None:
    own: EvaluationProtocol = replace(get_protocol("fewseg", dataset="scenes"), name="own", seeds=(7, 8), episodes=4)
    report = evaluate(toy_model(), Benchmark.draw(source, fold, protocol=own), workers=0)
    assert [(r.seed, r.episodes) for r in report.repeats] == [(7, 4), (8, 4)]
