"""RunDirectory: which file of a training run is where, and what they say about the run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewseg import registry
from fewseg.config import Config, load_config
from fewseg.errors import DataError, UsageError
from fewseg.files import leftovers
from fewseg.storage.saved import BEST, LAST, check_replaceable, clear_leftovers, read_record


class RunDirectory:
    """What a run keeps on the disk.

    `config.yaml` and `run.json` (what repeating it needs), `metrics.jsonl`, `best/` and `last/` (saved models), `base/`
    (the run of the base learner that was trained first), `state.pt` and the checkpoint before it (what resuming needs),
    `failure/` where the loss was not finite, and `results-....json` with what every `fewseg evaluate` found.
    """

    earlier_results = ("results.json", "report.json")
    """What the one file of results was called before they had names of their own; report.json is 0.1's."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.configuration = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.best, self.last = self.path / BEST, self.path / LAST
        self.base_learner = self.path / "base"
        self.state, self.previous_state = self.path / "state.pt", self.path / "state.previous.pt"
        self.failure = self.path / "failure"

    @classmethod
    def around(cls, folder: Path) -> RunDirectory | None:
        """The run that a folder is, or that a saved model's folder is part of; a config.yaml alone makes none."""
        runs = (cls(folder), cls(folder.absolute().parent))
        return next((run for run in runs if run.exists and run.record.is_file()), None)

    @property
    def exists(self) -> bool:
        """Whether a run was started there."""
        return self.configuration.is_file()

    @property
    def resuming(self) -> str:
        """The command that goes on with the run."""
        return shlex.join(["fewseg", "train", "--resume", "--out", str(self.path)])

    def config(self) -> Config:
        """The configuration that the run was started with; DataError where there is none."""
        if not self.exists:
            raise DataError(f"{self.path} holds no run (no {self.configuration.name})")
        self.check_plugins()
        return load_config(str(self.configuration))

    def check_plugins(self) -> None:
        """UsageError where the run's method or data set comes from a plugin that was not given."""
        try:
            recorded = json.loads(self.record.read_text())
        except (OSError, ValueError):  # whoever needs the record says so
            return
        registry.check_plugins(isinstance(recorded, dict) and recorded.get("plugins"), named_by=self.path)

    def is_finished(self, config: Config) -> bool:
        """Whether the training came to the end of its last epoch."""
        return self._epochs_done == config.train.epochs

    @property
    def unfinished(self) -> str:
        """How far a training came that has not ended, in words; empty where it has, or that is not known."""
        epochs, done = self.config().train.epochs, self._epochs_done
        known = isinstance(done, int) and done < epochs
        return f"its training has not ended: {done} of {epochs} epochs" if known else ""

    @property
    def _epochs_done(self) -> Any:
        """What the last model says; None where there is none, or it does not say."""
        try:
            return read_record(self.last)["info"].get("epoch")
        except DataError:
            return None

    def check(self, config: Config, *, resume: bool) -> None:
        """Raise UsageError or DataError unless there is no run, or, to `resume`, one of the same configuration."""
        if not self.exists:
            if resume:
                raise DataError(f"{self.path} holds no run to resume (no {self.configuration.name})")
            for folder in (self.best, self.last):  # now, not after an epoch
                check_replaceable(folder)
        elif not resume:
            raise UsageError(f"{self.path} already holds a run; give another --out, or --resume to go on with it")
        elif differing := _differing(self.config().as_dict(), config.as_dict()):
            raise UsageError(
                f"the configuration differs from {self.configuration}: {'; '.join(differing)}; resume with the same "
                "one, or give another --out"
            )

    def recorded(self) -> dict[str, Any]:
        """What `run.json` says; DataError where it is missing or damaged."""
        try:
            content = json.loads(self.record.read_text())
            if missing := {"versions", "threads", "processes", "device", "data", "items", "base"} - content.keys():
                raise DataError(f"{self.record} is damaged (no {', '.join(sorted(missing))})")
            return content
        except FileNotFoundError as error:
            raise DataError(f"{self.path} holds no run that can be repeated (no {self.record.name})") from error
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{self.record} is damaged ({type(error).__name__}: {error})") from error

    def clear_leftovers(self) -> None:
        """Remove what a killed process had not moved into its place yet; a model that it moved away comes back."""
        own = {path.name for path in (self.configuration, self.record, self.metrics, self.state)}
        for file in leftovers(self.path, own.__contains__):
            file.unlink()
        for folder in (self.best, self.last):
            clear_leftovers(folder)


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The keys of two configurations that differ, with both values."""
    found: list[str] = []
    for group in {**there, **here}:
        former, given = there.get(group, {}), here.get(group, {})
        found += [
            f"{group}.{key} is {former.get(key, 'absent')!r} there, {given.get(key, 'absent')!r} here"
            for key in {**former, **given}
            if former.get(key, "absent") != given.get(key, "absent")
        ]
    return found
