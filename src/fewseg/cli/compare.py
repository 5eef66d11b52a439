"""`fewseg compare`: several models on the same episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewseg.cli.options import (
    Absent,
    CacheGb,
    Device,
    Episodes,
    EpisodesFile,
    Protocol,
    References,
    Repeats,
    Shots,
    Supports,
    Targets,
    Ways,
    Workers,
)
from fewseg.cli.outputs import check_outputs
from fewseg.cli.printing import console, printable, say
from fewseg.cli.report import check_endings, command_given, split_words, write_table
from fewseg.progress import Bars


def compare_models(
    ctx: typer.Context,
    targets: Targets,
    released: Annotated[
        list[str] | None, typer.Option(help="METHOD=FILE: released weights; their back-end is found.")
    ] = None,
    protocol: Protocol = "fewseg",
    shots: Shots = None,
    episodes: Episodes = None,
    repeats: Repeats = None,
    episodes_file: EpisodesFile = None,
    absent: Absent = 0.0,
    supports: Supports = "mask",
    references: References = 1,
    ways: Ways = 1,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
    published: Annotated[
        bool, typer.Option("--published", help="Add the papers' numbers in a column; only on their full data sets.")
    ] = False,
    out: Annotated[
        list[Path] | None, typer.Option(help="Also write the table here (.csv, .tex, .html); may be repeated.")
    ] = None,
) -> None:
    """Measure several models on the same episodes: intervals, and p (two-sided, by a paired bootstrap over episodes)
    of no difference to the first.

    `fewseg compare runs/hdmnet runs/bam dense prototype --repeats 1`. Data set and fold are those of the first run.
    Without one: `fewseg compare prototype dense pascal5i data.root=DIR`. `model.KEY=VALUE` is of
    the methods without training, or of trained models where there are these alone.
    """
    from fewseg.evaluation.compare import compare, describe, open_benchmark, table

    check_endings(out or [], (".csv", ".tex", ".html"))
    check_outputs(out or [], *targets, *(released or []), episodes_file)
    opened, benchmark = open_benchmark(
        *split_words(targets),
        released=released or [],
        device=device,
        protocol=protocol,
        shots=shots,
        episodes=episodes,
        repeats=repeats,
        file=episodes_file,
        absent=absent,
        supports=supports,
        references=references,
        ways=ways,
        progress=Bars(),
    )
    entries = compare(opened, benchmark, workers=workers, cache_gb=cache_gb, published=published, progress=Bars())
    written = [write_table(path, entries, command=command_given(ctx)) for path in out or []]
    console().print(printable(table(entries), title=describe(entries)))
    for entry in entries:
        for told in (*entry.results.presence_told, *entry.results.references_told):
            console().print(f"{entry.name}: {told}", highlight=False)
    for path in written:
        say(f"table: {path}")
