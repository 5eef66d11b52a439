"""Several models on the same episodes."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewseg.build import create_model
from fewseg.errors import UsageError
from fewseg.evaluation.compare import (
    COLUMNS,
    MEASURED,
    as_latex,
    open_benchmark,
    open_targets,
    paired_p_value,
    save_table,
    table,
)
from fewseg.evaluation.cost import measure_cost
from fewseg.evaluation.published import check_full, published_miou
from fewseg.runtime.memory import peak_memory, reset_peak_memory
from fewseg.storage.saved import save_model
from fewseg.training.loop import train
from helpers import TINY, compared, take_memory, toy_config

WORDS = ("scenes", "data.images=40", "data.size=64", *TINY)


@pytest.fixture(scope="module")
def entries():
    torch.manual_seed(0)  # for whichever test asks first
    return compared(["prototype", "dense"], WORDS, episodes=8, repeats=2, workers=0)


@pytest.mark.slow
def test_all_models_see_the_same_episodes_and_the_first_is_the_reference(entries):
    assert [e.name for e in entries] == ["prototype", "dense"]
    hashes = [[r.episode_sha256 for r in e.results.repeats] for e in entries]
    assert hashes[0] == hashes[1]
    assert entries[0].p_value is None
    assert entries[1].p_value is None  # three episodes a class are too few for a test
    assert all(e.seconds > 0 for e in entries)
    weights = [4 * e.results.parameters["all"] for e in entries]
    assert all(e.peak_bytes is None or e.peak_bytes >= w for e, w in zip(entries, weights, strict=True))


@pytest.mark.slow
def test_tables_hold_the_numbers_and_the_hash(entries, tmp_path):
    tested = [entries[0], replace(entries[1], p_value=0.0004)]
    text = save_table(tmp_path / "t.csv", tested).read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == [*COLUMNS[:-1], *MEASURED]
    told = ("seen", "test_classes", "unseen mIoU", "trained_on")
    assert [rows[0][name] for name in told] == ["0", "5", "", ""]
    assert (rows[0]["p"], rows[1]["p"], tested[1].cells()[6]) == ("", "0.0004", "< 0.001")
    assert (rows[0]["px"], rows[0]["source"], rows[0]["episodes"], rows[0]["repeats"]) == ("64", "scenes", "16", "2")
    assert float(rows[1]["mIoU"]) == pytest.approx(100 * entries[1].results.miou, abs=0.005)
    assert entries[0].results.repeats[0].episode_sha256[:16] in text
    assert "data.images=" in text  # which of the scenes: two tables of other ones must not look alike
    latex = as_latex(entries)
    line = next(x for x in latex.splitlines() if x.startswith("dense"))
    cells = [cell.strip() for cell in line.removesuffix(chr(92) * 2).split("&")]
    assert tuple(cell.replace("$<$", "<") for cell in cells) == table(entries)[2]
    assert not {"seen", "unseen mIoU"} & {*table(entries)[0]}  # nothing was trained
    other = [entries[0], replace(entries[1], results=replace(entries[1].results, backbone="vgg16"))]
    assert [row[1] for row in table(other)] == ["back-end", entries[0].results.backbone, "vgg16"]
    assert "<" not in line.replace("$<$", "")
    assert "peak MB" in latex
    assert save_table(tmp_path / "t.tex", entries).read_text() == as_latex(entries)
    with pytest.raises(UsageError, match=r"\.csv or \.tex"):
        save_table(tmp_path / "t.docx", entries)


def test_the_data_are_the_runs_wherever_it_stands(toy, tmp_path):
    run = train(toy_config("data.fold=2"), tmp_path / "run")
    opened, benchmark = open_benchmark(["prototype", str(run)], TINY, episodes=2, repeats=1)
    assert list(opened) == ["prototype", "toy"]
    assert (benchmark.source.name, benchmark.fold.index, len(benchmark.source.index.ids)) == ("scenes", 2, 60)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "more"), [("compare", ["--supports", "box"]), ("report", ["--panels=0"])])
def test_a_page_says_by_which_command_it_was_made(fewseg, tmp_path, command, more):
    words = ["prototype", *WORDS, "--episodes=2", "--repeats=1", "--workers=0", f"--out={tmp_path / 'a.html'}", *more]
    assert fewseg(command, *words).code == 0
    written = re.search("this page</p><pre>(.*)</pre>", (tmp_path / "a.html").read_text())
    assert written[1].split() == ["fewseg", command, *words]


def test_published_numbers_stand_in_a_column_of_their_own(entries, tmp_path):
    assert "published" not in table(entries)[0]
    with_one = [replace(entries[0], published=69.4), entries[1]]
    assert table(with_one, whole=True)[0] == COLUMNS
    assert [row[-1] for row in table(with_one)] == ["published", "69.4", ""]
    assert [row[:-1] for row in table(with_one)] == table(entries)
    rows = list(csv.DictReader(save_table(tmp_path / "t.csv", with_one).read_text().splitlines()))
    assert ["full data set" in row["notes"] for row in rows] == [True, False]
    assert "published" in as_latex(with_one)


def test_published_numbers_are_the_papers_and_only_for_what_they_measured():
    def of(method, dataset="pascal5i", backbone="resnet50-ds", shots=1, **options):
        return published_miou(method, dataset=dataset, backbone=backbone, shots=shots, **options)

    assert (of("hdmnet"), of("bam", shots=5), of("hsnet", "coco20i", "resnet50")) == (69.4, 70.9, 39.2)
    absent = [of("hdmnet", shots=2), of("hdmnet", "folder"), of("dense"), of("bam", backbone="lite0")]
    assert absent == [None] * 4
    assert (of("hdmnet", base_learner=False), of("hdmnet", "coco20i", base_learner=False)) == (None, 48.7)


def test_published_numbers_are_refused_beside_anything_but_the_full_data():
    with pytest.raises(UsageError, match="no published numbers on scenes"):
        compared(["prototype"], WORDS, published=True)
    index = SimpleNamespace(ids=("a",) * 767)
    with pytest.raises(UsageError, match="has 767 test images, the papers' has 1449"):
        check_full(SimpleNamespace(name="pascal5i", index=index))
    check_full(SimpleNamespace(name="pascal5i", index=SimpleNamespace(ids=("a",) * 1449)))


@pytest.mark.slow
def test_the_cost_of_an_episode_does_not_depend_on_what_else_is_in_memory():
    batch = SimpleNamespace(to=lambda device: None)
    before = measure_cost(Hungry(), [batch] * 4)
    if before.peak_bytes is None:
        pytest.skip("this system does not tell a process's peak memory")
    other = np.ones(30_000_000)  # another model
    after = measure_cost(Hungry(), [batch] * 4)
    assert before.peak_bytes == pytest.approx(Hungry.megabytes * 1e6, rel=0.3)
    assert after.peak_bytes == pytest.approx(before.peak_bytes, rel=0.3)
    assert other.nbytes > 2 * before.peak_bytes


class Hungry(torch.nn.Module):
    """Takes that much memory for an episode, and gives it back."""

    megabytes = 100
    device = torch.device("cpu")

    def forward(self, _):
        return SimpleNamespace(mask=torch.ones(self.megabytes * 1_000_000, dtype=torch.uint8)[:1].clone())


@pytest.mark.slow
def test_released_files_of_any_back_end_are_compared(tmp_path):
    options = {"backbone": "vgg16_bn", "base_classes": 15, "shots": 1}
    torch.save({"state_dict": create_model("pfenet", **options).state_dict()}, tmp_path / "released.pth")
    found = compared(
        ["prototype"],
        WORDS,
        released=[f"pfenet={tmp_path / 'released.pth'}"],
        episodes=1,
        repeats=1,
        workers=0,
    )
    assert found[1].name == "pfenet (released)"
    assert found[1].results.backbone == "vgg16_bn"


def test_models_of_one_method_are_told_apart_by_what_was_given(tmp_path):
    a, b = (str(save_model(create_model("dense", backbone="timm/test_resnet"), tmp_path / name)) for name in "ab")
    assert list(open_targets([a, "prototype", b], WORDS)) == [f"dense ({a})", "prototype", f"dense ({b})"]
    with pytest.raises(UsageError, match=re.escape(f"dense ({a}) is given twice")):
        open_targets([a, a], [word for word in WORDS if not word.startswith("model.")])


def test_p_value_is_small_only_where_the_difference_is_sure(entries):
    few = entries[0].results
    assert paired_p_value(few, few) is None
    table = np.concatenate(2 * few.tables)
    report = replace(few, tables=[table])
    assert paired_p_value(report, report) == 1
    perfect = table.copy()
    perfect[:, 1] = perfect[:, 2]
    assert paired_p_value(replace(report, tables=[perfect]), replace(report, tables=[table])) < 0.01


def test_wrong_targets_are_told():
    with pytest.raises(UsageError, match="at least one"):
        open_targets([], WORDS)
    with pytest.raises(UsageError, match="METHOD=FILE"):
        open_targets(["prototype"], WORDS, released=["hdmnet.pth"])
    with pytest.raises(UsageError, match=r"'dens' is no folder that is here and no model's name.*Did you mean 'dense'"):
        open_targets(["dens"], WORDS)
    with pytest.raises(UsageError, match="must be trained first"):
        open_targets(["hdmnet"], WORDS)


@pytest.mark.slow
def test_peak_memory_sees_a_large_array():
    reset_peak_memory()
    before = peak_memory(torch.device("cpu"))
    if before is None:
        pytest.skip("this system does not tell a process's peak memory")
    size = 320_000_000
    take_memory(size)
    assert peak_memory(torch.device("cpu")) > before + 0.9 * size


def test_workers_change_no_digit(entries):
    torch.manual_seed(0)
    again = compared(["prototype"], WORDS, episodes=8, repeats=2, workers=1)
    assert again[0].results.miou == entries[0].results.miou
