"""Training again from what a run directory holds, and whether the weights come out the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fewseg.build import create_source
from fewseg.config import load_config
from fewseg.errors import DataError, UsageError
from fewseg.files import file_sha256
from fewseg.progress import Silent
from fewseg.runtime.processes import launched
from fewseg.storage.saved import read_record
from fewseg.training.loop import train
from fewseg.training.run_start import differences, read_run

_MODELS = ("last", "best", "base/last")


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
    record, config = read_run(run), load_config(str(run / "config.yaml"))
    if read_record(run / "last")["info"].get("epoch") != config.train.epochs:
        raise DataError(f"{run} did not end; finish it first: fewseg train {run}/config.yaml --out {run} --resume")
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
    threads = torch.get_num_threads()
    torch.set_num_threads(record["threads"])
    try:
        train(config, out, progress=progress)
    finally:
        torch.set_num_threads(threads)
    files = [Path(name) / "model.safetensors" for name in _MODELS] + [Path("metrics.jsonl")]
    pairs = {f.as_posix(): (_hash(run / f), _hash(out / f)) for f in files if (run / f).exists() or (out / f).exists()}
    return Rerun(out, pairs, tuple(differences(record, read_run(out))))


def _hash(file: Path) -> str:
    return file_sha256(file) if file.is_file() else "missing"
