"""The trainings of a cross-validation: a method with its options, a fold and a seed; one by one or several at once."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fewseg.build import takes_base_learner
from fewseg.config import Config, load_config
from fewseg.errors import FewsegError, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.results import Results, results_in, results_name
from fewseg.experiments.at_once import run_jobs
from fewseg.experiments.sweep import AGAIN
from fewseg.files import write_json
from fewseg.progress import Bars, Silent
from fewseg.runtime.heap import keep_freed_memory
from fewseg.storage.opening import open_target
from fewseg.storage.run_directory import RunDirectory
from fewseg.training.loop import OF_THE_WHOLE_RUN, ensure_base, train

FOLD, SEED = "data.fold", "train.seed"


@dataclass(frozen=True)
class Cell:
    """One training: a method with its options, on a fold with a seed."""

    method: str
    options: dict[str, str]
    fold: int
    seed: int | None
    fixed: tuple[str, ...]
    out: Path

    @property
    def variant(self) -> str:
        """What it is but for fold and seed, as part of a file's name: no sign that an override has."""
        parts = (Path(self.method).stem, *(f"{key}-{value}" for key, value in self.options.items()))
        return re.sub(r"[^\w.-]+", "_", "-".join(parts))

    @property
    def name(self) -> str:
        """Of its directory."""
        return f"{self.variant}-fold{self.fold}" + ("" if self.seed is None else f"-seed{self.seed}")

    @property
    def folder(self) -> Path:
        """Its run directory; for a method without training, where its results are."""
        return self.out / "runs" / self.name

    @property
    def words(self) -> tuple[str, ...]:
        """Recipes and overrides after the method's."""
        seed = () if self.seed is None else (f"{SEED}={self.seed}",)
        return (*self.fixed, *(f"{k}={v}" for k, v in self.options.items()), f"{FOLD}={self.fold}", *seed)

    @cached_property
    def config(self) -> Config:
        """Of the training, with the base learner that the trainings of this fold and seed share."""
        config = load_config(self.method, *self.words)
        if self._takes_base(config):
            config.base.run = str(self._home(config).base_learner)
        elif config.base.run is not None:
            config.base.run = config.base.run.replace("{fold}", str(self.fold)).replace("{seed}", str(self.seed))
        return config

    @cached_property
    def _own(self) -> Config:
        """Of the training as the words say it."""
        return load_config(self.method, *self.words)

    def _takes_base(self, config: Config) -> bool:
        return takes_base_learner(config) and config.base.run is None

    def _home(self, config: Config) -> RunDirectory:
        """Where that base learner is trained: a directory for all that it depends on."""
        data = {key: value for key, value in config.as_dict()["data"].items() if key not in ("shots", "novel")}
        how = [getattr(config.train, key) for key in OF_THE_WHOLE_RUN]
        parts = [data, config.model.backbone, config.model.weights, config.base.recipe, config.base.epochs, how]
        mark = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
        return RunDirectory(self.out.resolve() / "runs" / f"base-fold{self.fold}-seed{self.seed}-{mark}")

    def check(self) -> None:
        """UsageError where its directory holds something else than this, finished or not."""
        run = RunDirectory(self.folder)
        if self.seed is not None:
            run.check(self.config, resume=run.exists)
        elif self._record.is_file() and json.loads(self._record.read_text()) != self._as_json:
            raise UsageError(f"{self.folder} holds results of another configuration; give another --out")

    @property
    def _record(self) -> Path:
        return self.folder / "config.json"

    @property
    def _as_json(self) -> Any:
        return json.loads(json.dumps(self.config.as_dict()))

    @property
    def is_trained(self) -> bool:
        """Whether nothing is left to train."""
        return self.seed is None or RunDirectory(self.folder).is_finished(self.config)

    @property
    def base(self) -> Path | None:
        """Where its base learner is trained, if it is not given one."""
        return self._home(self._own).base_learner if self._takes_base(self._own) else None

    def train_base(self, progress: Silent) -> None:
        """Train what it shares with others."""
        if self.base is not None:
            ensure_base(self._own, self._home(self._own), resume=True, again=AGAIN, progress=progress)

    def measured(
        self, shots: Sequence[int], drawn: dict[str, Any], *, progress: Silent, **how: Any
    ) -> Iterator[tuple[int, Results]]:
        """Its results by shots, once it is trained."""
        if self.seed is None:
            write_json(self._record, self._as_json)
        elif not self.is_trained:
            self.train_base(progress)
            resume = RunDirectory(self.folder).exists
            train(self.config, self.folder, resume=resume, again=AGAIN, progress=progress)
        target = (self.method, self.words) if self.seed is None else (str(self.folder), ())
        for k in shots or (self.config.data.shots,):
            yield k, _measured(self, target, k, drawn, progress=progress, **how)


def at_once(cells: Sequence[Cell], jobs: int, told: dict[str, Any], out: Path, progress: Silent) -> None:
    """Train and measure what is not trained, several cells at once; base learners that they share come first."""
    missing = [cell for cell in cells if not cell.is_trained]
    first = {base: cell for cell in reversed(missing) if (base := cell.base) is not None}
    steps = (("base learners", True, first.values()), ("trainings", False, missing))
    for title, base_only, some in steps:
        named = {
            ("base-" if base_only else "") + cell.name: told
            | {"cell": asdict(cell) | {"out": str(out)}, "base_only": base_only}
            for cell in some
        }
        how: dict[str, Any] = {"module": __spec__.name, "folder": out / "jobs", "at_once": jobs}
        run_jobs(named, title=title, progress=progress, **how)


def _measured(
    cell: Cell,
    target: tuple[str, tuple[str, ...]],
    shots: int,
    drawn: dict[str, Any],
    *,
    device: str,
    progress: Silent,
    **how: Any,
) -> Results:
    """The results of a cell, from its directory where they are there."""
    opened = open_target(*target, device=device)
    benchmark = Benchmark.of(opened, shots=shots, progress=progress, **drawn)
    name = results_name(benchmark)
    saved = results_in(cell.folder / name, opened.weights, opened.model, benchmark)
    if saved is not None:
        return saved
    results = evaluate(opened.model, benchmark, weights=opened.weights, progress=progress, title=cell.name, **how)
    results.save(cell.folder / name)
    return results


def main() -> None:
    """A process of `at_once`: its only argument is the job's file."""
    keep_freed_memory()
    job = json.loads(Path(sys.argv[1]).read_text())
    cell = Cell(**job["cell"] | {"fixed": tuple(job["cell"]["fixed"]), "out": Path(job["cell"]["out"])})
    try:
        if job["base_only"]:
            cell.train_base(Bars())
        else:
            list(cell.measured(job["shots"], job["drawn"], progress=Bars(), **job["how"]))
    except FewsegError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
