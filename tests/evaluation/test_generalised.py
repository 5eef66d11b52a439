"""Base and novel classes in one map, against a loop over pixels' labels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewseg.build import create_model
from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.sets.scenes import Scenes
from fewseg.episode import Prediction
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark, input_transform
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.generalised import evaluate_generalised, merge_labels, novel_probability
from fewseg.evaluation.results import unlike
from fewseg.models.parts.ops import resize_ac
from helpers import Toy


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="mixed", images=60, size=72)


def model_for(source: Scenes, method: str = "bam", **options: Any) -> Any:
    torch.manual_seed(0)
    classes = len(source.fold(0).base)
    return create_model(method, backbone="timm/test_resnet", base_classes=classes, image_size=64, **options).eval()


class Colours(Toy):
    """Tells classes by colour alone: many of them in every picture."""

    name = "colours"

    def __init__(self, classes: int) -> None:
        super().__init__(image_size=64)
        self.base = nn.Module()
        self.base.classifier = nn.Conv2d(3, 1 + classes, 1)
        self.novel = nn.Conv2d(3, 2, 1)
        nn.init.normal_(self.base.classifier.weight, std=10)
        nn.init.constant_(self.base.classifier.bias[0], 5.0)  # enough background for the novel class to be let in
        nn.init.normal_(self.novel.weight, std=20)

    def extract_query(self, image: Tensor) -> dict[str, Tensor]:
        return {"image": image - image.mean((2, 3), keepdim=True)}

    def embed_query(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features

    def match(self, query: Any, support: Any, *, size: Any, base_index: Any = None) -> Prediction:
        final, base = self.novel(query["image"]), self.base.classifier(query["image"])
        return Prediction(final, aux={"base": base})


def test_the_novel_class_is_put_over_or_under_the_base_classes() -> None:
    base = torch.zeros(1, 4, 1, 4)  # background and three base classes over four pixels
    base[0, [0, 2, 2, 0], 0, torch.arange(4)] = 5.0
    final = torch.zeros(1, 2, 1, 4)
    final[0, 1, 0] = torch.tensor([3.0, 3.0, 0.0, 2.0])  # softmax 0.95, 0.95, 0.5, 0.88
    foreground = novel_probability(final)[:, None]
    assert merge_labels(base, foreground).tolist() == [[[4, 4, 2, 0]]]
    assert merge_labels(base, foreground, merge="base").tolist() == [[[4, 2, 2, 0]]]
    assert merge_labels(base, foreground, tau=0.4).tolist() == [[[4, 4, 4, 4]]]
    other = torch.cat([foreground, torch.tensor([0.99, 0.1, 0.1, 0.95]).view(1, 1, 1, 4)], 1)
    assert merge_labels(base, other).tolist() == [[[5, 4, 2, 5]]]  # the surest of two


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["final", "base"])
def test_the_numbers_are_those_of_a_loop(source: Scenes, merge: Any) -> None:
    torch.manual_seed(0)
    fold, tau = source.fold(0), 0.7
    model = Colours(len(fold.base)).eval()
    protocol = get_protocol("fewseg-generalised", dataset="scenes")
    report = evaluate_generalised(
        model,
        Benchmark.draw(source, fold, protocol=protocol, episodes=30, repeats=2),
        tau=tau,
        merge=merge,
        workers=0,
    )
    for repeat in report.repeats:
        listed = sample_episodes(source, fold, protocol=protocol, seed=repeat.seed, shots=1, episodes=30)
        assert repeat.episode_sha256 == listed.sha256
        sums = {c: [0, 0] for c in (*fold.novel, *fold.base)}
        data = EpisodeDataset(
            source, fold, spec_of=lambda e, s=listed.specs: s[e], length=30, transform=input_transform(protocol, 64)
        )
        for e, spec in enumerate(listed.specs):
            labels = source.load(spec.query)[1]
            with torch.no_grad():
                found = model(data[e].episode)
            final, base = (resize_ac(x, labels.shape)[0].numpy() for x in (found.logits, found.aux["base"]))
            novel = np.exp(final[1]) / np.exp(final).sum(0) > tau
            told = base.argmax(0)
            answer = np.where(novel & ((told == 0) | (merge == "final")), -1, told)
            for c in (*fold.base, spec.class_id):
                ours = answer == (-1 if c == spec.class_id else fold.base.index(c) + 1)
                sums[c][0] += int((ours & (labels == c) & (labels != 255)).sum())
                sums[c][1] += int(((ours | (labels == c)) & (labels != 255)).sum())
        ious = {c: i / max(u, 1) for c, (i, u) in sums.items()}
        assert repeat.novel_miou == pytest.approx(np.mean([ious[c] for c in fold.novel]))
        assert repeat.base_miou == pytest.approx(np.mean([ious[c] for c in fold.base]))
        assert repeat.all_miou == pytest.approx(np.mean(list(ious.values())))
        assert repeat.class_iou == pytest.approx({source.class_names[c - 1]: iou for c, iou in ious.items()})
        assert any(sums[c][0] for c in fold.novel)
        assert sum(sums[c][0] > 0 for c in fold.base) > 2
    assert report.novel_miou == pytest.approx(np.mean([r.novel_miou for r in report.repeats]))
    low, high = report.intervals["all"]
    assert low <= report.all_miou <= high


class SelfMade(Colours):
    """Its novel classes by the supports' colours."""

    name = "self-made"

    def extract_support(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        on = (masks == 1).unsqueeze(2)
        return {"colour": (images * on).sum((-2, -1)) / on.sum((-2, -1)).clamp(min=1)}

    def embed_support(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features

    def extract_query(self, image: Tensor) -> dict[str, Tensor]:
        return {"raw": image} | super().extract_query(image)

    def match(self, query: Any, support: Any, *, size: Any, base_index: Any = None) -> Prediction:
        off = (query["raw"] - support["colour"].mean(1)[..., None, None]).abs().sum(1)
        final = torch.stack([torch.zeros_like(off), 2 - 12 * off], 1)
        return Prediction(final, aux={"base": self.base.classifier(query["image"])})


@pytest.mark.slow
def test_all_novel_classes_at_once_are_scored_as_a_loop_does(source: Scenes) -> None:
    torch.manual_seed(0)
    fold, tau = source.fold(0), 0.6
    model = SelfMade(len(fold.base)).eval()
    benchmark = Benchmark.draw(source, fold, protocol="fewseg-all-generalised", episodes=12, repeats=1)
    report = evaluate_generalised(model, benchmark, tau=tau, workers=0, batch_size=2)
    (listed,), ways = benchmark.lists, len(fold.novel)
    assert benchmark.ways == ways == 5
    data = benchmark.dataset(64)
    shown = {int(v) for spec in listed.specs for v in np.unique(source.load(spec.query)[1])}
    sums = {c: [0, 0] for c in (*fold.novel, *(c for c in fold.base if c in shown))}
    for start in range(0, len(listed), ways):
        labels, novel = source.load(listed.specs[start].query)[1], []
        for e in range(start, start + ways):
            with torch.no_grad():
                found = model(data[e].episode)
            final, base = (resize_ac(x, labels.shape)[0].numpy() for x in (found.logits, found.aux["base"]))
            novel.append(np.exp(final[1]) / np.exp(final).sum(0))
        largest = np.max(novel, axis=0)
        answer = np.where(largest > tau, -1 - np.argmax(novel, axis=0), base.argmax(0))
        values = {c: -1 - w for w, c in enumerate(fold.novel)} | {c: 1 + n for n, c in enumerate(fold.base)}
        for c, value in ((c, values[c]) for c in sums):
            sums[c][0] += int(((answer == value) & (labels == c)).sum())
            sums[c][1] += int((((answer == value) | (labels == c)) & (labels != 255)).sum())
    ious = {c: i / max(u, 1) for c, (i, u) in sums.items()}
    found_novel, found_base = (
        np.mean([iou for c, iou in ious.items() if c in group]) for group in (fold.novel, fold.base)
    )
    assert report.class_iou == pytest.approx({source.class_names[c - 1]: iou for c, iou in ious.items()}, abs=2e-3)
    assert report.harmonic_miou == pytest.approx(2 * found_novel * found_base / (found_novel + found_base), abs=2e-3)
    assert min(found_novel, found_base) > 0.001


@pytest.mark.slow
def test_the_paper_protocol_scores_the_padded_square_and_hdmnet_takes_part(source: Scenes) -> None:
    protocol = replace(get_protocol("bam-generalised", dataset="scenes"), input_size=64)
    assert (protocol.episodes, protocol.seeds) == (1000, (510, 365, 382, 322, 988))
    assert (protocol.resize, protocol.scored_at) == ("pad", "padded_square")
    report = evaluate_generalised(
        model_for(source, "hdmnet"),
        Benchmark.draw(source, source.fold(0), protocol=protocol, episodes=3, repeats=1),
        workers=0,
    )
    assert report.intervals == {}
    assert (report.tau, report.merge) == (0.9, "final")
    assert 0 <= report.all_miou <= 1


@pytest.mark.slow
def test_the_report_is_json_and_says_how_sure_the_model_ever_was(source: Scenes, tmp_path) -> None:
    report = evaluate_generalised(
        model_for(source),
        Benchmark.draw(source, source.fold(0), protocol="fewseg-generalised", episodes=3, repeats=1),
        tau=0.999,
        workers=0,
    )
    saved = json.loads(report.save(tmp_path / "r.json").read_text())
    assert saved["protocol"]["name"] == "fewseg-generalised"
    assert saved["repeats"][0]["novel_episodes"] == 0
    assert 0 < saved["repeats"][0]["largest"] < 0.999
    assert saved["repeats"][0]["novel_miou"] == 0
    assert unlike(tmp_path / "r.json", report) == tmp_path / "r.json"
    assert unlike(tmp_path / "r.json", replace(report, options={"image_size": 65})) != tmp_path / "r.json"


def test_what_cannot_be_measured_is_refused(source: Scenes) -> None:
    fold = source.fold(0)
    drawn = Benchmark.draw(source, fold, protocol="bam-generalised", episodes=1, repeats=1)
    for model in (Toy().eval(), model_for(source, "hdmnet", base_learner=False)):
        with pytest.raises(UsageError, match="labels no base classes"):
            evaluate_generalised(model, drawn)
    model = model_for(source)
    with pytest.raises(UsageError, match=r"knows .* classes, but fold 0 of scenes has 3"):
        evaluate_generalised(model, replace(drawn, fold=replace(fold, base=fold.base[:3])))
    with pytest.raises(UsageError, match="no generalised one"):
        evaluate_generalised(model, Benchmark.draw(source, fold, protocol="bam", episodes=1, repeats=1))
    wrong: Any = "both"
    with pytest.raises(UsageError, match="final or base"):
        evaluate_generalised(model, drawn, merge=wrong)
    with pytest.raises(UsageError, match=r"tau=1\.5"):
        evaluate_generalised(model, drawn, tau=1.5)
    with pytest.raises(UsageError, match="labels base classes too"):
        evaluate(model, drawn)


def test_a_list_whose_queries_lack_the_class_is_saved_and_read_again(source: Scenes, tmp_path) -> None:
    protocol = get_protocol("bam-generalised", dataset="scenes")
    listed = sample_episodes(source, source.fold(0), protocol=protocol, seed=3, shots=1, episodes=40)
    assert any(not source.index.counts[spec.query, spec.class_id] for spec in listed.specs)
    listed.save(tmp_path / "list.csv")
    assert EpisodeList.load(tmp_path / "list.csv", source) == listed
