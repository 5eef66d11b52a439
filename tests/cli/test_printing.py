"""Names of classes and files on the terminal: shown as they are, never obeyed, and never in the way of a result."""

from __future__ import annotations

import io
import json
from functools import wraps
from pathlib import Path

import pytest
from rich.console import Console

from fewseg.cli import printing
from fewseg.cli.printing import printable
from fewseg.data.sets.scenes import Scenes
from fewseg.progress import visible
from fewseg.storage.saved import save_model
from helpers import SCENES, Fewseg, tiny_model

NAMES = ("[/x]", "cup [blue]", "[link=http://a.b]c[/link]", ":smile:", "a\x1b[31mb", "turned \u202e name", "\ud800")
SHOWN = (*NAMES[:4], r"a\x1b[31mb", r"turned \u202e name", r"\ud800")


def test_names_in_a_table_are_neither_markup_nor_orders() -> None:
    text = io.StringIO()
    shown = Console(file=text, width=160, force_terminal=True, markup=False, emoji=False)
    shown.print(printable([NAMES, NAMES], title=NAMES[0]))
    for name in SHOWN:
        assert name in text.getvalue()
    assert "\x1b[31m" not in text.getvalue()


def test_what_can_be_seen_stays() -> None:
    assert visible("é 猫 ص\tb\nc 🐈") == "é 猫 ص\tb\nc 🐈"


@pytest.fixture
def oddly_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Scenes.__init__

    @wraps(plain)
    def init(self: Scenes, **options: object) -> None:
        plain(self, **options)
        self.class_names = tuple((NAMES * 10)[: len(self.class_names)])

    monkeypatch.setattr(Scenes, "__init__", init)


@pytest.mark.usefixtures("oddly_named")
@pytest.mark.slow
def test_commands_show_such_names(fewseg: Fewseg, tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "model")
    result = fewseg("evaluate", folder, *SCENES, "--episodes", 4, "--repeats", 1, "--workers", 0)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    for command in (
        ["data", "stats", *SCENES],
        ["compare", "prototype", *SCENES, "model.weights=null", "--episodes", 2],
    ):
        result = fewseg(*command)
        assert (result.code, "\x1b" in result.out) == (0, False), result.err


def test_results_are_saved_before_they_are_shown(
    fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the terminal is gone")

    monkeypatch.setattr(printing, "printable", fail)
    monkeypatch.setattr("fewseg.cli.compare.printable", fail)
    folder = save_model(tiny_model("prototype"), tmp_path / "model")
    asked = (*SCENES, "--episodes", 4, "--repeats", 1, "--workers", 0)
    assert fewseg("evaluate", folder, *asked, "--out", tmp_path / "r.json").code == 1
    assert json.loads((tmp_path / "r.json").read_text())["miou"] >= 0
    assert fewseg("compare", folder, *asked, "--out", tmp_path / "t.csv").code == 1
    assert (tmp_path / "t.csv").is_file()


@pytest.mark.parametrize(("option", "value"), [("--cache-gb", "inf"), ("--file-gb", "inf"), ("--tau", "nan")])
def test_options_are_numbers(option: str, value: str, fewseg: Fewseg) -> None:
    result = fewseg("evaluate", "prototype", *SCENES, option, value)
    assert (result.code, f"{option} {value}: give a number" in result.err) == (2, True)
