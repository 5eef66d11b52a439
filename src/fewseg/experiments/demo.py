"""The demo: HDMNet and lite trained on the built-in scenes, measured on novel classes beside others, used on pictures,
and put in a report.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fewseg.build import create_model
from fewseg.config import load_config
from fewseg.data.masks import read_mask
from fewseg.data.source import mask_of
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.compare import Entry, paired_p_value
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.results import Results, results_name
from fewseg.features.cache import FeatureCache
from fewseg.metrics.intervals import bootstrap_interval
from fewseg.metrics.iou import episode_counts, fb_iou, miou
from fewseg.models.base import FewShotSegmenter
from fewseg.models.fast import remember_images
from fewseg.predictor import FewShotPredictor
from fewseg.progress import Silent
from fewseg.report.chosen_episodes import episode_panels, middle_panels
from fewseg.report.comparison import comparison_page
from fewseg.report.contents import Panel, ReportPage, Row
from fewseg.report.html import write_report
from fewseg.report.training import run_curves
from fewseg.runtime.beside import beside
from fewseg.segment import segment_folder
from fewseg.storage.opening import Opened, open_target
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import load_model
from fewseg.training.loop import train

MEASURED_ON = ("data.level=complex", "data.images=400")
"""The test pictures, whatever a recipe trains on."""
EPISODES = 200
BATCH_SIZE = 8
"""Episodes that are measured at once; the numbers are the same with any."""
RECIPES = {"HDMNet": "demo", "lite": "demo-lite"}
"""What is trained, the report's method first."""
WITHOUT_MASK = "HDMNet, support mask taken away"
NOTES = {
    "HDMNet": "its seconds include the back-end's work on every picture, which the rows below take over",
    "lite": "HDMNet's matching for a laptop, trained on the same pictures",
    "dense matching": "same back-end, nothing trained: each position as its nearest one in the support",
    "masked-average prototype": "same back-end, nothing trained",
    WITHOUT_MASK: "same weights, every support pixel counts",
    "everything foreground": "the floor",
}


