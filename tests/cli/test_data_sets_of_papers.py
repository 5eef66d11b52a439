"""Each data set that papers report since 2023 goes the whole way from the command line on a tiny tree of its format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import target_trees
from fewseg.cli.main import app

SETS = {
    "deepglobe": (target_trees.write_deepglobe, "patnet"),
    "isic2018": (lambda root: target_trees.write_isic(root, folders=False), "patnet"),
    "chest_xray": (target_trees.write_chest_xray, "patnet"),
    "suim": (lambda root: target_trees.write_suim(root, merged=False), "patnet"),
    "isaid5i": (target_trees.write_isaid, "hsnet"),
    "lvis92i": (target_trees.write_lvis, "matcher"),
    "pascal_part": (target_trees.write_pascal_part, "matcher"),
    "paco_part": (target_trees.write_paco, "matcher"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_data_set_is_shown_checked_listed_and_evaluated(name: str, tmp_path: Path) -> None:
    write, protocol = SETS[name]
    root = tmp_path / "tree"
    write(root)

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    data = [name, f"data.root={root}"]
    run("data", "show", *data, "--out", str(tmp_path / "sheet.png"), "--count", "4")
    assert "nothing wrong" in run("data", "check", *data)
    assert json.loads(run("data", "stats", *data, "--json"))[0]["test"] > 0
    few = ["--protocol", protocol, "--episodes", "4"]
    digest = run("data", "episodes", *data, "--out", str(tmp_path / "list.csv"), *few).split("SHA-256 ")[1][:64]
    out = tmp_path / "results.json"
    run("evaluate", "dense", *data, *few, "--repeats", "1", "--out", str(out), "model.image_size=64")
    found = json.loads(out.read_text())
    assert digest in json.dumps(found)
    assert found["protocol"]["name"] == protocol
