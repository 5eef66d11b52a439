"""`fewseg rerun | replay`: a run is done again, or the batch that ended it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewseg.cli.printing import say
from fewseg.errors import DataError
from fewseg.progress import Bars


def rerun(
    run: Annotated[Path, typer.Argument(help="A finished run directory.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the new run [RUN-rerun].")] = None,
) -> None:
    """Train again from what a run directory holds, and say whether the weights are the same, bit for bit.

    Exit code 1 if they are not; what else is different (versions, threads, device) is listed.
    """
    from fewseg.runtime.processes import rank_and_world
    from fewseg.training.rerun import rerun as run_again

    run = run.resolve()  # "." has a name only then
    found = run_again(run, out or run.with_name(f"{run.name}-rerun"), progress=Bars())
    if rank_and_world()[0]:
        return
    for name, (before, now) in found.hashes.items():
        say(f"{'same' if before == now else 'DIFFERENT'}  {name}  {before[:16]}  {now[:16]}")
    for text in found.changed:
        say(f"changed: {text}")
    if not found.same:
        raise DataError(f"{found.out} is not the same as {run}, bit for bit")
    say(f"{found.out} is the same as {run}, bit for bit")


def replay(run: Annotated[Path, typer.Argument(help="A run directory whose loss was not finite.")]) -> None:
    """Compute the batch again at which a run's loss was not finite, and name the part where it went wrong.

    The run kept the weights and the batch in `RUN/failure`; no data set is needed.
    """
    from fewseg.training.replay import replay as run_replay

    found = run_replay(run)
    say(f"batch {found.step}: recorded {_terms(found.recorded)}")
    for item in found.items:
        say(f"  {item}")
    for rank, losses in enumerate(found.losses):
        say(f"again, process {rank}: {_terms(losses)}")
    if found.weights:
        say(f"weights that were not finite before the batch: {', '.join(found.weights)}")
    say(f"first part whose output is not finite: {found.first or 'none'}")


def _terms(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
