"""Protocols of one's own, whole lists, and several supports for every query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewseg import registry
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import DataError, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.protocol_files import find_protocol
from fewseg.metrics.references import reference_spread
from helpers import ColorSegmenter, Fewseg, page_block

DENSE = ("dense", "scenes", "data.level=simple", "data.images=60", "data.size=64", "model.backbone=timm/test_resnet")
QUICK = ("model.weights=null", "model.image_size=64", "--workers", 0)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's protocol, beside a plugin that was loaded."""
    monkeypatch.setattr(registry, "_PROTOCOLS", {})
    monkeypatch.setattr(registry, "_LOADED", {})
    monkeypatch.setenv(registry.PLUGINS, "")
    (tmp_path / "small-hsnet.protocol.yaml").write_text(page_block("protocols.md", "yaml"))
    return tmp_path


def test_a_protocol_from_a_file_is_measured_by(mine: Path, fewseg: Fewseg) -> None:
    out = mine / "out.json"
    file = mine / "small-hsnet.protocol.yaml"
    result = fewseg("evaluate", *DENSE, *QUICK, "--protocol", file, "--episodes", 4, "--out", out)
    assert result.code == 0, result.err
    record = json.loads(out.read_text())
    named = {"name": "small-hsnet+2references", "references": 2, "input_size": 256, "scored_at": "original"}
    changed = named | {"repeats": 3, "seeds": [0, 1, 2]}
    assert record["protocol"] == get_protocol("hsnet", dataset="scenes").as_dict() | changed
    assert [r["seed"] for r in record["repeats"]] == [0, 1, 2]
    assert [r["episodes"] for r in record["repeats"]] == [8, 8, 8]
    assert record["references"]["draws"] == 2
    assert "2 draws of supports a query" in result.out
    assert find_protocol(str(file), dataset="coco20i").episodes == 10000


def test_a_protocol_beside_a_plugin_or_in_it_is_known_by_name(mine: Path, fewseg: Fewseg) -> None:
    plugin = mine / "protocols_of_mine.py"
    plugin.write_text(
        "from dataclasses import replace\n"
        "from fewseg.data.episodes.protocols import get_protocol\n"
        "MINE = replace(get_protocol('fewseg', dataset='scenes'), name='seven', seeds=(7,))\n"
    )
    for name, seed in (("seven", 7), ("small-hsnet", 0)):
        assert find_if_loaded(plugin, name).seeds[0] == seed
    listed = fewseg("models").out
    assert "seven" in listed
    assert "small-hsnet.protocol" not in listed  # no recipe
    out = mine / "list.csv"
    assert fewseg("data", "episodes", *DENSE[1:-1], "--protocol", "seven", "--episodes", 3, "--out", out).code == 0
    assert "# protocol: seven" in out.read_text()
    with pytest.raises(UsageError, match="itself has a protocol 'bam'"):
        registry.register("protocol", get_protocol("bam", dataset="scenes"))


def find_if_loaded(plugin: Path, name: str) -> Any:
    registry.load_plugin(str(plugin))
    return find_protocol(name, dataset="scenes")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("bam", "base: bam", "rename the file"),
        ("a", "base: hsnet\nepisoden: 3", "unknown key episoden; known: .* Did you mean 'episodes'"),
        ("a", "episodes: 3", "does not say which protocol it changes"),
        ("a", "base: hsnet\nepisodes: many", "episodes is 'many'; give a whole number"),
        ("a", "base: hsnet\nepisodes: 0", "episodes must be 1 or more"),
        ("a", "base: hsnet\nquery: random", "unknown a.yaml: query 'random'"),
        ("a", "base: hsnet\nscored_at: cropped", "need resize: pad"),
        ("a", "base: hsnet\nlabels: all", "-generalised"),
        ("a", "base: hsnet\nseeds: [1, 1]", "different numbers"),
        ("a", "base: hsnet\nreferences: 0", "references=0"),
        ("a", "base: hsnet\nwhen: 3", "`when` must hold"),
        ("a", "base: [", "no YAML"),
        ("a", "base: mine", "unknown protocol 'mine'"),
    ],
)
def test_what_a_protocol_cannot_be_is_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    with pytest.raises((UsageError, DataError), match=told):
        find_protocol(str(file), dataset="scenes")


def test_an_unknown_name_ends_with_the_names_known(fewseg: Fewseg) -> None:
    result = fewseg("evaluate", *DENSE, "--protocol", "hsnett")
    assert (result.code, "Did you mean 'hsnet'?" in result.err) == (2, True)


def test_the_spread_over_supports_of_a_query() -> None:
    source = Scenes(subset="test", level="simple", images=60, size=64)
    benchmark = Benchmark.draw(source, source.fold(0), episodes=15, repeats=1, references=4)
    results = evaluate(ColorSegmenter().eval(), benchmark, workers=0)
    (table,) = results.tables
    assert len(table) == 60
    r = results.references
    assert r["worst"] <= r["lowest"] <= r["highest"] <= r["best"]
    ious = (table[:, 1] / np.maximum(table[:, 2], 1)).reshape(15, 4)
    assert r["query_sd"] == pytest.approx(np.std(ious, axis=1, ddof=1).mean())
    same = np.repeat(table[::4], 4, axis=0)
    found = reference_spread(same, 4, benchmark.fold.novel)
    assert found["query_sd"] == 0
    assert found["worst"] == found["lowest"] == found["highest"] == found["best"]
