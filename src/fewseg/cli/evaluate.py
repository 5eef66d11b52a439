"""`fewseg evaluate`: one model on a fold's novel classes."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fewseg.cli.options import (
    Absent,
    CacheGb,
    Device,
    Episodes,
    EpisodesFile,
    Precision,
    References,
    Refine,
    Repeats,
    Shots,
    Supports,
    Target,
    Ways,
    Words,
    Workers,
    finite,
)
from fewseg.cli.outputs import check_outputs
from fewseg.cli.printing import print_generalised, print_plan, print_results, say
from fewseg.cli.stopping import if_stopped
from fewseg.errors import DataWarning, UsageError
from fewseg.progress import Bars, Silent

_LONGEST = 40
"""Letters of an option that are part of a file's name."""


def evaluate(
    target: Target,
    words: Words = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="fewseg, whole, or a paper's: hdmnet, bam, pfenet, hsnet, patnet, matcher; bam-cropped, "
            "pfenet-cropped; with base classes: fewseg-generalised, fewseg-all-generalised, bam-generalised; or a YAML "
            "file. See docs/protocols.md."
        ),
    ] = "fewseg",
    shots: Shots = None,
    episodes: Episodes = None,
    repeats: Repeats = None,
    episodes_file: EpisodesFile = None,
    absent: Absent = 0.0,
    supports: Supports = "mask",
    references: References = 1,
    ways: Ways = 1,
    support_mask: Annotated[bool, typer.Option(help="HDMNet: use the support mask at test time.")] = True,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the mirrored episode: a little better, twice the time.")
    ] = False,
    refine: Refine = "none",
    method: Annotated[
        str | None,
        typer.Option(help="Of a lite model: dense, prototype, linear or lite+linear, on its features [its own]."),
    ] = None,
    precision: Precision = "fp32",
    batch_size: Annotated[
        int, typer.Option(callback=finite, min=1, help="Episodes matched at once; worth it on a GPU.")
    ] = 1,
    tau: Annotated[
        float | None,
        typer.Option(callback=finite, help="Generalised protocols: a pixel is novel above this probability [0.9]."),
    ] = None,
    merge: Annotated[
        str | None, typer.Option(help="Generalised protocols: whose word comes first, final or base [final].")
    ] = None,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    file_gb: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="Largest temporary file for encoded images that memory has no room for."
        ),
    ] = 16.0,
    device: Device = "auto",
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what it will do and take, measured on a few of its episodes; then stop."),
    ] = False,
    save_masks: Annotated[
        Path | None,
        typer.Option(help="Folder for every predicted mask as PNG, with an index of the episodes as CSV."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write them as JSON [RUN/results-DATA-PROTOCOL-foldF-Kshot-....json]."),
    ] = None,
) -> None:
    """Measure a model on a fold's novel classes: mIoU, FB-IoU, per class, meta and base learner alone, with intervals.

    `fewseg evaluate RUN` takes data set and fold from the run; overrides such as `data.root=DIR` change them, and
    `fewseg evaluate RUN folder data.root=DIR` takes another data set. What the model was trained on is told,
    and which test classes it has seen there.
    `fewseg evaluate prototype pascal5i data.root=DIR data.fold=0` measures a method that needs no training. Under
    torchrun or srun the processes share the episodes; the digits are the same.
    With `--protocol bam-generalised`, a method with a base learner labels base and novel classes in one map.
    """
    from fewseg.evaluation.benchmark import Benchmark
    from fewseg.evaluation.evaluate import evaluate as run_evaluation
    from fewseg.evaluation.generalised import evaluate_generalised
    from fewseg.evaluation.protocol_files import labels_all
    from fewseg.evaluation.results import results_name
    from fewseg.evaluation.saved_masks import masks_folder
    from fewseg.models.in_use import in_use
    from fewseg.models.untrained import as_method
    from fewseg.runtime.engine import check_looks_once
    from fewseg.runtime.processes import join_launched
    from fewseg.storage.opening import open_target

    generalised = labels_all(protocol)
    used = "--flip" * flip or f"--refine {refine}" * (refine != "none") or "--method" * (method is not None)
    given = _generalised_options(protocol, {"tau": tau, "merge": merge}, used=used, generalised=generalised)
    _check_places(out, save_masks, [target, *(words or []), episodes_file], maps_of=protocol if generalised else None)
    rank, device = join_launched(device)
    if not rank:
        _note_unused(words or [])
    progress = Silent() if rank else Bars()
    opened = open_target(target, words or [], device=device, support_mask=support_mask)
    check_looks_once(method or opened.model.name, refine, own=opened.model.name)
    benchmark = Benchmark.of(
        opened,
        protocol=protocol,
        shots=shots,
        episodes=episodes,
        repeats=repeats,
        file=episodes_file,
        absent=absent,
        supports=supports,
        references=references,
        ways=ways,
        progress=progress,
    )
    hows = _hows(flip, refine, method, precision, support_mask, tau, merge)
    name = results_name(benchmark, *_changed(words or []), *hows)
    model = in_use(as_method(opened.model, method).eval(), flip=flip, refine=refine, precision=precision)
    how = {"batch_size": batch_size, "workers": workers, "cache_gb": cache_gb, "file_gb": file_gb, "progress": progress}
    if plan:
        _print_plan(model, benchmark, given if generalised else None, **how)
        return
    run: Any = evaluate_generalised if generalised else run_evaluation
    if save_masks is not None:
        given["masks"] = save_masks = masks_folder(save_masks, name)
    masks = f"the masks so far are in {save_masks}; no results were written"
    with if_stopped(masks if save_masks else "nothing was written"):
        results = run(model, benchmark, **given, **how, weights=opened.weights)
    if not rank:  # one of several processes prints and writes
        _keep_and_tell(results, out, Path(target) / name, masks=save_masks, generalised=generalised)


