"""What is shown of long work, on a terminal and in a pipe."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from fewseg.progress import Bars, Silent


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=terminal, width=200, color_system=None), written


def test_silent_gives_the_items_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Silent()
    assert list(progress(range(3), "work", 3)) == [0, 1, 2]
    progress.note("note")
    progress.log("log")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines_with_the_time_left() -> None:
    screen, written = console(terminal=False)
    bars = Bars(screen, seconds=0)
    done = []
    for item in bars("abcd", "working", 4):
        done.append(item)
        bars.note(f"at {item}")
    assert done == list("abcd")
    lines = written.getvalue().splitlines()
    assert lines == [f"working: {n}/4, 0:00:00 left  at {c}" for n, c in ((1, "a"), (2, "b"), (3, "c"))]
    assert "\x1b" not in written.getvalue()


def test_long_work_ends_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 30))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    screen, written = console(terminal=False)
    assert list(Bars(screen)(range(2), "working", 4, done=2)) == [0, 1]
    # started at 0 s, items end at 30 and 60 s, asked for the last time at 90 s: one of two new ones is done in 30 s
    assert written.getvalue().splitlines() == ["working: 3/4, 0:00:30 left", "working: 4/4 in 0:01:30"]


def test_short_work_in_a_pipe_says_nothing() -> None:
    screen, written = console(terminal=False)
    assert list(Bars(screen)(range(5), "working", 5)) == list(range(5))
    assert not written.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_work_inside_other_work(terminal: bool) -> None:
    screen, written = console(terminal=terminal)
    bars = Bars(screen)
    seen = [(a, b) for a in bars(range(3), "outer", 3) for b in bars(range(2), f"inner {a}", 2)]
    assert seen == [(a, b) for a in range(3) for b in range(2)]
    assert ("outer" in written.getvalue()) == terminal
    # and a bar again, afterwards
    assert list(bars(range(2), "later", 2)) == [0, 1]
    assert ("later" in written.getvalue()) == terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_in_the_work_comes_out_and_the_next_bar_works(terminal: bool) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    screen, _ = console(terminal=terminal)
    bars = Bars(screen)
    with pytest.raises(ValueError, match="broken"):
        list(bars(failing(), "work", 3))
    for _ in bars(range(9), "left early", 9):
        break
    assert list(bars(range(2), "later", 2)) == [0, 1]


def test_a_bar_shows_count_and_note_and_takes_names_as_they_are() -> None:
    screen, written = console(terminal=True)
    bars = Bars(screen)
    for _ in bars(range(2), "training [bold]x[/nope]", 4, done=2):
        bars.note("loss [0.5]")
    assert "training [bold]x[/nope]" in written.getvalue()
    assert "4/4" in written.getvalue()
    assert "loss [0.5]" in written.getvalue()


def test_logged_text_is_shown_as_it_is() -> None:
    screen, written = console(terminal=False)
    Bars(screen).log("a [red]path[/red] /x/[1].png")
    assert written.getvalue() == "a [red]path[/red] /x/[1].png\n"
