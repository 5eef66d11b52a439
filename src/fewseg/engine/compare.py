"""Several models on the same episodes: one table, with paired tests against the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.checkpoints import load_released
from fewseg.data.episodes import EpisodeList
from fewseg.data.images import replacing
from fewseg.data.protocols import EvaluationProtocol, get_protocol
from fewseg.data.sampling import sample_episodes
from fewseg.data.source import Fold, ImageSource
from fewseg.engine.evaluate import evaluate, protocol_seeds
from fewseg.engine.memory import peak_memory, reset_peak_memory
from fewseg.engine.results import Report, saved_report
from fewseg.engine.runs import Opened, evaluation_fold, open_target, open_test_data, pick_device
from fewseg.errors import UsageError
from fewseg.metrics import bootstrap_miou
from fewseg.progress import Silent

COLUMNS = ("method", "mIoU", "low", "high", "p", "FB-IoU", "trained", "parameters", "s/episode", "peak MB")


@dataclass(frozen=True)
class Entry:
    """One model's line."""

    name: str
    report: Report
    p_value: float | None
    """Two-sided, from a paired bootstrap over episodes against the first model; None for the first itself."""
    peak_bytes: int | None
    """Largest resident memory of the process while it was evaluated (on CUDA: allocated there); None where unknown."""
    published: float | None = None
    """The paper's mIoU in per cent, where it was asked for and there is one."""

    def cells(self) -> tuple[str, ...]:
        """The line's texts, by `COLUMNS`; IoUs in per cent."""
        r = self.report
        return (
            self.name,
            *(f"{100 * v:.2f}" for v in (r.miou, *r.interval)),
            "" if self.p_value is None else f"{self.p_value:.3f}",
            f"{100 * r.fb_iou:.2f}",
            str(r.parameters["trained"]),
            str(r.parameters["all"]),
            f"{r.seconds_per_episode:.3f}",
            "" if self.peak_bytes is None else f"{self.peak_bytes / 1e6:.0f}",
        )


def compare(
    targets: Sequence[str],
    words: Sequence[str] = (),
    *,
    released: Sequence[str] = (),
    protocol: str = "fewseg",
    shots: int | None = None,
    episodes: int | None = None,
    repeats: int | None = None,
    episodes_file: Path | None = None,
    workers: int = 2,
    cache_gb: float = 2.0,
    device: str = "auto",
    reuse: bool = False,
    progress: Silent | None = None,
) -> list[Entry]:
    """Evaluate runs, saved models, training-free methods and `released` files ("hdmnet=FILE") on the same episodes.

    Data set and fold are the first target's, changed by `words`. `reuse` takes the evaluation saved in a run where it
    is just what would be measured; the time is then that one's. Raises UsageError where a model was trained on what is
    novel there.
    """
    opened = open_targets(targets, words, device=device)
    first = next(iter(opened.values()))
    opened |= _open_released(released, first, taken=opened, device=device)
    source, fold = open_test_data(first, progress=progress)
    record = get_protocol(protocol, dataset=source.name)
    lists = draw_lists(
        source,
        fold,
        record,
        shots=shots or first.config.data.shots,
        episodes=episodes,
        repeats=repeats,
        episodes_file=episodes_file,
    )
    entries: list[Entry] = []
    for name, one in opened.items():
        own_fold = evaluation_fold(one, source, fold.index)
        saved = saved_report(one.checkpoint, one.model, source, lists, protocol=record) if reuse else None
        reset_peak_memory()
        report = saved or evaluate(
            one.model,
            source,
            own_fold,
            protocol=record,
            episode_lists=lists,
            workers=workers,
            cache_gb=cache_gb,
            checkpoint=one.checkpoint,
            progress=progress,
        )
        p_value = paired_p_value(report, entries[0].report) if entries else None
        entries.append(Entry(name, report, p_value, None if saved else peak_memory(one.model.device)))
    return entries


def draw_lists(
    source: ImageSource,
    fold: Fold,
    protocol: EvaluationProtocol,
    *,
    shots: int,
    episodes: int | None = None,
    repeats: int | None = None,
    episodes_file: Path | None = None,
) -> list[EpisodeList]:
    """The episodes that all are measured on: a saved list, or those that the protocol draws, one list per repeat."""
    if episodes_file is not None:
        return [EpisodeList.load(episodes_file, source)]
    return [
        sample_episodes(source, fold, protocol=protocol, seed=seed, shots=shots, episodes=episodes)
        for seed in protocol_seeds(protocol, repeats)
    ]


