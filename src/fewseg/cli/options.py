"""Options that several commands have, with their help."""

from pathlib import Path
from typing import Annotated

import typer

from fewseg.errors import MOST, UsageError


def finite(param: typer.CallbackParam, value: float | None) -> float | None:
    """The value of an option; UsageError for nan, inf and what no option means, which `min` lets pass."""
    if value is not None and not abs(value) <= MOST:
        raise UsageError(f"{param.opts[0]} {str(value)[:40]}: give a number up to {MOST}")
    return value


Refine = Annotated[
    str,
    typer.Option(
        help="none; fast: look twice, with what was found as a further support; best: mirrored as well. For lite."
    ),
]
Precision = Annotated[
    str,
    typer.Option(help="fp32; bf16 where the processor or the GPU has it, fp16 on a GPU: faster, other last digits."),
]
Model = Annotated[
    str,
    typer.Option(
        help="lite, which comes with fewseg; dense, prototype or linear, its features without what was trained; "
        "lite+linear, which `segment` takes where a class has several supports and none is named; a run directory, a "
        "saved or an exported model."
    ),
]
Target = Annotated[str, typer.Argument(help="A run directory, a saved model, or a method without training.")]
Targets = Annotated[
    list[str],
    typer.Argument(
        help="Run directories, saved models, training-free methods; a data set, overrides such as `data.root=DIR`."
    ),
]
Protocol = Annotated[str, typer.Option(help="As for `fewseg evaluate`, but no generalised one.")]
Shots = Annotated[
    int | None, typer.Option(callback=finite, min=1, help="Supports per episode [the model's, or the first target's].")
]
Episodes = Annotated[int | None, typer.Option(callback=finite, min=1, help="Episodes per repeat [the protocol's].")]
Repeats = Annotated[int | None, typer.Option(callback=finite, min=1, help="Repeats [the protocol's].")]
Absent = Annotated[
    float,
    typer.Option(
        callback=finite,
        min=0,
        max=0.99,
        help="Chance of each query not to hold the class, drawn from the seed: is that told?",
    ),
]
Supports = Annotated[
    str,
    typer.Option(help="mask; or box, scribble, point: made from the masks, and read as `fewseg segment` reads them."),
]
References = Annotated[
    int,
    typer.Option(
        callback=finite,
        min=1,
        max=1000,
        help="Draws of supports for every query: how much depends on which it is? So many times as many episodes.",
    ),
]
Ways = Annotated[
    int,
    typer.Option(
        callback=finite,
        min=1,
        max=254,
        help="Classes looked for in every query, scored in one map: N-way. N times as many episodes.",
    ),
]
EpisodesFile = Annotated[Path | None, typer.Option(help="A list saved by `fewseg data episodes`.")]
Workers = Annotated[int, typer.Option(callback=finite, min=0, help="Loader processes; the numbers never depend on it.")]
CacheGb = Annotated[
    float,
    typer.Option(min=0, callback=finite, help="Memory for encoded images; the numbers never depend on it."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")]

Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="Recipes (a method, a data set, a YAML file) and overrides such as `data.fold=1 train.lr=1e-3`."
    ),
]
