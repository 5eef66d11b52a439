"""Several models on the same episodes."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewseg.engine.compare import COLUMNS, as_csv, as_latex, compare, paired_p_value, save_table
from fewseg.engine.memory import peak_memory, reset_peak_memory
from fewseg.errors import UsageError

TINY = [
    "scenes",
    "data.images=40",
    "data.size=64",
    "model.backbone=timm/test_resnet",
    "model.weights=null",
    "model.image_size=64",
]


@pytest.fixture(autouse=True, scope="module")
def same_random_weights():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def entries():
    return compare(["prototype", "dense"], TINY, episodes=8, repeats=2, workers=0)


def test_all_models_see_the_same_episodes_and_the_first_is_the_reference(entries):
    assert [e.name for e in entries] == ["prototype", "dense"]
    hashes = [[r.episode_sha256 for r in e.report.repeats] for e in entries]
    assert hashes[0] == hashes[1]
    assert entries[0].p_value is None
    assert 0 <= entries[1].p_value <= 1
    assert all(e.peak_bytes is None or e.peak_bytes > 1e6 for e in entries)


def test_tables_hold_the_numbers_and_the_hash(entries, tmp_path):
    text = as_csv(entries)
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert list(rows[0]) == list(COLUMNS)
    assert float(rows[1]["mIoU"]) == pytest.approx(100 * entries[1].report.miou, abs=0.005)
    assert entries[0].report.repeats[0].episode_sha256[:16] in text
    assert r"\bottomrule" in as_latex(entries)
    assert save_table(tmp_path / "t.tex", entries).read_text() == as_latex(entries)
    with pytest.raises(UsageError, match=r"\.csv or \.tex"):
        save_table(tmp_path / "t.docx", entries)


def test_p_value_is_small_only_where_the_difference_is_sure(entries):
    report = entries[0].report
    assert paired_p_value(report, report) == 1
    table = np.concatenate(report.tables)
    perfect = table.copy()
    perfect[:, 1] = perfect[:, 2]
    assert paired_p_value(replace(report, tables=[perfect]), replace(report, tables=[table])) < 0.01


def test_wrong_targets_are_told():
    with pytest.raises(UsageError, match="at least one"):
        compare([], TINY)
    with pytest.raises(UsageError, match="METHOD=FILE"):
        compare(["prototype"], TINY, released=["hdmnet.pth"])
    with pytest.raises(UsageError, match="must be trained first"):
        compare(["hdmnet"], TINY)


def test_peak_memory_sees_a_large_array():
    reset_peak_memory()
    before = peak_memory(torch.device("cpu"))
    if before is None:
        pytest.skip("this system does not tell a process's peak memory")
    array = np.ones(40_000_000)
    assert peak_memory(torch.device("cpu")) > before + 0.9 * array.nbytes


def test_workers_change_no_digit(entries):
    torch.manual_seed(0)
    again = compare(["prototype"], TINY, episodes=8, repeats=2, workers=1)
    assert again[0].report.miou == entries[0].report.miou
