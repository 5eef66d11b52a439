"""Ctrl-C: every command ends with exit code 130, and says what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import SCENES, SHORT, Fewseg, Toy
from segment.small_work import contents, given, make_work


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a support, and a model that is quick."""
    return make_work(tmp_path_factory.mktemp("stopped"), ["0.png"])


def interrupted(*_: Any, **__: Any) -> None:
    """What the signal leads to; a test's own process may ignore it."""
    raise KeyboardInterrupt


EVALUATE = ("evaluate", "prototype", "scenes", "data.images=8", "--episodes", 2, "--repeats", 1, "--workers", 0)
PLACES = {
    "teach": "fewseg.concept.teach",
    "next": "fewseg.concept.next_photos.looked_at",
    "evaluate": "fewseg.evaluation.evaluate.evaluate",
    "segment": "fewseg.segment.segment_folder",
    "demo": "fewseg.experiments.demo.run_demo",
}


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("teach", "stopped; nothing was written"),
        ("next", "stopped; nothing was written"),
        ("evaluate", "stopped; nothing was written"),
        ("segment", "is whole, and the same command with --resume goes on from there"),
        ("demo", "error: stopped"),
    ],
)
def test_every_command_says_that_it_was_stopped(
    place: Path, fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, told: str
) -> None:
    words = {
        "teach": ("teach", "--class", "box", *given(place), "--out", tmp_path / "box.concept"),
        "next": ("next", "--concept", tmp_path / "box.concept", place / "photos", "--model", place / "tiny"),
        "evaluate": (*EVALUATE, "--out", tmp_path / "r.json"),
        "segment": ("segment", place / "photos", *given(place), "--out", tmp_path / "out"),
        "demo": ("demo", "--out", tmp_path / "demo"),
    }
    if command == "next":
        assert fewseg(*words["teach"]).code == 0
    before = contents(tmp_path)
    monkeypatch.setattr(PLACES[command], interrupted)
    stopped = fewseg(*words[command])
    assert stopped.code == 130, stopped
    assert stopped.err.strip().splitlines()[-1].endswith(told), stopped.err
    assert contents(tmp_path) == before


def test_a_stopped_training_spells_out_how_it_goes_on(
    toy: type[Toy], fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewseg.training.loop.training_step", interrupted)
    run = tmp_path / "my run"
    words = ("model.name=toy", "model.weights=null", "train.validation=none", *SCENES, *SHORT)
    stopped = fewseg("train", "scenes", *words, "--out", run)
    assert stopped.code == 130, stopped
    assert f"fewseg train --resume --out '{run}' starts it again" in stopped.err.replace("\n", " ")
