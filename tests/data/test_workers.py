"""Worker processes end with their parent, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import until

INDEXING = """
import os, sys, time
from pathlib import Path
from fewseg.data.annotations import coco_file
from fewseg.progress import Silent

def slow(*_):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

coco_file._count = slow
os.cpu_count = lambda: 3
root = Path(sys.argv[2])
file = coco_file.CocoFile(root / "a.json", root=root, key="a")
file.index(file.files, Silent())
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_no_process_of_an_index_outlives_the_one_that_builds_it(number: signal.Signals, tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 4} for i in range(1001)]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "a"}]}))
    (tmp_path / "pids").mkdir()
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", INDEXING, str(tmp_path / "pids"), str(tmp_path)]
    with subprocess.Popen(command, env=paths) as process:
        until(lambda: len(list((tmp_path / "pids").iterdir())) == 3)
        process.send_signal(number)
    pids = [int(file.name) for file in (tmp_path / "pids").iterdir()]
    try:
        assert process.returncode == -number
        until(lambda: not any(map(alive, pids)), f"of {pids} some are alive")
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)
