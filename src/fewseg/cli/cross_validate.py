"""`fewseg cross-validate`: methods on every fold, with several seeds, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewseg.cli.options import Absent, CacheGb, Device, Episodes, Protocol, References, Repeats, Supports, Ways, Workers
from fewseg.cli.outputs import check_made_here, check_outputs
from fewseg.cli.printing import console, printable, say
from fewseg.errors import UsageError
from fewseg.progress import Bars


def cross_validate(
    methods: Annotated[str, typer.Argument(help="Methods' recipes, with commas between several: hdmnet,dense.")],
    words: Annotated[
        list[str],
        typer.Argument(
            help="A data set, and overrides; `data.fold=all`, `train.seed=0,1,2` and lists of other options of model "
            "and training, each value a row: `model.support_mask=true,false`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the tables; what is finished in it is kept.")],
    shots: Annotated[str, typer.Option(help="Supports to test with, such as 1,5 [as trained, data.shots].")] = "",
    protocol: Protocol = "fewseg",
    episodes: Episodes = None,
    repeats: Repeats = None,
    absent: Absent = 0.0,
    supports: Supports = "mask",
    references: References = 1,
    ways: Ways = 1,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
    jobs: Annotated[
        int, typer.Option(min=1, help="Trainings at once; threads (and CUDA devices) are divided among them.")
    ] = 1,
) -> None:
    """Train and measure methods on every fold with every seed: the table of the papers, with tests between rows.

    `fewseg cross-validate hdmnet pascal5i data.root=DIR data.fold=all train.seed=0,1,2 --shots 1,5 --out runs/cv`. The
    same command goes on where it stopped; every training is a run directory below --out, which all other commands
    take. A base learner is trained once per fold and seed. A method without training (dense, prototype) has no seeds.
    `data.shots=1,5` trains for each number of shots; `--shots` tests every model with each. The table is printed, and
    written as `cross-validation.csv`, `.tex`, `.json` and `.html`.
    """
    from fewseg.experiments.cross_validation import NAME
    from fewseg.experiments.cross_validation import cross_validate as run
    from fewseg.runtime.processes import launched

    if launched() is not None:
        raise UsageError("cross-validate starts processes of its own (--jobs N); run it without torchrun or srun")
    check_outputs((out / f"{NAME}.{ending}" for ending in ("csv", "tex", "json", "html")), methods, *words)
    check_made_here([out / f"{NAME}.json"], '{\n  "experiment": ')
    found = run(
        methods,
        words,
        out=out,
        shots=_shots(shots),
        device=device,
        workers=workers,
        cache_gb=cache_gb,
        jobs=jobs,
        progress=Bars(),
        protocol=protocol,
        episodes=episodes,
        repeats=repeats,
        absent=absent,
        supports=supports,
        references=references,
        ways=ways,
    )
    shown = console()
    shown.print(printable([found.table.columns, *found.table.rows], title=found.table.title))
    for note in found.table.notes:
        shown.print(note, highlight=False)
    say(f"written: {out / NAME}.csv, .tex, .json, .html")


def _shots(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and 1 <= int(word[:9]) <= 1000 for word in words):
        raise UsageError(f"--shots {text!r}: give whole numbers, 1 to 1000, with commas between them, as 1,5")
    return [int(word) for word in dict.fromkeys(words)]
