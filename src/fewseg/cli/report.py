"""`fewseg report`, and the page that `fewseg compare --out page.html` writes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewseg.cli.options import (
    CacheGb,
    Device,
    Episodes,
    EpisodesFile,
    Protocol,
    Repeats,
    Shots,
    Targets,
    Workers,
    finite,
)
from fewseg.cli.outputs import check_outputs
from fewseg.cli.printing import say
from fewseg.cli.supports import words as words_given
from fewseg.errors import UsageError
from fewseg.progress import Bars, counted

if TYPE_CHECKING:
    from fewseg.evaluation.compare import Entry


def report(
    ctx: typer.Context,
    targets: Targets,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Also write every figure into this folder, as PDF and PNG.")
    ] = None,
    protocol: Protocol = "fewseg",
    shots: Shots = None,
    episodes: Episodes = None,
    repeats: Repeats = None,
    episodes_file: EpisodesFile = None,
    panels: Annotated[
        int, typer.Option(callback=finite, min=0, help="Episodes to draw of the best, the median and the worst.")
    ] = 2,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
) -> None:
    """Write a report on a run as one HTML file: scores, curves, episodes in pictures, confusions; others beside it.

    `fewseg report runs/mine dense prototype --out mine.html`. An evaluation that `fewseg evaluate` saved in a run is
    taken if it is of the same episodes; all else is measured. The page loads nothing from the network.
    """
    from fewseg.report.comparison import report_page
    from fewseg.report.figures import save_figures
    from fewseg.report.html import write_report

    check_endings([out], (".html",))
    check_outputs([out], *targets, episodes_file)
    page = report_page(
        *split_words(targets),
        protocol=protocol,
        shots=shots,
        episodes=episodes,
        repeats=repeats,
        episodes_file=episodes_file,
        panels=panels,
        workers=workers,
        cache_gb=cache_gb,
        device=device,
        progress=Bars(),
    )
    page = replace(page, commands=(("this page", command_given(ctx)),))
    if figures is not None:
        say(f"figures: {counted(len(save_figures(figures, page)), 'file')} in {figures}")
    say(f"report: {write_report(out, page)}")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is measured, and what says on which data: overrides, and the names of data sets."""
    from fewseg import registry

    sources = registry.classes("source")
    data = [w for w in words if "=" in w or w in sources]
    return [w for w in words if w not in data], data


def command_given(ctx: typer.Context) -> str:
    """What was typed, as a line of a shell, with the plugins."""
    from fewseg.registry import plugin_words

    return shlex.join(["fewseg", str(ctx.info_name), *words_given(ctx), *plugin_words()])


def write_table(path: Path, entries: Sequence[Entry], *, command: str) -> Path:
    """Write a comparison by the file's ending: .csv, .tex, or .html for a page, which says by which command."""
    from fewseg.evaluation.compare import save_table
    from fewseg.report.comparison import comparison_page
    from fewseg.report.html import write_report

    if path.suffix == ".html":
        page = comparison_page(entries, title="Comparison")
        return write_report(path, replace(page, commands=(("this page", command),)))
    return save_table(path, entries)


def check_endings(paths: Sequence[Path], endings: Sequence[str]) -> None:
    """Refuse the name of a file that cannot be written before anything is measured."""
    for path in paths:
        if path.suffix not in endings:
            raise UsageError(f"cannot write {path.name!r}; give a name that ends in {' or '.join(endings)}")
