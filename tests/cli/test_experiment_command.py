"""`fewseg experiment` on the command line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fewseg.cli.main import app
from fewseg.errors import UsageError

SCENES = ["data.images=30", "data.size=64"]


@pytest.mark.slow
def test_statistics_prints_its_tables_and_the_warning(tmp_path):
    words = ["experiment", "statistics", "scenes", "data.level=simple", *SCENES, "--folds", "0", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "foreground share per class" in result.output
    assert "warning: fold 0: 100 %" in result.output
    assert (tmp_path / "statistics.csv").is_file()


@pytest.mark.parametrize("name", ["support-mask", "temperature"])
@pytest.mark.slow
def test_the_table_alone_needs_no_training(name, tiny_recipe, tmp_path):
    words = ["experiment", name, "scenes", str(tiny_recipe), "--only-table", "--folds", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "missing" in result.output
    assert (tmp_path / f"{name}.json").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["statistics", "scenes", "--folds", "a"], "--folds 'a' is no list of numbers"),
        (["temperature", "scenes", "--values", "1,x"], "--values '1,x'"),
        (["statistics", "sceness"], "unknown source"),
        (["statistics", "scenes", "data.levle=simple"], "data.level"),
        (["relu", "scenes"], "lite0 has none"),
    ],
)
def test_mistakes_are_told(words, told, tmp_path):
    result = CliRunner().invoke(app, ["experiment", *words, "--out", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert told in str(result.exception)


def test_every_experiment_has_a_line_in_the_help():
    result = CliRunner().invoke(app, ["experiment", "--help"])
    for name in ("statistics", "support-mask", "episodes", "temperature", "relu", "correlation"):
        assert name in result.output
