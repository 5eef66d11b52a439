"""What is measured: lists of episodes that are given, and models that have seen what is in them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fewseg.data.sets.scenes import Scenes
from fewseg.errors import DataError, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.models.in_use import in_use
from fewseg.storage.saved import load_model
from fewseg.training.loop import train
from helpers import Toy, toy_config


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=60, size=64)


@pytest.fixture
def file(source: Scenes, tmp_path: Path) -> Path:
    """Ten episodes of fold 1."""
    Benchmark.draw(source, source.fold(1), episodes=10, repeats=1).lists[0].save(tmp_path / "list.csv")
    return tmp_path / "list.csv"


def test_a_list_of_another_fold_is_refused_with_the_fold_that_fits(source: Scenes, file: Path) -> None:
    name = source.class_names[source.fold(1).novel[0] - 1]
    with pytest.raises(UsageError, match=rf"not novel in fold 0 \({name}, .*\); evaluate with data\.fold=1"):
        Benchmark.draw(source, source.fold(0), file=file)
    assert len(Benchmark.draw(source, source.fold(1), file=file).lists[0]) == 10


def test_a_list_of_two_folds_fits_none(source: Scenes, file: Path, tmp_path: Path) -> None:
    Benchmark.draw(source, source.fold(2), episodes=10, repeats=1).lists[0].save(tmp_path / "other.csv")
    rows = [line for line in (tmp_path / "other.csv").read_text().splitlines() if line[0].isdigit()]
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# sha256")]
    file.write_text("\n".join([*lines, *rows]))
    with pytest.raises(UsageError, match="no fold has all its classes"):
        Benchmark.draw(source, source.fold(1), file=file)


def test_a_list_without_episodes_is_refused(source: Scenes, file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line[0].isdigit() and not line.startswith("# sha256")))
    with pytest.raises(DataError, match="lists no episode"):
        Benchmark.draw(source, source.fold(1), file=file)


def test_a_list_is_not_drawn_anew(source: Scenes, file: Path) -> None:
    for choices in ({"episodes": 5}, {"repeats": 2}, {"seeds": (0,)}):
        with pytest.raises(UsageError, match="lists 10 episodes, once"):
            Benchmark.draw(source, source.fold(1), file=file, **choices)
    assert len(Benchmark.draw(source, source.fold(1), file=file, episodes=10, repeats=1).lists) == 1


def test_a_model_is_not_measured_in_python_on_what_it_was_trained_on(
    source: Scenes, toy: type[Toy], tmp_path: Path
) -> None:
    model = load_model(train(toy_config(), tmp_path / "run"))
    right, wrong = (Benchmark.draw(source, source.fold(n), episodes=2, repeats=1) for n in (0, 1))
    for plain, one in itertools.product((False, True), (model, in_use(model, flip=True))):
        assert evaluate(one, right, plain=plain).trained_on["fold"] == 0
        with pytest.raises(UsageError, match=r"trained on classes that are novel in fold 1 .*source\.fold\(0\)"):
            evaluate(one, wrong, plain=plain)
    assert evaluate(toy().eval(), wrong, plain=True).trained_on == {}  # nothing is known of it
    assert right.known_to(model).known_to(toy().eval()).fold == right.fold


def test_what_is_no_benchmark_leads_to_one() -> None:
    for given in (lambda: evaluate(Toy().eval(), "pascal5i"), lambda: Benchmark.of(Toy().eval())):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"fewseg\.Benchmark\.draw\(source"):
            given()
