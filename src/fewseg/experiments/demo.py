"""The demo: HDMNet trained on the built-in scenes, measured on novel classes, used on pictures, and put in a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fewseg.build import create_model
from fewseg.config import load_config
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.compare import Entry, paired_p_value
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.results import Results
from fewseg.features.cache import FeatureCache
from fewseg.metrics.intervals import bootstrap_interval
from fewseg.metrics.iou import episode_counts, fb_iou, miou
from fewseg.models.base import FewShotSegmenter
from fewseg.predictor import FewShotPredictor
from fewseg.progress import Silent
from fewseg.report.chosen_episodes import class_mask, episode_panels
from fewseg.report.comparison import comparison_page
from fewseg.report.contents import ReportPage, Row
from fewseg.report.html import write_report
from fewseg.report.training import run_curves
from fewseg.segment import segment_folder
from fewseg.storage.opening import Opened, open_target
from fewseg.storage.saved import load_model
from fewseg.training.loop import train

EPISODES = 90
WITHOUT_MASK = "HDMNet, support mask taken away"
PROTOTYPE = "masked-average prototype"


def run_demo(out: Path, *, overrides: tuple[str, ...] = (), episodes: int = EPISODES, progress: Silent) -> Path:
    """Train, evaluate, segment and report into `out`; returns the report's path.

    `overrides` change the recipe `demo`. Raises UsageError if `out` exists already.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give another --out, or remove it")
    run = train(load_config("demo", *overrides), out / "run", progress=progress)
    opened = open_target(str(run), ("data.level=complex",), device="cpu")
    benchmark = Benchmark.of(opened, episodes=episodes, repeats=1, progress=progress)
    benchmark.lists[0].save(out / "episodes.csv")
    models = demo_models(run, opened)
    results = {
        name: evaluate(model, benchmark, weights=opened.weights, progress=progress, title=name)
        for name, model in models.items()
    }
    results["HDMNet"].save(out / "results.json")
    segment_some(models["HDMNet"], benchmark, out, progress=progress)
    return write_report(out / "report.html", demo_page(out, run, results, models, benchmark))


def demo_models(run: Path, opened: Opened) -> dict[str, FewShotSegmenter]:
    """The trained model, the same without its support mask, and prototypes on the same back-end."""
    trained = opened.config.model
    prototype = create_model(
        "prototype",
        backbone=trained.backbone,
        weights=str(Path(opened.weights["path"]) / "model.safetensors"),
        image_size=trained.options["image_size"],
    )
    return {
        "HDMNet": opened.model,
        WITHOUT_MASK: load_model(run, support_mask=False),
        PROTOTYPE: prototype.eval(),
    }


def everything_foreground(benchmark: Benchmark) -> Row:
    """The floor: every pixel of every query called foreground."""
    table, novel = [], benchmark.fold.novel
    for spec in benchmark.lists[0].specs:
        truth = torch.from_numpy(class_mask(benchmark.source.load(spec.query)[1], spec.class_id))
        table.append(episode_counts(torch.ones_like(truth), truth, spec.class_id).numpy())
    rows = np.stack(table)
    return Row("everything foreground", miou(rows, novel), bootstrap_interval(rows, novel), fb_iou(rows), "the floor")


def segment_some(model: FewShotSegmenter, benchmark: Benchmark, out: Path, *, progress: Silent, count: int = 6) -> None:
    """What a practitioner does: one annotated picture, a folder of others, masks in a folder."""
    source, spec = benchmark.source, benchmark.lists[0].specs[0]
    photos = out / "photos"
    photos.mkdir()
    images = source.index.images_of(spec.class_id, min_pixels=source.min_pixels).tolist()
    for i in [i for i in images if i != spec.support[0]][:count]:
        source.load(i)[0].save(photos / f"{source.index.ids[i]}.png")
    image, labels = source.load(spec.support[0])
    image.save(out / "support.png")
    Image.fromarray(((labels == spec.class_id) * 255).astype(np.uint8)).save(out / "support_mask.png")
    predictor = FewShotPredictor(model)
    predictor.set_support(out / "support.png", out / "support_mask.png")
    segment_folder(predictor, [photos], out / "masks", progress=progress)


def demo_page(
    out: Path, run: Path, results: dict[str, Results], models: dict[str, FewShotSegmenter], benchmark: Benchmark
) -> ReportPage:
    """The page: HDMNet against its own ablation and two baselines, on the same episodes."""
    main = results["HDMNet"]
    entries = [
        Entry(name, found, None if found is main else paired_p_value(found, main), None)
        for name, found in results.items()
    ]
    notes = {WITHOUT_MASK: "same weights, every support pixel counts", PROTOTYPE: "same back-end, nothing trained"}
    caches = {name: FeatureCache(model) for name, model in models.items()}
    page = comparison_page(entries, title="fewseg demo")
    return replace(
        page,
        subtitle=(
            "HDMNet, trained a few minutes on drawn scenes, finds classes that it was never trained on: "
            f"one annotated picture each of {', '.join(main.fold['novel_names'])}."
        ),
        rows=(*(replace(row, note=notes.get(row.name, "")) for row in page.rows), everything_foreground(benchmark)),
        curves=run_curves({"HDMNet": run}),
        panels=episode_panels(caches, benchmark, main.tables[0]),
        commands=(
            ("this page", f"fewseg demo --out {out}"),
            ("the numbers again", f"fewseg evaluate {run} data.level=complex --episodes-file {out / 'episodes.csv'}"),
            (
                "masks of your own pictures",
                f"fewseg segment --model {run} --support {out / 'support.png'} --mask {out / 'support_mask.png'}"
                f" --out masks {out / 'photos'}",
            ),
        ),
    )
