"""FewShotSegmenter: the contract that every method fulfils, and that training, evaluation and the predictor rely on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from fewseg.episode import Episode, Prediction
from fewseg.models.hub_model import CARD, HubModel

Features = dict[str, Tensor]
"""Named tensors of a batch: query features have B first, support features B and K first, so that they can be cached,
stacked and sliced without knowing the method."""
CLASS_ID = "class_id"
"""Name of the support features (B, K) int64 that say their classes, to a method that takes them."""


def named(features: NamedTuple) -> Features:
    """A method's named tuple of tensors as the dict that caches and batches take; what is None is left out."""
    return {name: value for name, value in features._asdict().items() if value is not None}


class FrozenParts(nn.Module):
    """A network whose frozen parts stay in evaluation mode whatever mode it is put into (see `freeze`)."""

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for the parts that stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "stays_in_eval", False):
                module.training = False
        return self


class FewShotSegmenter(
    FrozenParts,
    HubModel,
    library_name="fewseg",
    pipeline_tag="image-segmentation",
    tags=["few-shot-segmentation"],
    model_card_template=CARD,
):
    """A few-shot segmenter in three parts: encode the query, encode the support, match the two.

    Encoding has two halves: `extract_*` is frozen (no gradient; its results may be cached over a whole training),
    `embed_*` holds what is trained. A method implements these four, `match` and `loss`; `forward` is the same for
    all of them. Constructors take JSON-able keyword arguments only.
    """

    name: ClassVar[str]
    """The method's name in configurations and on the command line."""
    needs_base_learner: ClassVar[bool] = False
    """Whether the method takes a trained base learner's back-end and head."""
    trainable: ClassVar[bool] = True
    """False for methods without a trained part (prototype, dense matching)."""
    masks_features: ClassVar[bool] = False
    """Whether a support is extracted as a query is, and `as_support` adds its mask: an image's features then serve as
    both, and for every class."""

    serves_untrained: ClassVar[bool] = False
    """Whether `dense` and `prototype` can be asked of its encoded photos too (untrained.py)."""
    of_classes: ClassVar[tuple[str, ...]] = ()
    """How the names of tensors begin that hold for the classes trained on alone; another data set trains them anew."""
    takes_classes: ClassVar[bool] = False
    """Whether supports' features hold `class_id` (B, K) when they are embedded and matched, the number of their class
    among those that `name_classes` named; for methods guided by text."""
    class_names: tuple[str, ...] = ()
    """What `name_classes` told."""
    tells_presence: bool = False
    """Whether predictions say whether the class is in the query at all (`Prediction.presence`)."""
    shots: int
    image_size: int
    """The side of the square that the model was made for, in pixels; the predictor and the evaluator resize to it."""

    def forward(self, episode: Episode) -> Prediction:
        """Segment the queries of a batch of episodes. Labels of the query never reach the parts."""
        query = self.extract_query(episode.query_image)
        support = self.extract_support(episode.support_images, episode.support_masks)
        support = self.with_classes(support, episode.class_id)
        return self.match_extracted(query, support, size=episode.size, base_index=episode.base_index)

    def match_extracted(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        """`match` from what `extract_query` and `extract_support` gave: a training step without its frozen half."""
        embedded = self.embed_query(query), self._embedded(support)
        return self.match(*embedded, size=size, base_index=base_index)

    def name_classes(self, names: Sequence[str]) -> None:
        """Told the names of class ids 1, 2, ... of the data before any of it is encoded, and again for other data."""
        self.class_names = tuple(names)

    def with_classes(self, support: Features, class_id: Tensor | None) -> Features:
        """Supports' features, with the ids (B,) of their classes where the method takes them; None: all are 0."""
        if not self.takes_classes:
            return support
        first = next(iter(support.values()))
        ids = torch.zeros(len(first), dtype=torch.long) if class_id is None else class_id
        return support | {CLASS_ID: ids.to(first.device).unsqueeze(1).repeat(1, first.shape[1])}

    def _embedded(self, support: Features) -> Features:
        """`embed_support`, the classes kept."""
        embedded = self.embed_support(support)
        return embedded | {CLASS_ID: support[CLASS_ID]} if CLASS_ID in support else embedded

    def encode_query(self, image: Tensor) -> Features:
        """Everything that depends on the query image alone. `image`: (B, 3, H, W) in [0, 1]."""
        return self.embed_query(self.extract_query(image))

    def encode_support(self, images: Tensor, masks: Tensor, class_id: Tensor | None = None) -> Features:
        """Everything that depends on the support alone. `images`: (B, K, 3, H, W) in [0, 1]; `masks`: (B, K, H, W)
        uint8; `class_id`: (B,), for a method that takes it.
        """
        return self._embedded(self.with_classes(self.extract_support(images, masks), class_id))

    @abstractmethod
    def extract_query(self, image: Tensor) -> Features:
        """The frozen half of `encode_query`."""

    @abstractmethod
    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        """The frozen half of `encode_support`; every shot is handled on its own."""

    def as_support(self, features: Features, masks: Tensor) -> Features:
        """Extracted features of B*K images with their masks (B, K, H, W): what `extract_support` gives where the method
        masks features.
        """
        return {name: f.unflatten(0, masks.shape[:2]) for name, f in features.items()} | {"mask": masks}

    def embed_query(self, features: Features) -> Features:
        """The trained half of `encode_query`; nothing to do by default."""
        return features

    def embed_support(self, features: Features) -> Features:
        """The trained half of `encode_support`, shot by shot; nothing to do by default."""
        return features

    @abstractmethod
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        """Segment encoded queries with encoded supports; outputs have `size` (H, W).

        `base_index` (B,): the class's index among the base classes, -1 or None for a class that the base learner
        does not know.
        """

    @abstractmethod
    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        """The terms to minimise, already weighted: their plain sum is the objective."""

    def logged(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        """Terms worth watching that are not trained, such as the base learner's cross-entropy; asked for of the last
        batch before each line of the log.
        """
        return {}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Every trainable parameter exactly once, as optimiser groups."""
        return [{"name": "all", "params": list(self.trainable_parameters()), "lr": lr}]

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that training changes."""
        return (p for p in self.parameters() if p.requires_grad)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.parameters()).device


def freeze(module: nn.Module) -> nn.Module:
    """Freeze a part for good: no gradients, and evaluation mode whatever mode the network around it is put into."""
    module.requires_grad_(False)
    keep_in_eval(module.modules())
    return module


def keep_in_eval(modules: Iterable[nn.Module]) -> None:
    """Keep modules in evaluation mode, whatever mode the `FrozenParts` around them is put into."""
    for module in modules:
        object.__setattr__(module, "stays_in_eval", True)
        module.training = False
