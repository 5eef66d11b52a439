"""What a method answers against the contract is told with its class and file, wherever it is first taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fewseg import FewShotPredictor
from fewseg.build import create_source
from fewseg.config import load_config
from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.models.in_use import in_use
from fewseg.training.objectives import EpisodeObjective
from helpers import Toy, scene

LOGITS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one channel": (
        lambda x: Prediction(x[:, 1:]),
        r"logits that are a tensor \(\d, 1, .*one logit x of the foreground",
    ),
    "three channels": (lambda x: Prediction(x[:, [0, 1, 1]]), r"a tensor \(\d, 3, .*two channels"),
    "not resized": (lambda x: Prediction(x[..., ::2, ::2]), r"a tensor \(\d, 2, 32, 32\).*resize_ac\(logits, size\)"),
    "no batch": (lambda x: Prediction(x[0]), r"a tensor \(2, 64, 64\).*batch of the queries"),
    "no prediction": (lambda x: x, r"a tensor \(\d, 2, 64, 64\).*Prediction\(logits\)"),
}
TERMS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a tensor": (lambda loss: loss, r"a tensor \(\).*a dict of scalar tensors"),
    "none": (lambda _: {}, "an empty dict"),
    "a map": (lambda loss: {"final": loss[None]}, r"'final' as a tensor \(1,\).*mean or sum"),
    "a number": (lambda loss: {"final": loss.item()}, "'final' as a float"),
    "detached": (lambda loss: {"final": loss.detach()}, "terms without a gradient"),
}


class Mine(Toy):
    """A method that answers something else."""

    name = "mine"
    answer: Callable[[Tensor], Any] = staticmethod(Prediction)
    term: Callable[[Tensor], Any] = staticmethod(lambda loss: {"final": loss})

    def match(self, *args: Any, **kwargs: Any) -> Any:
        return type(self).answer(super().match(*args, **kwargs).logits)

    def loss(self, prediction: Prediction, episode: Episode) -> Any:
        return type(self).term(super().loss(prediction, episode)["final"])


def mine(**parts: Callable[[Tensor], Any]) -> Mine:
    return type("Mine", (Mine,), {name: staticmethod(part) for name, part in parts.items()})()


def episode() -> dict[str, Tensor]:
    masks = torch.ones(2, 1, 64, 64, dtype=torch.uint8)
    images = torch.rand(2, 1, 3, 64, 64)
    ids = torch.zeros(2, dtype=torch.long)
    return Episode(images[:, 0], images, masks, ids, ids - 1, query_mask=masks[:, 0]).as_dict()


@pytest.mark.parametrize("kind", LOGITS)
def test_logits_of_another_form_are_told_in_training_evaluation_and_use(kind: str) -> None:
    answer, told = LOGITS[kind]
    model, told = mine(answer=answer), rf"^Mine.match \({__file__}\) gave .*{told}.*add-a-method"
    with pytest.raises(UsageError, match=told):
        EpisodeObjective(model)(episode())
    source = create_source(load_config("scenes", "data.images=30", "data.size=64"), "test")
    benchmark = Benchmark.draw(source, source.fold(0), episodes=2, repeats=1)
    for used, plain in ((model, False), (model, True), (in_use(model, flip=True, precision="bf16"), False)):
        with pytest.raises(UsageError, match=told):
            evaluate(used, benchmark, workers=0, plain=plain)
    predictor = FewShotPredictor(model)
    predictor.set_support(*scene())
    with pytest.raises(UsageError, match=told):
        predictor.predict(scene()[0])


@pytest.mark.parametrize("kind", TERMS)
def test_a_loss_of_another_form_is_told(kind: str) -> None:
    term, told = TERMS[kind]
    with pytest.raises(UsageError, match=rf"^Mine.loss \({__file__}\) gave .*{told}.*add-a-method"):
        EpisodeObjective(mine(term=term))(episode())
