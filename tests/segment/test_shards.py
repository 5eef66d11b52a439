"""Work that is shared out: parts of a folder, batches in engines, and Ray's cluster."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
import re
import shutil
import socket
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewseg import BatchSegmenter
from fewseg.errors import UsageError, install_line
from fewseg.segment.outputs import OF_ENGINE, held
from fewseg.segment.ray_parts import run_parts
from fewseg.segment.shards import Shard
from helpers import Fewseg, Result
from segment.small_work import contents, given, make_work

PHOTOS = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a support, and a model that is quick."""
    return make_work(tmp_path_factory.mktemp("shared"), [f"{i}.png" for i in range(PHOTOS)])


@pytest.fixture
def find(place: Path, fewseg: Fewseg) -> Callable[..., Result]:
    """The command on the photos."""
    words = ["segment", place / "photos", "--class", "box", *given(place)]
    words += [word for kind in ("png", "csv", "coco") for word in ("--format", kind)]
    return lambda out, *more: fewseg(*words, "--out", out, *more)


def test_parts_make_the_files_of_one_run(find: Callable[..., Result], tmp_path: Path) -> None:
    assert find(tmp_path / "whole").code == 0
    for part in ("1/3", "3/3", "2/3"):
        assert find(tmp_path / "parts", "--shard", part).code == 0
    assert {"results-1of3.csv", "annotations-3of3.json"} < set(contents(tmp_path / "parts"))
    assert "results.csv" not in contents(tmp_path / "parts")
    merged = find(tmp_path / "parts", "--resume")
    assert f"{PHOTOS} there already" in merged.out
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_more_parts_than_photos_leave_some_without(find: Callable[..., Result], tmp_path: Path) -> None:
    last = find(tmp_path / "out", "--shard", "9/9")
    assert (last.code, "9/9 holds none of the 5 photos" in last.out, "0 masks" in last.out) == (0, True, False)
    assert set(contents(tmp_path / "out")) == {"results-9of9.csv", "annotations-9of9.json"}


def refused(result: Result, who: str) -> bool:
    """Whether a run was, because somebody is at work in its folder."""
    told = " ".join(result.err.split())
    return result.code == 2 and f"process {os.getpid()} on" in told and f"{who} is segmenting into" in told


