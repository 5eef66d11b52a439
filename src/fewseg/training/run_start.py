"""What is written when a run starts (`config.yaml`, `run.json`), so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from fewseg.config import Config
from fewseg.data.fingerprint import photos_fingerprint
from fewseg.errors import DataError
from fewseg.evaluation.evaluate import versions
from fewseg.files import replacing, write_json
from fewseg.progress import Silent
from fewseg.runtime.processes import rank_and_world
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import read_record
from fewseg.training.provenance import installed, project_state, sources_of
from fewseg.training.tasks import Task

_HASHED = 1000
"""Training items whose hash is kept."""


def describe_run(config: Config, task: Task) -> dict[str, Any]:
    """Command line, versions, threads, processes; the user's project, and hashes of the method's and data set's source,
    of the data's index and photos, and of the first training items.
    """
    count = min(_HASHED, task.epoch_length * config.train.epochs)
    names = json.dumps([task.name_of(g) for g in range(count)])
    return {
        "command": sys.argv,
        "versions": versions(),
        "packages": installed(),
        "project": project_state(Path.cwd()),
        "sources": sources_of(*task.classes()),
        "threads": torch.get_num_threads(),
        "processes": rank_and_world()[1],
        "device": "cuda" if torch.cuda.is_available() and config.train.accelerator != "cpu" else "cpu",
        "data": {
            "name": task.source.name,
            "subset": task.source.subset,
            "images": len(task.source.index.ids),
            "sha256": task.source.index.sha256,
            **photos_fingerprint(task.source),
        },
        "plugins": task.plugins(),
        "items": {"first": count, "sha256": hashlib.sha256(names.encode()).hexdigest()},
        "base": config.base.run and read_record(config.base.run)["sha256"],
        "init": config.train.init and read_record(config.train.init)["sha256"],
    }


def start_directory(config: Config, run: RunDirectory, described: dict[str, Any], *, progress: Silent) -> None:
    """Write the configuration and the record into the directory, if they are not there yet."""
    try:
        run.clear_leftovers()
        if run.exists:
            if changed := differences(run.recorded(), described):
                progress.log(f"not as at the start of the run, so the last bits may differ: {'; '.join(changed)}")
        else:
            write_json(run.record, described)
            # the last: a directory without it holds no run
            with replacing(run.configuration, durable=True) as temporary:
                text = yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True)
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write the run directory {run.path}: {error.strerror}; give another --out") from error


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What bits may depend on and what is not the same, each as `threads 1, now 2`."""
    pairs = [(key, before[key], now[key]) for key in ("threads", "processes", "device", "base")]
    pairs.append(("init", before.get("init"), now["init"]))
    pairs += [(f"{key} hash", before[key]["sha256"][:12], now[key]["sha256"][:12]) for key in ("data", "items")]
    code = {plugin["file"]: plugin["sha256"][:12] for plugin in before.get("plugins", ())}
    pairs += [(one["file"], code.get(one["file"], "not used"), one["sha256"][:12]) for one in now["plugins"]]
    for part in ("photos", "dates", "code"):
        if part in now["data"]:
            old = before["data"].get(part, "not recorded")[:12]
            pairs.append((f"{part} of the data", old, now["data"][part][:12]))
    pairs += [(key, before["versions"].get(key), value) for key, value in now["versions"].items()]
    pairs += _project(before["project"], now["project"]) if "project" in before else []
    plugins = {plugin["module"] for plugin in now["plugins"]}  # told above, by their files
    pairs += _changed("source of ", before.get("sources"), now["sources"], leave=plugins)
    pairs += _changed("", before.get("packages"), now["packages"], leave=now["versions"])
    return [f"{name} {old}, now {new}" for name, old, new in pairs if old != new]


def _project(before: dict[str, Any] | None, now: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """The commit of the project that a command was given in, and what was not committed there."""
    told = [
        ("no git", "not known") if one is None else (one["commit"][:12], f"{one['diff'][:12] or 'none'}")
        for one in (before, now)
    ]
    names = ("commit of the project", "uncommitted changes of the project")
    return [(name, old, new) for name, old, new in zip(names, *told, strict=True)]


def _changed(
    what: str, before: dict[str, str] | None, now: dict[str, str], *, leave: Collection[str]
) -> list[tuple[str, str, str]]:
    """What either has of modules or packages by name, but for `leave`; nothing where an older run did not record it."""
    if before is None:
        return []
    names = [name for name in dict.fromkeys((*before, *now)) if name not in leave]
    return [(what + name, before.get(name, "none")[:12], now.get(name, "none")[:12]) for name in names]


@contextmanager
def deterministic(wanted: bool, *, progress: Silent) -> Iterator[None]:
    """Inside, torch takes only algorithms that give the same bits every time, if wanted."""
    if not wanted:
        yield
        return
    progress.log(
        "train.deterministic=true: the same bits in every run on this machine, at a cost: slower on a GPU "
        "(no cuDNN benchmark, slower backward passes of resizing), and an operation without such an algorithm stops it"
    )
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
