"""Evaluation: the numbers, what they may not depend on, and the report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import Toy

from fewseg.data.episodes import EpisodeList
from fewseg.data.protocols import PROTOCOLS, EvaluationProtocol, get_protocol, is_generalised
from fewseg.data.sampling import sample_episodes
from fewseg.data.scenes import Scenes
from fewseg.data.source import Fold
from fewseg.data.transforms import Squeeze
from fewseg.engine.evaluate import Report, evaluate
from fewseg.episode import Episode
from fewseg.errors import UsageError
from fewseg.metrics import bootstrap_interval
from fewseg.models.hdmnet import HDMNet
from fewseg.models.ops import resize_ac


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=60, size=72)


@pytest.fixture(scope="module")
def fold(source: Scenes) -> Fold:
    return source.fold(0)


def toy_model(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy(image_size=64).eval()


def numbers(report: Report) -> dict[str, object]:
    kept = report.as_dict()
    del kept["seconds_per_episode"]
    return kept


def test_the_digits_depend_on_neither_workers_nor_cache(source: Scenes, fold: Fold) -> None:
    torch.manual_seed(0)
    model = HDMNet(backbone="timm/test_resnet", base_classes=15, image_size=64)
    reports = [
        evaluate(model, source, fold, episodes=6, repeats=2, shots=2, workers=workers, cache_gb=cache)
        for workers, cache in ((0, 2.0), (1, 2.0), (2, 0.0), (0, 1e-3))
    ]
    assert reports[0].meta_miou is not None
    assert reports[0].base_miou is not None
    for other in reports[1:]:
        assert numbers(other) == numbers(reports[0])
        for a, b in zip(other.tables, reports[0].tables, strict=True):
            np.testing.assert_array_equal(a, b)


def test_scoring_at_original_size_is_that_of_a_plain_loop(source: Scenes, fold: Fold) -> None:
    model, protocol = toy_model(), get_protocol("fewseg", dataset="scenes")
    report = evaluate(model, source, fold, episodes=10, repeats=1, workers=0)
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
    report = evaluate(toy_model(), source, fold, protocol=small, episodes=5, repeats=1, workers=0)
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
    report = evaluate(model, marked, fold, protocol=small, episodes=10, repeats=1, workers=0)
    assert min(report.class_iou.values()) > 0.95
    assert report.fb_iou > 0.95


class Oblong(Marked):
    """The same, the upper two thirds of every picture; wider than it is high."""

    def load(self, i: int):  # type: ignore[no-untyped-def]
        image, labels = super().load(i)
        return image.crop((0, 0, image.width, 2 * image.height // 3)), labels[: 2 * labels.shape[0] // 3]


@pytest.mark.parametrize("paper", ["bam", "pfenet"])
def test_cropping_the_padding_away_scores_a_perfect_prediction_that_the_papers_rule_does_not(
    paper: str, fold: Fold
) -> None:
    marked = Oblong(subset="test", level="simple", images=60, size=150)
    scores = {}
    for name in (paper, f"{paper}-cropped"):
        small = replace(get_protocol(name, dataset="scenes"), input_size=157)  # 8 n + 5, as 473 is
        rows = evaluate(Perfect(image_size=157).eval(), marked, fold, protocol=small, episodes=20, repeats=1, workers=0)
        scores[name] = min(v for v in rows.class_iou.values() if v > 0)
    assert scores[f"{paper}-cropped"] > 0.97
    assert scores[paper] < scores[f"{paper}-cropped"] - 0.02


def test_the_episodes_are_named_by_their_hash_and_can_be_given_as_a_file(
    source: Scenes, fold: Fold, tmp_path: Path
) -> None:
    drawn = evaluate(toy_model(), source, fold, episodes=6, repeats=1, workers=0)
    protocol = get_protocol("fewseg", dataset="scenes")
    listed = sample_episodes(source, fold, protocol=protocol, seed=0, shots=1, episodes=6)
    assert drawn.repeats[0].episode_sha256 == listed.sha256
    assert re.fullmatch("[0-9a-f]{64}", listed.sha256)
    listed.save(tmp_path / "episodes.csv")
    loaded = EpisodeList.load(tmp_path / "episodes.csv", source)
    given = evaluate(toy_model(), source, fold, episode_lists=[loaded], workers=0)
    assert given.repeats == drawn.repeats
    assert given.interval == drawn.interval


def test_the_interval_says_what_it_is(source: Scenes, fold: Fold) -> None:
    one = evaluate(toy_model(), source, fold, episodes=10, repeats=1, workers=0)
    assert one.interval_kind == "bootstrap over episodes"
    assert one.interval == bootstrap_interval(one.tables[0], fold.novel)
    three = evaluate(toy_model(), source, fold, episodes=10, repeats=3, workers=0)
    assert three.interval_kind == "Student's t over 3 repeats"
    values = np.array([r.miou for r in three.repeats])
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)  # the 97.5 % point of Student's t with 2 degrees of freedom
    assert three.miou == pytest.approx(values.mean())
    assert three.interval == pytest.approx((values.mean() - half, values.mean() + half))
    assert len({r.episode_sha256 for r in three.repeats}) == 3
    assert three.repeats[0] == one.repeats[0]


@pytest.mark.parametrize("repeats", [0, 6, -1])
def test_more_repeats_than_the_protocol_has_seeds(repeats: int, source: Scenes, fold: Fold) -> None:
    with pytest.raises(UsageError, match="give 1 to 5 repeats"):
        evaluate(toy_model(), source, fold, repeats=repeats, episodes=2, workers=0)


def test_an_unknown_protocol(source: Scenes, fold: Fold) -> None:
    with pytest.raises(UsageError, match="unknown protocol 'hdment'; choose fewseg, hdmnet"):
        evaluate(toy_model(), source, fold, protocol="hdment", workers=0)


def test_the_report_is_a_json_file_with_all_that_is_needed_to_repeat_it(
    source: Scenes, fold: Fold, tmp_path: Path
) -> None:
    model = toy_model()
    report = evaluate(model, source, fold, episodes=5, repeats=2, workers=0, checkpoint={"sha256": "abc"})
    saved = json.loads(report.save(tmp_path / "deep" / "report.json").read_text())
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


def test_evaluation_leaves_the_model_in_evaluation_mode_and_unchanged(source: Scenes, fold: Fold) -> None:
    model = toy_model().train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    first = evaluate(model, source, fold, episodes=5, repeats=1, workers=0)
    assert not model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert numbers(evaluate(model, source, fold, episodes=5, repeats=1, workers=0)) == numbers(first)


def test_a_protocol_of_one_s_own(source: Scenes, fold: Fold) -> None:
    own: EvaluationProtocol = replace(get_protocol("fewseg", dataset="scenes"), name="own", seeds=(7, 8), episodes=4)
    report = evaluate(toy_model(), source, fold, protocol=own, workers=0)
    assert [(r.seed, r.episodes) for r in report.repeats] == [(7, 4), (8, 4)]