def run_demo(out: Path, *, overrides: tuple[str, ...] = (), episodes: int = EPISODES, progress: Silent) -> Path:
    """Train, evaluate, segment and report into `out`; returns the report's path.

    `overrides` change both recipes. Raises UsageError if `out` exists already.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give another --out, or remove it")
    runs = {name: out / name.lower() for name in RECIPES}
    with beside(_train, "lite", overrides, runs["lite"]) as trained:
        progress.log("HDMNet and lite are trained side by side, lite in a process of its own")
        _train("HDMNet", overrides, runs["HDMNet"], progress=progress)
        progress.log("HDMNet is trained, now lite to its end")
        trained()
    with remember_images():
        opened = {name: open_target(str(run), MEASURED_ON, device="cpu") for name, run in runs.items()}
        benchmark = Benchmark.of(opened["HDMNet"], episodes=episodes, repeats=1, progress=progress)
        benchmark.lists[0].save(out / "episodes.csv")
        models = demo_models(runs, opened)
        trained_by = {**opened, WITHOUT_MASK: opened["HDMNet"]}
        results = {
            name: evaluate(
                model,
                benchmark if name in trained_by else replace(benchmark, learnt=None),
                batch_size=BATCH_SIZE,
                weights=trained_by[name].weights if name in trained_by else None,
                progress=progress,
                title=name,
            )
            for name, model in models.items()
        }
        for name in runs:
            results[name].save(out / name.lower() / results_name(benchmark))
        photos = segment_some(models["lite"], benchmark, out, progress=progress)
        return write_report(out / "report.html", demo_page(out, runs, results, models, benchmark, photos))


def _train(name: str, overrides: tuple[str, ...], run: Path, *, progress: Silent | None = None) -> None:
    config, again = load_config(RECIPES[name], *overrides), RunDirectory(run).resuming
    train(config, run, again=again, progress=progress or Silent())


def demo_models(runs: dict[str, Path], opened: dict[str, Opened]) -> dict[str, FewShotSegmenter]:
    """The trained models, methods without training on the same back-end, and HDMNet without its support mask."""
    main = opened["HDMNet"]
    same: dict[str, Any] = {
        "backbone": main.config.model.backbone,
        "weights": str(Path(main.weights["path"]) / "model.safetensors"),
        "image_size": main.config.model.options["image_size"],
    }
    return {
        **{name: one.model for name, one in opened.items()},
        "dense matching": create_model("dense", **same).eval(),
        "masked-average prototype": create_model("prototype", **same).eval(),
        WITHOUT_MASK: load_model(runs["HDMNet"], support_mask=False),
    }


def everything_foreground(benchmark: Benchmark) -> Row:
    """The floor: every pixel of every query called foreground."""
    table, novel = [], benchmark.fold.novel
    for spec in benchmark.lists[0].specs:
        labels = benchmark.source.load(spec.query)[1]
        truth = torch.from_numpy(mask_of(benchmark.source, spec.query, spec.class_id, labels))
        table.append(episode_counts(torch.ones_like(truth), truth, spec.class_id).numpy())
    rows = np.stack(table)
    scored = benchmark.protocol.scored(novel, rows[:, 0])
    nothing = {"p": "not tested", "parameters": "none", "s/episode": "none"}
    return Row(
        "everything foreground", miou(rows, scored), bootstrap_interval(rows, scored), fb_iou(rows), columns=nothing
    )


def segment_some(
    model: FewShotSegmenter, benchmark: Benchmark, out: Path, *, progress: Silent, count: int = 6
) -> tuple[Panel, ...]:
    """What a practitioner does: one annotated picture, a folder of others, masks in a folder; the first two pictures
    with their masks.
    """
    source, spec = benchmark.source, benchmark.lists[0].specs[0]
    photos = out / "photos"
    photos.mkdir()
    images = source.index.images_of(spec.class_id, min_pixels=source.min_pixels).tolist()
    for i in [i for i in images if i != spec.support[0]][:count]:
        source.load(i)[0].save(photos / f"{source.index.ids[i]}.png")
    image, labels = source.load(spec.support[0])
    mask = (mask_of(source, spec.support[0], spec.class_id, labels) == 1).astype(np.uint8)
    image.save(out / "support.png")
    Image.fromarray(mask * 255).save(out / "support_mask.png")
    predictor = FewShotPredictor(model)
    predictor.set_support(out / "support.png", out / "support_mask.png")
    segment_folder(predictor, [photos], out / "masks", progress=progress)
    return tuple(
        Panel(
            source.class_names[spec.class_id - 1],
            (np.asarray(image),),
            (mask,),
            np.asarray(Image.open(photo).convert("RGB")),
            read_mask(out / "masks" / photo.name) == 1,
            caption=f"{photo.name}, mask in {out / 'masks'}",
            group="A folder of pictures, masked by lite with one support",
            method="lite",
        )
        for photo in sorted(photos.iterdir())[:2]
    )


def demo_page(
    out: Path,
    runs: dict[str, Path],
    results: dict[str, Results],
    models: dict[str, FewShotSegmenter],
    benchmark: Benchmark,
    photos: tuple[Panel, ...],
) -> ReportPage:
    """The page: HDMNet and lite, HDMNet's own ablation and the baselines, on the same episodes."""
    main = results["HDMNet"]
    entries = [
        Entry(name, found, None if found is main else paired_p_value(found, main), None)
        for name, found in results.items()
    ]
    caches = {name: FeatureCache(models[name]) for name in ("HDMNet", "lite", "dense matching")}
    page = comparison_page(entries, title="fewseg demo")
    run, support, mask = runs["HDMNet"], out / "support.png", out / "support_mask.png"
    return replace(
        page,
        subtitle=(
            "Two networks, trained a few minutes on drawn scenes, find classes that they were never trained on "
            f"({', '.join(main.fold['novel_names'])}): one picture with the object marked is all they are given."
        ),
        opening=middle_panels(caches, benchmark, main.tables[0]),
        rows=tuple(
            replace(row, note=NOTES.get(row.name, "")) for row in (*page.rows, everything_foreground(benchmark))
        ),
        curves=run_curves(runs),
        panels=(*episode_panels(caches, benchmark, main.tables[0]), *photos),
        commands=(
            ("this page", f"fewseg demo --out {out}-again"),
            (
                "the numbers again",
                f"fewseg evaluate {run} {' '.join(MEASURED_ON)} --episodes-file {out / 'episodes.csv'}",
            ),
            (
                "the masks again",
                f"fewseg segment --model {runs['lite']} --support {support} --mask {mask} --out masks {out / 'photos'}",
            ),
            (
                "your own photos, with the model that comes with fewseg: a photo, a mask of an object in it (white on "
                "black), and a folder of photos to find it in",
                "fewseg segment --support a.jpg --mask a.png --out masks photos/",
            ),
        ),
    )
