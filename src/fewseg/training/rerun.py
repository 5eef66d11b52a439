"""Training again from what a run directory holds, and whether the weights come out the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fewseg.build import create_source
from fewseg.data.fingerprint import photos_fingerprint
from fewseg.errors import DataError, UsageError
from fewseg.files import file_sha256
from fewseg.progress import Silent
from fewseg.runtime.processes import launched
from fewseg.storage.run_directory import RunDirectory
from fewseg.training.loop import train
from fewseg.training.run_start import differences


@dataclass(frozen=True)
class Rerun:
    """Hashes of the weights (and of the log), before and now, and what else was different."""

    out: Path
    hashes: dict[str, tuple[str, str]]
    changed: tuple[str, ...]
    """Versions, threads and the like that were different: what may have changed the bits."""

    @property
    def same(self) -> bool:
        """Whether every hash is."""
        return all(before == now for before, now in self.hashes.values())


def rerun(run: Path, out: Path, *, progress: Silent | None = None) -> Rerun:
    """Train again as `run` was trained, into the new directory `out`, with as many threads.

    Raises DataError where `run` did not end, or its data is not what it was.
    """
    progress = progress or Silent()
    before, now = RunDirectory(run), RunDirectory(out)
    record, config = before.recorded(), before.config()
    if not before.is_finished(config):
        raise DataError(f"{run} did not end; finish it first: {before.resuming}")
    local, nodes = launched() or (config.train.devices, config.train.nodes)
    if local * nodes != record["processes"]:
        raise UsageError(
            f"{run} was trained by {record['processes']} processes, these are {local * nodes}; start as many: "
            f"torchrun --nproc-per-node={record['processes']} -m fewseg rerun {run}"
        )
    source = create_source(config, "train", progress=progress)
    if source.index.sha256 != record["data"]["sha256"]:
        raise DataError(
            f"{source.name} in {config.data.root} is not the data of the run: its index has the hash "
            f"{source.index.sha256[:12]}, not {record['data']['sha256'][:12]}"
        )
    photos = photos_fingerprint(source)["photos"]
    if record["data"].get("photos", photos) != photos:
        raise DataError(
            f"the photos of {source.name} in {config.data.root} are not those of the run: by their names, sizes and"
            f" content they have the hash {photos[:12]}, not {record['data']['photos'][:12]}"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(record["threads"])
    try:
        train(config, out, progress=progress)
    finally:
        torch.set_num_threads(threads)
    hashes = {
        old.relative_to(run).as_posix(): (_hash(old), _hash(new))
        for old, new in zip(_compared(before), _compared(now), strict=True)
        if old.exists() or new.exists()
    }
    return Rerun(out, hashes, tuple(differences(record, now.recorded())))


def _compared(run: RunDirectory) -> list[Path]:
    """The files that must be the same."""
    models = (run.last, run.best, RunDirectory(run.base_learner).last)
    return [*(folder / "model.safetensors" for folder in models), run.metrics]


def _hash(file: Path) -> str:
    return file_sha256(file) if file.is_file() else "missing"
