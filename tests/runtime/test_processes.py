"""Several processes: the same digits and losses as in one, and an end in bounded time when one is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import together
import torch

from fewseg.config import load_config
from fewseg.errors import UsageError
from fewseg.runtime import processes
from fewseg.runtime.processes import SyncBatchNorm2d, create_fabric, own_share, synchronise_batchnorm
from fewseg.training.loop import train
from helpers import Toy
from waiting import free_port

PROGRAM = str(Path(together.__file__))
BOUND = 240
"""Seconds in which every start of several processes must have ended, on a busy machine."""


def environment(**more: str) -> dict[str, str]:
    paths = [str(Path(PROGRAM).parent), *sys.path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)} | more


def torchrun(*words: object) -> list[str]:
    place = ["--nproc-per-node", 2, "--master-addr", "127.0.0.1", "--master-port", free_port()]
    return [str(word) for word in (sys.executable, "-m", "torch.distributed.run", *place, *words)]


def ended(commands: list[list[str]], environments: list[dict[str, str]] | None = None) -> list[tuple[int, str]]:
    """Start all, wait for all; code and output of each."""
    environments = environments or [environment()] * len(commands)
    started = [
        subprocess.Popen(c, env=e, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        for c, e in zip(commands, environments, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=BOUND)[0] for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, 9)
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_losses(run: Path, other: Path) -> None:
    a, b = lines(run), lines(other)
    assert [line["batches"] for line in a] == [line["batches"] for line in b]
    for one, two in zip(a, b, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            assert one[key] == pytest.approx(two[key], abs=1e-5 if "loss" in key else 2e-3), (key, one, two)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two nodes on loopback left, a process each, as srun starts them: by its variables, and no launcher of ours;
    and `said0` and `said1`, what they said.
    """
    out = tmp_path_factory.mktemp("two")
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    slurm |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "1"}
    slurm |= {"SLURM_NNODES": "2", "SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0"}
    slurm |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [environment(**slurm, SLURM_PROCID=str(r), SLURM_NODEID=str(r)) for r in (0, 1)]
    results = ended([[sys.executable, PROGRAM, "compare", str(out)]] * 2, places)
    assert [code for code, _ in results] == [0, 0], results
    for node, (_, text) in enumerate(results):
        (out / f"said{node}").write_text(text)
    return out


@pytest.mark.distributed
@pytest.mark.slow
def test_a_split_batch_gives_the_losses_of_a_whole_one(toy: type[Toy], two: Path, tmp_path: Path) -> None:
    one = train(together.toy_config(*together.TOY), tmp_path / "toy")
    assert_same_losses(one, two / "toy")
    a, b = (safetensors.torch.load_file(r / "last" / "model.safetensors") for r in (one, two / "toy"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    seen = [json.loads((two / f"seen{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(seen[0] + seen[1]) == list(range(16))
    assert len(seen[0]) == len(seen[1])


@pytest.mark.distributed
@pytest.mark.slow
def test_validation_in_two_processes_is_that_of_one(toy: type[Toy], two: Path, tmp_path: Path) -> None:
    config = together.toy_config(*together.TOY, *together.VALIDATED, "train.epochs=1")
    assert_same_losses(train(config, tmp_path / "validated"), two / "validated")
    assert (two / "validated" / "best" / "fewseg.json").is_file()


@pytest.mark.distributed
@pytest.mark.slow
def test_batchnorm_that_trains_is_over_both_processes(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Dropout2d, "forward", lambda self, x: x)
    one = train(load_config(*together.base_words()), tmp_path / "base")
    assert_same_losses(one, two / "base")
    a, b = (safetensors.torch.load_file(r / "last" / "model.safetensors") for r in (one, two / "base"))
    assert a.keys() == b.keys()
    for name in a:
        if "running" in name:
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.distributed
@pytest.mark.slow
def test_an_evaluation_gives_the_digits_of_one_process(two: Path) -> None:
    assert json.loads((two / "report.json").read_text()) == json.loads(json.dumps(together.report()))


@pytest.mark.distributed
@pytest.mark.slow
def test_slurm_s_processes_find_each_other_and_one_writes(two: Path) -> None:
    assert "trained:" in (two / "said0").read_text()
    assert "trained:" not in (two / "said1").read_text()
    assert json.loads((two / "base" / "run.json").read_text())["processes"] == 2
    assert lines(two / "base")[-1]["batches"] == 3


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(("mode", "launcher"), [("hang", "torchrun"), ("die", "fabric")])
def test_a_lost_process_ends_the_run(mode: str, launcher: str, tmp_path: Path) -> None:
    if launcher == "torchrun":
        command = torchrun(PROGRAM, mode, tmp_path)
    else:
        command = [sys.executable, PROGRAM, mode, str(tmp_path), "train.devices=2", "train.accelerator=cpu"]
    [(code, text)] = ended([command])
    assert code != 0, text
    assert (tmp_path / "run" / "state.pt").is_file()


def test_a_share_of_a_list_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (1, 2, 3, 7):
        parts = []
        for rank in range(world):
            monkeypatch.setattr(processes, "rank_and_world", lambda r=rank, w=world: (r, w))
            parts.append(own_share(list(range(5))))
        assert [item for part in parts for item in part] == list(range(5))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_only_batchnorm_that_trains_is_replaced() -> None:
    frozen, trained = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    frozen.eval()
    module = torch.nn.Sequential(torch.nn.Sequential(trained), frozen)
    image = torch.rand(2, 2, 4, 4)
    before = module(image)
    trained.reset_running_stats()
    synchronise_batchnorm(module, device=torch.device("cpu"))
    assert isinstance(module[0][0], SyncBatchNorm2d)
    assert type(module[1]) is torch.nn.BatchNorm2d
    assert torch.equal(module(image), before)


def test_devices_that_do_not_fit_the_launcher_s_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "launched", lambda: (2, 1))
    with pytest.raises(UsageError, match=r"train\.devices=3.*started 2 processes on each of 1 nodes"):
        create_fabric(devices=3)
