"""Torch's optimisers and schedules by name, rates by parts of the model, and callbacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from fewseg import registry
from fewseg.callback import Callback
from fewseg.errors import FewsegError, UsageError
from fewseg.schema import OPTIMIZERS, SCHEDULES
from fewseg.training.loop import train
from fewseg.training.optimising import check_optimising, with_rates
from helpers import SCENES, SHORT, TINY, Fewseg, Toy, assert_equal, page_block, toy_config, weights

NEEDS = {
    "CyclicLR": ("train.schedule_options={base_lr: 0.001, max_lr: 0.1}", "train.optimizer=sgd"),
    "ExponentialLR": ("train.schedule_options.gamma=0.9",),
    "MultiStepLR": ("train.schedule_options={milestones: [10, 20]}",),
    "StepLR": ("train.schedule_options.step_size=2",),
    "CosineAnnealingWarmRestarts": ("train.schedule_options.T_0=3",),
}


def rates_of(run: Path) -> list[float]:
    return [line["lr"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "lr" in line]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_of_torch_s_can_be_had(name: str, toy: type[Toy]) -> None:
    check_optimising(toy_config(f"train.optimizer={name}"))


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "poly"])
def test_every_schedule_of_torch_s_can_be_had(name: str, toy: type[Toy]) -> None:
    check_optimising(toy_config(f"train.schedule={name}", *NEEDS.get(name, ())))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train.optimizer_options.beta=3",), "AdamW has no option 'beta'.*Did you mean 'betas'"),
        (("train.optimizer_options.betas=[3, 4]",), "AdamW refuses these options"),
        (("train.schedule=StepLR",), "StepLR refuses these options.*step_size"),
        (("train.schedule_options.gamma=3",), "of poly there is train.power"),
        (("train.schedule=StepLr",), "Did you mean 'StepLR'"),
        (("train.optimizer=NAdem",), "Did you mean 'NAdam'"),
        (("train.rates={backbon: 2}",), "no trained parameter is of 'backbon'; its parts are embed, head"),
        (("train.rates={head: -2}",), "head is -2; give a factor"),
        (('train.rates={"*": 0}',), "leaves nothing to train; give a part"),
        (("train.callbacks=[none]",), "unknown callback 'none'"),
    ],
)
def test_what_cannot_be_is_told_before_the_run_is_there(
    words: tuple[str, ...], told: str, toy: type[Toy], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        train(toy_config(*words), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_parts_are_trained_at_rates_of_their_own(toy: type[Toy], tmp_path: Path) -> None:
    model = Toy()
    groups = with_rates(model.param_groups(1.0), model, {"head": 0.1, "*.bias": 3, "head.bias": 0})
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad} == {
        "embed.weight": 1.0, "embed.bias": 3.0, "head.weight": 0.1
    }  # fmt: skip
    config = toy_config("train.rates={head: 0}", "train.epochs=1")
    torch.manual_seed(config.train.seed)
    end = weights(train(config, tmp_path / "run") / "last")
    still = weights(train(toy_config("train.lr=0", "train.epochs=1"), tmp_path / "still") / "last")
    assert {name for name in end if not torch.equal(end[name], still[name])} == {"embed.weight", "embed.bias"}


class Told(Callback):
    """Keeps what it is told, and may end the run."""

    name = "told"

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.stop_at = stop_at

    def start(self, run: Path, config: Any, *, batches: int) -> None:
        self.heard.append(("start", run.name, config["train"]["epochs"], batches))

    def step(self, batches: int, values: Any) -> None:
        self.heard.append(("step", batches, sorted(values)))

    def epoch(self, batches: int, epoch: int, scores: Any, model: Any) -> None:
        self.heard.append(("epoch", batches, epoch, dict(scores), type(model).__name__))
        if epoch == self.stop_at:
            raise FewsegError("enough")

    def end(self, batches: int, error: BaseException | None) -> None:
        self.heard.append(("end", batches, str(error)[:6]))


def test_a_run_with_torch_s_schedule_goes_on_where_it_was_and_callbacks_hear_of_it(
    toy: type[Toy], tmp_path: Path
) -> None:
    words = ("train.schedule=CosineAnnealingLR", "train.optimizer=NAdam", "train.save_every=1")
    whole = train(toy_config(*words), tmp_path / "whole")
    first, second = Told(stop_at=1), Told()
    with pytest.raises(FewsegError, match="enough"):
        train(toy_config(*words), tmp_path / "run", callbacks=[first])
    run = train(toy_config(*words), tmp_path / "run", resume=True, callbacks=[second])
    assert_equal(weights(whole / "last"), weights(run / "last"))
    assert rates_of(whole) == rates_of(run)
    expected = [0.005 * (1 + torch.tensor(torch.pi * t / 6).cos().item()) for t in range(6)]  # of each batch
    assert rates_of(whole) == pytest.approx(expected, abs=1e-7)
    values = ["loss_final", "lr", "train_iou"]
    assert first.heard == [
        ("start", "run", 2, 0),
        *(("step", batches, values) for batches in (1, 2, 3)),
        ("epoch", 3, 1, {}, "Toy"),
        ("end", 3, "enough"),
    ]
    assert second.heard[0][3] == 2  # the checkpoint before the epoch's end
    assert second.heard[-1] == ("end", 6, "None")


def test_the_csv_log_of_a_run_that_is_resumed_has_every_batch_once(toy: type[Toy], tmp_path: Path) -> None:
    with pytest.raises(FewsegError, match="enough"):
        train(toy_config("train.callbacks=[csv]", "train.save_every=1"), tmp_path / "run", callbacks=[Told(stop_at=1)])
    run = train(toy_config("train.callbacks=[csv]", "train.save_every=1"), tmp_path / "run", resume=True)
    header, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    assert header == ["batches", "what", "value"]
    assert b"\r" not in (run / "metrics.csv").read_bytes()  # lines end alike, those before the stop and those after
    assert [row[0] for row in rows if row[1] == "lr"] == list("123456")
    assert [float(row[2]) for row in rows if row[1] == "lr"] == pytest.approx(rates_of(run), abs=1e-6)
    assert [row[2] for row in rows if row[1] == "epoch"] == ["1", "2"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_told_and_a_resumed_run_is_the_same_one(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, library = toy_config(f"train.callbacks=[{name}]", "train.save_every=1"), MagicMock()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"pip install {name}"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, name, library)
    library.init.return_value.id = library.start_run.return_value.info.run_id = "abc"
    with pytest.raises(FewsegError, match="enough"):
        train(config, tmp_path / "run", callbacks=[Told(stop_at=1)])
    train(config, tmp_path / "run", resume=True)
    begun = library.init if name == "wandb" else library.start_run
    assert [one.kwargs.get("id", one.kwargs.get("run_id")) for one in begun.call_args_list] == [None, "abc"]
    logged = library.init.return_value.log if name == "wandb" else library.log_metrics
    assert {"lr", "train_iou", "loss_final"} <= set(logged.call_args_list[0].args[0])
    assert logged.call_args.kwargs["step"] == 6
    ended = library.init.return_value.finish if name == "wandb" else library.end_run
    assert [str(one) for one in ended.call_args_list] == (
        ["call(exit_code=1)", "call(exit_code=0)"] if name == "wandb" else ["call('FAILED')", "call('FINISHED')"]
    )


@pytest.mark.slow
def test_the_callback_of_the_page_writes_its_csv(
    tmp_path: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_CALLBACKS", {})
    monkeypatch.setattr(registry, "_LOADED", {})
    monkeypatch.setenv(registry.PLUGINS, "")
    (tmp_path / "logs_of_mine.py").write_text(page_block("follow-a-training.md", "python"))
    words = ("train", "panet", *SCENES, *TINY, *SHORT, "train.validation=none", "train.epochs=1")
    out = tmp_path / "run"
    plugin = ("--plugin", tmp_path / "logs_of_mine.py")
    result = fewseg(*words, "train.callbacks=[csv-log]", "--out", out, *plugin)
    assert result.code == 0, result.err
    rows = (out / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["3", "3", "3"]
    assert "loss_" in rows[0]
    assert rows[1:] == ["3,epoch=1", "3,ended=well"]