def test_a_second_run_into_a_folder_is_refused_and_changes_nothing(find: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    half = out / ".results.csv.0123abcd.tmp"
    with held(str(out), None):
        half.touch()
        before = contents(out)
        for more in ((), ("--resume",), ("--shard", "1/2")):
            second = find(out, *more)
            assert refused(second, ""), second
            assert "wait for its end or stop it, or give another --out" in " ".join(second.err.split())
        assert contents(out) == before
    assert find(out).code == 0
    assert not list(out.glob(".*"))


def test_parts_of_one_number_may_run_at_once_and_nothing_else(find: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held(str(out), Shard(1, 2)):
        half = out / ".results-1of2.csv.0123abcd.tmp"
        half.touch()
        for more in ((), ("--shard", "1/2"), ("--shard", "2/3")):
            assert refused(find(out, *more), "(part 1of2)"), more
        assert find(out, "--shard", "2/2").code == 0
        assert half.exists()
    assert find(out, "--shard", "1/2").code == 0
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("more", [(), ("--shard", "2/2")])
def test_what_a_killed_part_left_neither_keeps_out_the_next_nor_stays(
    find: Callable[..., Result], tmp_path: Path, more: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", ".lock.guard", ".lock-2of2", ".results-2of2.csv.0123abcd.tmp"):
        (out / name).touch()
    for name in (".lock.json", ".lock-2of2.json"):
        (out / name).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    assert find(out, *more).code == 0
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_folder_without_locks_is_told_and_written(
    find: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pytest.importorskip("fcntl")

    def refuses(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuses)
    done = find(tmp_path / "out")
    assert done.code == 0, done
    assert "the system locks no files: nothing keeps out another process" in " ".join(done.err.split())
    assert not list((tmp_path / "out").glob(".*"))


def test_parts_of_an_engine_run_while_it_waits_for_them(
    find: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(str(tmp_path / "out"), None):
        monkeypatch.setenv(OF_ENGINE, "1")
        assert find(tmp_path / "out", "--shard", "1/2").code == 0


def test_failures_are_in_a_file_until_they_are_done(
    place: Path, find: Callable[..., Result], fewseg: Fewseg, tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(place / "photos", photos)
    whole = (photos / "3.png").read_bytes()
    (photos / "3.png").write_bytes(whole[:200])
    words = ("segment", photos, *given(place))

    def run(*more: str) -> Result:
        return fewseg(*words, "--out", out, "--no-overlay", *more)

    assert [run("--shard", f"{part}/2").code for part in (1, 2)] == [0, 1]
    assert not (out / "failures-1of2.csv").exists()
    with open(out / "failures-2of2.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == str(photos / "3.png")
    assert "broken" in row["reason"] or "cut off" in row["reason"], row
    again = run("--resume")
    assert again.code == 1
    assert f"0 masks in {out}, {PHOTOS - 1} there already, 1 failed" in again.out
    assert f"listed in {out / 'failures.csv'}; --resume tries them again" in again.err
    assert not (out / "failures-2of2.csv").exists()
    (photos / "3.png").write_bytes(whole)
    assert "1 mask in" in run("--resume").out
    assert sorted(contents(out)) == [f"{i}.png" for i in range(PHOTOS)]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_part_is_one_of_some(text: str) -> None:
    with pytest.raises(UsageError, match="which part of how many, from 1, as in 2/8"):
        Shard.of(text)


def test_batches_have_the_masks_of_files(
    place: Path, find: Callable[..., Result], fewseg: Fewseg, tmp_path: Path
) -> None:
    assert fewseg("teach", "--class", "box", *given(place), "--out", tmp_path / "box.concept").code == 0
    words = ("--concept", tmp_path / "box.concept", "--model", place / "tiny", "--no-overlay")
    assert fewseg("segment", place / "photos", *words, "--out", tmp_path / "out").code == 0
    segmenter = pickle.loads(pickle.dumps(BatchSegmenter(tmp_path / "box.concept", str(place / "tiny"))))
    (tmp_path / "box.concept").unlink()  # workers need none
    photos = sorted((place / "photos").iterdir())
    kinds: list[Any] = [str(photos[0]), photos[1].read_bytes(), np.asarray(Image.open(photos[2])), b"no picture"]
    found = segmenter({"image": kinds, "id": np.arange(4)})
    assert found["id"].tolist() == [0, 1, 2, 3]
    for mask, photo in zip(found["mask"], photos[:3], strict=False):
        assert np.array_equal(Image.open(BytesIO(mask)), Image.open(tmp_path / "out" / photo.name))
    assert found["mask"][3] == b""
    assert [bool(text) for text in found["error"]] == [False, False, False, True]
    assert np.isfinite(found["expected_iou"][:3]).all()
    again = pickle.loads(pickle.dumps(segmenter))({"image": kinds[:1]})
    assert again["mask"][0] == found["mask"][0]
    with pytest.raises(UsageError, match="no column 'image'; it has path"):
        segmenter({"path": []})


class Here:
    """Ray's calls that are made, done at once in this process."""

    __version__ = "0"

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def nodes(self) -> list[object]:
        return [object()]

    def remote(self, **_: Any) -> Any:
        return lambda work: SimpleNamespace(
            remote=lambda command, folder: self.seen.append(command) or (work, command, folder)
        )

    def wait(self, waiting: list[Any], *, num_returns: int) -> tuple[list[Any], list[Any]]:
        return waiting[:num_returns], waiting[num_returns:]

    def get(self, asked: Any) -> tuple[int, str]:
        work, command, folder = asked
        return work(command, folder)


@pytest.mark.slow
def test_an_engine_does_all_parts_and_the_files_are_those_of_one_run(
    find: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Here()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("fewseg.segment.ray_parts.PARTS_PER_CORE", 2)
    shipped = ("--model", "lite")  # its parts, processes of their own, start without torch
    assert find(tmp_path / "whole", *shipped).code == 0
    done = find(tmp_path / "out", *shipped, "--engine", "ray")
    assert done.code == 0, done.err
    assert [command[-1] for command in ray.seen] == ["1/2", "2/2"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_an_engine_cannot_do_is_told(
    find: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more, told in [
        (("--engine", "spark"), "unknown --engine 'spark'; choose ray"),
        (("--engine", "ray", "--shard", "1/2"), "leave out --shard"),
    ]:
        wrong = find(tmp_path / "out", *more)
        assert wrong.code == 2
        assert told in " ".join(wrong.err.split())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=re.escape(install_line("ray"))):
        run_parts([], 1, progress=SimpleNamespace())  # type: ignore[arg-type]
