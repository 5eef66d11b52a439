"""A trained model that is used in another way than it is: by itself, or to be used so by what measures it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fewseg.episode import Episode, Prediction
from fewseg.models.base import FewShotSegmenter
from fewseg.models.hub_model import model_options


class Wrapper(FewShotSegmenter):
    """Answers for the model that it holds; `how` joins that one's options in what results keep."""

    trainable = False

    def __init__(self, model: FewShotSegmenter, **how: Any) -> None:
        super().__init__()
        self.model = model
        self.name = model.name  # type: ignore[misc]
        self.shots, self.image_size, self.tells_presence = model.shots, model.image_size, model.tells_presence
        self.takes_classes = model.takes_classes  # type: ignore[misc]
        self._hub_mixin_config = model_options(model) | how
        self.info = getattr(model, "info", {})

    def name_classes(self, names: Sequence[str]) -> None:
        self.model.name_classes(names)

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        raise ValueError("a wrapped model is for use alone; train the model itself")
