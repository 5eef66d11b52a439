"""From runs and evaluations to a report page: rows, per-class scores, learning curves and episode panels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes import EpisodeList, EpisodeSpec
from fewseg.data.protocols import EvaluationProtocol
from fewseg.data.source import Fold, ImageSource
from fewseg.engine.evaluate import Report
from fewseg.engine.features import FeatureCache
from fewseg.engine.scoring import at_truth, input_transform, predict
from fewseg.episode import Prediction
from fewseg.metrics import bootstrap_interval, class_iou, episode_counts, episode_iou
from fewseg.report.page import ClassScores, Curve, OtherPrediction, Panel, Row, Section


def row(name: str, report: Report, *, note: str = "", highlight: bool = False) -> Row:
    """A report as a line of the comparison."""
    return Row(name, report.miou, interval=report.interval, fb_iou=report.fb_iou, note=note, highlight=highlight)


def class_scores(report: Report, others: Mapping[str, Report]) -> tuple[ClassScores, ...]:
    """IoU of every novel class with its bootstrap interval, marked with what `others` reach."""
    table = np.concatenate(report.tables)
    scores = []
    for class_id, name in zip(report.fold["novel"], report.fold["novel_names"], strict=True):
        rows = table[table[:, 0] == class_id]
        interval = bootstrap_interval(table, [class_id]) if len(rows) else None
        marks = {other: r.class_iou[name] for other, r in others.items()}
        iou = class_iou(table, [class_id])[class_id]
        scores.append(ClassScores(name, iou, interval=interval, episodes=len(rows), marks=marks))
    return tuple(scores)


def curves(run: Path, *, prefix: str = "") -> tuple[Curve, ...]:
    """Loss, training IoU and validation mIoU of a run, from its `metrics.jsonl`."""
    file = run / "metrics.jsonl"
    lines = [json.loads(text) for text in file.read_text().splitlines()] if file.is_file() else []
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith(("loss_", "val_")) or key == "train_iou":
                found.setdefault(key, []).append((line["batches"], value))
    shown = []
    for key, points in found.items():
        steps, values = (tuple(float(p[i]) for p in points) for i in (0, 1))
        loss = key.startswith("loss_")
        chart = f"{prefix}loss" if loss else f"{prefix}IoU"
        label = key.removeprefix("loss_").replace("val_", "validation ").replace("train_iou", "training IoU")
        shown.append(Curve(label, steps, values, percent=not loss, chart=chart))
    return tuple(shown)


def choose_episodes(table: NDArray[np.int64], *, each: int = 2) -> dict[str, list[int]]:
    """Positions of the best, median and worst episodes of a table, `each` of them, of different classes where
    possible.
    """
    order = np.argsort(-episode_iou(table), kind="stable")
    middle = np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")
    groups, used = {}, set()
    for name, candidates in (("Best", order), ("Median", order[middle]), ("Worst", order[::-1])):
        chosen: list[int] = []
        for fresh in (True, False):
            for e in candidates.tolist():
                classes = {int(table[c, 0]) for c in chosen}
                if len(chosen) < each and e not in used and not (fresh and int(table[e, 0]) in classes):
                    chosen.append(e)
                    used.add(e)
        groups[name] = chosen
    return groups


@torch.inference_mode()
def episode_panel(
    caches: Mapping[str, FeatureCache],
    source: ImageSource,
    fold: Fold,
    spec: EpisodeSpec,
    *,
    protocol: EvaluationProtocol,
    group: str = "",
) -> Panel:
    """One episode in pictures: the first model's prediction and correlation maps, the others' predictions beside it."""
    support = [source.load(i) for i in spec.support]
    query, _ = source.load(spec.query)
    truth: NDArray[np.uint8] | None = None
    shown: list[tuple[str, NDArray[np.bool_], float, Prediction]] = []
    for name, cache in caches.items():
        transform = input_transform(protocol, cache.model.image_size)
        sample = EpisodeDataset(source, fold, spec_of=lambda _: spec, length=1, transform=transform)[0]
        prediction = predict(cache, sample)
        mask = at_truth(prediction.logits, sample.truth[0].shape, protocol).argmax(1)[0] == 1
        truth = sample.truth[0]
        mask = mask[: truth.shape[0], : truth.shape[1]]
        counts = episode_counts(mask, torch.from_numpy(truth), spec.class_id)[None].numpy()
        shown.append((name, mask.numpy(), float(episode_iou(counts)[0]), prediction))
    _, mask, iou, prediction = shown[0]
    return Panel(
        source.class_names[spec.class_id - 1],
        tuple(np.asarray(image) for image, _ in support),
        tuple(_binary(labels, spec.class_id) for _, labels in support),
        np.asarray(query),
        mask,
        truth=truth,
        iou=iou,
        caption=f"query {source.index.ids[spec.query]}",
        group=group,
        correlations=tuple(c[0].numpy() for c in prediction.correlations),
        others=tuple(OtherPrediction(name, m, i) for name, m, i, _ in shown[1:]),
    )


def episode_panels(
    caches: Mapping[str, FeatureCache],
    source: ImageSource,
    fold: Fold,
    episodes: EpisodeList,
    table: NDArray[np.int64],
    *,
    protocol: EvaluationProtocol,
    each: int = 2,
) -> tuple[Panel, ...]:
    """Panels of the best, median and worst episodes of a list by the first model's `table`."""
    return tuple(
        episode_panel(caches, source, fold, episodes.specs[e], protocol=protocol, group=group)
        for group, chosen in choose_episodes(table, each=each).items()
        for e in chosen
    )


def protocol_section(report: Report) -> Section:
    """The protocol record, seeds and episode hashes."""
    record = [
        (key, _text(value)) for key, value in report.protocol.items() if key not in ("seeds", "repeats", "episodes")
    ]
    repeats = [(f"episodes, seed {r.seed}", f"{r.episodes}, SHA-256 {r.episode_sha256}") for r in report.repeats]
    return Section("Protocol", header=("rule", "value"), rows=(*record, *repeats))


def version_section(report: Report) -> Section:
    """Checkpoint hash and versions of the software."""
    rows = [("checkpoint SHA-256", str(report.checkpoint.get("sha256", "none")))]
    return Section("Versions", header=("what", "value"), rows=(*rows, *report.versions.items()))


def facts(report: Report) -> tuple[tuple[str, str], ...]:
    """What the page's head says of the run."""
    return (
        ("method", f"{report.method} on {report.backbone}"),
        ("data", f"{report.source}, fold {report.fold['index']}, {report.shots}-shot"),
        ("novel classes", ", ".join(report.fold["novel_names"])),
        (
            "protocol",
            f"{report.protocol['name']}, {sum(r.episodes for r in report.repeats)} episodes, {report.image_size} px",
        ),
        ("parameters", f"{report.parameters['trained']:,} trained of {report.parameters['all']:,}"),
        ("time", f"{report.seconds_per_episode:.2f} s per episode"),
    )


def _binary(labels: NDArray[np.uint8], class_id: int) -> NDArray[np.uint8]:
    return np.where(labels == 255, 255, labels == class_id).astype(np.uint8)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
