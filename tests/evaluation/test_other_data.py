"""A model on another data set than its own: what is taken from where, what it has seen, whose base classes they are."""

from __future__ import annotations

import csv
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import trees
from fewseg.build import create_model
from fewseg.config import load_config
from fewseg.data.class_names import matched_names
from fewseg.data.sets.pascal5i import Pascal5i
from fewseg.data.source import Fold
from fewseg.errors import DataWarning, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.compare import Entry
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.generalised import evaluate_generalised
from fewseg.evaluation.results import Results
from fewseg.evaluation.scoring import matched_logits
from fewseg.report.comparison import comparison_page
from fewseg.storage.learnt import Learnt, learnt_of
from fewseg.storage.opening import open_target
from fewseg.storage.saved import read_record, save_model
from fewseg.training.loop import train
from helpers import TINY, Fewseg, Toy, toy_config

HERE = ("Sofa", "zebra", "dining_table", "kite")
"""Class ids 1 to 4 of the other data."""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos, each of two of the classes."""
    root = tmp_path_factory.mktemp("other")
    for n in range(8):
        labels = trees.label_map({1 + n % 4: 700, 1 + (n + 1) % 4: 900})
        trees.write_png(labels, root / "labels" / f"{n}.png")
        trees.write_jpg(labels, root / "images" / f"{n}.jpg")
    (root / "classes.txt").write_text("\n".join(HERE))
    return root


def saved_bam(folder: Path, names: list[str] | None) -> str:
    """BAM of three base classes of COCO, with or without their names."""
    torch.manual_seed(0)
    model = create_model("bam", backbone="timm/test_resnet", base_classes=3, image_size=64)
    info: dict[str, Any] = {"fold": asdict(Fold(2, (4,), (1, 2, 3))), "data": {"name": "coco20i"}}
    return str(save_model(model, folder, info | ({} if names is None else {"base_names": names})))


def benchmark(target: str, root: Path, *words: str, **choices: Any) -> tuple[Any, Benchmark]:
    opened = open_target(target, ["folder", f"data.root={root}", "data.fold_seed=null", *words])
    return opened, Benchmark.of(opened, **({"episodes": 4, "repeats": 1} | choices))


@pytest.mark.parametrize("way", [["folder"], ["data.name=folder"]])
def test_a_run_is_evaluated_on_the_data_that_the_command_names(
    way: list[str], other: Path, toy: type[Toy], fewseg: Fewseg, tmp_path: Path
) -> None:
    run = train(toy_config("data.fold=2"), tmp_path / "run")
    done = fewseg("evaluate", run, *way, f"data.root={other}", "--episodes=4", "--repeats=1", "--workers=0")
    assert done.code == 0, done.err
    assert "folder fold 0" in done.out
    assert f"measured on folder: data.root={other}" in done.out.replace("\n", "")
    assert "trained on scenes, fold 2" in done.out
    assert "the test class was not seen in training, by its name" in done.out


def test_a_fold_of_one_data_set_is_none_of_another(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {name: scenes, fold: 2, shots: 5, level: simple}")
    (tmp_path / "part.yaml").write_text("data: {fold: 2}")
    for words in (["folder"], ["data.name=folder"]):
        data = load_config(str(tmp_path / "run.yaml"), *words).data
        assert (data.name, data.fold, data.shots) == ("folder", 0, 5)
    assert load_config(str(tmp_path / "run.yaml"), "folder", "data.fold=1").data.fold == 1
    assert load_config(str(tmp_path / "part.yaml"), "folder").data.fold == 2
    assert load_config(str(tmp_path / "run.yaml"), "data.name=scenes").data.options["level"] == "simple"


def test_test_classes_that_were_trained_on_are_marked(other: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    info = {"fold": asdict(Fold(0, (3,), (1, 2))), "data": {"name": "mix"}, "base_names": ["couch", "Dining Table"]}
    opened, drawn = benchmark(
        "prototype", other, "data.folds=1", "model.backbone=timm/test_resnet", "model.weights=null"
    )
    assert evaluate(opened.model, drawn, workers=0).origin == []  # nothing was trained
    drawn = replace(drawn, learnt=learnt_of(info))
    results = evaluate(opened.model, drawn, workers=0)
    assert results.seen == ["Sofa", "dining_table"]
    unseen = [results.class_iou[name] for name in ("zebra", "kite")]
    assert results.unseen_miou == pytest.approx(np.mean(unseen))
    assert results.origin[0] == "trained on mix, fold 0 (2 classes): couch, Dining Table"
    assert results.origin[1] == "2 of 4 test classes were seen in training, by their names: Sofa, dining_table"
    assert Results.load(results.save(tmp_path / "a.json")).origin == results.origin
    without = learnt_of(info | {"without_images": ["Dining Table"]})
    assert without is not None
    assert (without.as_dict()["classes"], without.seen(["Sofa", "dining_table"])) == (["couch"], ["Sofa"])
    page = comparison_page([Entry("prototype", results, None, None)])
    assert [s.name for s in page.per_class if "seen" in s.name] == [
        "Sofa (seen in training)",
        "dining_table (seen in training)",
    ]
    assert ("training", "; ".join(results.origin)) in page.facts


def test_a_comparison_says_of_every_row_which_test_classes_it_has_seen(
    other: Path, fewseg: Fewseg, tmp_path: Path
) -> None:
    leaked = {"fold": asdict(Fold(0, (), (1, 2))), "data": {"name": "mix"}, "base_names": ["couch", "Dining Table"]}
    own = {"fold": asdict(Fold(1, (2,), (1,))), "data": {"name": "fss1000"}, "base_names": ["abacus"]}
    model = create_model("dense", backbone="timm/test_resnet", image_size=64)
    names = {"prototype": "prototype"} | {
        name: str(save_model(model, tmp_path / name, info))
        for name, info in (("leaked", leaked), ("own", own), ("silent", {}))
    }
    words = [*names.values(), "folder", f"data.root={other}", "data.fold_seed=null", "data.folds=1", *TINY[:2]]
    outs = [tmp_path / f"t.{ending}" for ending in ("csv", "tex", "html")]
    done = fewseg("compare", *words, "--episodes=4", "--repeats=1", "--workers=0", *(f"--out={out}" for out in outs))
    assert done.code == 0, done.err
    assert re.search(r"note: test classes were seen in training.*: dense \(.*leaked\) \(2 of 4\)\n", done.err)
    text, latex, html = (out.read_text() for out in outs)
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["seen"], row["test_classes"], row["trained_on"]) for row in rows] == [
        ("0", "4", ""),
        ("2", "4", "mix, all 2 classes"),
        ("0", "4", "fss1000, fold 1 (1 class)"),
        ("", "4", "not recorded"),
    ]
    assert [row["seen_classes"] for row in rows] == ["", "Sofa; dining_table", "", ""]
    assert [bool(row["unseen mIoU"]) for row in rows] == [False, True, False, False]
    assert re.findall(r"& (\d of 4|not known) &", latex) == ["0 of 4", "2 of 4", "0 of 4", "not known"]
    for seen in ("2 of 4", "not known", f"mIoU of the 2 unseen classes {rows[1]['unseen mIoU']}", "fss1000, fold 1"):
        assert seen in " ".join(done.out.split())
    compared, by_class = (
        html[html.index(f'id="{part}"') :].split("</section>")[0] for part in ("comparison", "classes")
    )
    for told in ("trained on mix, all 2 classes; 2 of 4 test classes were seen", "none of the 4 test classes was seen"):
        assert html.split("<main>")[0].count(told) == compared.count(told) == 1
    assert "what the model was trained on is not recorded" in compared
    assert re.findall(r"(\w+) \(seen in training by dense \(.*leaked\)\)", by_class) == ["Sofa", "dining_table"]


def test_cells_of_seen_classes_are_marked_where_there_are_many_rows(other: Path) -> None:
    opened, drawn = benchmark("prototype", other, "data.folds=1", *TINY)
    results = evaluate(opened.model, drawn, workers=0)
    seen = replace(results, trained_on={"data": "mix", "fold": None, "classes": ["kite"]}, seen=["kite"])
    page = comparison_page([Entry(f"m{n}", seen if n == 4 else results, None, None) for n in range(5)])
    marked = [(row[0], n) for row in page.sections[0].rows for n, cell in enumerate(row[1:]) if cell.endswith("*")]
    assert marked == [("kite", 4)]
    assert "*: the class was seen in training" in page.sections[0].text


def test_another_image_size_than_that_of_the_training_is_told(other: Path, tmp_path: Path) -> None:
    info = {"fold": asdict(Fold(0, (2,), (1,))), "data": {"name": "mix"}, "base_names": ["giraffe"]}
    saved = str(save_model(create_model("dense", backbone="timm/test_resnet", image_size=96), tmp_path / "m", info))
    opened, drawn = benchmark(saved, other, "model.image_size=64")
    results = evaluate(opened.model, drawn, workers=0)
    assert "trained at 96 px, measured at 64 px" in results.origin
    entry = Entry("m", results, None, None)
    assert (entry.cells()[2], entry.cells()[2].plain) == ("64 (trained: 96)", 64)  # type: ignore[attr-defined]
    copied = save_model(opened.model, tmp_path / "copied")  # what it was trained at goes with it
    opened, drawn = benchmark(str(copied), other)
    assert "trained at 96 px, measured at 64 px" in evaluate(opened.model, drawn, workers=0).origin
    opened, drawn = benchmark(saved, other)
    assert not any("measured at" in told for told in evaluate(opened.model, drawn, workers=0).origin)


def test_what_the_shipped_model_was_trained_on_is_known() -> None:
    former, learnt = (learnt_of(read_record(name)["info"]) for name in ("lite@1", "lite"))
    assert former is not None
    assert learnt is not None
    assert former.base == Pascal5i.class_names
    assert former.seen(["airplane", "tree", "Potted Plant", "tv"]) == ["airplane", "Potted Plant", "tv"]
    assert learnt.seen([*Pascal5i.class_names, "zeppelin", "jacket"]) == [*Pascal5i.class_names, "jacket"]


@pytest.mark.slow
def test_what_a_model_started_from_counts_as_seen(toy: type[Toy], tmp_path: Path) -> None:
    first = train(toy_config("data.fold=1"), tmp_path / "first")
    second = train(toy_config("data.fold=1", "data.level=mixed", f"train.init={first}"), tmp_path / "second")
    found = learnt_of(read_record(second)["info"])
    assert found is not None
    assert found.before == found.base
    unknown = learnt_of({"fold": {"index": 0, "base": [1], "novel": [2], "held_out": []}, "data": {"name": "folder"}})
    assert unknown is not None
    assert unknown.seen(["cow"]) is None
    assert Learnt("folder", 0, ("cow",), None).seen(["cow"]) is None


def test_names_are_matched_by_the_table_of_mix() -> None:
    assert matched_names(["aeroplane", "Cow", "class_1"], ["airplane", "cow", "class_1"]) == {
        "aeroplane": "airplane",
        "Cow": "cow",
    }


def test_a_base_learner_of_other_classes_is_matched_by_name(other: Path, tmp_path: Path) -> None:
    opened, drawn = benchmark(saved_bam(tmp_path / "bam", ["kite", "giraffe", "couch"]), other, "data.fold=1")
    assert drawn.fold.base == (1, 4)  # sofa and kite
    assert drawn.matching is not None
    assert drawn.matching.channels == (3, 1)
    results = evaluate(opened.model, drawn, workers=0)
    assert results.base_miou is not None
    told = "\n".join(results.origin)
    assert "2 of its classes are base classes here, by name: couch = Sofa, kite" in told
    assert "1 of its classes are none, and count as background: giraffe" in told
    assert "base classes that it does not know, which count as background: dining_table" in told
    _, drawn = benchmark(
        saved_bam(tmp_path / "bam", ["kite", "giraffe", "couch"]), other, protocol="fewseg-generalised"
    )
    assert evaluate_generalised(opened.model, drawn, workers=0).base_miou >= 0


def test_a_base_learner_without_names_is_told_or_refused(other: Path, tmp_path: Path) -> None:
    target = saved_bam(tmp_path / "bam", None)
    with pytest.warns(DataWarning, match="its i-th class is taken for the i-th base class"):
        benchmark(target, other)  # three base classes both
    with pytest.raises(UsageError, match="nothing tells the names to match"):
        benchmark(target, other, "data.folds=2")


def test_a_base_learner_that_knows_no_class_by_name(other: Path, tmp_path: Path) -> None:
    opened, drawn = benchmark(saved_bam(tmp_path / "bam", ["a", "b", "c"]), other)
    assert evaluate(opened.model, drawn, workers=0).base_miou is None
    _, drawn = benchmark(saved_bam(tmp_path / "bam", ["a", "b", "c"]), other, protocol="fewseg-generalised")
    with pytest.raises(UsageError, match="has no base class that bam knows by name"):
        evaluate_generalised(opened.model, drawn, workers=0)


@given(st.permutations(range(1, 6)), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_matched_logits_say_what_the_base_learner_says(order: list[int], count: int, seed: int) -> None:
    logits = torch.rand(1, 6, 3, 4, generator=torch.Generator().manual_seed(seed))
    table = torch.zeros(6, dtype=torch.long)
    table[order[:count]] = torch.arange(1, 1 + count)
    assert torch.equal(matched_logits(logits, order[:count]).argmax(1), table[logits.argmax(1)])