def open_targets(targets: Sequence[str], words: Sequence[str], *, device: str = "auto") -> dict[str, Opened]:
    """The models by a name of their own; methods without training take the first target's data set."""
    opened: dict[str, Opened] = {}
    for target in targets:
        chosen = [f"data.name={one.config.data.name}" for one in list(opened.values())[:1] if not Path(target).is_dir()]
        one = open_target(target, [*chosen, *words], device=device)
        opened[_free(one.model.name, target, opened)] = one
    if not opened:
        raise UsageError(
            "give at least one run directory, saved model or training-free method: its data set is used for all"
        )
    return opened


def _open_released(
    released: Sequence[str], first: Opened, *, taken: dict[str, Opened], device: str
) -> dict[str, Opened]:
    opened: dict[str, Opened] = {}
    for text in released:
        method, _, file = text.partition("=")
        if not file:
            raise UsageError(f"--released {text!r} is not METHOD=FILE, such as hdmnet=released.pth")
        backbone = "resnet50" if method == "hsnet" else "resnet50-ds"
        model = load_released(method, file, backbone=backbone, shots=first.config.data.shots)
        name = _free(f"{method} (released)", file, taken | opened)
        opened[name] = Opened(model.to(pick_device(device)), first.config, None, {"path": file})
    return opened


def _free(name: str, target: str, taken: dict[str, Any]) -> str:
    return name if name not in taken else f"{name} ({target})"


def paired_p_value(report: Report, reference: Report, *, draws: int = 2000) -> float:
    """Two-sided p that both have the same mIoU: the share of paired bootstrap samples on the other side of 0,
    doubled.
    """
    classes = report.fold["novel"]
    ours, theirs = (bootstrap_miou(np.concatenate(r.tables), classes, draws=draws) for r in (report, reference))
    difference = ours - theirs
    below, above = float((difference <= 0).mean()), float((difference >= 0).mean())
    return min(1.0, 2 * min(below, above))


def as_csv(entries: Sequence[Entry]) -> str:
    """The table as CSV, with the episode hashes in a comment line."""
    text = io.StringIO()
    text.write(f"# {describe(entries)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(entry.cells() for entry in entries)
    return text.getvalue()


def as_latex(entries: Sequence[Entry]) -> str:
    """The table as a LaTeX tabular (booktabs)."""
    lines = [
        r"\begin{tabular}{l" + "r" * 5 + "}",
        r"\toprule",
        r"method & mIoU & 95\,\% interval & $p$ & FB-IoU & s/episode \\",
    ]
    lines.append(r"\midrule")
    for entry in entries:
        name, mean, low, high, p, fb, _, _, seconds, _ = entry.cells()
        lines.append(rf"{_escape(name)} & {mean} & {low}--{high} & {p} & {fb} & {seconds} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {describe(entries)}", ""])


def describe(entries: Sequence[Entry]) -> str:
    """Data, fold, shots, protocol, episodes and hashes in a line."""
    r = entries[0].report
    hashes = ", ".join(repeat.episode_sha256[:16] for repeat in r.repeats)
    counts = sum(repeat.episodes for repeat in r.repeats)
    return (
        f"{r.source} fold {r.fold['index']}, {r.shots}-shot, protocol {r.protocol['name']}, {counts} episodes in "
        f"{len(r.repeats)} repeats, SHA-256 {hashes}"
    )


def save_table(path: Path, entries: Sequence[Entry]) -> Path:
    """Write the table by the file's ending: .csv or .tex."""
    writers = {".csv": as_csv, ".tex": as_latex}
    if path.suffix not in writers:
        raise UsageError(f"cannot write a table as {path.name!r}; give a name that ends in .csv or .tex")
    with replacing(path) as temporary:
        temporary.write_text(writers[path.suffix](entries))
    return path


def _escape(text: str) -> str:
    return "".join("\\" + c if c in "&%$#_{}" else c for c in text)
