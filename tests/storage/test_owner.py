"""One training at a time in a run directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewseg.errors import DataError, UsageError
from fewseg.storage.owner import owned
from fewseg.training.loop import train
from helpers import Toy, toy_config

HOLDER = """
import sys, time
from pathlib import Path
from fewseg.storage.owner import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains into `tmp_path`/run."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_refused_and_left_alone(
    toy: type[Toy], holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    says = f"process {holder.pid} on {socket.gethostname()} is training into .*run; .*--out"
    for resume in (False, True):
        with pytest.raises(UsageError, match=says):
            train(toy_config(), tmp_path / "run", resume=resume)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock", ".lock.json"}
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    run = train(toy_config(), tmp_path / "run")  # a dead process holds nothing
    assert not list(run.glob(".*"))


def test_a_process_does_not_train_twice_into_one_directory(toy: type[Toy], tmp_path: Path) -> None:
    with owned(tmp_path / "run"), pytest.raises(UsageError, match=f"process {os.getpid()} on"):
        train(toy_config(), tmp_path / "run")


def test_a_training_that_is_refused_leaves_no_directory(toy: type[Toy], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run to resume"):
        train(toy_config(), tmp_path / "deep" / "run", resume=True)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_told(toy: type[Toy], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the run directory .*give another --out"):
        train(toy_config(), tmp_path / "file" / "run")
