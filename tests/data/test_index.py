import importlib.util
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import trees
from fewseg.data import index as index_module
from fewseg.data.index import build_index
from fewseg.data.sets.pascal5i import Pascal5i
from fewseg.errors import DataWarning
from fewseg.progress import Silent

TRAIN = trees.many([1, 6], 3)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return trees.write_voc(tmp_path, TRAIN, trees.many([1], 2, prefix="v"), photos=False)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Label files in the order in which they were read."""
    seen: list[Path] = []
    original = Pascal5i.labels
    monkeypatch.setattr(Pascal5i, "labels", lambda self, i: (seen.append(self._labels[i]), original(self, i))[1])
    return seen


def source_index(voc: Path):
    return Pascal5i(root=str(voc)).index


def test_second_use_reads_the_cache(voc: Path, reads: list[Path]) -> None:
    first = source_index(voc)
    assert len(reads) == 6
    second = source_index(voc)
    assert len(reads) == 6
    assert first.ids == second.ids
    assert first.sha256 == second.sha256
    assert second.counts.dtype == np.int64
    assert [path.name for path in (voc / ".fewseg").iterdir()] == ["pascal5i-train-none.npz"]


def test_changed_annotations_rebuild(voc: Path, reads: list[Path]) -> None:
    before = source_index(voc)
    path = voc / "SegmentationClass" / "06_0.png"
    trees.write_png(trees.label_map({6: 17}), path)
    os.utime(path, ns=(1, 1))
    after = source_index(voc)
    assert len(reads) == 12
    i = after.ids.index("06_0")
    assert (before.counts[i, 6], after.counts[i, 6]) == (2500, 17)


def test_changed_list_rebuilds(voc: Path, reads: list[Path]) -> None:
    source_index(voc)
    trees.write_list(voc / "ImageSets/Segmentation/train.txt", list(TRAIN)[:4])
    assert source_index(voc).ids == tuple(sorted(TRAIN))[:4]
    assert len(reads) == 10


def test_other_version_is_never_trusted(voc: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source_index(voc)
    monkeypatch.setattr(index_module, "VERSION", index_module.VERSION + 1)
    source_index(voc)
    assert len(reads) == 12


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut off"])
def test_damaged_cache_is_told_and_rebuilt(voc: Path, reads: list[Path], content: bytes) -> None:
    source_index(voc)
    (voc / ".fewseg" / "pascal5i-train-none.npz").write_bytes(content)
    with pytest.warns(DataWarning, match=r"pascal5i-train-none\.npz is damaged .* and is made anew"):
        assert len(source_index(voc).ids) == 6
    assert len(reads) == 12
    assert len(source_index(voc).ids) == 6  # it is whole again
    assert len(reads) == 12


def test_a_cache_that_would_fill_the_memory_is_not_unpacked(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_index(voc)
    monkeypatch.setattr(index_module, "MOST_BYTES", 100)
    with pytest.warns(DataWarning, match="it would fill the memory"):
        source_index(voc)


@pytest.mark.slow
def test_no_change_of_a_cache_s_bytes_gives_another_index(voc: Path) -> None:
    right = source_index(voc).sha256
    cache = voc / ".fewseg" / "pascal5i-train-none.npz"
    whole = cache.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 5)):
            changed[place] = random.integers(256)
        cache.write_bytes(changed[: random.integers(1, len(whole) + 1)] if random.random() < 0.2 else changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            assert source_index(voc).sha256 == right


def test_read_only_data_is_cached_in_the_users_directory(
    voc: Path, reads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    voc.chmod(0o555)
    source_index(voc)
    source_index(voc)
    voc.chmod(0o755)
    assert len(reads) == 6
    assert not (voc / ".fewseg").exists()


def test_nowhere_to_write_only_costs_time(voc: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(index_module.np, "savez_compressed", refuse)
    assert source_index(voc).ids == source_index(voc).ids
    assert len(reads) == 12
    assert not list(voc.rglob("*.tmp"))


def test_progress_sees_every_image(voc: Path) -> None:
    seen = []

    def progress(items, description, total):
        for item in items:
            seen.append((description, total))
            yield item

    source = Pascal5i(root=str(voc), sbd="none")
    source.progress = progress
    _ = source.index
    assert seen == [("reading annotations", 6)] * 6


def test_rows_are_in_the_order_of_ids(tmp_path: Path) -> None:
    ids = [f"{i}" for i in range(200)]

    def labels(i: int) -> np.ndarray:
        return np.repeat(np.uint8([0, 1]), [i, 2 * i])

    made = build_index(ids, labels, [tmp_path] * 200, classes=1, root=tmp_path, key="k", progress=Silent())
    assert made.counts[:, 1].tolist() == [2 * i for i in range(200)]


READER = """
import numpy as np
from fewseg.data.index import Indexed

class Counted(Indexed):
    name, class_names, ids = "counted", ("a",), ("x",)

    def __init__(self, subset="train", root=None, *, pixels=1):
        super().__init__(subset, root)
        self.pixels = pixels

    def labels(self, i):
        return np.repeat(np.uint8([0, 1]), [9, FACTOR * self.pixels])

    def _build_index(self):
        return self.counted([self.root / "x.png"], key="counted")
"""


def test_options_and_code_of_the_reader_rebuild(tmp_path: Path) -> None:
    """The cache of one reading is never taken for another's."""
    (tmp_path / "x.png").touch()

    def reader(factor: int):
        file = tmp_path / f"reader{factor}.py"
        file.write_text(READER.replace("FACTOR", str(factor)))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        return module.Counted

    first, second = reader(1), reader(7)
    root = str(tmp_path)
    assert first(root=root).index.counts.tolist() == [[9, 1]]
    assert first(root=root, pixels=3).index.counts.tolist() == [[9, 3]]
    assert second("train", root, pixels=3).index.counts.tolist() == [[9, 21]]
    for name in ("reader1", "reader7"):
        del sys.modules[name]
