"""The command `fewseg export`: a model as ONNX graphs, and what 8-bit weights cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fewseg.cli.options import Target
from fewseg.cli.printing import say
from fewseg.errors import UsageError
from fewseg.progress import counted


def export(
    target: Target,
    onnx: Annotated[Path | None, typer.Option(help="Folder for the graphs, which `--model` takes.")] = None,
    slim: Annotated[
        Path | None, typer.Option(help="Folder for the trained weights alone, in 16 bits: fewseg brings the back-end.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights in 16 bits; prints what that changes.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Weights in 8 bits; prints what that changes.")] = False,
    support: Annotated[
        list[Path] | None, typer.Option(help="With --half or --int8: an annotated photo to measure on.")
    ] = None,
    mask: Annotated[list[Path] | None, typer.Option(help="With --support: its mask, in the same order.")] = None,
    photos: Annotated[list[Path] | None, typer.Option(help="With --support: photos or folders to compare on.")] = None,
) -> None:
    """Export a model to ONNX graphs, which run without torch; they are checked against PyTorch in onnxruntime.

    `fewseg export RUN --slim DIR` makes a small folder to pass on, which `--model DIR` takes, of a model on a frozen
    lite0, lite1 or lite2. `fewseg export RUN --onnx DIR` needs the extra `onnx`;
    `fewseg segment --model DIR` takes what it writes. `--half` and `--int8` compare the masks of the graphs with
    PyTorch's: on --support, --mask and --photos if given, else on drawn scenes.
    """
    from fewseg.evaluation.agreement import agreement
    from fewseg.linear import classifies
    from fewseg.runtime.graphs import FILES, OnnxSegmenter, graph_of
    from fewseg.storage.onnx_graphs import export_onnx
    from fewseg.storage.opening import open_target
    from fewseg.storage.saved import find_folder, load_model, save_model

    if (onnx is None) == (slim is None):
        raise UsageError("say what to make: --onnx DIR or --slim DIR")
    if slim is not None:
        if slim.resolve() == find_folder(target).resolve():
            raise UsageError(f"{slim} is the model that is given; give a new folder, the full weights would be lost")
        if int8 or half:
            raise UsageError("--half and --int8 are for the graphs of --onnx; a slim folder's weights have 16 bits")
        file = save_model(load_model(target), slim, slim=True) / "model.safetensors"
        say(f"exported: {slim} ({file.stat().st_size / 1e3:,.0f} kB)")
        return
    assert onnx is not None
    if half and int8:
        raise UsageError("give --half or --int8, not both")
    measured = _pictures(support or [], mask or [], photos or []) if half or int8 else None
    opened = open_target(target, [], device="cpu")
    out = export_onnx(opened.model, onnx, int8=int8, half=half, source=opened.weights.get("sha256", ""))
    exported = OnnxSegmenter(out)
    files = [*FILES, *(graph_of(method) for method in exported.methods[1:] if not classifies(method))]
    size = sum((out / name).stat().st_size for name in files) / 1e6
    shots = counted(exported.shots, "shot") if exported.shots else "any number of shots"
    say(f"exported: {out} ({size:.1f} MB, any size, {shots}); the float graphs agree with PyTorch")
    if measured is not None:
        where, pair, queries = measured
        cost = agreement(opened.model, exported, pair, queries)
        say(
            f"{'int8' if int8 else '16 bits'} against PyTorch on {counted(cost.photos, where)}: IoU of the masks "
            f"{100 * cost.iou:.2f} %, {100 * cost.pixels:.2f} % of the pixels alike"
        )


def _pictures(support: list[Path], mask: list[Path], photos: list[Path]) -> tuple[str, tuple[Any, Any], list[Any]]:
    """What to measure on: (what it is, (support images, masks), queries)."""
    if support or mask or photos:
        if not photos or not support or len(support) != len(mask):
            raise UsageError("to measure on your own photos give --support and --mask alike often, and --photos")
        from fewseg.segment import plan

        jobs = [job.query for job in plan(photos, Path("no output folder")) if not job.is_video]
        return "photo", (support, mask), jobs
    from fewseg.data.sets.scenes import Scenes

    source = Scenes(subset="test", level="simple", images=60, size=320)
    first, *rest = source.index.images_of(1, min_pixels=source.min_pixels)[:9].tolist()
    image, labels = source.load(first)
    return "drawn scene", (image, labels == 1), [source.load(i)[0] for i in rest]