def _check_places(out: Path | None, masks: Path | None, inputs: list[Any], *, maps_of: str | None) -> None:
    """UsageError where results or masks cannot be written; `maps_of` a generalised protocol there are no rows."""
    from fewseg.evaluation.results import check_place

    if masks is not None and maps_of:
        raise UsageError(f"--save-masks writes masks of one class, not the maps of protocol {maps_of}; leave it out")
    if out is not None:
        check_outputs([out, out.with_suffix(".csv")], *inputs)
        check_place(out, rows=not maps_of)


def _keep_and_tell(results: Any, out: Path | None, usual: Path, *, masks: Path | None, generalised: bool) -> None:
    """Results are written to `out`, else at the `usual` place where its folder is there, and told."""
    from fewseg.evaluation.results import unlike
    from fewseg.evaluation.saved_masks import INDEX

    # first: what took hours is kept, whatever becomes of the terminal
    place = out or (unlike(usual, results) if usual.parent.is_dir() else None)
    saved = results.save(place) if place else None
    (print_generalised if generalised else print_results)(results)
    say(f"results: {saved or 'not kept; --out FILE.json keeps them'}")
    if masks is not None:
        say(f"masks: {masks} (which is which: {masks / INDEX})")


def _note_unused(words: list[str]) -> None:
    """Tell of settings that are given, and change nothing in an evaluation."""
    if unused := [word for word in words if "=" in word and word.startswith(("train.", "base.", "augment."))]:
        warnings.warn(
            f"of a training, and without effect here: {', '.join(unused)}; episodes are drawn by the protocol's "
            "seeds: a YAML file has others, or a list of fewseg data episodes --seed N",
            DataWarning,
            stacklevel=2,
        )


def _changed(words: list[str]) -> list[str]:
    """Options of the model that are given another value: parts of the results' name."""
    asked = [word.removeprefix("model.").replace("=", "", 1) for word in words if word.startswith("model.")]
    short = (word if len(word) <= _LONGEST else hashlib.sha256(word.encode()).hexdigest()[:8] for word in asked)
    return [re.sub(r"[^\w.+]+", "", word) for word in short]


def _hows(
    flip: bool,
    refine: str,
    method: str | None,
    precision: str,
    support_mask: bool,
    tau: float | None,
    merge: str | None,
) -> list[str]:
    """How a model is measured, where it is not as it is: parts of the results' name."""
    hows = {
        "flip": flip,
        f"refine-{refine}": refine != "none",
        str(method): bool(method),
        precision: precision != "fp32",
        "no-support-mask": not support_mask,
        f"tau{tau}": tau is not None,
        str(merge): bool(merge),
    }
    return [how for how, holds in hows.items() if holds]


def _print_plan(model: Any, benchmark: Any, labels: dict[str, Any] | None, **how: Any) -> None:
    """What the evaluation would do; `labels` are the options of a generalised protocol."""
    from fewseg.evaluation.evaluate import episode_score
    from fewseg.evaluation.generalised import label_score
    from fewseg.evaluation.rehearsal import plan_evaluation
    from fewseg.runtime.processes import launched

    if launched() is not None:
        raise UsageError("--plan plans for one process; run it without torchrun or srun")
    score: Any = episode_score(benchmark) if labels is None else label_score(model, benchmark, **labels)
    print_plan(plan_evaluation(model, benchmark, score=score, **how), workers=how["workers"], cache_gb=how["cache_gb"])


def _generalised_options(protocol: str, options: dict[str, Any], *, used: str, generalised: bool) -> dict[str, Any]:
    """Those of the options that are given; UsageError for what the protocol cannot take, or how it is `used`."""
    given = {key: value for key, value in options.items() if value is not None}
    if given and not generalised:
        raise UsageError(f"--tau and --merge belong to the generalised protocols, not to {protocol}")
    if used and generalised:
        raise UsageError(f"{used} is not made for protocol {protocol}; leave it out")
    return given
