"""What an evaluation found: Results, saved as JSON with the rows of its episodes beside it as CSV, and read again."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewseg.errors import DataError, UsageError, shortened
from fewseg.evaluation.benchmark import Benchmark
from fewseg.files import file_sha256, write_csv, write_json
from fewseg.metrics.intervals import LEAST
from fewseg.metrics.iou import COLUMNS
from fewseg.metrics.references import of_queries
from fewseg.models.hub_model import model_options
from fewseg.progress import counted
from fewseg.storage.run_directory import RunDirectory

HEADER = ("repeat", "episode", *COLUMNS, "foreground_on")

WEIGHTS = "checkpoint"
"""Key of the weights in a results file, from 0.1 on."""

NOTHING = "no pixel of any class was found in any episode (IoU 0): nothing was learnt that these numbers could measure"
"""Where all intersections are 0."""

Table = NDArray[np.int64]


@dataclass(frozen=True)
class Repeat:
    """The numbers of one repeat; IoUs are shares of 1."""

    seed: int
    episodes: int
    episode_sha256: str
    miou: float
    fb_iou: float
    class_iou: dict[str, float]
    meta_miou: float | None = None
    base_miou: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What every kind of evaluation tells: all that is needed to repeat it, and the IoU of every class."""

    method: str
    backbone: str
    options: dict[str, Any]
    """The model's constructor arguments."""
    source: str
    source_sha256: str
    """Hash of the subset's annotations."""
    fold: dict[str, Any]
    shots: int
    image_size: int
    protocol: dict[str, Any]
    repeats: list[Any]
    class_iou: dict[str, float]
    """Mean over the repeats in which the class counts."""
    not_drawn: list[str] = field(default_factory=list)
    """Novel classes without an episode in some repeat; the protocol's `undrawn` says what they count there."""
    seconds_per_episode: float
    weights: dict[str, Any]
    """Their path and hash."""
    versions: dict[str, str]
    trained_on: dict[str, Any] = field(default_factory=dict)
    """The data set, fold and class names that the model was trained on; empty for a method without training."""
    seen: list[str] | None = None
    """Names of the test classes that it was trained on, by their names; None where that is not known."""
    unseen_miou: float | None = None
    """mIoU of the others, mean over repeats, where there are both."""
    data: dict[str, Any] = field(default_factory=dict)
    """The data set's options that are not as it has them: its root, what divides it, what is drawn."""
    base_matched: dict[str, Any] = field(default_factory=dict)
    """How a base learner's classes were matched to those of another data set than its own; see `Matching`."""

    def shown_name(self, class_name: str) -> str:
        """A class's name, with a mark where the model was trained on it."""
        return f"{class_name} (seen in training)" if class_name in (self.seen or ()) else class_name

    @property
    def test_classes(self) -> int:
        """How many classes are novel."""
        return len(self.fold["novel_names"])

    @property
    def data_told(self) -> str:
        """Which data they are, beside the data set's name; empty where its usual options say all."""
        return ", ".join(f"data.{key}={value}" for key, value in self.data.items())

    @property
    def training_data(self) -> str:
        """The data set, fold and number of classes that the model was trained on; empty where nothing was."""
        if not self.trained_on:
            return "not recorded" if self.weights else ""
        data, fold, count = self.trained_on["data"], self.trained_on["fold"], len(self.trained_on["classes"] or ())
        if fold is None:
            return f"{data}, all {count} classes" if count else f"{data}, all classes"
        return f"{data}, fold {fold} ({counted(count, 'class')})" if count else f"{data}, fold {fold}"

    @property
    def trained_size(self) -> int | None:
        """Side of the images that the model was trained on, where that is known and another than it is measured at."""
        size = self.trained_on.get("image_size")
        return None if size == self.image_size else size

    @property
    def origin(self) -> list[str]:
        """What the model was trained on, and what of the test classes it has seen, in lines; none where there is
        nothing to tell.
        """
        return [*self._training_told(), *self._matching_told()]

    @property
    def origin_briefly(self) -> str:
        """The same in a line, without the names of classes; empty where there is nothing to tell."""
        return "; ".join(self._training_told(names=False))

    def _training_told(self, *, names: bool = True) -> list[str]:
        if not self.trained_on:
            return ["what the model was trained on is not recorded"] if self.weights else []

        def named(text: str, classes: Sequence[str] | None) -> str:
            return f"{text}: {_listed(classes)}" if names and classes else text

        lines, count = [named(f"trained on {self.training_data}", self.trained_on["classes"])], self.test_classes
        lines += [self.weights["unfinished"]] if self.weights.get("unfinished") else []
        if self.seen is None:
            lines.append(
                "the names of the classes that it was trained on are not known, so neither is which it has seen"
            )
        elif not self.seen:
            none = "the test class was not" if count == 1 else f"none of the {count} test classes was"
            lines.append(f"{none} seen in training, by {'its name' if count == 1 else 'their names'}")
        else:
            told = f"{len(self.seen)} of {count} test classes were seen in training, by their names"
            lines.append(named(told, self.seen))
        if self.unseen_miou is not None:
            lines.append(f"mIoU of the {count - len(self.seen or ())} unseen classes {100 * self.unseen_miou:.2f}")
        if self.trained_size is not None:
            lines.append(f"trained at {self.trained_size} px, measured at {self.image_size} px")
        return lines

    def _matching_told(self) -> list[str]:
        if not self.base_matched:
            return []
        names, absent, unknown = (self.base_matched[key] for key in ("names", "absent", "unknown"))
        pairs = _listed([own if own == other else f"{own} = {other}" for own, other in names.items()])
        told = [f"base learner: {len(names)} of its classes are base classes here, by name: {pairs}"]
        if absent:
            told.append(
                f"base learner: {len(absent)} of its classes are none, and count as background: {_listed(absent)}"
            )
        if unknown:
            told.append(f"base classes that it does not know, which count as background: {_listed(unknown)}")
        return told

    @property
    def left_out(self) -> str:
        """The classes of `not_drawn` and what they count, in words; empty where all were drawn."""
        if not self.not_drawn:
            return ""
        zero = f"IoU 0 in the mean, as {self.protocol['name']} has it"
        rule = "left out of the mean" if self.protocol["undrawn"] == "left out" else zero
        where = "not drawn in some repeat" if len(self.repeats) > 1 else "not drawn"
        return f"{where}, {rule}: {', '.join(self.not_drawn)}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the fields by their keys in the file."""
        return {WEIGHTS if key == "weights" else key: value for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Results(Evaluation):
    """What an evaluation on novel classes found."""

    repeats: list[Repeat]
    class_names: list[str]
    """Names of class ids 1..N."""
    miou: float
    """Mean over repeats."""
    interval: tuple[float, float] | None
    """95 %: Student's t over repeats, or a bootstrap over episodes if there is one repeat; None: too few episodes."""
    interval_kind: str
    fb_iou: float
    meta_miou: float | None
    base_miou: float | None
    base_without_truth: list[str] = field(default_factory=list)
    """Base classes that no query of some repeat holds, which are left out of `base_miou` there."""
    presence: dict[str, Any] = field(default_factory=dict)
    """Where queries may lack the class: how many do, and how well that is told; shares of 1."""
    references: dict[str, Any] = field(default_factory=dict)
    """Where every query has several draws of supports: how many, and the spread over them (`reference_spread`)."""
    parameters: dict[str, int]
    tables: list[Table] = field(repr=False, default_factory=list)
    """Per repeat the rows of its episodes; saved as CSV, not in the JSON."""
    foreground_on: list[Table] = field(repr=False, default_factory=list)
    """Per repeat where its episodes' foreground fell; see `Rows`."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; without the rows."""
        return {k: v for k, v in super().as_dict().items() if k not in ("tables", "foreground_on")}

    @property
    def presence_told(self) -> list[str]:
        """The same in lines; none where every query holds its class."""
        if not (p := self.presence):
            return []
        auc, marked, at_90, at_95, holding = (
            "-" if p[key] is None else f"{100 * p[key]:.2f}"
            for key in ("auc", "marked", "false_at_90", "false_at_95", "miou_holding")
        )
        by = "the model's presence" if p["by"] == "presence" else "the size of its mask"
        lacking, queries = p["lacking"], p["lacking"] + p["holding"]
        told = (
            f"by {by}: AUC {auc}; of queries without it {at_90} % are taken to hold it where 90 % of "
            f"those with it are, {at_95} % where 95 % are; any pixel is marked in {marked} % of them"
        )
        if min(lacking, p["holding"]) < LEAST:
            told = f"too few queries to tell: it takes {LEAST} with the class and {LEAST} without"
        return [
            f"{lacking} of {queries} queries lack the class; what is marked there counts in the unions above; mIoU of "
            f"the others alone {holding}",
            f"is it there? {told}",
        ]

    @property
    def nothing_told(self) -> str:
        """That no episode found anything, in words; empty where one did."""
        return "" if self.miou else NOTHING

    @property
    def independent(self) -> list[NDArray[np.int64]]:
        """The tables with a row a query: several draws of its supports are no episodes to resample apart."""
        return [of_queries(table, self.references.get("draws", 1)) for table in self.tables]

    @property
    def references_told(self) -> list[str]:
        """The spread over supports of the same query in lines; none where every query has one draw of them."""
        if not (r := self.references):
            return []
        sd, lowest, highest, worst, best = (
            f"{100 * r[key]:.2f}" for key in ("query_sd", "lowest", "highest", "worst", "best")
        )
        return [
            f"{r['draws']} draws of supports a query: the IoU of a query has a standard deviation of {sd} points over "
            f"them (mean over queries); lists of one draw each have mIoU {lowest} to {highest}",
            f"mIoU with the worst supports of every query {worst}, with the best {best}",
        ]

    def save(self, path: Path) -> Path:
        """Write the numbers as JSON, and the rows beside it as CSV; the JSON comes last and holds the CSV's hash.

        The column `foreground_on` lists the predicted foreground as `class id:pixels`, 0 being background. Raises
        UsageError if `path` does not end in .json, or either file is there and is no evaluation's.
        """
        check_place(path)
        rows: list[Sequence[Any]] = [HEADER]
        for r, (table, pixels) in enumerate(zip(self.tables, self.foreground_on, strict=True)):
            for e, (row, on) in enumerate(zip(table.tolist(), pixels, strict=True)):
                rows.append([r, e, *row, " ".join(f"{c}:{on[c]}" for c in np.flatnonzero(on))])
        file = write_csv(path.with_suffix(".csv"), rows)
        return write_json(path, self.as_dict() | {"rows": {"file": file.name, "sha256": file_sha256(file)}})

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read saved results with their rows. Raises DataError if one is missing, damaged or of another kind."""
        record, tables, foreground_on = _read(path)
        record = {"weights" if key == WEIGHTS else key: value for key, value in record.items()}
        held = (f for f in fields(cls) if f.name not in ("tables", "foreground_on"))
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in held}
        if not {name for name, needed in known.items() if needed} <= set(record) <= set(known):
            raise DataError(f"{path} is of another version of fewseg; evaluate again")
        interval = None if record["interval"] is None else tuple(record["interval"])
        record |= {"repeats": [Repeat(**r) for r in record["repeats"]], "interval": interval}
        return cls(**record, tables=tables, foreground_on=foreground_on)


def _listed(names: Sequence[str], most: int = 20) -> str:
    return shortened(names, most) or "none"


def results_name(benchmark: Benchmark, *how: str) -> str:
    """The file's name of an evaluation: its data, protocol, fold, shots, repeats x episodes, the first hash, `how`."""
    return results_names(benchmark, *how)[0]


def results_names(benchmark: Benchmark, *how: str) -> tuple[str, str]:
    """That name, and the one without the data that older versions gave."""
    first, *_ = benchmark.lists
    drawn = f"{benchmark.shots}shot-{len(benchmark.lists)}x{len(first)}-{first.sha256[:8]}"
    told = (benchmark.protocol.name, f"fold{benchmark.fold.index}", drawn, *how)
    data = re.sub(r"[^\w.+]+", "_", benchmark.source.name)
    return "-".join(("results", data, *told)) + ".json", "-".join(("results", *told)) + ".json"


def unlike(path: Path, results: Evaluation) -> Path:
    """A place for results that are to be at `path`: another beside it where those there are of other options of the
    model, or of other data.
    """
    own = _mark(results.options, results.source_sha256)
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        same = own == _mark(there["options"], there["source_sha256"])
    except (OSError, ValueError, KeyError, TypeError):  # none is there, or nothing that could be replaced
        return path
    return path if same else _marked(path, own)


def _mark(options: dict[str, Any], source_sha256: str) -> str:
    """What keeps evaluations of one name apart in their files' names."""
    return hashlib.sha256(json.dumps([options, source_sha256]).encode()).hexdigest()[:8]


def _marked(path: Path, mark: str) -> Path:
    return path.with_name(f"{path.stem}-{mark}.json")


def check_place(path: Path, *, rows: bool = True) -> None:
    """Raise UsageError unless an evaluation may be written there (`rows`: with its CSV): none but one is replaced."""
    if path.suffix != ".json":
        raise UsageError(f"an evaluation is saved as JSON, with a CSV beside it; end {path.name!r} in .json")
    places = {path: _is_evaluation} | ({path.with_suffix(".csv"): _is_rows} if rows else {})
    for file, ours in places.items():
        if file.is_dir() or (file.exists() and file.stat().st_size and not ours(file)):
            beside = "" if file == path else f"the rows of {path.name} would be written to {file.name}, but "
            raise UsageError(f"{beside}{file} is there and holds something else; give another name than {path.name}")


def _is_evaluation(file: Path) -> bool:
    try:
        return {"method", "protocol", "repeats"} <= json.loads(file.read_text(encoding="utf-8")).keys()
    except (ValueError, AttributeError):
        return False


def _is_rows(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.readline().startswith(",".join(HEADER[:3]).encode())


def saved_results(weights: dict[str, Any], model: torch.nn.Module, benchmark: Benchmark) -> Results | None:
    """The results that `fewseg evaluate` left in a run, if they are just what would be measured again; else None.

    That is: the same weights and options of the model, the same data, protocol and episodes. A file that cannot be
    read counts as none.
    """
    if "sha256" not in weights:
        return None
    folder, mark = Path(weights["path"]), _mark(model_options(model), benchmark.source.index.sha256)
    for place in (folder, folder.parent):
        names = [place / name for name in (*results_names(benchmark), *RunDirectory.earlier_results)]
        for file in (*names, _marked(names[0], mark)):
            if found := results_in(file, weights, model, benchmark):
                return found
    return None


def results_in(file: Path, weights: dict[str, Any], model: torch.nn.Module, benchmark: Benchmark) -> Results | None:
    """The results in a file, if they are just what would be measured again; else, or where there is none, None."""
    if not file.is_file():
        return None
    try:
        found = Results.load(file)
    except DataError:
        return None
    fits = (
        found.weights.get("sha256") == weights.get("sha256")
        and found.options == json.loads(json.dumps(model_options(model)))
        and found.source_sha256 == benchmark.source.index.sha256
        and found.protocol == benchmark.protocol.as_dict()
        and [r.episode_sha256 for r in found.repeats] == [listed.sha256 for listed in benchmark.lists]
        and found.versions["fewseg"] == version("fewseg")
    )
    return found if fits else None


def _read(path: Path) -> tuple[dict[str, Any], list[Table], list[Table]]:
    """What `Results.save` wrote: the JSON without the hash, and the tables of counts and of foreground.

    Raises DataError if a file is missing or damaged, or the two do not belong together.
    """
    file = path.with_suffix(".csv")
    try:
        record = json.loads(path.read_text())
        if record.pop("rows")["sha256"] != file_sha256(file):
            raise ValueError(f"{file.name} is not the one that belongs to it")
        width = 1 + len(record["class_names"])
        lines = list(csv.reader(file.read_text().splitlines()))[1:]
        repeats = [[line for line in lines if int(line[0]) == r] for r in range(len(record["repeats"]))]
        tables = [np.array([list(map(int, line[2:-1])) for line in group]) for group in repeats]
        return record, tables, [np.stack([_pixels(line[-1], width) for line in group]) for group in repeats]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error) as error:
        raise DataError(f"the saved evaluation {path} cannot be read ({error}); evaluate again") from error


def _pixels(text: str, width: int) -> Table:
    pixels = np.zeros(width, np.int64)
    for pair in text.split():
        class_id, count = map(int, pair.split(":"))
        pixels[class_id] = count
    return pixels
