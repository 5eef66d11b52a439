"""Looking twice: the second matching has the query's own find among its supports, and only where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.hub_model import model_options
from fewseg.models.in_use import in_use
from fewseg.models.mirrored import Mirrored
from fewseg.models.refined import Refined
from fewseg.predictor import FewShotPredictor
from fewseg.storage.saved import load_model
from helpers import Fewseg, Toy, scene, tiny_model


class Spot(Toy):
    """Says how bright a pixel is, and that it is there the more, the more supports there are."""

    masks_features = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def extract_query(self, image: Tensor) -> Any:
        return {"maps": image}

    def extract_support(self, images: Tensor, masks: Tensor) -> Any:
        return {"maps": images, "mask": masks}

    def embed_query(self, features: Any) -> Any:
        return {"embedded": features["maps"]}

    def embed_support(self, features: Any) -> Any:
        return {"maps": features["maps"], "mask": features["mask"]}

    def match(self, query: Any, support: Any, *, size: Any, base_index: Any = None) -> Prediction:
        assert set(query) == {"embedded"}
        self.seen.append(support["mask"])
        lead = 5 * (query["embedded"][:, 0] * 2 - 1) + support["mask"].shape[1] - 1
        presence = torch.full((len(lead),), float(support["mask"].shape[1]))
        return Prediction(torch.stack([-lead / 2, lead / 2], 1), presence=presence)


def episode_of(query: Tensor, *, shots: int) -> Episode:
    masks = torch.zeros(len(query), shots, 64, 64, dtype=torch.uint8)
    masks[..., 20:40, 20:40] = 1
    supports = torch.rand(len(query), shots, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Episode(query, supports, masks, torch.ones(len(query)), -torch.ones(len(query)))


def lead_of(prediction: Prediction) -> Tensor:
    return prediction.logits[:, 1] - prediction.logits[:, 0]


def test_what_is_sure_is_the_further_supports_mask_and_the_rest_is_void() -> None:
    model = Spot()
    image = torch.zeros(1, 3, 64, 64)
    image[..., :10, :] = 1  # surely there
    image[..., 10:20, :] = 0.45  # who knows
    episode = episode_of(image, shots=2)
    found = Refined(model)(episode)
    first, second = model.seen
    assert (first.shape[1], second.shape[1]) == (2, 3)
    assert torch.equal(second[:, :2], episode.support_masks)
    own = second[0, 2]
    assert (own[:10] == 1).all()
    assert (own[10:20] == 255).all()
    assert (own[20:] == 0).all()
    # the mean of leads with one and two further supports; whether it is there is the first look's to say
    torch.testing.assert_close(lead_of(found)[0, 0, 0], torch.tensor(5 + (1 + 2) / 2))
    assert found.presence is not None
    assert found.presence.tolist() == [2.0]


def test_a_query_in_which_nothing_is_found_keeps_its_first_look() -> None:
    model = Spot()
    image = torch.zeros(2, 3, 64, 64)
    image[1] = 1
    episode = episode_of(image, shots=1)
    found = lead_of(Refined(model)(episode))
    assert len(model.seen) == 2
    assert (found[0] == -5).all()
    assert (found[1] == 5.5).all()
    Refined(model)(episode_of(torch.zeros(2, 3, 64, 64), shots=1))
    assert len(model.seen) == 3


@pytest.mark.slow
def test_lite_looks_twice_in_every_way_of_use() -> None:
    (image, mask), (query, _) = scene(size=(90, 70), box=(20, 10, 60, 50)), scene(size=(80, 90), box=(10, 20, 60, 70))
    masks = {}
    for refine in ("none", "fast", "best"):
        predictor = FewShotPredictor(
            load_model("lite"), refine=refine, precision="bf16" if refine == "best" else "fp32"
        )
        predictor.set_support({"it": ([image, image], [mask, mask])})
        masks[refine] = predictor.predict_proba(query)
    assert abs(masks["none"] - masks["fast"]).max() > 0.01
    assert abs(masks["best"] - masks["fast"]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("refine", ["fast", "best"])
def test_graphs_look_twice_as_torch_does(refine: str) -> None:
    (image, mask), (query, _) = scene(size=(90, 70), box=(20, 10, 60, 50)), scene(size=(80, 90), box=(10, 20, 60, 70))
    found = []
    for runtime in ("graphs", "torch"):
        predictor = FewShotPredictor("lite", refine=refine, runtime=runtime)
        predictor.set_support(image, mask)
        found.append(predictor.predict_proba(query))
    assert isinstance(found[0], np.ndarray)
    assert isinstance(found[1], np.ndarray)
    assert np.abs(found[0] - found[1]).max() < 0.02


def test_ways_of_use_are_told_and_what_cannot_be_is_refused() -> None:
    lite: Any = tiny_model("lite")
    best: Any = in_use(lite, refine="best")
    assert isinstance(best, Mirrored)
    assert isinstance(best.model, Refined)
    assert model_options(best)["refine"]
    assert in_use(lite) is lite
    with pytest.raises(UsageError, match="refine 'quick'; choose none, fast, best"):
        in_use(lite, refine="quick")
    with pytest.raises(UsageError, match="hdmnet encodes a support from its masked image"):
        in_use(tiny_model("hdmnet"), refine="fast")  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_evaluation_is_told_apart_by_it(fewseg: Fewseg, tmp_path: Path) -> None:
    words = ("lite", "scenes", "data.images=40", "data.size=64", "--episodes", 4, "--repeats", 1, "--workers", 0)
    told = fewseg("evaluate", *words, "--refine", "fast", "--out", tmp_path / "r.json")
    assert told.code == 0, told.err
    assert '"refine": true' in (tmp_path / "r.json").read_text()
    wrong = fewseg("evaluate", *words, "--refine", "fast", "--protocol", "bam-generalised")
    assert wrong.code == 2
    assert "--refine fast is not made for protocol bam-generalised" in wrong.err
