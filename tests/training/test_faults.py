"""What can go wrong while a run trains: it is killed, told to stop, its disk is full, its files are damaged."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import killing
import pytest
import torch

from fewseg import registry
from fewseg.config import load_config
from fewseg.data.dataset import EpisodeDataset
from fewseg.errors import DataError, FewsegError, StoppedError, UsageError
from fewseg.progress import Silent
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import load_model
from fewseg.training import state
from fewseg.training.loop import train
from fewseg.training.objectives import EpisodeObjective
from fewseg.training.replay import replay
from fewseg.training.rerun import rerun
from fewseg.training.state import read_checked, write_checked
from fewseg.training.stop import Stop
from fewseg.training.tasks import EpisodeTask
from helpers import Toy, assert_equal, full_disk, toy_config, weights

SAVING = ("train.save_every=1", "train.validation=base", "train.held_out=2")
SELDOM = (*SAVING, "train.save_every=100")


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `killing.py` found."""
    paths = os.pathsep.join([str(Path(killing.__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, killing.__file__, str(tmp_path_factory.mktemp("killed"))]
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("step", killing.STEPS)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_never_was(killed: dict[str, Any], step: str) -> None:
    found = killed["killed"][step]
    *kills, last = found["codes"]
    assert kills
    assert set(kills) == {-signal.SIGKILL}
    assert last == 0
    assert found["same"]


@pytest.mark.slow
def test_a_process_may_end_wherever_it_touches_a_file(killed: dict[str, Any]) -> None:
    assert killed["files"]["points"] >= 15
    assert killed["files"]["same"]


@pytest.mark.slow
def test_a_process_that_is_asked_to_stop_ends_by_itself(killed: dict[str, Any]) -> None:
    assert len(killed["asked"]) == 6
    for what, found in killed["asked"].items():
        assert (found["codes"], found["same"]) == ([3, 0], True), what


@pytest.mark.slow
def test_a_signal_to_the_loaders_too_ends_a_run_as_one_to_it_alone(killed: dict[str, Any]) -> None:
    assert killed["group"] == {key: {"codes": [3, 0], "left": False, "same": True} for key in killing.GROUP_STEPS}


@pytest.mark.slow
def test_hdmnet_resumes_to_the_same_bits_after_a_kill(killed: dict[str, Any]) -> None:
    assert killed["hdmnet"] == {"codes": [0, -signal.SIGKILL, 0], "same": True}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that nothing happened to: with a checkpoint after every batch, and with one at an epoch's end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTERED", {"model": {"toy": Toy}, "source": {}})
        return train(toy_config(*SAVING), folder / "often"), train(toy_config(*SELDOM), folder / "seldom")


@pytest.fixture
def whole(toy: type[Toy], undisturbed: tuple[Path, Path], tmp_path: Path) -> Path:
    """A run that nothing happened to, to do something to."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "whole"))


def stopping(at: int, number: signal.Signals, owner: Any, name: str) -> Any:
    """A method that sends the process a signal at its `at`-th call and goes on."""
    plain, calls = getattr(owner, name), []

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return plain(self, *args, **kwargs)

    return call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("at", "where"), [(2, "step"), (3, "last step of an epoch"), (1, "validation")])
@pytest.mark.slow
def test_a_signal_ends_the_run_with_a_checkpoint_that_resumes_to_the_same_bits(
    toy: type[Toy],
    undisturbed: tuple[Path, Path],
    number: signal.Signals,
    at: int,
    where: str,
    tmp_path: Path,
) -> None:
    owner, name = (EpisodeTask, "validate") if where == "validation" else (EpisodeObjective, "forward")
    config, reference = toy_config(*SELDOM), undisturbed[1]
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stopping(at, number, owner, name))
        done = 3 if where == "validation" else at
        with pytest.raises(StoppedError, match=rf"{number.name}; {done} of 6 batches .*checkpoint of batch {done}"):
            train(config, tmp_path / "run")
    assert signal.getsignal(number) is before
    train(config, tmp_path / "run", resume=True)
    for folder in ("last", "best"):
        assert_equal(weights(tmp_path / "run" / folder), weights(reference / folder))
    assert log_of(tmp_path / "run") == log_of(reference)


def test_a_signal_after_the_last_batch_is_not_lost() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt), Stop():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_signal_ends_the_run_at_once(toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(EpisodeObjective, "forward", forward)
    with pytest.raises(StoppedError, match="stopped at once; 0 of 6 batches were done; --resume starts it again"):
        train(toy_config(), tmp_path / "run")


FLIPS = 24
"""Places in each file of a saved model and a checkpoint at which a bit is flipped."""


def test_a_flipped_bit_in_a_saved_model_is_told(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config(), tmp_path / "run")
    rng = random.Random(0)
    for name in ("model.safetensors", "config.json", "fewseg.json"):
        file = run / "last" / name
        content = file.read_bytes()
        for _ in range(FLIPS):
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
            file.write_bytes(flipped)
            if name == "fewseg.json" and says_the_same(content, bytes(flipped)):
                continue
            with pytest.raises((DataError, UsageError)):
                load_model(run / "last")
        file.write_bytes(content)
    load_model(run / "last")


def says_the_same(content: bytes, flipped: bytes) -> bool:
    """Whether all is as it was: a space became another one."""
    try:
        return json.loads(content) == json.loads(flipped)
    except ValueError:
        return False


@pytest.mark.slow
def test_a_flipped_bit_in_a_checkpoint_is_told_and_the_one_before_it_taken(whole: Path, tmp_path: Path) -> None:
    content, rng = (whole / "state.pt").read_bytes(), random.Random(1)
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "flipped.pt").write_bytes(flipped)
        with pytest.raises(DataError, match=r"flipped\.pt is damaged"):
            read_checked(tmp_path / "flipped.pt")
    before, log = weights(whole / "last"), log_of(whole)
    (whole / "state.pt").write_bytes(content[:-1])
    told = Told()
    train(toy_config(*SAVING), whole, resume=True, progress=told)
    assert any("state.pt is damaged" in line and "checkpoint before it" in line for line in told.lines)
    assert_equal(weights(whole / "last"), before)
    assert log_of(whole) == log


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        plain = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, p=plain: (done.append(n), p(*a))[1])
    write_checked(tmp_path / "a", {"x": torch.ones(2)}, previous=tmp_path / "b")
    write_checked(tmp_path / "a", {"x": torch.zeros(2)}, previous=tmp_path / "b")
    assert done == ["fsync", "replace", "fsync", "fsync", "replace", "fsync", "replace", "fsync"]
    assert torch.equal(read_checked(tmp_path / "b")["x"], torch.ones(2))


def test_a_damaged_log_is_told_not_cut(whole: Path) -> None:
    text = (whole / "metrics.jsonl").read_text()
    (whole / "metrics.jsonl").write_text(text.replace('{"batches": 2,', '{"batches" 2,'))
    with pytest.raises(DataError, match=r"metrics\.jsonl, line \d is damaged"):
        train(toy_config(*SAVING), whole, resume=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_the_last_good_checkpoint(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = toy_config("train.save_every=1"), tmp_path / "run"
    whole = train(config, tmp_path / "whole")
    plain = state.save_state

    def save(*args: Any) -> None:
        if args[1].batches == 4:
            full.enter_context(full_disk(2000))
        plain(*args)

    monkeypatch.setattr("fewseg.training.loop.save_state", save)
    told = r"cannot go on: .*; 4 of 6 batches .* checkpoint of batch 3, which is"
    with ExitStack() as full, pytest.raises(DataError, match=told):
        train(config, run)
    assert read_checked(run / "state.pt")["batches"] == 3
    assert not list(run.rglob(".*"))
    monkeypatch.setattr("fewseg.training.loop.save_state", plain)
    train(config, run, resume=True)
    assert_equal(weights(run / "last"), weights(whole / "last"))
    assert log_of(run) == log_of(whole)


@pytest.mark.parametrize("name", ["replace", "fsync", "open"])
def test_a_directory_that_became_read_only_ends_the_run(
    toy: type[Toy], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    plain, calls = state.save_state, []

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run))

    def save(*args: Any) -> None:
        calls.append(1)
        with pytest.MonkeyPatch.context() as patch:
            if len(calls) == 3:
                patch.setattr("builtins.open" if name == "open" else f"os.{name}", refuse)
            plain(*args)

    monkeypatch.setattr("fewseg.training.loop.save_state", save)
    with pytest.raises(DataError, match=rf"{run}: Read-only file system; 3 of 6 batches .* checkpoint of batch 2"):
        train(toy_config("train.save_every=1"), run)
    assert state._last_good(RunDirectory(run))[0]["batches"] == 2


def test_a_run_directory_that_cannot_be_written(toy: type[Toy], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the run directory"):
        train(toy_config(), tmp_path / "file" / "run")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.slow
def test_data_that_vanishes_ends_the_run(
    toy: type[Toy], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = EpisodeDataset.__getitem__

    def getitem(self: EpisodeDataset, g: int) -> Any:
        if g >= 8:
            raise DataError("photos/1.jpg: there is no such file")
        return plain(self, g)

    config = toy_config("train.save_every=1", f"train.workers={workers}")
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeDataset, "__getitem__", getitem)
        with pytest.raises(DataError) as caught:
            train(config, tmp_path / "run")
    assert str(caught.value) == (
        "photos/1.jpg: there is no such file; 4 of 6 batches were done; --resume goes on from the checkpoint of batch 4"
        ", which is whole"
    )
    train(config, tmp_path / "run", resume=True)
    assert_equal(weights(tmp_path / "run" / "last"), weights(train(config, tmp_path / "whole") / "last"))


def test_a_real_data_directory_that_vanishes(toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    root = tmp_path / "photos"
    for kind in ("images", "masks"):
        for shade, name in enumerate(("cat", "dog", "cow", "hen")):
            (root / kind / name).mkdir(parents=True)
            for n in range(4):
                picture = Image.new("RGB", (64, 64), (n, shade, 0)) if kind == "images" else Image.new("L", (64, 64))
                picture.paste((200, 40, 10) if kind == "images" else 255, (8, 8, 56, 56))
                picture.save(root / kind / name / f"{n}.png")
    words = ("data.name=folder", f"data.root={root}", "data.options={}", "train.save_every=1", "train.workers=1")
    common = ("model.name=toy", "model.weights=null", "train.validation=none", "train.epochs=2", "train.batch_size=2")
    config = load_config("folder", *common, *[w for w in words if "options" not in w])
    plain = EpisodeObjective.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        shutil.rmtree(root, ignore_errors=True)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(EpisodeObjective, "forward", forward)
    with pytest.raises(DataError, match=r"there is no such file; \d+ of \d+ batches were done") as caught:
        train(config, tmp_path / "run")
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()


def nan_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's weight becomes NaN when `step` begins."""
    plain, calls = EpisodeObjective.forward, []

    def forward(self: EpisodeObjective, *args: Any, **kwargs: Any) -> Any:
        if len(calls) == step:
            with torch.no_grad():
                self.model.head.weight[0, 0] = math.nan
        calls.append(1)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(EpisodeObjective, "forward", forward)


@pytest.mark.parametrize("words", [(), ("train.cache_features=true",)], ids=["images", "features"])
@pytest.mark.slow
def test_a_loss_that_is_not_finite_can_be_replayed_without_the_data(
    toy: type[Toy], words: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        nan_at(3, patch)
        with pytest.raises(FewsegError, match=rf"at batch 3 .*fewseg replay {run} .*query .*support"):
            train(toy_config(*words), run)
    found = replay(run)
    assert found.step == 3
    assert len(found.items) == 2
    assert math.isnan(found.losses[0]["final"])
    assert found.weights == ("head.weight",)
    assert found.first == "head (Conv2d)"
    (run / "failure" / "batch.pt").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"batch\.pt is damaged"):
        replay(run)
    (run / "failure" / "failure.json").write_text("{}")
    with pytest.raises(DataError, match=r"failure\.json is damaged"):
        replay(run)


@pytest.mark.slow
def test_a_replay_gives_the_loss_of_the_run_to_the_last_bit(toy: type[Toy], tmp_path: Path) -> None:
    """With dropout, from a loss that was only called infinite."""
    run, seen = tmp_path / "run", []
    with pytest.MonkeyPatch.context() as patch:
        plain = torch.isfinite

        def isfinite(loss: torch.Tensor) -> torch.Tensor:
            seen.append(float(loss.detach()))
            return plain(loss) & (len(seen) < 5)

        patch.setattr(torch, "isfinite", isfinite)
        with pytest.raises(FewsegError, match="not finite at batch 4"):
            train(toy_config("model.dropout=0.5"), run)
    found = replay(run)
    assert found.losses[0]["final"] == seen[4] == found.recorded["final"]
    assert (found.first, found.weights) == (None, ())


def test_nothing_to_replay(whole: Path) -> None:
    with pytest.raises(DataError, match="no failure to replay"):
        replay(whole)


@pytest.mark.slow
def test_a_run_is_repeated_from_its_directory(whole: Path, tmp_path: Path) -> None:
    found = rerun(whole, tmp_path / "again")
    assert found.same
    assert set(found.hashes) == {"last/model.safetensors", "best/model.safetensors", "metrics.jsonl"}
    assert not found.changed


def test_a_rerun_tells_what_is_different(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads((whole / "run.json").read_text())
    # a run of 0.1 did not keep what its photos were
    data = {key: value for key, value in record["data"].items() if key not in ("photos", "code")}
    changed = record | {"versions": record["versions"] | {"torch": "0.1"}, "data": data}
    changed |= {"sources": record["sources"] | {"helpers": "0" * 64}, "packages": record["packages"] | {"gone": "1.0"}}
    changed |= {"project": {"folder": "there", "commit": "a" * 40, "dirty": True, "diff": "b" * 64}}
    (whole / "run.json").write_text(json.dumps(changed))
    plain = toy_noise()
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeObjective, "forward", plain)
        found = rerun(whole, tmp_path / "again")
    assert not found.same
    assert any(text.startswith("torch 0.1, now ") for text in found.changed)
    assert any(text.startswith("photos of the data not record") for text in found.changed)
    assert any(text.startswith("source of helpers 000000000000, now ") for text in found.changed)
    assert any(text.startswith("commit of the project aaaaaaaaaaaa, now ") for text in found.changed)
    assert "gone 1.0, now none" in found.changed
    for part, told in (("photos", "the photos of scenes"), ("sha256", "is not the data")):
        (whole / "run.json").write_text(json.dumps(record | {"data": record["data"] | {part: "0" * 64}}))
        with pytest.raises(DataError, match=told):
            rerun(whole, tmp_path / "other")
    (whole / "run.json").write_text(json.dumps(record | {"processes": 2}))
    with pytest.raises(UsageError, match="torchrun --nproc-per-node=2"):
        rerun(whole, tmp_path / "other")
    (whole / "run.json").unlink()
    with pytest.raises(DataError, match=r"no run\.json"):
        rerun(whole, tmp_path / "other")


def toy_noise() -> Any:
    plain = EpisodeObjective.forward

    def forward(self: EpisodeObjective, *args: Any, **kwargs: Any) -> Any:
        out = plain(self, *args, **kwargs)
        return out | {"losses": {name: loss * 1.01 for name, loss in out["losses"].items()}}

    return forward


@pytest.mark.slow
def test_determinism_on_request_is_switched_off_again(toy: type[Toy], tmp_path: Path) -> None:
    told = Told()
    train(toy_config("train.deterministic=true"), tmp_path / "run", progress=told)
    assert any("at a cost" in line for line in told.lines)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_resumed_run_says_what_is_not_as_at_its_start(whole: Path) -> None:
    record = json.loads((whole / "run.json").read_text())
    (whole / "run.json").write_text(json.dumps(record | {"threads": 64}))
    told = Told()
    train(toy_config(*SAVING), whole, resume=True, progress=told)
    assert any("threads 64, now 1" in line for line in told.lines)
