"""The training loop: what a run leaves behind, that it repeats, and that it resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fewseg import registry
from fewseg.config import Config, load_config
from fewseg.data.episodes.sampling import TrainingEpisodes
from fewseg.errors import DataError, FewsegError, UsageError
from fewseg.progress import Silent
from fewseg.storage.saved import find_folder, load_model, read_record
from fewseg.training.loop import train
from fewseg.training.objectives import EpisodeObjective
from fewseg.training.optimising import set_learning_rate
from fewseg.training.tasks import EpisodeTask
from helpers import SCENES, SHORT, TINY, Toy, assert_equal, hdmnet_config, toy_config, weights


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def hdmnet_run(base_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("hdmnet") / "run"
    return train(hdmnet_config(f"base.recipe={base_recipe}"), run)


@pytest.mark.slow
def test_a_run_leaves_configuration_metrics_and_models(hdmnet_run: Path, base_recipe: Path) -> None:
    assert {f.name for f in hdmnet_run.iterdir()} == {
        "base", "best", "config.yaml", "last", "metrics.jsonl", "run.json", "state.previous.pt", "state.pt"
    }  # fmt: skip
    assert load_config(str(hdmnet_run / "config.yaml")) == hdmnet_config(f"base.recipe={base_recipe}")
    steps = [line for line in lines(hdmnet_run) if "lr" in line]
    validations = [line for line in lines(hdmnet_run) if "val_miou" in line]
    assert [line["batches"] for line in steps] == [line["batches"] for line in validations] == [3, 6]
    assert {"loss_final", "loss_meta", "loss_distill", "loss_base", "train_iou", "of"} <= steps[0].keys()
    info = read_record(hdmnet_run)["info"]
    assert info["data"]["name"] == "scenes"
    assert len(info["fold"]["held_out"]) == 2
    assert not set(info["fold"]["base"]) & set(info["fold"]["held_out"] + info["fold"]["novel"])
    assert load_model(hdmnet_run).name == "hdmnet"


@pytest.mark.slow
def test_frozen_parts_are_the_base_learner_s_and_the_rest_is_trained(hdmnet_run: Path) -> None:
    base, last = weights(hdmnet_run / "base" / "last"), weights(hdmnet_run / "last")
    for name, tensor in base.items():
        assert torch.equal(last[name], tensor), name
    torch.manual_seed(hdmnet_config().train.seed)
    start = EpisodeTask(hdmnet_config(), progress=Silent()).model
    trained = {n: p for n, p in start.named_parameters() if p.requires_grad}
    still = {n for n, p in trained.items() if torch.equal(p, last[n])}
    # a map of a few positions leaves the coarsest matching without a gradient here and there
    assert len(still) <= 2
    assert all(torch.equal(t, last[n]) for n, t in start.state_dict().items() if n not in trained and n not in base)


@pytest.mark.slow
def test_a_base_learner_trained_before_gives_the_same_model(hdmnet_run: Path, tmp_path: Path) -> None:
    run = train(hdmnet_config(f"base.run={hdmnet_run / 'base'}"), tmp_path / "run")
    assert not (run / "base").exists()
    assert_equal(weights(run / "last"), weights(hdmnet_run / "last"))


@pytest.mark.slow
def test_a_base_learner_of_another_fold_is_refused(hdmnet_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on the base classes"):
        train(hdmnet_config(f"base.run={hdmnet_run / 'base'}", "data.fold=1"), tmp_path / "run")
    assert not list(tmp_path.glob("run/*")), "the same --out may be given again"


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits_whatever_the_workers(toy: type[Toy], tmp_path: Path) -> None:
    runs = [train(toy_config(f"train.workers={n}"), tmp_path / f"run{i}") for i, n in enumerate((0, 0, 1, 2))]
    for run in runs[1:]:
        assert_equal(weights(run / "last"), weights(runs[0] / "last"))
        assert lines(run) == lines(runs[0])
    other = train(toy_config("train.seed=1"), tmp_path / "other")
    assert not torch.equal(weights(other / "last")["head.weight"], weights(runs[0] / "last")["head.weight"])


def test_a_run_starts_from_another_s_weights_and_keeps_count_of_what_these_have_seen(
    toy: type[Toy], tmp_path: Path
) -> None:
    start = train(toy_config("train.all_classes=true"), tmp_path / "start")
    fold = "it was trained on classes that are to be unseen in fold 0"
    with pytest.raises(UsageError, match=fold.removeprefix("it ")):
        train(toy_config(f"train.init={start}"), tmp_path / "fold")
    elsewhere = toy_config(f"train.init={start}", "train.all_classes=true", "train.lr=0")
    run = train(elsewhere, tmp_path / "run")
    assert_equal(weights(run / "last"), weights(start / "last"))
    assert json.loads((run / "run.json").read_text())["init"] == read_record(start)["sha256"]
    info = read_record(run)["info"]
    assert info["seen_before"] == info["fold"]["base"]
    with pytest.raises(UsageError, match=r"train\.init=.* is a toy; a lite can start from a lite only"):
        train(load_config("lite", *SCENES, *TINY, *SHORT, f"train.init={start}"), tmp_path / "other")


class _Stop:
    """Raises at the n-th call of a method."""

    def __init__(self, error: type[BaseException], at: int, plain: Any) -> None:
        self.error, self.at, self.plain, self.calls = error, at, plain, 0

    def method(self) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise self.error
            return self.plain(*args, **kwargs)

        return call


def interrupted(config: Config, run: Path, stop: _Stop, owner: Any, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stop.method())
        with pytest.raises((FewsegError, RuntimeError)):
            train(config, run)


RESUMED = {
    "adamw": ("train.save_every=2",),
    "accumulating": ("train.save_every=1", "train.accumulate=4"),
    "sgd by turns": ("train.optimizer=sgd", "train.most_shots=3"),
}


@pytest.mark.parametrize(
    "name", ["accumulating", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adamw", "sgd by turns"))]
)
def test_a_stopped_run_resumes_to_the_same_bits(toy: type[Toy], name: str, tmp_path: Path) -> None:
    config = toy_config("train.validation=base", "train.held_out=2", *RESUMED[name])
    whole = train(config, tmp_path / "whole")
    for at, error in ((1, KeyboardInterrupt), (4, RuntimeError), (6, KeyboardInterrupt)):
        run = tmp_path / f"run{at}"
        interrupted(config, run, _Stop(error, at, EpisodeObjective.forward), EpisodeObjective, "forward")
        train(config, run, resume=True)
        for folder in ("last", "best"):
            assert_equal(weights(run / folder), weights(whole / folder))
        assert lines(run) == lines(whole)


@pytest.mark.slow
def test_a_run_stopped_while_validating_validates_again(toy: type[Toy], tmp_path: Path) -> None:
    config = toy_config("train.validation=base", "train.held_out=2")
    whole = train(config, tmp_path / "whole")
    run = tmp_path / "run"
    interrupted(config, run, _Stop(KeyboardInterrupt, 2, EpisodeTask.validate), EpisodeTask, "validate")
    train(config, run, resume=True)
    assert lines(run) == lines(whole)
    assert read_record(run / "last")["info"] == read_record(whole / "last")["info"]


@pytest.mark.slow
def test_a_run_stopped_in_its_base_learner_resumes(base_recipe: Path, hdmnet_run: Path, tmp_path: Path) -> None:
    from fewseg.training.objectives import BaseObjective

    config, run = hdmnet_config(f"base.recipe={base_recipe}"), tmp_path / "run"
    interrupted(config, run, _Stop(KeyboardInterrupt, 2, BaseObjective.forward), BaseObjective, "forward")
    train(config, run, resume=True)
    assert_equal(weights(run / "last"), weights(hdmnet_run / "last"))
    assert lines(run) == lines(hdmnet_run)
    assert lines(run / "base") == lines(hdmnet_run / "base")


def test_a_half_written_log_line_is_dropped_on_resuming(toy: type[Toy], tmp_path: Path) -> None:
    config = toy_config()
    run = train(config, tmp_path / "run")
    before = lines(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"batches": 7, "lo')
    train(config, run, resume=True)
    assert lines(run) == before


def test_a_finished_run_is_left_as_it_is(toy: type[Toy], tmp_path: Path) -> None:
    config = toy_config()
    run = train(config, tmp_path / "run")
    before = weights(run / "last"), lines(run)
    train(config, run, resume=True)
    assert_equal(weights(run / "last"), before[0])
    assert lines(run) == before[1]


def test_a_run_is_never_overwritten_nor_mixed(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config(), tmp_path / "run")
    with pytest.raises(UsageError, match=r"already holds a run.*--resume"):
        train(toy_config(), run)
    with pytest.raises(UsageError, match=r"configuration differs.*: train\.lr is \S+ there, 0\.5 here; resume"):
        train(toy_config("train.lr=0.5"), run, resume=True)
    with pytest.raises(DataError, match="no run to resume"):
        train(toy_config(), tmp_path / "nothing", resume=True)
    (run / "state.pt").write_bytes(b"damaged")
    (run / "state.previous.pt").unlink()
    with pytest.raises(DataError, match=r"state\.pt is damaged.*no whole one before it"):
        train(toy_config(), run, resume=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data.fold=9",), "fold 9 does not exist"),
        (("data.shots=7",), "7-shot episodes need 8"),
        (("train.precision=13-bits",), "train.accelerator=auto"),
        (("train.accelerator=abacus",), "train.accelerator=abacus"),
        (("train.validation=base", "train.held_out=15"), "cannot hold out 15"),
        (("data.level=hard",), "unknown level 'hard'; choose simple, complex"),
        (("model.name=prototype", "model.backbone=timm/test_resnet"), "nothing to train"),
        (("model.name=dense", "model.backbone=timm/test_resnet"), "nothing to train"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_run_in_the_way(
    toy: type[Toy], words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(FewsegError, match=says):
        train(toy_config(*words), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_what_is_wrong_with_the_data_shows_before_the_base_learner_is_trained(
    base_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="7-shot episodes need 8"):
        train(hdmnet_config(f"base.recipe={base_recipe}", "data.shots=7"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.slow
def test_gradient_accumulation_equals_a_larger_batch(toy: type[Toy], optimizer: str, tmp_path: Path) -> None:
    common = ("model.dropout=0", "train.epochs=2", "train.episodes_per_epoch=8", f"train.optimizer={optimizer}")
    large = train(toy_config("train.batch_size=4", *common), tmp_path / "large")
    small = train(toy_config("train.batch_size=2", "train.accumulate=2", *common), tmp_path / "small")
    a, b = weights(large / "last"), weights(small / "last")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_optimiser_trains_what_is_to_be_trained(toy: type[Toy], optimizer: str, tmp_path: Path) -> None:
    config = toy_config(f"train.optimizer={optimizer}", "train.clip=1")
    torch.manual_seed(config.train.seed)
    start = EpisodeTask(config, progress=Silent()).model.state_dict()
    end = weights(train(config, tmp_path / "run") / "last")
    changed = {name for name in end if not torch.equal(start[name], end[name])}
    assert changed == {"embed.weight", "embed.bias", "head.weight", "head.bias"}


@pytest.mark.slow
def test_the_learning_rate_falls_as_the_papers_count(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config("train.save_every=1"), tmp_path / "run")
    rates = [line["lr"] for line in lines(run)]
    assert rates == pytest.approx([0.01 * (1 - t / 6) ** 0.9 for t in range(1, 7)])
    constant = train(toy_config("train.power=0"), tmp_path / "constant")
    assert {line["lr"] for line in lines(constant)} == {0.01}


def test_every_group_keeps_its_share_of_the_learning_rate() -> None:
    weight = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weight[0]], "lr": 1.0}, {"params": [weight[1]], "lr": 10.0}])
    set_learning_rate(optimizer, [1.0, 10.0], 49, 100, power=0.9)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5**0.9, 10 * 0.5**0.9])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = Toy.loss, []

    def loss(self: Toy, *args: Any) -> dict[str, Any]:
        calls.append(1)
        return {n: v * (math.nan if len(calls) == 4 else 1) for n, v in plain(self, *args).items()}

    monkeypatch.setattr(Toy, "loss", loss)
    with pytest.raises(FewsegError, match=r"not finite at batch 3 \(episodes 6 to 7: final nan\).*lower train\.lr"):
        train(toy_config(), tmp_path / "run")


@pytest.mark.slow
def test_training_sees_base_classes_only(toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    base_labels: set[int] = set()
    plain = EpisodeObjective.forward

    def forward(self: EpisodeObjective, episode: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.update(episode["class_id"].tolist())
        base_labels.update(episode["query_base_mask"].unique().tolist())
        return plain(self, episode, *args, **kwargs)

    monkeypatch.setattr(EpisodeObjective, "forward", forward)
    words = ("data.level=complex", "data.novel=background", "train.episodes_per_epoch=24")
    run = train(toy_config("train.validation=base", "train.held_out=3", "train.epochs=1", *words), tmp_path / "run")
    fold = read_record(run)["info"]["fold"]
    assert len(fold["base"]) == 12
    assert len(seen) > 5
    assert seen <= set(fold["base"])
    assert base_labels <= {0, 255, *range(1, 13)}


@pytest.mark.parametrize("rule", ["novel", "none"])
@pytest.mark.slow
def test_what_selects_the_model(toy: type[Toy], rule: str, tmp_path: Path) -> None:
    run = train(toy_config(f"train.validation={rule}"), tmp_path / "run")
    assert (run / "best").exists() == (rule == "novel")
    assert find_folder(run) == run / ("best" if rule == "novel" else "last")
    assert any("val_miou" in line for line in lines(run)) == (rule == "novel")
    assert len(read_record(run)["info"]["fold"]["base"]) == 15


def test_the_best_model_is_that_of_the_best_validation(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.5, 0.3])
    monkeypatch.setattr(EpisodeTask, "validate", lambda self, *, progress: {"miou": next(scores)})
    run = train(toy_config("train.epochs=3"), tmp_path / "run")
    assert read_record(run / "best")["info"]["epoch"] == 2
    assert read_record(run / "best")["info"]["validation"] == {"miou": 0.5}
    assert read_record(run / "last")["info"]["epoch"] == 3


@pytest.mark.parametrize(
    ("words", "scores", "told"),
    [
        ((), (0.0, 0.0), ["note: no validation found a pixel"]),
        ((), (0.0, 0.1), []),
        (("train.all_classes=true", "train.validation=none"), None, ["note: all 20 classes are trained on"]),
    ],
)
def test_a_training_that_learnt_nothing_and_one_of_all_classes_say_so(
    toy: type[Toy],
    words: tuple[str, ...],
    scores: tuple[float, ...] | None,
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, said = iter(scores or ()), Noting()
    monkeypatch.setattr(EpisodeTask, "validate", lambda self, *, progress: scores and {"miou": next(found)})
    train(toy_config("train.epochs=2", *words), tmp_path / "run", progress=said)
    assert [note.startswith(one) for note, one in zip(said.notes, told, strict=True)] == [True] * len(told)


class Noting(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def log(self, text: str) -> None:
        self.notes += [text] * text.startswith("note: ")


@pytest.mark.slow
def test_training_on_cached_features_lowers_the_loss(toy: type[Toy], tmp_path: Path) -> None:
    words = ("train.epochs=12", "train.episodes_per_epoch=20", "train.batch_size=4", "train.cache_features=true")
    losses = [line["loss_final"] for line in lines(train(toy_config(*words), tmp_path / "run"))]
    assert sum(losses[-3:]) / 3 < 0.85 * losses[0]


@pytest.mark.slow
def test_a_few_episodes_can_be_learnt_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TrainingEpisodes.spec
    monkeypatch.setattr(TrainingEpisodes, "spec", lambda self, g: plain(self, g % 4))
    monkeypatch.setattr(torch.nn.Dropout2d, "forward", lambda self, x: x)
    words = ("model.base_learner=false", "train.epochs=1", "train.episodes_per_epoch=640", "train.batch_size=4")
    settings = ("train.lr=1e-3", "train.power=0", "train.validation=none", "train.cache_features=true")
    run = train(hdmnet_config(*words, *settings), tmp_path / "run")
    assert max(line["train_iou"] for line in lines(run)) > 0.8


def test_training_on_cached_features_repeats_and_resumes(toy: type[Toy], tmp_path: Path) -> None:
    config = toy_config("train.cache_features=true", "train.save_every=2", "train.most_shots=3")
    whole = train(config, tmp_path / "whole")
    run = tmp_path / "run"
    interrupted(config, run, _Stop(KeyboardInterrupt, 4, EpisodeObjective.forward), EpisodeObjective, "forward")
    train(config, run, resume=True)
    assert_equal(weights(run / "last"), weights(whole / "last"))
    assert lines(run) == lines(whole)


@pytest.mark.slow
def test_hdmnet_trains_on_cached_features(hdmnet_run: Path, tmp_path: Path) -> None:
    words = (f"base.run={hdmnet_run / 'base'}", "train.cache_features=true", "train.epochs=1")
    run = train(hdmnet_config(*words), tmp_path / "run")
    assert all(math.isfinite(line["loss_final"]) for line in lines(run) if "loss_final" in line)


def test_a_method_of_another_package_trains(toy: type[Toy], tmp_path: Path) -> None:
    assert registry.find("model", "toy") is Toy
    run = train(toy_config("data.shots=2"), tmp_path / "run")
    assert load_model(run).shots == 2


@pytest.mark.slow
def test_a_last_batch_of_one_image_is_filled_up_for_batchnorm(tmp_path):
    config = load_config(
        "base",
        "scenes",
        "model.backbone=timm/test_resnet",
        "model.weights=null",
        "model.image_size=64",
        "data.images=40",
        "data.size=64",
        "train.epochs=1",
        "train.episodes_per_epoch=5",
        "train.batch_size=4",
        "train.workers=0",
        "train.validation=none",
    )
    assert read_record(train(config, tmp_path / "run") / "last")["info"]["batches"] == 2
