"""The benchmarks run and say that both ways give the same numbers; their results become a table."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A benchmark run in this process; what it prints."""
    monkeypatch.syspath_prepend(ROOT)

    def run(*words: str, module: str = "benchmarks.__main__") -> str:
        monkeypatch.setattr(sys, "argv", [module, *words])
        importlib.import_module(module).main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*20 names, but the label maps hold 1 to 5")
def test_quick_cases_agree_and_become_a_table(run: Callable[..., str], tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    run("episode", "training-step", "evaluation", "--quick", "--no-memory", "--out", str(results))
    content = json.loads(results.read_text())
    assert [case["case"] for case in content["cases"]] == ["episode", "training-step", "evaluation"]
    for case in content["cases"]:
        assert case["difference"] < 1e-3
        assert case["time_ratio"] > 0
    table = run("--table", str(results))
    assert "| one 1-shot episode, 473 px (episode) |" in table
    assert "GFLOP/s" in table


@pytest.mark.slow
def test_the_convolution_is_compared_at_every_size_that_is_asked_for(run: Callable[..., str]) -> None:
    head, _, *rows = run(
        "--sides", "9", "12", "--layers", "2", "--rounds", "1", module="benchmarks.convolution"
    ).splitlines()
    assert head == "| in, out | 9 x 9 | 12 x 12 |"
    assert len(rows) == 2
    assert all(float(ratio) > 0 for row in rows for ratio in row.split("|")[2:4])


@pytest.mark.slow
def test_the_gpu_s_table_is_made_without_one_too_and_says_what_failed(run: Callable[..., str], tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    printed = run("--quick", "--out", str(results), module="benchmarks.gpu")
    content = json.loads(results.read_text())
    assert len([line for line in printed.splitlines() if line.startswith("| ")]) == 2 + len(content["rows"])
    whole = [row for row in content["rows"] if row["way"] != "view in one graph"]
    assert {row["what"].split(",")[0] for row in whole} == {"hdmnet", "training hdmnet", "evaluation from disk"}
    assert all(row["per second"] > 0 for row in whole)
    assert all(row["floor ms"] > 0 for row in whole if row["what"].startswith("hdmnet"))
    (graph,) = (row for row in content["rows"] if row not in whole)
    assert ("per second" in graph) is not graph.get("note", "").startswith("failed: ")


@pytest.mark.slow
def test_a_training_step_of_the_view_is_the_plain_network_s(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = {}
    for way in ("plain", "view"):  # what `benchmarks.steps` asks of a process for each
        monkeypatch.setattr(sys, "stdin", io.StringIO("1\n1\n"))
        first, *seconds = run(
            "hdmnet", "--size", "64", "--batch", "1", "--serve", way, module="benchmarks.steps"
        ).splitlines()
        digits[way], gflop = json.loads(first)
        assert gflop > 0
        assert [float(number) > 0 for number in seconds] == [True, True]
    assert digits["view"] == pytest.approx(digits["plain"], rel=1e-4)
    assert digits["view"][0] == pytest.approx(digits["plain"][0], rel=1e-5)
