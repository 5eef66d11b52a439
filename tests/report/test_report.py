"""`fewseg report`: runs on the same episodes as a page, what a saved evaluation gives, and the page of compare."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fewseg
from fewseg.cli.main import app
from fewseg.cli.report import split_words
from fewseg.errors import DataError, UsageError
from fewseg.evaluation import compare as compare_module
from fewseg.evaluation.compare import Entry, describe, p_text
from fewseg.evaluation.results import Results, unlike
from fewseg.models.prototype import Prototype
from fewseg.report.comparison import class_confusions, comparison_page, mean_confusion, model_section, report_page
from fewseg.report.contents import ReportPage
from fewseg.report.figures import page_figures, save_figures
from fewseg.report.html import render
from fewseg.report.training import run_curves
from fewseg.storage.saved import save_model
from fewseg.training.loop import train
from helpers import TINY, Toy, compared, full_page, toy_config

DATA = ["scenes", "data.level=complex", "data.images=40", "data.size=64"]
WORDS = [*DATA, *TINY]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with its evaluation, as `fewseg evaluate` leaves it."""
    torch.manual_seed(0)
    folder = save_model(Prototype(backbone="timm/test_resnet", image_size=64), tmp_path_factory.mktemp("runs") / "run")
    arguments = ["evaluate", str(folder), *DATA, "--episodes=8", "--repeats=2", "--workers=0"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return folder


@pytest.fixture(scope="module")
def saved(run: Path) -> Path:
    """Its file: protocol, fold, shots, repeats and episodes, and the hash of the first episodes name it."""
    (file,) = run.glob("results-*.json")
    assert re.fullmatch(r"results-scenes-fewseg-fold0-1shot-2x8-[0-9a-f]{8}\.json", file.name)
    return file


@pytest.fixture(scope="module")
def entries(run: Path) -> list[Entry]:
    return compared([str(run), "dense"], WORDS, episodes=8, repeats=2, workers=0)


def test_a_saved_evaluation_is_read_back_with_its_rows(saved: Path, entries: list[Entry]) -> None:
    kept, measured = Results.load(saved), entries[0].results
    for name in ("tables", "foreground_on"):
        for a, b in zip(getattr(kept, name), getattr(measured, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert kept.miou == measured.miou
    assert kept.repeats == measured.repeats
    for table, pixels in zip(kept.tables, kept.foreground_on, strict=True):
        hits = pixels[np.arange(len(table)), table[:, 0]]
        np.testing.assert_array_equal(hits, table[:, 1])  # scored at the query's own size: the same pixels


def test_an_evaluation_whose_rows_were_changed_or_lost_is_refused(saved: Path, tmp_path: Path) -> None:
    for ending in (".json", ".csv"):
        (tmp_path / f"results{ending}").write_bytes(saved.with_suffix(ending).read_bytes())
    rows = (tmp_path / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(rows.replace("0,0,", "0,1,", 1))
    with pytest.raises(DataError, match="evaluate again"):
        Results.load(tmp_path / "results.json")
    (tmp_path / "results.csv").unlink()
    with pytest.raises(DataError, match="evaluate again"):
        Results.load(tmp_path / "results.json")
    with pytest.raises(UsageError, match=r"\.json"):
        Results.load(saved).save(tmp_path / "results.csv")


@pytest.mark.slow
def test_only_what_fits_is_taken_from_a_saved_evaluation(
    run: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(compare_module, "evaluate", refuse)
    taken = compared([str(run)], DATA, episodes=8, repeats=2, reuse=True)
    assert taken[0].results.miou == Results.load(saved).miou
    for changed in ({"episodes": 9}, {"repeats": 1}, {"shots": 2}, {"reuse": False}, {"protocol": "bam"}):
        with pytest.raises(AssertionError, match="measured again"):
            compared([str(run)], DATA, **({"episodes": 8, "repeats": 2, "reuse": True} | changed))
    with pytest.raises(AssertionError, match="measured again"):
        compared([str(run)], [*DATA, "data.size=80"], episodes=8, repeats=2, reuse=True)


def test_results_that_were_kept_beside_others_are_taken_too(
    run: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    place = tmp_path / "run" / saved.name
    place.write_text(json.dumps(json.loads(place.read_text()) | {"source_sha256": "0" * 64}))
    Results.load(saved).save(unlike(place, Results.load(saved)))
    monkeypatch.delattr(compare_module, "evaluate")
    (taken,) = compared([str(tmp_path / "run")], DATA, episodes=8, repeats=2, reuse=True)
    assert taken.results.miou == Results.load(saved).miou


def test_an_evaluation_of_0_1_is_taken_too(
    run: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    for ending in ("json", "csv"):
        (tmp_path / "run" / saved.name).with_suffix(f".{ending}").rename(tmp_path / "run" / f"report.{ending}")
    record = json.loads((tmp_path / "run" / "report.json").read_text())
    record["rows"]["file"] = "report.csv"
    (tmp_path / "run" / "report.json").write_text(json.dumps(record))
    monkeypatch.delattr(compare_module, "evaluate")
    (taken,) = compared([str(tmp_path / "run")], DATA, episodes=8, repeats=2, reuse=True)
    assert taken.results.miou == Results.load(saved).miou
    assert fewseg.Report is Results


def test_a_report_holds_every_part_and_true_numbers(run: Path, saved: Path) -> None:
    page = report_page([str(run), "dense"], WORDS, episodes=8, repeats=2, panels=1, workers=0)
    report = Results.load(saved)
    assert page.rows[0].miou == report.miou
    assert [row.columns["p"] == "itself" for row in page.rows] == [True, False]
    assert {c.group for c in page.confusions} == {"Mean over classes", "prototype, by class"}
    assert [panel.group for panel in page.panels] == ["Best", "Median", "Worst"]
    assert [[o.name for o in panel.others] for panel in page.panels] == [["dense"]] * 3
    html = render(page)
    assert "The evaluation of prototype was saved before; s/episode is its mean, measured then. Other rows" in html
    for text in (report.repeats[1].episode_sha256, str(report.weights["sha256"]), report.source_sha256):
        assert text in html
    ious = [panel.iou for panel in page.panels if panel.iou is not None]
    assert ious == sorted(ious, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["hsnet", "bam"])
def test_pictures_have_the_querys_own_size_under_every_protocol(run: Path, protocol: str) -> None:
    words = [*DATA, "data.images=30"]
    page = report_page([str(run)], words, protocol=protocol, episodes=5, repeats=1, panels=1, workers=0)
    assert len(page.panels) == 3
    assert all(0 <= c.itself <= 1 or np.isnan(c.itself) for c in page.confusions)


def test_confusion_is_the_share_of_the_predicted_pixels(entries: list[Entry]) -> None:
    report = entries[0].results
    first = class_confusions(report)[0]
    assert first.itself + first.background + sum(first.others.values()) == pytest.approx(1)
    assert first.name not in first.others
    pixels = np.concatenate(report.foreground_on)[np.concatenate(report.tables)[:, 0] == report.fold["novel"][0]]
    assert first.background == pytest.approx(pixels[:, 0].sum() / pixels.sum())
    nothing = replace(report, foreground_on=[np.zeros_like(p) for p in report.foreground_on])
    assert np.isnan(class_confusions(nothing)[0].itself)
    assert np.isnan(mean_confusion("m", class_confusions(nothing)).itself)
    assert "nan" not in render(replace(comparison_page(entries), confusions=class_confusions(nothing)))


def test_the_page_of_a_comparison_keeps_published_numbers_apart(entries: list[Entry]) -> None:
    html = render(comparison_page([entries[0], replace(entries[1], published=61.8)]))
    assert "published mIoU" in html
    assert re.search(r"<em>published </em>61\.8", html)
    assert "published" not in render(comparison_page(entries))
    assert "saved before" not in html
    unknown = [replace(e, peak_bytes=peak) for e, peak in zip(entries, (None, 10**6), strict=True)]
    assert "Peak memory –: not measured." in render(comparison_page(unknown))
    assert (p_text(0.0), p_text(0.0).plain) == ("< 0.001", 0.001)  # type: ignore[attr-defined]


def test_a_page_says_by_which_command_a_run_is_trained_again(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config("data.fold=2", "train.seed=7"), tmp_path / "a run")
    record = json.loads((run / "run.json").read_text())
    words = ["/usr/bin/fewseg", "train", "toy", "data.fold=2"]
    for plugins, more in (([], ""), ([{"file": "my.py", "sha256": ""}], " --plugin my.py")):
        told = [{"module": "json", **plugin} for plugin in plugins]
        (run / "run.json").write_text(json.dumps(record | {"command": words, "plugins": told}))
        found = compared([str(run), "prototype"], TINY, episodes=2, repeats=1, workers=0)
        rows = {name: cells for name, *cells in model_section(found).rows}
        assert rows["trained by"] == [f"fewseg train toy data.fold=2{more}", "no run"]
        assert rows["seed of the training"] == ["7", "no run"]
        assert rows["to train it again"] == [f"fewseg rerun '{run}'{more}", "no run"]
    assert "trained by" not in {name for name, *_ in model_section(found[1:]).rows}
    (run / "run.json").write_text("{}")
    assert "trained by" not in {name for name, *_ in model_section(found).rows}


def test_models_that_see_other_sizes_are_told_apart(entries: list[Entry]) -> None:
    larger = replace(entries[1], results=replace(entries[1].results, image_size=320))
    page = comparison_page([entries[0], larger])
    assert [row.columns["px"] for row in page.rows] == ["64", "320"]
    assert " px" not in dict(page.facts)["protocol"]
    first, second = (e.name for e in entries[:2])
    told = f"measured at several image sizes ({first} 64, {second} 320 px), so differences and p are of the size too"
    assert told in describe([entries[0], larger])
    assert told in page.rows_note
    assert "model.image_size=64 makes them equal" in describe([entries[0], larger])
    assert "image sizes" not in describe(entries)
    same = comparison_page(entries)
    assert "px" not in same.rows[0].columns
    assert "64 px" in dict(same.facts)["protocol"]


def test_a_model_that_finds_nothing_is_no_clean_result(entries: list[Entry]) -> None:
    nothing = replace(entries[1], results=replace(entries[1].results, miou=0.0))
    told = f"{nothing.name}: no pixel of any class was found in any episode"
    assert told in describe([entries[0], nothing])
    assert told in render(comparison_page([entries[0], nothing]))
    assert "no pixel of any class" not in describe(entries)


def test_many_methods_get_a_table_where_marks_do_not_reach(entries: list[Entry]) -> None:
    many = [replace(entries[1], name=f"method {i}") for i in range(6)]
    page = comparison_page(many)
    assert len(page.per_class[0].marks) == 3
    assert page.sections[0].header == ("class", *(e.name for e in many))


@pytest.mark.slow
def test_commands_write_pages_and_figures_and_refuse_other_endings(run: Path, tmp_path: Path) -> None:
    runner, common = CliRunner(), ["--episodes=8", "--repeats=2", "--workers=0"]
    html, figures = tmp_path / "r.html", tmp_path / "figures"
    done = runner.invoke(
        app, ["report", str(run), *DATA, *common, f"--out={html}", f"--figures={figures}"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "Confusion with distractors" in html.read_text()
    names = {path.name for path in figures.iterdir()}
    assert {"comparison.pdf", "comparison.png", "classes.pdf", "confusion-1.png", "episode-06.pdf"} <= names
    page = tmp_path / "c.html"
    done = runner.invoke(app, ["compare", str(run), *DATA, *common, f"--out={page}"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "Comparison" in page.read_text()
    with pytest.raises(UsageError, match=r"\.csv or \.tex or \.html"):
        runner.invoke(app, ["compare", str(run), "--out=t.docx"], catch_exceptions=False)
    with pytest.raises(UsageError, match=r"\.html"):
        runner.invoke(app, ["report", str(run), "--out=t.pdf"], catch_exceptions=False)


def test_a_data_set_and_overrides_are_not_taken_for_runs() -> None:
    assert split_words(["runs/a", "dense", "scenes", "data.fold=1"]) == (["runs/a", "dense"], ["scenes", "data.fold=1"])


def test_curves_of_several_runs_share_their_charts(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"batches": 5, "train_iou": 0.1, "loss_final": 2.0}\n' * 2)
    one = run_curves({"a": tmp_path / "a", "dense": tmp_path / "dense"})
    assert {(c.chart, c.name) for c in one} == {("IoU of a", "training IoU"), ("loss of a", "final")}
    both = run_curves({name: tmp_path / name for name in "ab"})
    assert [(c.chart, c.name) for c in both] == [
        *(("training IoU", name) for name in "ab"),
        *(("final loss", name) for name in "ab"),
    ]
    with open(tmp_path / "b" / "metrics.jsonl", "a") as file:
        file.write('{"batches": 9, "val_miou": 0.25}\n')
    page = replace(full_page(), curves=run_curves({name: tmp_path / name for name in "ab"}))
    alone = re.search(r"validation mIoU \(%\)</?.*?</ul>", render(page), re.DOTALL)
    assert alone
    assert '<s class="key c1"></s>b <small>25.0 % at step 9</small>' in " ".join(alone[0].split())
    assert run_curves({"dense": tmp_path / "dense"}) == ()


def test_more_losses_than_a_chart_keeps_apart_go_into_a_second_one(tmp_path: Path) -> None:
    losses = {f"loss_{name}": 1.0 for name in "abcdef"}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"batches": 5, "train_iou": 0.1} | losses) + "\n")
    charts = [c.chart for c in run_curves({"lite": tmp_path})]
    assert charts == ["IoU", *["loss"] * 4, *["loss (2)"] * 2]


@pytest.mark.slow
def test_figures_take_hostile_names(entries: list[Entry], tmp_path: Path) -> None:
    hostile = "<script>\x00\u202e$\\frac{" + "long" * 80
    entry = replace(entries[0], name=hostile)
    page = comparison_page([entry, entries[1]])
    named = replace(
        page,
        per_class=tuple(replace(c, name=hostile) for c in page.per_class),
        confusions=tuple(replace(c, name=hostile, others={hostile: 0.1}) for c in page.confusions),
    )
    assert set(page_figures(named)) == {"comparison", "classes", "confusion-1", "confusion-2"}
    assert len(save_figures(tmp_path, named)) == 8
    assert page_figures(ReportPage("nothing")) == {}
